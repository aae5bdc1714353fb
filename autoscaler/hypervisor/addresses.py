"""The IP addresses of a guest, by who knows them: the network's DHCP server, the guest itself, the host's neighbours.

The lease comes first: the host gave it away itself. What the agent tells is the guest's own word, and of addresses
inside the guest (containers, QEMU's user-mode network) only the guest knows; not all of them can be reached from here.
"""

import ipaddress
import json
from collections.abc import Iterable, Iterator
from typing import Any

import libvirt
import libvirt_qemu

from autoscaler.hypervisor.errors import is_code

_AGENT_SECONDS = 2
_MOST = 16
"""A guest may tell any number of addresses; so many are kept."""
_NOT_KNOWN_HERE = (
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_INTERNAL_ERROR,
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_OPERATION_INVALID,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_NO_NETWORK,
)
"""One source that has nothing to tell does not speak for the others."""


def read(connection: libvirt.virConnect, uuid: str, *, ask_agent: bool) -> tuple[str, ...]:
    """Give a running domain's addresses by lease, agent and ARP, each once and in that order.

    Loopback, link-local, and what is no address of one machine, are left out; IPv4 comes before IPv6.
    """
    domain = connection.lookupByUUIDString(uuid)
    found = [
        *_known_to(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE),
        *(_told_by_agent(domain) if ask_agent else ()),
        *_known_to(domain, libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_ARP),
    ]
    return usable(found)


def usable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Keep, each once, what may be an address to reach a guest by; IPv4 first, in the given order otherwise."""
    kept = dict.fromkeys(parsed for text in addresses if (parsed := _parse(text)) is not None)
    return tuple(str(address) for address in sorted(kept, key=lambda address: address.version))[:_MOST]


def of_agent(answer: str) -> list[str]:
    """Read the addresses out of an answer to guest-network-get-interfaces; a guest's nonsense gives none."""
    try:
        interfaces = json.loads(answer)["return"]
        return [str(entry["ip-address"]) for interface in interfaces for entry in interface.get("ip-addresses", ())]
    except (ValueError, LookupError, TypeError, AttributeError):
        return []


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    special = address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    return None if special or address.is_reserved else address


def _known_to(domain: libvirt.virDomain, source: int) -> Iterator[str]:
    try:
        interfaces: dict[str, dict[str, Any]] = domain.interfaceAddresses(source, 0)
    except libvirt.libvirtError as error:
        if not is_code(error, *_NOT_KNOWN_HERE):
            raise
        return
    for interface in interfaces.values():
        for entry in interface["addrs"] or ():
            yield str(entry["addr"])


def _told_by_agent(domain: libvirt.virDomain) -> list[str]:
    # libvirt's own call for this waits for the agent without a limit.
    try:
        answer = libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-network-get-interfaces"}', _AGENT_SECONDS, 0)
    except libvirt.libvirtError as error:
        if not is_code(error, *_NOT_KNOWN_HERE):
            raise
        return []
    return of_agent(answer)
