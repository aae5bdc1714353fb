"""A simulated host: the `Hypervisor` port over a dictionary, with guests that boot, burn CPU and shut down."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2s

from autoscaler.core.action import Clone
from autoscaler.core.capacity import overhead_bytes
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import (
    AddressRoom,
    Domain,
    DomainCounters,
    DomainState,
    HostCapacity,
    HostInventory,
    HostLimits,
    HostSample,
    Ownership,
    PoolRoom,
    PoolSpace,
    Tenant,
)
from autoscaler.core.policy import Image, Machine, Wanted
from autoscaler.core.ports import GoldenSeen, GuestRun, Identity, VolumeRef, seed_name

_OFF = frozenset({DomainState.SHUTOFF, DomainState.CRASHED})
_BYTES_PER_BUSY_SECOND = 1_000_000
_BYTES_PER_OPERATION = 4096
_POOL = PoolSpace(capacity_bytes=1 << 40, available_bytes=1 << 39)


@dataclass(slots=True)
class Clock:
    """The simulated now, in seconds since the epoch."""

    at: float = 1_000_000.0

    def now(self) -> float:
        """Give the simulated time."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at += seconds


@dataclass(frozen=True, slots=True)
class Guest:
    """How the guests of this world behave."""

    boot_seconds: float = 4.0
    shutdown_seconds: float = 1.0
    """Time from the request to off; infinite for a guest that ignores it."""
    memory_share: float = 0.5
    """What a booted guest uses of its memory."""


@dataclass(slots=True)
class _Machine:
    domain: Domain
    volumes: tuple[VolumeRef, ...]
    machine: Machine
    started_at: float | None = None
    off_at: float | None = None
    vcpu_seconds: float = 0.0
    delay_seconds: float = 0.0
    memory_bytes: int = 192 * 1024 * 1024
    served_seconds: float = 0.0
    """Busy time since it was started, of which disk and network counters follow."""


class SimulatedHost:
    """One host. `demand` gives the load in busy instances at a time, shared evenly among the guests that booted.

    `fault` is called with each method's name before the method does anything, and may raise in its place.
    """

    def __init__(
        self,
        host: str,
        controller: str,
        clock: Clock,
        *,
        demand: Callable[[float], float] = lambda _at: 0.0,
        guest: Guest | None = None,
        images: frozenset[tuple[str, str]] = frozenset({("default", "golden.qcow2")}),
        fault: Callable[[str], None] = lambda _method: None,
    ) -> None:
        self._host = host
        self._controller = controller
        self._clock = clock
        self.demand = demand
        self.guest = guest or Guest()
        self.images = images
        self.dead_images: set[tuple[str, str]] = set()
        """Images whose guests never come up."""
        self.fault = fault
        self.steal = 0.0
        """The share of its time that every running guest wants to run and cannot."""
        self.volumes: set[tuple[str, str]] = set(images)
        self.seeds: dict[str, bytes] = {}
        """What the seeds among the volumes hold, by their names."""
        self.limits = HostLimits()
        self.cores = 8
        self.memory_bytes = 64 << 30
        self.pool_bytes = 1 << 40
        """The size of each pool."""
        self.image_bytes = 1 << 30
        """The size of each image's disk; volumes are empty."""
        self.dhcp_addresses = 250
        """The size of each network's DHCP range; leases end with their guests."""
        self.ran: list[tuple[str, tuple[str, ...]]] = []
        """The commands that were run in guests, oldest first."""
        self._addressed_groups: frozenset[str] = frozenset()
        self.silent: set[str] = set()
        self._watched_pools: frozenset[str] = frozenset()
        self._machines: dict[str, _Machine] = {}
        self._accounted_at = clock.now()
        self._boots = 1

    @property
    def host(self) -> str:
        """The host's name."""
        return self._host

    def sample(self) -> HostSample:
        """Give a host with nothing remarkable about it."""
        busy = min(self.demand(self._clock.now()) / 8, 1.0)
        memory = self.memory_bytes
        return HostSample(self._host, self.cores, busy, 0.0, memory, memory, boot=f"boot {self._boots}")

    def reboot(self, *, saving: bool = False) -> None:
        """Turn everything off as a reboot does; `saving` puts what runs to sleep first, as libvirt-guests may."""
        self._account()
        self._boots += 1
        for machine in self._machines.values():
            if machine.domain.state not in _OFF:
                machine.domain = replace(machine.domain, state=DomainState.SHUTOFF, saved=saving)

    def add_foreign(self, name: str, ownership: Ownership | None = None, machine: Machine | None = None) -> None:
        """Put a running domain here that is not this controller's."""
        uuid = _uuid(name, "foreign")
        domain = Domain(self._host, uuid, name, DomainState.RUNNING, ownership)
        self._machines[name] = _Machine(
            domain, (VolumeRef(self._host, "default", f"{name}.img", name),), machine or Machine(), self._clock.now()
        )

    def set_state(self, instance: str, state: DomainState) -> None:
        """Do to an instance what an operator or a crash would."""
        self._account()
        self._machines[instance].domain = replace(self._machines[instance].domain, state=state)

    def change(self, instance: str, **changes: object) -> None:
        """Change what is listed of an instance: its name, or an I/O error that paused it."""
        self._account()
        self._machines[instance].domain = replace(self._machines[instance].domain, **changes)  # type: ignore[arg-type]

    def forget(self, instance: str) -> None:
        """Undefine an instance as an operator would: its volume stays."""
        del self._machines[instance]

    def silence(self, instance: str, *, silent: bool = True) -> None:
        """Let an instance's agent say nothing."""
        (self.silent.add if silent else self.silent.discard)(instance)

    def inventory(self) -> HostInventory:
        """List all domains."""
        self.fault("inventory")
        self._account()
        return HostInventory(
            self._host,
            tuple(self._as_listed(machine) for machine in self._machines.values()),
            dict.fromkeys(self._watched_pools, _POOL),
        )

    def watch_pools(self, pools: frozenset[str]) -> None:
        """Tell the room of these pools from now on: each is large and half full, and there if it holds an image."""
        self._watched_pools = pools & {pool for pool, _ in self.images}

    def watch_addresses(self, groups: frozenset[str]) -> None:
        """Tell the addresses of these groups' instances from now on."""
        self._addressed_groups = groups

    def addresses(self, instance: str) -> tuple[str, ...]:
        """Give the one address of an instance that booted."""
        machine = self._ours(instance)
        return () if machine is None else self._as_listed(machine).addresses

    def run_in_guest(self, instance: str, argv: tuple[str, ...], seconds: float) -> GuestRun:  # noqa: ARG002
        """Note the command, which ends at once and well, in a guest that booted."""
        self.fault("run_in_guest")
        machine = self._ours(instance)
        if machine is None or not self._booted(machine, self._clock.now()):
            raise HypervisorError(HypervisorErrorKind.BUSY, f"the agent of {instance} does not answer")
        self.ran.append((instance, argv))
        return GuestRun(0)

    def golden(self, image: Image) -> GoldenSeen | None:
        """Look at a golden image: it never changes here."""
        self.fault("golden")
        held = (image.pool, image.volume)
        return GoldenSeen(f"{image.pool}/{image.volume}") if held in self.volumes else None

    def counters(self, metrics: frozenset[str]) -> Mapping[str, DomainCounters]:  # noqa: ARG002 - they cost nothing
        """Give the counters of running domains: disk and network move with the time they are busy."""
        self.fault("counters")
        self._account()
        now = self._clock.now()
        return {
            machine.domain.uuid: self._counters(machine, now)
            for machine in self._machines.values()
            if machine.domain.state is DomainState.RUNNING
        }

    def capacity(self, wanted: Wanted) -> HostCapacity:
        """Tell of the machines that are not off, and of all volumes."""
        self.fault("capacity")
        self._account()
        running = [machine for machine in self._machines.values() if machine.domain.state not in _OFF]
        return HostCapacity(
            self._host,
            self.limits,
            cores=self.cores,
            memory_total_bytes=self.memory_bytes,
            memory_available_bytes=self.memory_bytes,
            tenants=tuple(self._tenant(machine) for machine in running),
            pools={
                pool: PoolRoom(
                    self.pool_bytes,
                    self.pool_bytes,
                    self.image_bytes * len(self._overlays(pool)),
                    self._overlays(pool),
                    {name: self.image_bytes for where, name in self.images if where == pool},
                )
                for pool in sorted({image.pool for image in wanted.images} & {pool for pool, _ in self.images})
            },
            networks={name: self._leases(name, running) for name in sorted(wanted.networks)},
        )

    def _overlays(self, pool: str) -> tuple[str, ...]:
        found = (name for where, name in self.volumes - self.images if where == pool and name not in self.seeds)
        return tuple(sorted(found))

    def _tenant(self, machine: _Machine) -> Tenant:
        domain, shape = machine.domain, machine.machine
        overhead = overhead_bytes(shape.memory_bytes, shape.vcpus)
        memory = shape.memory_bytes
        return Tenant(
            domain.uuid, domain.name, memory, memory, shape.vcpus, overhead, shape.hugepages, (_mac(domain.uuid),)
        )

    def _leases(self, network: str, running: Iterable[_Machine]) -> AddressRoom:
        holders = [
            machine
            for machine in running
            if machine.machine.network == network and self._booted(machine, self._clock.now())
        ]
        return AddressRoom(
            self.dhcp_addresses, len(holders), tuple(sorted(_mac(machine.domain.uuid) for machine in holders))
        )

    def _counters(self, machine: _Machine, now: float) -> DomainCounters:
        moved = int(machine.served_seconds * _BYTES_PER_BUSY_SECOND)
        operations = moved // _BYTES_PER_OPERATION
        told = self._booted(machine, now)
        usable = machine.machine.memory_bytes * (1.0 - self.guest.memory_share)
        return DomainCounters(
            machine.domain.uuid,
            now,
            machine.machine.vcpus,
            machine.vcpu_seconds,
            machine.delay_seconds,
            balloon_bytes=machine.machine.memory_bytes,
            memory_usable_bytes=int(usable) if told else None,
            memory_updated_at=now if told else None,
            disk_read_bytes=moved,
            disk_write_bytes=moved,
            disk_read_ops=operations,
            disk_write_ops=operations,
            net_rx_bytes=moved,
            net_tx_bytes=moved,
            net_rx_packets=operations,
            net_tx_packets=operations,
        )

    def validate(self, clone: Clone) -> None:
        """Raise NOT_FOUND without the image, EXISTS where the name is taken."""
        self.fault("validate")
        image = (clone.image.pool, clone.image.volume)
        if image not in self.volumes:
            raise HypervisorError(HypervisorErrorKind.NOT_FOUND, f"no volume {image[1]} in pool {image[0]}")
        self._refuse_taken(clone.instance)

    def identity(self, instance: str) -> Identity:
        """Tell by what an instance is known, or will be."""
        uuid = _uuid(instance, self._controller)
        return Identity(uuid, _mac(uuid))

    def image_digest(self, clone: Clone) -> str:
        """Identify the image by its name: simulated images never change."""
        self.fault("image_digest")
        return f"{clone.image.pool}/{clone.image.volume}"

    def create_overlay(self, clone: Clone, volume: VolumeRef) -> None:
        """Add the volume."""
        self.fault("create_overlay")
        if (clone.image.pool, clone.image.volume) not in self.volumes:
            raise HypervisorError(HypervisorErrorKind.NOT_FOUND, f"no volume {clone.image.volume}")
        self._add(volume)

    def create_seed(self, volume: VolumeRef, content: bytes) -> None:
        """Add the volume, and keep what it holds."""
        self.fault("create_seed")
        self._add(volume)
        self.seeds[volume.name] = content

    def define(self, clone: Clone, volume: VolumeRef, ownership: Ownership) -> None:
        """Add the domain, off."""
        self.fault("define")
        self._refuse_taken(clone.instance)
        uuid = _uuid(clone.instance, self._controller)
        domain = Domain(self._host, uuid, clone.instance, DomainState.SHUTOFF, ownership)
        seeds = () if clone.cloud_init is None else (replace(volume, name=seed_name(clone.instance)),)
        self._machines[clone.instance] = _Machine(domain, (volume, *seeds), clone.machine)

    def start(self, instance: str) -> None:
        """Start the domain; it answers after the guest's boot time."""
        self.fault("start")
        machine = self._ours(instance)
        if machine is None:
            raise HypervisorError(HypervisorErrorKind.NOT_FOUND, f"no domain {instance}")
        if machine.domain.state in _OFF:
            self._account()
            machine.started_at, machine.off_at = self._clock.now(), None
            machine.vcpu_seconds, machine.served_seconds = 0.0, 0.0
            machine.domain = replace(machine.domain, state=DomainState.RUNNING, saved=False)

    def running(self, instance: str) -> bool | None:
        """Whether the domain is in any state but off; None without it."""
        self.fault("running")
        self._account()
        machine = self._ours(instance)
        return None if machine is None else machine.domain.state not in _OFF

    def busy_with(self, instance: str) -> bool:  # noqa: ARG002 - no simulated call hangs
        """Never: every simulated call returns."""
        return False

    def request_shutdown(self, instance: str) -> None:
        """Ask the guest; it is off after its shutdown time."""
        self.fault("request_shutdown")
        machine = self._ours(instance)
        if machine is not None and machine.domain.state is DomainState.RUNNING:
            machine.off_at = self._clock.now() + self.guest.shutdown_seconds

    def destroy(self, instance: str) -> None:
        """Power off."""
        self.fault("destroy")
        machine = self._ours(instance)
        if machine is not None:
            self._account()
            machine.domain = replace(machine.domain, state=DomainState.SHUTOFF)

    def undefine(self, instance: str) -> None:
        """Forget the domain."""
        self.fault("undefine")
        if self._ours(instance) is not None:
            del self._machines[instance]

    def volumes_of(self, instance: str) -> tuple[VolumeRef, ...]:
        """Give the volumes the domain was defined with."""
        self.fault("volumes_of")
        machine = self._ours(instance)
        return () if machine is None else machine.volumes

    def overlays_on(self, volume: VolumeRef) -> tuple[str, ...]:
        """Name the overlays of the instances that were made of it."""
        self.fault("overlays_on")
        owners = ((machine.volumes[0], machine.domain.ownership) for machine in self._machines.values())
        return tuple(
            overlay.name
            for overlay, owner in owners
            if owner is not None
            and owner.image is not None
            and (owner.image.pool, owner.image.volume) == (volume.pool, volume.name)
        )

    def user_of(self, volume: VolumeRef) -> str | None:
        """Name the domain that was made with it."""
        self.fault("user_of")
        return next((name for name, machine in self._machines.items() if volume in machine.volumes), None)

    def delete_volume(self, volume: VolumeRef) -> None:
        """Forget the volume."""
        self.fault("delete_volume")
        self.volumes.discard((volume.pool, volume.name))
        self.seeds.pop(volume.name, None)

    def _add(self, volume: VolumeRef) -> None:
        key = (volume.pool, volume.name)
        if key in self.volumes:
            raise HypervisorError(HypervisorErrorKind.EXISTS, f"volume {volume.name} is there already")
        self.volumes.add(key)

    def _ours(self, instance: str) -> _Machine | None:
        machine = self._machines.get(instance)
        if machine is None:
            return None
        ownership = machine.domain.ownership
        return machine if ownership is not None and ownership.controller == self._controller else None

    def _refuse_taken(self, instance: str) -> None:
        if instance in self._machines:
            raise HypervisorError(HypervisorErrorKind.EXISTS, f"a domain named {instance} is there already")

    def _booted(self, machine: _Machine, at: float) -> bool:
        return (
            machine.domain.state is DomainState.RUNNING
            and machine.started_at is not None
            and at - machine.started_at >= self.guest.boot_seconds
            and not self._is_dead(machine.domain.ownership)
        )

    def _is_dead(self, ownership: Ownership | None) -> bool:
        image = ownership.image if ownership is not None else None
        return image is not None and (image.pool, image.volume) in self.dead_images

    def _as_listed(self, machine: _Machine) -> Domain:
        ownership = machine.domain.ownership
        ours = ownership is not None and ownership.controller == self._controller
        if not ours or machine.domain.state is not DomainState.RUNNING:
            return replace(machine.domain, answers=None)
        assert ownership is not None
        answers = self._booted(machine, self._clock.now()) and ownership.instance not in self.silent
        addresses = machine.domain.addresses
        if answers and ownership.group in self._addressed_groups:
            addresses = addresses or (_address(machine),)
        return replace(machine.domain, answers=answers, addresses=addresses)

    def _account(self) -> None:
        """Bring shutdowns and CPU time up to now."""
        now = self._clock.now()
        for machine in self._machines.values():
            if machine.off_at is not None and now >= machine.off_at and machine.domain.state is DomainState.RUNNING:
                machine.domain = replace(machine.domain, state=DomainState.SHUTOFF)
        booted = [machine for machine in self._machines.values() if self._booted(machine, self._accounted_at)]
        elapsed = now - self._accounted_at
        if elapsed > 0:
            for machine in booted:
                machine.delay_seconds += elapsed * self.steal
            serving = [machine for machine in booted if machine.domain.ownership is not None]
            for machine in serving:
                busy = elapsed * min(self.demand(self._accounted_at) / len(serving), 1.0)
                machine.vcpu_seconds += busy
                machine.served_seconds += busy
            self._accounted_at = now


def _mac(uuid: str) -> str:
    return f"52:54:00:{uuid[-6:-4]}:{uuid[-4:-2]}:{uuid[-2:]}"


def _address(machine: _Machine) -> str:
    """Derive an address, of those set aside for measurements, from the domain's UUID."""
    return f"198.18.{int(machine.domain.uuid[:2], 16)}.{int(machine.domain.uuid[2:4], 16)}"


def _uuid(name: str, controller: str) -> str:
    digest = blake2s(f"{controller}/{name}".encode(), digest_size=16).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"
