"""What stands on a volume: the volumes that have it as their backing store."""

from xml.etree import ElementTree as ET

import libvirt

from autoscaler.core.ports import VolumeRef
from autoscaler.hypervisor.errors import is_code

_GONE = (libvirt.VIR_ERR_NO_STORAGE_VOL, libvirt.VIR_ERR_NO_STORAGE_POOL)


def overlays_on(connection: libvirt.virConnect, ref: VolumeRef) -> tuple[str, ...]:
    """Name the volumes, of all active pools and whosever they are, that have this volume as their backing store."""
    try:
        path = connection.storagePoolLookupByName(ref.pool).storageVolLookupByName(ref.name).path()
    except libvirt.libvirtError as error:
        if not is_code(error, *_GONE):
            raise
        return ()
    found = []
    for pool in connection.listAllStoragePools(libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE):
        for volume in pool.listAllVolumes():
            try:
                description = ET.fromstring(volume.XMLDesc())  # noqa: S314 - libvirt's own output
            except libvirt.libvirtError as error:
                if not is_code(error, *_GONE):
                    raise
                continue
            if description.findtext("./backingStore/path") == path:
                found.append(volume.name())
    return tuple(sorted(found))
