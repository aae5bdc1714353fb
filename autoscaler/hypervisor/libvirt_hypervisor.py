"""One host's libvirt behind the core's `Hypervisor` port."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import libvirt

from autoscaler.core.action import Clone
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import (
    Domain,
    DomainCounters,
    DomainState,
    HostCapacity,
    HostInventory,
    HostLimits,
    Ownership,
    PoolSpace,
)
from autoscaler.core.policy import Image, Wanted
from autoscaler.core.ports import GoldenSeen, GuestRun, Identity, VolumeRef
from autoscaler.hypervisor import counters, domains, guest_exec, volumes
from autoscaler.hypervisor.accelerator import AcceleratorChoice
from autoscaler.hypervisor.agent import AgentProber
from autoscaler.hypervisor.backing import overlays_on
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.capacity import CapacityReader
from autoscaler.hypervisor.connection import Connections, is_local
from autoscaler.hypervisor.domain_xml import domain_uuid, domain_xml, mac_address
from autoscaler.hypervisor.events import watch_lifecycle
from autoscaler.hypervisor.inventory import list_domains
from autoscaler.hypervisor.networks import check_network

T = TypeVar("T")

_CAPACITY_SECONDS = 5.0


def _nothing_known(_key: str) -> str | None:
    return None


def _forgotten(_key: str, _value: str) -> None:
    """Remember nothing."""


def _unheard() -> None:
    """Tell nobody."""


class LibvirtHypervisor:
    """Speaks to one host, as `autoscaler.core.ports.Hypervisor` says; every method raises HypervisorError.

    `recall` and `remember` keep across restarts which accelerator was seen to work. `on_change` is called, from a
    foreign thread and not to be kept waiting, when a domain changed or a guest's agent answered. Calls
    that only read may take `read_seconds`, others `write_seconds`.
    """

    def __init__(
        self,
        host: str,
        uri: str,
        controller: str,
        *,
        recall: Callable[[str], str | None] = _nothing_known,
        remember: Callable[[str, str], None] = _forgotten,
        on_change: Callable[[], None] = _unheard,
        read_seconds: float = 10.0,
        write_seconds: float = 60.0,
        limits: HostLimits | None = None,
    ) -> None:
        self._host = host
        self._controller = controller
        self._read_seconds = read_seconds
        self._watched_pools: frozenset[str] = frozenset()
        self._local = is_local(uri)
        self._write_seconds = write_seconds
        # What waits for a guest must hold up neither sampling nor actions: each has its own budget of stuck calls.
        self._reads = Connections(host, uri, Calls(host), on_open=lambda opened: watch_lifecycle(opened, on_change))
        self._actions = Connections(host, uri, Calls(host))
        # A pool whose storage hangs must not keep domains from being listed; no third call joins two that hang.
        self._room = Connections(host, uri, Calls(host, limit=2))
        self._golden = Connections(host, uri, Calls(host, limit=2))
        self._capacity = CapacityReader(host, limits or HostLimits(), local=is_local(uri))
        self._guests = Connections(host, uri, Calls(host))
        self._agents = AgentProber(Connections(host, uri, Calls(host)), on_change)
        self._addressed_groups: frozenset[str] = frozenset()
        self._accelerator = AcceleratorChoice(
            self._actions,
            controller,
            recall=recall,
            remember=remember,
            read_seconds=read_seconds,
            write_seconds=write_seconds,
        )

    @property
    def host(self) -> str:
        """The host's name in the configuration."""
        return self._host

    def close(self) -> None:
        """Let go of the connections; guests run on."""
        self._agents.close()
        self._reads.close()
        self._room.close()
        self._golden.close()
        self._actions.close()
        self._guests.close()

    def inventory(self) -> HostInventory:
        """List all domains, ours or not, with state, ownership, and whether our running ones' agents answer."""
        watched = self._watched_pools

        def read(connection: libvirt.virConnect) -> tuple[tuple[Domain, ...], dict[str, PoolSpace]]:
            return list_domains(connection, self._host), volumes.space(connection, watched, local=self._local)

        found, pools = self._reads.call("list its domains", read, self._read_seconds)
        asked = {domain.uuid: domain.ownership for domain in found if self._is_running_and_ours(domain)}
        groups = self._addressed_groups
        addressed = frozenset(uuid for uuid, owner in asked.items() if owner is not None and owner.group in groups)
        self._agents.watch(frozenset(asked), addressed)
        return HostInventory(
            self._host, tuple(self._with_told(domain) if domain.uuid in asked else domain for domain in found), pools
        )

    def watch_addresses(self, groups: frozenset[str]) -> None:
        """Let the listing tell the addresses of these groups' running instances from now on, as they become known."""
        self._addressed_groups = groups

    def addresses(self, instance: str) -> tuple[str, ...]:
        """Give the known addresses of an instance whose group's are watched, at once and without asking anybody."""
        return self._agents.addresses(domain_uuid(self._controller, instance))

    def run_in_guest(self, instance: str, argv: tuple[str, ...], seconds: float) -> GuestRun:
        """Run a command inside the instance by its agent and wait for its end, at most so many seconds."""

        def run(connection: libvirt.virConnect) -> GuestRun:
            domain = domains.find(connection, self._controller, instance)
            if domain is None:
                raise HypervisorError(
                    HypervisorErrorKind.NOT_FOUND, f"host {self._host} has no domain {instance} of this controller"
                )
            return guest_exec.run(domain, argv, seconds)

        return self._guests.call(f"run {argv[0]} in {instance}", run, seconds + guest_exec.GRACE_SECONDS)

    def watch_pools(self, pools: frozenset[str]) -> None:
        """Let the listing tell the room of these storage pools from now on, as far as they are active."""
        self._watched_pools = pools

    def golden(self, image: Image) -> GoldenSeen | None:
        """Look at a golden image as it is now; None where there is no such volume."""

        def look(connection: libvirt.virConnect) -> GoldenSeen:
            stamp = volumes.digest(connection, image, self._host)
            return GoldenSeen(stamp, volumes.readable_path(connection, image, self._host) if self._local else None)

        try:
            return self._golden.call(f"look at image {image.volume}", look, self._read_seconds)
        except HypervisorError as error:
            if error.kind is HypervisorErrorKind.NOT_FOUND:
                return None
            raise

    def counters(self, metrics: frozenset[str]) -> Mapping[str, DomainCounters]:
        """Raw counters of every running domain, by UUID, in one call; none where no metric needs any."""
        groups = counters.groups_of(metrics)
        if not groups:
            return {}

        def read(connection: libvirt.virConnect) -> dict[str, DomainCounters]:
            all_stats = counters.read(connection, groups)
            at = time.monotonic()
            return {uuid: counters.counters(uuid, stats, at) for uuid, stats in all_stats}

        return self._reads.call("give its domains' counters", read, self._read_seconds)

    def capacity(self, wanted: Wanted) -> HostCapacity:
        """Tell what the host has to give and who takes it; of pools and networks, the wanted ones."""
        return self._room.call(
            "tell what it has to give",
            lambda it: self._capacity.read(it, wanted),
            min(self._read_seconds, _CAPACITY_SECONDS),
        )

    def validate(self, clone: Clone) -> None:
        """Raise unless pool, golden image (qcow2), network, accelerator, name and MAC address allow this clone.

        Changes nothing, but that the first clone with `accelerator: auto` tries KVM with a guest that is thrown away.
        """

        def check(connection: libvirt.virConnect) -> None:
            volumes.check_golden(connection, clone.image, self._host)
            check_network(connection, clone.machine.network, self._host)
            domains.refuse_taken_name(connection, self._host, self._controller, clone.instance)
            domains.refuse_taken_mac(connection, self._host, self._controller, clone.instance)

        self._read(f"check what {clone.instance} needs", check)
        self._accelerator.platform(clone)

    def identity(self, instance: str) -> Identity:
        """Tell by what an instance is known, or will be; asks nobody."""
        uuid = domain_uuid(self._controller, instance)
        return Identity(uuid, mac_address(uuid))

    def image_digest(self, clone: Clone) -> str:
        """Identify the golden image as it is now, by its volume's key, sizes and time of change, not its content."""
        return self._read(
            f"identify image {clone.image.volume}", lambda it: volumes.digest(it, clone.image, self._host)
        )

    def create_overlay(self, clone: Clone, volume: VolumeRef) -> None:
        """Make a qcow2 overlay on the golden image, and the file for the console's log, in the image's pool."""
        self._write(
            f"make volume {volume.name} in pool {volume.pool}",
            lambda it: volumes.create_overlay(it, clone.image, volume),
        )

    def create_seed(self, volume: VolumeRef, content: bytes) -> None:
        """Make a volume with this content that nobody but its owner and the instance's QEMU can read."""
        self._write(
            f"make volume {volume.name} in pool {volume.pool}",
            lambda it: volumes.create_seed(it, volume, content),
        )

    def define(self, clone: Clone, volume: VolumeRef, ownership: Ownership) -> None:
        """Define the instance's domain with its ownership element; raises EXISTS when name or UUID are taken."""
        platform = self._accelerator.platform(clone)

        def define(connection: libvirt.virConnect) -> None:
            domains.refuse_taken_name(connection, self._host, self._controller, clone.instance)
            identity = domain_uuid(self._controller, clone.instance)
            files = volumes.files(connection, volume, seeded=clone.cloud_init is not None)
            xml = domain_xml(clone, identity, ownership, platform, files)
            connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)

        self._write(f"define domain {clone.instance}", define)

    def start(self, instance: str) -> None:
        """Start the instance's domain; a running one is left as it is."""

        def start(connection: libvirt.virConnect) -> None:
            domain = domains.find(connection, self._controller, instance)
            if domain is None:
                raise HypervisorError(
                    HypervisorErrorKind.NOT_FOUND,
                    f"host {self._host} has no domain {instance} of this controller to start",
                )
            domains.start(domain)

        self._write(f"start domain {instance}", start)

    def running(self, instance: str) -> bool | None:
        """Whether the instance's domain is running (in any state but off); None where there is no such domain."""

        def running(connection: libvirt.virConnect) -> bool | None:
            domain = domains.find(connection, self._controller, instance)
            return None if domain is None else bool(domain.isActive())

        return self._read(f"look at domain {instance}", running)

    def busy_with(self, instance: str) -> bool:
        """Whether a call for this instance that was given up has not returned yet, and may still take effect."""
        return any(instance in what for what in self._actions.stuck())

    def request_shutdown(self, instance: str) -> None:
        """Ask the guest to shut down: agent first, then ACPI. Returns without waiting for it."""
        self._to_ours(instance, f"ask domain {instance} to shut down", domains.request_shutdown)

    def destroy(self, instance: str) -> None:
        """Power the instance off; a domain that is off or gone is left as it is."""
        self._to_ours(instance, f"destroy domain {instance}", domains.destroy)

    def undefine(self, instance: str) -> None:
        """Remove the domain's definition and what libvirt keeps beside it; a domain that is gone is no error."""
        self._to_ours(instance, f"undefine domain {instance}", domains.undefine)

    def volumes_of(self, instance: str) -> tuple[VolumeRef, ...]:
        """Give the instance's own volumes that its domain still refers to; never a disk that was added by hand."""

        def look(connection: libvirt.virConnect) -> tuple[VolumeRef, ...]:
            domain = domains.find(connection, self._controller, instance)
            return () if domain is None else volumes.of_domain(connection, domain, self._host, instance)

        return self._read(f"look at the disks of domain {instance}", look)

    def user_of(self, volume: VolumeRef) -> str | None:
        """Name a domain, ours or not, that refers to the volume as a disk or under one; None where there is none."""
        return self._read(f"look who uses volume {volume.name}", lambda it: volumes.user_of(it, volume))

    def overlays_on(self, volume: VolumeRef) -> tuple[str, ...]:
        """Name the volumes, of all active pools and whosever they are, that have this one as their backing store."""
        return self._read(f"tell what stands on volume {volume.name}", lambda it: overlays_on(it, volume))

    def delete_volume(self, volume: VolumeRef) -> None:
        """Delete the volume, and with an overlay the console's log; what is gone is no error."""
        self._write(f"delete volume {volume.name} in pool {volume.pool}", lambda it: volumes.delete(it, volume))

    def _to_ours(self, instance: str, what: str, act: Callable[[libvirt.virDomain], None]) -> None:
        def found(connection: libvirt.virConnect) -> None:
            domain = domains.find(connection, self._controller, instance)
            if domain is not None:
                act(domain)

        self._write(what, found)

    def _read(self, what: str, function: Callable[[libvirt.virConnect], T]) -> T:
        return self._actions.call(what, function, self._read_seconds)

    def _write(self, what: str, function: Callable[[libvirt.virConnect], T]) -> T:
        return self._actions.call(what, function, self._write_seconds)

    def _with_told(self, domain: Domain) -> Domain:
        uuid = domain.uuid
        return replace(domain, answers=self._agents.answers(uuid), addresses=self._agents.addresses(uuid))

    def _is_running_and_ours(self, domain: Domain) -> bool:
        ours = domain.ownership is not None and domain.ownership.controller == self._controller
        return ours and domain.state is DomainState.RUNNING
