"""Golden images, overlays on them, seeds, and the file an instance's console is logged to: all volumes of one pool.

The console's log is a volume too, so that it can be deleted through libvirt, also from another machine or as an
ordinary user, and nothing of an instance stays behind.
"""

import hashlib
import os
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt
import structlog

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import PoolSpace
from autoscaler.core.policy import Image
from autoscaler.core.ports import VolumeRef, overlay_name, seed_name
from autoscaler.hypervisor import qcow2
from autoscaler.hypervisor.descriptions import descriptions
from autoscaler.hypervisor.domain_xml import Files, to_text
from autoscaler.hypervisor.errors import is_code

log = structlog.get_logger(__name__)

_DIRECTORY_POOLS = frozenset({"dir", "fs", "netfs"})


def free_bytes(connection: libvirt.virConnect, name: str, host: str) -> int:
    """Tell how much room an active pool had left when libvirt last looked."""
    return int(active_pool(connection, name, host).info()[3])


def space(connection: libvirt.virConnect, names: frozenset[str], *, local: bool) -> dict[str, PoolSpace]:
    """Tell the room of each of these pools; one that is not there, not active or cannot be read is left out.

    libvirt looks at a pool's room when it is refreshed or a volume is made; a `local` pool's own disk is asked instead.
    """
    found = {}
    for name in names:
        try:
            pool = connection.storagePoolLookupByName(name)
            if pool.isActive():
                _, capacity, _, available = pool.info()
                itself = _file_space(pool) if local else None
                found[name] = itself or PoolSpace(int(capacity), int(available))
        except libvirt.libvirtError as error:
            log.debug("no room of a pool", pool=name, error=str(error))
    return found


def _file_space(pool: libvirt.virStoragePool) -> PoolSpace | None:
    path = folder_of(pool)
    if path is None:
        return None
    try:
        room = os.statvfs(path)
    except OSError:  # closed to us, or in another mount namespace
        return None
    return PoolSpace(room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)


def folder_of(pool: libvirt.virStoragePool) -> str | None:
    """Give the folder, on the host, that a pool of files is; None for pools of other kinds."""
    description = ET.fromstring(pool.XMLDesc())  # noqa: S314 - libvirt's own output
    return description.findtext("./target/path") if description.get("type") in _DIRECTORY_POOLS else None


def capacity_bytes(connection: libvirt.virConnect, image: Image, host: str) -> int:
    """Tell how large an image's disk is, and so how much one overlay on it may take."""
    return int(_golden(active_pool(connection, image.pool, host), image, host).info()[1])


def check_golden(connection: libvirt.virConnect, image: Image, host: str) -> None:
    """Raise unless the image's pool is active and keeps files, and the image is a self-contained qcow2."""
    pool = file_pool(connection, image.pool, host)
    description = ET.fromstring(_golden(pool, image, host).XMLDesc())  # noqa: S314 - libvirt's own output
    found = description.find("./target/format")
    format_name = found.get("type") if found is not None else None
    if format_name != "qcow2":
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"image {image.volume} in pool {image.pool} on host {host} is {format_name or 'of unknown format'}, "
            f"not qcow2. Convert it with: qemu-img convert -O qcow2",
        )
    _check_content(connection, pool.storageVolLookupByName(image.volume), image, host)
    if description.find("./backingStore/path") is not None:
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"image {image.volume} in pool {image.pool} on host {host} is itself an overlay on another file. "
            f"Make it self-contained with: qemu-img convert -O qcow2",
        )


def digest(connection: libvirt.virConnect, image: Image, host: str) -> str:
    """Tell one state of the golden image from another, cheaply.

    A SHA-256 over the volume's key, capacity and time of change, not over its content: enough to see that
    an image was replaced or written to, not to compare images of two hosts.
    """
    volume = _golden(active_pool(connection, image.pool, host), image, host)
    description = ET.fromstring(volume.XMLDesc())  # noqa: S314 - libvirt's own output
    parts = (image.pool, *(description.findtext(path, "") for path in _IDENTITY))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def readable_path(connection: libvirt.virConnect, image: Image, host: str) -> str | None:
    """Give the path of the image's file, if this process may read it and sees the same one there as libvirt."""
    volume = _golden(active_pool(connection, image.pool, host), image, host)
    description = ET.fromstring(volume.XMLDesc())  # noqa: S314 - libvirt's own output
    path = description.findtext("target/path", "")
    seconds, _, fraction = description.findtext("target/timestamps/mtime", "").partition(".")
    try:
        found = Path(path).stat()
        readable = os.access(path, os.R_OK)
    except OSError:  # closed to us, or in another mount namespace
        return None
    same = f"{found.st_mtime_ns}" == f"{seconds}{fraction.ljust(9, '0')}"
    return path if readable and same else None


# Not the allocation: a file system may settle that later, with nothing written.
_IDENTITY = ("key", "capacity", "target/timestamps/mtime")


def create_overlay(connection: libvirt.virConnect, image: Image, ref: VolumeRef) -> None:
    """Make the overlay and the empty console log."""
    clone_image(connection, image, ref.name, ref.host)
    pool = active_pool(connection, ref.pool, ref.host)
    try:
        pool.createXML(_raw_xml(_console_name(ref), 0))
    except libvirt.libvirtError:
        # Both or none: a log that is in the way already is not ours, and so the overlay would be told to be.
        delete_named(pool, ref.name)
        raise


def clone_image(connection: libvirt.virConnect, image: Image, name: str, host: str) -> str:
    """Make an overlay on the golden image, in the same pool, and give its path."""
    pool = active_pool(connection, image.pool, host)
    golden = _golden(pool, image, host)
    return pool.createXML(overlay_xml(name, golden.info()[1], golden.path())).path()


def create_seed(connection: libvirt.virConnect, ref: VolumeRef, content: bytes) -> None:
    """Make the volume and send its content there; one that did not arrive whole is left to be deleted."""
    volume = active_pool(connection, ref.pool, ref.host).createXML(_raw_xml(ref.name, len(content)))
    stream = connection.newStream()
    volume.upload(stream, 0, len(content))
    send(stream, content)
    stream.finish()


def send(stream: libvirt.virStream, content: bytes) -> None:
    """Send all of it, however little the stream takes at once."""
    while content:
        content = content[stream.send(content) :]


def files(connection: libvirt.virConnect, ref: VolumeRef, *, seeded: bool) -> Files:
    """Give the paths, on the host, of what `create_overlay`, and `create_seed` where there is one, made."""
    pool = active_pool(connection, ref.pool, ref.host)
    disk = pool.storageVolLookupByName(ref.name)
    seed = pool.storageVolLookupByName(seed_name(ref.instance)).path() if seeded else None
    return Files(disk.path(), pool.storageVolLookupByName(_console_name(ref)).path(), seed)


def of_domain(
    connection: libvirt.virConnect, domain: libvirt.virDomain, host: str, instance: str
) -> tuple[VolumeRef, ...]:
    """Find the volumes among the domain's disks that bear the name of the instance's overlay, or of its seed."""
    description = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))  # noqa: S314 - libvirt's own output
    found = []
    for source in description.iterfind("./devices/disk/source[@file]"):
        try:
            volume = connection.storageVolLookupByPath(source.get("file", ""))
            pool = volume.storagePoolLookupByVolume()
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                raise
            continue
        if volume.name() in {overlay_name(instance), seed_name(instance)}:
            found.append(VolumeRef(host, pool.name(), volume.name(), instance))
    return tuple(found)


def user_of(connection: libvirt.virConnect, ref: VolumeRef) -> str | None:
    """Name a domain whose definition, or running self, has the volume as a disk or under one."""
    try:
        path = connection.storagePoolLookupByName(ref.pool).storageVolLookupByName(ref.name).path()
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise
        return None
    return next((name for name, root in descriptions(connection) if _refers_to(root, path, ref)), None)


def _refers_to(domain: ET.Element, path: str, ref: VolumeRef) -> bool:
    sources = [source for disk in domain.iterfind("./devices/disk") for source in disk.iter("source")]
    return any(
        source.get("file") == path or (source.get("pool"), source.get("volume")) == (ref.pool, ref.name)
        for source in sources
    )


def delete(connection: libvirt.virConnect, ref: VolumeRef) -> None:
    """Delete a volume, and with an overlay the console's log; what is gone, with its pool even, is no error."""
    try:
        pool = connection.storagePoolLookupByName(ref.pool)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
            raise
        return
    delete_named(pool, ref.name)
    if ref.name == overlay_name(ref.instance):
        delete_named(pool, _console_name(ref))
        _delete_rotated(pool, f"{_console_name(ref)}.")


def delete_named(pool: libvirt.virStoragePool, name: str) -> None:
    """Delete one volume; one that is gone is no error."""
    try:
        pool.storageVolLookupByName(name).delete()
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise


def _check_content(connection: libvirt.virConnect, volume: libvirt.virStorageVol, image: Image, host: str) -> None:
    """Look into the image itself for what libvirt 9 does not tell."""

    def read(offset: int, length: int) -> bytes:
        return _read(connection, volume, offset, min(length, size - offset)) if offset < size else b""

    size: int = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]
    header = qcow2.parse_header(read(0, qcow2.HEADER_BYTES))
    if header.external_data_file:
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"image {image.volume} in pool {image.pool} on host {host} keeps its data in another file of the host. "
            f"Make it self-contained with: qemu-img convert -O qcow2",
        )
    needed = qcow2.needed_bytes(header, read)
    if size < needed:
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"image {image.volume} in pool {image.pool} on host {host} was cut off: it has {size} bytes, and by its "
            f"own tables at least {needed}. Copy it there again, under a new name; qemu-img check tells more",
        )


def _read(connection: libvirt.virConnect, volume: libvirt.virStorageVol, offset: int, length: int) -> bytes:
    stream = connection.newStream()
    volume.download(stream, offset, length)
    content = bytearray()
    while part := stream.recv(length):
        content += part
    stream.finish()
    return bytes(content)


def active_pool(connection: libvirt.virConnect, name: str, host: str) -> libvirt.virStoragePool:
    """Look a pool up. Raises HypervisorError, NOT_FOUND or INVALID, with what to do about it."""
    try:
        pool = connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
            raise
        raise HypervisorError(
            HypervisorErrorKind.NOT_FOUND,
            f"host {host} has no storage pool {name}. See virsh pool-list --all, or make it with: "
            f"virsh pool-define-as {name} dir --target DIRECTORY; virsh pool-build {name}; virsh pool-start {name}",
        ) from error
    if not pool.isActive():
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"storage pool {name} on host {host} is not active. Start it with: virsh pool-start {name}",
        )
    return pool


def file_pool(connection: libvirt.virConnect, name: str, host: str) -> libvirt.virStoragePool:
    """Look up a pool that keeps files. Raises HypervisorError, NOT_FOUND or INVALID, with what to do about it."""
    pool = active_pool(connection, name, host)
    pool_type = ET.fromstring(pool.XMLDesc()).get("type")  # noqa: S314 - libvirt's own output
    if pool_type not in _DIRECTORY_POOLS:
        raise HypervisorError(
            HypervisorErrorKind.INVALID,
            f"pool {name} on host {host} is of type {pool_type}: qcow2 overlays need a pool of files "
            f"({', '.join(sorted(_DIRECTORY_POOLS))})",
        )
    return pool


def overlay_xml(name: str, capacity_bytes: int, backing_path: str) -> str:
    """Build the volume XML of a qcow2 overlay; libvirt refuses to guess the backing format."""
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(capacity_bytes)
    ET.SubElement(ET.SubElement(volume, "target"), "format", type="qcow2")
    backing = ET.SubElement(volume, "backingStore")
    ET.SubElement(backing, "path").text = backing_path
    ET.SubElement(backing, "format", type="qcow2")
    return to_text(volume)


def _raw_xml(name: str, capacity_bytes: int) -> str:
    """Build the volume XML of a plain file that is its owner's alone; QEMU is made the owner while it runs."""
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(capacity_bytes)
    target = ET.SubElement(volume, "target")
    ET.SubElement(target, "format", type="raw")
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = "0600"
    return to_text(volume)


def _console_name(ref: VolumeRef) -> str:
    return f"{ref.instance}.console.log"


def _delete_rotated(pool: libvirt.virStoragePool, prefix: str) -> None:
    """Delete what virtlogd moved aside when a log had grown, as far as the pool knows of it.

    The pool is not made to look again: one file it cannot read would stop it, and with it every other guest's volumes.
    """
    if not pool.isActive():
        return
    for volume in pool.listAllVolumes():
        if volume.name().startswith(prefix):
            delete_named(pool, volume.name())


def _golden(pool: libvirt.virStoragePool, image: Image, host: str) -> libvirt.virStorageVol:
    try:
        return pool.storageVolLookupByName(image.volume)
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise
        raise HypervisorError(
            HypervisorErrorKind.NOT_FOUND,
            f"host {host} has no golden image {image.volume} in pool {image.pool} that libvirt knows of. See what "
            f"there is with: virsh vol-list {image.pool}; after copying one there: virsh pool-refresh {image.pool}",
        ) from error
