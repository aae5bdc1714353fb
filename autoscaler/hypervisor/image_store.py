"""Golden images in one host's pools, for the commands that bring them there and take them away.

Each volume is in the daemon's ledger while it may be half there: what a command that died leaves is collected.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar
from xml.etree import ElementTree as ET

import libvirt

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind, ImageError
from autoscaler.core.policy import Image
from autoscaler.core.ports import VolumeRef
from autoscaler.hypervisor import volumes
from autoscaler.hypervisor.backing import overlays_on
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.connection import Connections, is_local
from autoscaler.hypervisor.domain_xml import to_text
from autoscaler.hypervisor.errors import is_code

T = TypeVar("T")

_READ_SECONDS = 30.0
_WRITE_SECONDS = 120.0
_TRANSFER_SECONDS = 7 * 86400.0
"""A transfer takes as long as it takes: a line that broke is told by keepalive."""
_SETTLE_SECONDS = 60.0
_POLL_SECONDS = 0.2
_CHUNK_BYTES = 256 * 1024
_READ_ONLY, _OWNER_WRITES = "0444", "0644"

Tell = Callable[[float], None]


class ImageStore:
    """Speaks to one host; every method but `stop` and `close` raises HypervisorError."""

    def __init__(self, host: str, uri: str) -> None:
        self._host = host
        self._local = is_local(uri)
        # An ordinary user's libvirt may not write to what it may only read, not even to make it.
        self._own = uri.partition("?")[0].endswith("/session")
        self._connections = Connections(host, uri, Calls(host))
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let a transfer under way end soon, with an error."""
        self._stopped.set()

    def close(self) -> None:
        """Let the connections go."""
        self._connections.close()

    def free_bytes(self, pool: str) -> int:
        """Tell the room in a pool; raises unless it is active and keeps files."""
        return self._read(f"look at pool {pool}", lambda it: int(volumes.file_pool(it, pool, self._host).info()[3]))

    def path(self, image: Image) -> Path | None:
        """Give the path of an image's file on this machine; None where the host is another one."""
        if not self._local:
            return None
        return Path(
            self._read(
                f"look at volume {image.volume}",
                lambda it: volumes.active_pool(it, image.pool, self._host).storageVolLookupByName(image.volume).path(),
            )
        )

    def download(self, image: Image, file: BinaryIO, tell: Tell) -> None:
        """Copy a volume's content into a file."""

        def transfer(connection: libvirt.virConnect) -> None:
            volume = volumes.active_pool(connection, image.pool, self._host).storageVolLookupByName(image.volume)
            size: int = volume.infoFlags(libvirt.VIR_STORAGE_VOL_GET_PHYSICAL)[2]
            stream = connection.newStream()
            volume.download(stream, 0, 0)
            done = 0
            while part := stream.recv(_CHUNK_BYTES):
                self._refuse_stopped(stream)
                file.write(part)
                done += len(part)
                tell(min(done / size, 1.0) if size else 1.0)
            stream.finish()

        self._connections.call(f"give volume {image.volume}", transfer, _TRANSFER_SECONDS)

    def upload(self, half: VolumeRef, file: BinaryIO, size_bytes: int, tell: Tell) -> str:
        """Make a volume of a qcow2 file's content, read-only, and give the stamp it has then.

        Raises HypervisorError, EXISTS where there is a volume of that name.
        """

        def transfer(connection: libvirt.virConnect) -> None:
            pool = volumes.file_pool(connection, half.pool, self._host)
            volume = pool.createXML(_whole_xml(half.name, size_bytes, _OWNER_WRITES if self._own else _READ_ONLY))
            stream = connection.newStream()
            volume.upload(stream, 0, size_bytes)
            done = 0
            while part := file.read(_CHUNK_BYTES):
                self._refuse_stopped(stream)
                volumes.send(stream, part)
                done += len(part)
                tell(done / size_bytes)
            stream.finish()

        self._connections.call(f"take volume {half.name}", transfer, _TRANSFER_SECONDS)
        image = Image(half.pool, half.name)
        path = self.path(image) if self._own else None
        if path is not None:
            path.chmod(int(_READ_ONLY, 8))
        return self._settle(image)

    def _settle(self, image: Image) -> str:
        """Wait until libvirt has seen what the volume is: it looks again, by itself, once an upload has ended."""
        began = time.monotonic()
        while not self._read(f"look at volume {image.volume}", lambda it: _is_qcow2(it, image)):
            if time.monotonic() - began > _SETTLE_SECONDS:
                raise HypervisorError(
                    HypervisorErrorKind.FAILED,
                    f"libvirt on host {self._host} does not see that volume {image.volume} in pool {image.pool} is a "
                    f"qcow2 image. Does this work: virsh pool-refresh {image.pool}",
                )
            time.sleep(_POLL_SECONDS)
        return self._read(f"identify image {image.volume}", lambda it: volumes.digest(it, image, self._host))

    def overlays_on(self, volume: VolumeRef) -> tuple[str, ...]:
        """Name the volumes, of all active pools and whosever they are, that have this one as their backing store."""
        return self._read(f"tell what stands on volume {volume.name}", lambda it: overlays_on(it, volume))

    def delete(self, volume: VolumeRef) -> None:
        """Delete a volume; one that is gone is no error. One that libvirt still has in use is waited for."""

        def delete(connection: libvirt.virConnect) -> bool:
            try:
                pool = connection.storagePoolLookupByName(volume.pool)
                volumes.delete_named(pool, volume.name)
            except libvirt.libvirtError as error:
                if is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
                    return True
                if is_code(error, libvirt.VIR_ERR_OPERATION_INVALID) and time.monotonic() < until:
                    return False
                raise
            return True

        until = time.monotonic() + _SETTLE_SECONDS
        while not self._write(f"delete volume {volume.name} in pool {volume.pool}", delete):
            time.sleep(_POLL_SECONDS)

    def _refuse_stopped(self, stream: libvirt.virStream) -> None:
        if self._stopped.is_set():
            stream.abort()
            raise ImageError("the transfer was stopped")

    def _read(self, what: str, function: Callable[[libvirt.virConnect], T]) -> T:
        return self._connections.call(what, function, _READ_SECONDS)

    def _write(self, what: str, function: Callable[[libvirt.virConnect], T]) -> T:
        return self._connections.call(what, function, _WRITE_SECONDS)


def _is_qcow2(connection: libvirt.virConnect, image: Image) -> bool:
    try:
        volume = connection.storagePoolLookupByName(image.pool).storageVolLookupByName(image.volume)
        description = ET.fromstring(volume.XMLDesc())  # noqa: S314 - libvirt's own output
    except libvirt.libvirtError as error:
        # While it looks at a pool again, libvirt knows none of its volumes.
        if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            raise
        return False
    found = description.find("./target/format")
    return found is not None and found.get("type") == "qcow2"


def _whole_xml(name: str, size_bytes: int, mode: str) -> str:
    """Build the volume XML of a file of this size, whose content is put there as it is."""
    volume = ET.Element("volume")
    ET.SubElement(volume, "name").text = name
    ET.SubElement(volume, "capacity", unit="bytes").text = str(size_bytes)
    target = ET.SubElement(volume, "target")
    ET.SubElement(target, "format", type="raw")
    ET.SubElement(ET.SubElement(target, "permissions"), "mode").text = mode
    return to_text(volume)
