"""Whether KVM works, found out by booting a guest under it.

/dev/kvm may be there, and be advertised by libvirt, and still hang every guest. What is booted here is one disk sector
that powers its machine off; where that does not happen in time, guests are emulated.
"""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Literal
from xml.etree import ElementTree as ET

import libvirt
import structlog

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.policy import Accelerator
from autoscaler.hypervisor import volumes
from autoscaler.hypervisor.connection import Connections
from autoscaler.hypervisor.domain_xml import Platform, to_text
from autoscaler.hypervisor.errors import is_code, kind_of

log = structlog.get_logger(__name__)

DomainType = Literal["kvm", "qemu"]

BOOT_SECONDS = 10.0
_POLL_SECONDS = 0.1
# SeaBIOS takes no disk for bootable that is smaller than one cylinder.
_DISK_BYTES = 1024 * 1024

POWER_OFF = bytes(
    [
        0xFA,  # cli
        0xBA, 0x04, 0x06,  # mov dx, 0x604: the PM1a control register, where QEMU's PC firmware puts it
        0xB8, 0x00, 0x20,  # mov ax, 0x2000: SLP_EN with sleep type 0, which is soft off
        0xEF,  # out dx, ax
        0xB0, 0xFE,  # mov al, 0xfe: pulse the reset line, for a machine that is still on
        0xE6, 0x64,  # out 0x64, al: the keyboard controller; a reset ends this domain as well
        0xF4,  # hlt
        0xEB, 0xFD,  # jmp to the hlt
    ]
)  # fmt: skip
"""16-bit code that ends its machine."""


def boot_sector(code: bytes) -> bytes:
    """Make the first sector of a disk that a PC firmware boots: the code, padded, and the signature."""
    return code.ljust(510, b"\0") + b"\x55\xaa"


class AcceleratorChoice:
    """Chooses the domain type for one host, and knows the platform that goes with it.

    `recall` and `remember` keep what was found across restarts of this process.
    """

    def __init__(
        self,
        connections: Connections,
        controller: str,
        *,
        recall: Callable[[str], str | None],
        remember: Callable[[str, str], None],
        read_seconds: float,
        write_seconds: float,
    ) -> None:
        self._connections = connections
        self._host = connections.host
        self._name = f"autoscaler-probe-{controller}"
        self._uuid = str(uuid.uuid5(uuid.UUID(controller), "accelerator probe"))
        self._recall = recall
        self._remember = remember
        self._read_seconds = read_seconds
        self._write_seconds = write_seconds
        self._platforms: dict[DomainType, Platform] = {}
        self._found: DomainType | None = None
        self._lock = threading.Lock()

    def platform(self, wanted: Accelerator, pool: str) -> Platform:
        """Give what guests of this host run on; `pool` takes the probe's disk when KVM has to be tried first.

        Raises HypervisorError: INVALID when KVM is demanded of a host that has none.
        """
        if wanted is Accelerator.TCG:
            return self._demand("qemu")
        if wanted is Accelerator.KVM:
            return self._demand("kvm")
        # One probe at a time: clones that start together wait for the first one's answer.
        with self._lock:
            if self._found is None:
                self._found = self._find(pool)
            return self._demand(self._found)

    def boots(self, domain_type: DomainType, pool: str, code: bytes = POWER_OFF, seconds: float = BOOT_SECONDS) -> bool:
        """Boot a sector with this code and tell whether it ended its machine in time; leaves nothing behind."""
        platform = self._demand(domain_type)
        self._clear(pool)
        try:
            return self._boot(platform, pool, code, seconds)
        finally:
            self._clear(pool)

    def _find(self, pool: str) -> DomainType:
        key = f"accelerator.{self._host}"
        if self._advertised("kvm") is None:
            log.info("host offers no kvm, using emulation (tcg)", host=self._host)
            return "qemu"
        known = self._recall(key)
        if known is not None:
            return "kvm" if known == Accelerator.KVM else "qemu"
        works = self._kvm_works(pool)
        self._remember(key, (Accelerator.KVM if works else Accelerator.TCG).value)
        return "kvm" if works else "qemu"

    def _kvm_works(self, pool: str) -> bool:
        try:
            works = self.boots("kvm", pool)
        except HypervisorError as error:
            if error.kind is not HypervisorErrorKind.FAILED:
                raise
            log.warning("kvm did not start a guest, using emulation (tcg)", host=self._host, error=str(error))
            return False
        if works:
            log.info("kvm booted a guest, using it", host=self._host)
        else:
            log.warning(
                "kvm did not boot a guest in time, using emulation (tcg)", host=self._host, seconds=BOOT_SECONDS
            )
        return works

    def _boot(self, platform: Platform, pool: str, code: bytes, seconds: float) -> bool:
        def start(connection: libvirt.virConnect) -> None:
            storage = volumes.active_pool(connection, pool, self._host)
            path = volumes.create_with_content(connection, storage, self._name, _DISK_BYTES, boot_sector(code))
            connection.defineXML(_probe_xml(self._name, self._uuid, platform, path)).create()

        self._connections.call(f"start a guest of type {platform.domain_type} to try it", start, self._write_seconds)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            state, reason = self._connections.call("look at the guest it tries", self._state, self._read_seconds)
            if state == libvirt.VIR_DOMAIN_SHUTOFF:
                # A QEMU that crashed has stopped as well, for another reason.
                return reason == libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN
            time.sleep(_POLL_SECONDS)
        return False

    def _state(self, connection: libvirt.virConnect) -> tuple[int, int]:
        state, reason = connection.lookupByUUIDString(self._uuid).state()
        return state, reason

    def _clear(self, pool: str) -> None:
        """Remove the probe, also one that an earlier process left."""

        def clear(connection: libvirt.virConnect) -> None:
            _remove_domain(connection, self._uuid)
            volumes.delete_named(volumes.active_pool(connection, pool, self._host), self._name)

        self._connections.call("remove the guest it tried", clear, self._write_seconds)

    def _demand(self, domain_type: DomainType) -> Platform:
        platform = self._platforms.get(domain_type) or self._advertised(domain_type)
        if platform is None:
            raise HypervisorError(
                HypervisorErrorKind.INVALID,
                f"host {self._host} cannot run guests of type {domain_type}. Set machine.accelerator to auto or tcg, "
                f"or see what is missing with: virt-host-validate qemu",
            )
        self._platforms[domain_type] = platform
        return platform

    def _advertised(self, domain_type: DomainType) -> Platform | None:
        def ask(connection: libvirt.virConnect) -> Platform | None:
            try:
                return parse_capabilities(connection.getDomainCapabilities(virttype=domain_type))
            except libvirt.libvirtError as error:
                if kind_of(error) is not HypervisorErrorKind.INVALID:
                    raise
                return None

        # The first answer may take as long as it takes to start every QEMU binary there is.
        return self._connections.call(f"tell what {domain_type} guests it can run", ask, self._write_seconds)


def parse_capabilities(text: str) -> Platform:
    """Read domain type, architecture, default machine and emulator from libvirt's domain capabilities."""
    root = ET.fromstring(text)  # noqa: S314 - libvirt's own output
    return Platform(*(root.findtext(tag, "") for tag in ("domain", "arch", "machine", "path")))


def _remove_domain(connection: libvirt.virConnect, domain_uuid: str) -> None:
    try:
        domain = connection.lookupByUUIDString(domain_uuid)
        if domain.isActive():
            domain.destroy()
        domain.undefine()
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise


def _probe_xml(name: str, domain_uuid: str, platform: Platform, disk_path: str) -> str:
    root = ET.Element("domain", type=platform.domain_type)
    ET.SubElement(root, "name").text = name
    ET.SubElement(root, "uuid").text = domain_uuid
    ET.SubElement(root, "memory", unit="MiB").text = "64"
    ET.SubElement(root, "vcpu").text = "1"
    boot = ET.SubElement(root, "os")
    ET.SubElement(boot, "type", arch=platform.arch, machine=platform.machine).text = "hvm"
    ET.SubElement(boot, "boot", dev="hd")
    ET.SubElement(ET.SubElement(root, "features"), "acpi")
    if platform.domain_type == "kvm":
        # The CPU that instances get: a KVM may boot a plain one and refuse this.
        ET.SubElement(root, "cpu", mode="host-passthrough")
    for event in ("on_poweroff", "on_reboot", "on_crash"):
        ET.SubElement(root, event).text = "destroy"
    devices = ET.SubElement(root, "devices")
    ET.SubElement(devices, "emulator").text = platform.emulator
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=disk_path)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    ET.SubElement(devices, "memballoon", model="none")
    return to_text(root)
