"""A look at one host's libvirt, for the doctor: what there is, what may be done, and whether KVM boots a guest."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree as ET

import libvirt

from autoscaler.core.action import Clone
from autoscaler.core.policy import Image
from autoscaler.hypervisor import volumes
from autoscaler.hypervisor.accelerator import BOOT_SECONDS, AcceleratorChoice
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.connection import Connections
from autoscaler.hypervisor.errors import is_code
from autoscaler.hypervisor.networks import check_network

T = TypeVar("T")

# Of its own, so that what it boots is never taken for a guest that a daemon is trying.
_CONTROLLER = str(uuid.uuid5(uuid.NAMESPACE_URL, "urn:kvm-autoscaler:doctor"))
_READ_SECONDS = 10.0
_WRITE_SECONDS = 60.0


class Inspection:
    """Asks one host; every method but `close` raises HypervisorError."""

    def __init__(self, host: str, uri: str) -> None:
        self._host = host
        self._connections = Connections(host, uri, Calls(host))
        self._accelerator = AcceleratorChoice(
            self._connections,
            _CONTROLLER,
            recall=lambda _key: None,
            remember=lambda _key, _value: None,
            read_seconds=_READ_SECONDS,
            write_seconds=_WRITE_SECONDS,
        )

    def close(self) -> None:
        """Let the connections go."""
        self._connections.close()

    def version(self) -> str:
        """Give libvirt's version. An answer shows the right to manage it, too: the connection is no read-only one."""
        number = self._ask("tell its version", lambda it: it.getLibVersion())
        return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"

    def qemu_ids(self) -> tuple[int, int] | None:
        """Give user and group id of QEMU's processes; None where they run as whoever asks."""
        return parse_qemu_ids(self._ask("tell QEMU's user", lambda it: it.getCapabilities()))

    def free_bytes(self, pool: str) -> int:
        """Tell the room in a pool, which must be active."""
        return self._ask(f"look at pool {pool}", lambda it: volumes.free_bytes(it, pool, self._host))

    def image_bytes(self, image: Image) -> int:
        """Give the size of a golden image's disk; raises unless clones can be made of it."""

        def look(connection: libvirt.virConnect) -> int:
            volumes.check_golden(connection, image, self._host)
            return volumes.capacity_bytes(connection, image, self._host)

        return self._ask(f"look at image {image.volume}", look)

    def image_at(self, path: Path) -> Image | None:
        """Give the volume that a file of the host is; None where it is in no pool that libvirt knows."""

        def look(connection: libvirt.virConnect) -> Image | None:
            try:
                volume = connection.storageVolLookupByPath(str(path.resolve()))
                return Image(volume.storagePoolLookupByVolume().name(), volume.name())
            except libvirt.libvirtError as error:
                if not is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
                    raise
                return None

        return self._ask(f"look what {path} is", look)

    def check_network(self, name: str) -> None:
        """Raise unless guests can be plugged into this network."""
        self._ask(f"look at network {name}", lambda it: check_network(it, name, self._host))

    def offers_kvm(self) -> bool:
        """Tell whether libvirt claims to have KVM."""
        return self._accelerator.offers("kvm")

    def kvm_boots(self, clone: Clone, seconds: float = BOOT_SECONDS) -> bool:
        """Boot a guest of this shape under KVM, which is thrown away, and tell whether its kernel came up in time."""
        return self._accelerator.boots("kvm", clone, seconds)

    def _ask(self, what: str, function: Callable[[libvirt.virConnect], T]) -> T:
        return self._connections.call(what, function, _READ_SECONDS)


def parse_qemu_ids(capabilities: str) -> tuple[int, int] | None:
    """Read QEMU's user and group from libvirt's capabilities."""
    for model in ET.fromstring(capabilities).iterfind("./host/secmodel"):  # noqa: S314 - libvirt's own output
        label = model.findtext("baselabel[@type='kvm']") or ""
        user, _, group = label.partition(":")
        if model.findtext("model") == "dac" and user and group:
            return int(user.removeprefix("+")), int(group.removeprefix("+"))
    return None
