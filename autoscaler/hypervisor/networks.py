"""Networks that instances are plugged into."""

import libvirt

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.policy import USER_NETWORK
from autoscaler.hypervisor.errors import is_code


def check_network(connection: libvirt.virConnect, name: str, host: str) -> None:
    """Raise HypervisorError unless the network is there and active, or is user-mode networking."""
    if name == USER_NETWORK:
        return
    try:
        active = connection.networkLookupByName(name).isActive()
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_NETWORK, libvirt.VIR_ERR_NO_SUPPORT):
            raise
        raise HypervisorError(
            HypervisorErrorKind.NOT_FOUND,
            f"host {host} has no network {name}. See virsh net-list --all, or set machine.network to user",
        ) from error
    if not active:
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"network {name} on host {host} is not active. Start it with: virsh net-start {name}",
        )
