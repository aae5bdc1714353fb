"""Our own domains on one host, found by UUID and known by their ownership element."""

from collections.abc import Callable

import libvirt
import libvirt_qemu

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.hypervisor.descriptions import descriptions
from autoscaler.hypervisor.domain_xml import agent_connected, domain_uuid, mac_address
from autoscaler.hypervisor.errors import is_code, kind_of
from autoscaler.hypervisor.inventory import ownership_of

_BESIDE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_AGENT_SHUTDOWN_SECONDS = 5
_GOING = frozenset({libvirt.VIR_DOMAIN_SHUTDOWN, libvirt.VIR_DOMAIN_SHUTOFF})


def find(connection: libvirt.virConnect, controller: str, instance: str) -> libvirt.virDomain | None:
    """Look the instance's domain up; None where there is none that is ours."""
    try:
        domain = connection.lookupByUUIDString(domain_uuid(controller, instance))
        ownership = ownership_of(domain)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return None
    ours = ownership is not None and (ownership.controller, ownership.instance) == (controller, instance)
    return domain if ours else None


def refuse_taken_name(connection: libvirt.virConnect, host: str, controller: str, instance: str) -> None:
    """Raise EXISTS when a domain has the instance's name or UUID already, ours or not."""
    uuid = domain_uuid(controller, instance)
    taken = _lookup(connection.lookupByName, instance) or _lookup(connection.lookupByUUIDString, uuid)
    if taken is None:
        return
    if find(connection, controller, instance) is not None:
        whose = "is this controller's already"
    else:
        whose = f"is not this controller's and is left alone. Rename it (virsh domrename {taken.name()} NEW)"
    raise HypervisorError(
        HypervisorErrorKind.EXISTS, f"domain {taken.name()} ({taken.UUIDString()}) on host {host} {whose}"
    )


def refuse_taken_mac(connection: libvirt.virConnect, host: str, controller: str, instance: str) -> None:
    """Raise EXISTS when a domain of the host has the MAC address that follows from the instance's UUID."""
    mac = mac_address(domain_uuid(controller, instance))
    for name, root in descriptions(connection):
        if any(each.get("address", "").lower() == mac for each in root.iterfind("./devices/interface/mac")):
            raise HypervisorError(
                HypervisorErrorKind.EXISTS,
                f"MAC address {mac}, which {instance} would have, is taken by domain {name} on host {host}. "
                "Nothing needs to be done: the next instance has another",
            )


def start(domain: libvirt.virDomain) -> None:
    """Start it unless it runs."""
    if domain.isActive():
        return
    try:
        domain.create()
    except libvirt.libvirtError:
        # Somebody else may have been quicker; libvirt has no code of its own for that.
        if not domain.isActive():
            raise


def request_shutdown(domain: libvirt.virDomain) -> None:
    """Ask the agent where one listens, the ACPI button where none does or none answers; a domain that is off is left.

    libvirt's own agent shutdown waits up to a minute for the guest to be off; the bare command waits a few seconds.
    """
    try:
        if not (agent_connected(domain.XMLDesc()) and _asked_agent(domain)):
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError:
        if _state(domain) not in _GOING:
            raise


def destroy(domain: libvirt.virDomain) -> None:
    """Power it off; one that is off or gone is left as it is."""
    try:
        if domain.isActive():
            domain.destroy()
    except libvirt.libvirtError:
        if _state(domain) != libvirt.VIR_DOMAIN_SHUTOFF:
            raise


def undefine(domain: libvirt.virDomain) -> None:
    """Remove its definition with all that libvirt keeps beside it, as far as this libvirt knows of such things."""
    try:
        domain.undefineFlags(_BESIDE)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            return
        if kind_of(error) is not HypervisorErrorKind.INVALID:
            raise
        domain.undefine()


def _asked_agent(domain: libvirt.virDomain) -> bool:
    try:
        libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-shutdown"}', _AGENT_SHUTDOWN_SECONDS, 0)
    except libvirt.libvirtError:
        # The agent sends no reply when it obeys: either the guest is off by now, or it is asked the other way, too.
        return _state(domain) in _GOING
    return True


def _state(domain: libvirt.virDomain) -> int:
    """Give its state; one that is gone is off."""
    try:
        return domain.state()[0]
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return libvirt.VIR_DOMAIN_SHUTOFF


def _lookup(by: Callable[[str], libvirt.virDomain], key: str) -> libvirt.virDomain | None:
    try:
        return by(key)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return None
