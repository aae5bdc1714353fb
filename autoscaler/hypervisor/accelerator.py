"""Whether KVM works, found out by booting a guest under it.

/dev/kvm may be there, be advertised by libvirt, even run a firmware, and still hang or kill every guest whose kernel
starts. So the proof is a throw-away clone of the golden image at hand, with its kernel up: the guest agent has opened
its channel, or the balloon driver reports. Where neither happens in time, guests are emulated.
"""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Literal
from xml.etree import ElementTree as ET

import libvirt
import structlog

from autoscaler.core.action import Clone
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.policy import Accelerator
from autoscaler.hypervisor import volumes
from autoscaler.hypervisor.connection import Connections
from autoscaler.hypervisor.domain_xml import Files, Platform, agent_connected, domain_xml
from autoscaler.hypervisor.errors import is_code, kind_of

log = structlog.get_logger(__name__)

DomainType = Literal["kvm", "qemu"]

BOOT_SECONDS = 30.0
_POLL_SECONDS = 0.2


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

    def platform(self, clone: Clone) -> Platform:
        """Give what this clone runs on; where KVM has to be tried first, its image is booted once.

        Raises HypervisorError: INVALID when KVM is demanded of a host that has none.
        """
        if clone.machine.accelerator is Accelerator.TCG:
            return self._demand("qemu")
        if clone.machine.accelerator is Accelerator.KVM:
            return self._demand("kvm")
        # One probe at a time: clones that start together wait for the first one's answer.
        with self._lock:
            if self._found is None:
                self._found = self._find(clone)
            return self._demand(self._found)

    def offers(self, domain_type: DomainType) -> bool:
        """Tell whether libvirt says it can run such guests; whether it truly can is told by `boots`."""
        return self._advertised(domain_type) is not None

    def boots(self, domain_type: DomainType, clone: Clone, seconds: float = BOOT_SECONDS) -> bool:
        """Boot a throw-away guest shaped like this clone, tell whether its kernel came up in time, and remove it."""
        platform = self._demand(domain_type)
        self._clear(clone)
        try:
            self._start(platform, clone)
            return self._comes_up(seconds)
        finally:
            self._clear(clone)

    def _find(self, clone: Clone) -> DomainType:
        key = f"accelerator.{self._host}"
        if self._advertised("kvm") is None:
            log.info("host offers no kvm, using emulation (tcg)", host=self._host)
            return "qemu"
        known = self._recall(key)
        if known is not None:
            return "kvm" if known == Accelerator.KVM else "qemu"
        works = self._kvm_works(clone)
        self._remember(key, (Accelerator.KVM if works else Accelerator.TCG).value)
        return "kvm" if works else "qemu"

    def _kvm_works(self, clone: Clone) -> bool:
        log.info("trying kvm with a guest", host=self._host, image=clone.image.volume)
        try:
            works = self.boots("kvm", clone)
        except HypervisorError as error:
            if error.kind is not HypervisorErrorKind.FAILED:
                raise
            log.warning("kvm did not start a guest, using emulation (tcg)", host=self._host, error=str(error))
            return False
        if works:
            log.info("kvm booted a guest, using it", host=self._host)
        else:
            log.warning("kvm did not boot a guest, using emulation (tcg)", host=self._host, waited_up_to=BOOT_SECONDS)
        return works

    def _start(self, platform: Platform, clone: Clone) -> None:
        def start(connection: libvirt.virConnect) -> None:
            disk = volumes.clone_image(connection, clone.image, self._name, self._host)
            probe = replace(clone, instance=self._name)
            connection.createXML(domain_xml(probe, self._uuid, None, platform, Files(disk, None)))

        self._connections.call(f"start a guest of type {platform.domain_type} to try it", start, self._write_seconds)

    def _comes_up(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            up = self._connections.call("look at the guest it tries", self._is_up, self._read_seconds)
            if up is not None:
                return up
            time.sleep(_POLL_SECONDS)
        return False

    def _is_up(self, connection: libvirt.virConnect) -> bool | None:
        """Whether its kernel came up; None while it may still."""
        try:
            domain = connection.lookupByUUIDString(self._uuid)
            # A KVM that gives a guest up leaves it paused.
            if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                return False
            return True if agent_connected(domain.XMLDesc()) or "unused" in domain.memoryStats() else None
        except libvirt.libvirtError as error:
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise
            return False

    def _clear(self, clone: Clone) -> None:
        """Remove the probe, also one that an earlier process left."""

        def clear(connection: libvirt.virConnect) -> None:
            _remove_domain(connection, self._uuid)
            volumes.delete_named(volumes.active_pool(connection, clone.image.pool, self._host), self._name)

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
        connection.lookupByUUIDString(domain_uuid).destroy()
    except libvirt.libvirtError as error:
        if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            raise
