"""Where virt-install builds an image: the pool its disk is made in, and what has to go when it ends."""

import libvirt

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.ports import VolumeRef
from autoscaler.hypervisor import domains, volumes
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.connection import Connections
from autoscaler.hypervisor.errors import is_code
from autoscaler.hypervisor.networks import check_network

_READ_SECONDS = 10.0
_WRITE_SECONDS = 60.0


class BuildSite:
    """One host, named by its URI; every method but `close` raises HypervisorError."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._connections = Connections(uri, uri, Calls(uri))

    def close(self) -> None:
        """Let the connections go."""
        self._connections.close()

    def free_path(self, pool: str, volume: str) -> str:
        """Give the path that a new volume of this name will have. Raises EXISTS where there is one already."""

        def look(connection: libvirt.virConnect) -> str:
            found = volumes.active_pool(connection, pool, self.uri)
            if volume in [each.name() for each in found.listAllVolumes()]:
                raise HypervisorError(
                    HypervisorErrorKind.EXISTS,
                    f"pool {pool} on host {self.uri} has a volume {volume} already, which is left alone. "
                    f"Name another with --volume, or delete it: virsh vol-delete --pool {pool} {volume}",
                )
            folder = volumes.folder_of(found)
            if folder is None:
                raise HypervisorError(
                    HypervisorErrorKind.INVALID,
                    f"pool {pool} on host {self.uri} keeps no files: a qcow2 image needs one that does. "
                    "See: virsh pool-list --details",
                )
            return f"{folder}/{volume}"

        return self._connections.call(f"look at pool {pool}", look, _READ_SECONDS)

    def check_network(self, name: str) -> None:
        """Raise unless the installer can be plugged into this network."""
        self._connections.call(f"look at network {name}", lambda it: check_network(it, name, self.uri), _READ_SECONDS)

    def allocated_bytes(self, volume: VolumeRef) -> int:
        """Tell how much of the volume was written."""

        def look(connection: libvirt.virConnect) -> int:
            found = volumes.active_pool(connection, volume.pool, self.uri).storageVolLookupByName(volume.name)
            return int(found.info()[2])

        return self._connections.call(f"look at volume {volume.name}", look, _READ_SECONDS)

    def clear(self, domain_uuid: str, volume: VolumeRef | None) -> None:
        """Remove the build's domain and, if it is given, its disk; what is gone already is no error.

        Raises BUSY where another domain uses the disk, which is left then.
        """

        def clear(connection: libvirt.virConnect) -> None:
            _remove_domain(connection, domain_uuid)
            if volume is not None:
                _refuse_used(connection, volume)
                volumes.delete(connection, volume)

        self._connections.call("remove what the build of an image made", clear, _WRITE_SECONDS)


def _remove_domain(connection: libvirt.virConnect, domain_uuid: str) -> None:
    try:
        domain = connection.lookupByUUIDString(domain_uuid)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise
        return
    domains.destroy(domain)
    domains.undefine(domain)


def _refuse_used(connection: libvirt.virConnect, volume: VolumeRef) -> None:
    user = volumes.user_of(connection, volume)
    if user is not None:
        raise HypervisorError(
            HypervisorErrorKind.BUSY,
            f"domain {user} on host {volume.host} uses volume {volume.name} in pool {volume.pool}, so it is left alone",
        )
