"""All domains of a host, with their owners."""

import libvirt

from autoscaler.core.observation import Domain, DomainState, Ownership
from autoscaler.hypervisor.domain_xml import OWNERSHIP_NAMESPACE, domain_uuid, parse_ownership
from autoscaler.hypervisor.errors import is_code

_STATES = {
    libvirt.VIR_DOMAIN_NOSTATE: DomainState.UNDEFINED,
    libvirt.VIR_DOMAIN_RUNNING: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: DomainState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: DomainState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: DomainState.IN_SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: DomainState.SHUTOFF,
    libvirt.VIR_DOMAIN_CRASHED: DomainState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: DomainState.SUSPENDED,
}


def list_domains(connection: libvirt.virConnect, host: str) -> tuple[Domain, ...]:
    """List every domain. Any failure raises: a shorter list would look like instances that vanished."""
    found = []
    for domain in connection.listAllDomains():
        try:
            found.append(_domain(domain, host))
        except libvirt.libvirtError as error:
            # Only this one means that it ended while the list was read.
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise
    return tuple(found)


def ownership_of(domain: libvirt.virDomain) -> Ownership | None:
    """Read a domain's ownership element; None where it has none, or one that cannot be understood."""
    try:
        element = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, OWNERSHIP_NAMESPACE)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            raise
        return None
    ownership = parse_ownership(element)
    if ownership is None or domain.UUIDString() != domain_uuid(ownership.controller, ownership.instance):
        # A copy somebody made of an instance, element and all: the instance is the one whose UUID was made for it.
        return None
    return ownership


def _domain(domain: libvirt.virDomain, host: str) -> Domain:
    number, reason = domain.state()
    state = _STATES.get(number, DomainState.UNDEFINED)
    ownership = ownership_of(domain)
    saved = ownership is not None and state is DomainState.SHUTOFF and bool(domain.hasManagedSaveImage())
    return Domain(
        host,
        domain.UUIDString(),
        domain.name(),
        state,
        ownership,
        saved=saved,
        io_error=(number, reason) == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR),
        crashed=state is DomainState.CRASHED
        or (number, reason) == (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED),
    )
