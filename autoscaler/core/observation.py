"""Everything one tick may know. Times are seconds since the epoch unless the name says otherwise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.action import InFlight, Outcome
from autoscaler.core.policy import Image


@dataclass(frozen=True, slots=True)
class Unknown:
    """What could not be read, and why. Never empty, never zero."""

    why: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """A process that takes CPU of a host, or the guest that a QEMU process runs."""

    name: str
    """The guest's name for a QEMU process, else the process's."""
    pid: int
    cores: float
    """How many processors' time it took since the previous sample."""
    guest: bool = False


@dataclass(frozen=True, slots=True)
class HostSample:
    """What a host's own kernel says of its load; a figure the kernel does not give is None."""

    host: str
    cpu_count: int
    cpu_busy_share: float | None
    """Share of all cores' time not idle since the previous sample; None on the first."""
    load_1m: float | None
    memory_total_bytes: int
    memory_available_bytes: int
    psi_cpu_share: float | None = None
    """`some avg10` of /proc/pressure, as a fraction."""
    psi_memory_share: float | None = None
    psi_io_share: float | None = None
    boot: str | None = None
    """Identifies the running of the host's kernel: another one means that the host was rebooted, whatever its clock."""
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    top: tuple[Consumer, ...] = ()
    """Who took most of the CPU since the previous sample, the greediest first; only told of a host that is busy."""


class DomainState(StrEnum):
    """libvirt's states of a domain, by the names virsh users know."""

    RUNNING = "running"
    PAUSED = "paused"
    IN_SHUTDOWN = "in_shutdown"
    SHUTOFF = "shutoff"
    CRASHED = "crashed"
    SUSPENDED = "pmsuspended"
    UNDEFINED = "no_state"


@dataclass(frozen=True, slots=True)
class Ownership:
    """The element in a domain's metadata that says whose it is."""

    controller: str
    group: str
    instance: str
    image_digest: str
    """What the clone's golden image was when it was made; empty where it could not be told."""
    created_at: float
    image: Image | None = None
    """The golden image it stands on; None where an earlier release made it, which did not note that."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain as listed on a host, ours or not."""

    host: str
    uuid: str
    name: str
    state: DomainState
    ownership: Ownership | None
    answers: bool | None = None
    """Whether the guest agent answered; None where it was not asked or could not be told."""
    saved: bool = False
    """Whether its memory was saved to disk when it went off; starting it goes on from there."""
    addresses: tuple[str, ...] = ()
    """IP addresses of an instance of ours that are known by lease, agent or ARP, the one to be reached by first."""
    io_error: bool = False
    """Whether it is paused because its disk could not be written or read."""
    crashed: bool = False
    """Whether it is off because its emulator ended by itself."""


@dataclass(frozen=True, slots=True)
class DomainCounters:
    """Raw monotone counters of one running domain; what a driver does not give is None, not 0."""

    uuid: str
    read_at_seconds: float
    """The sampler's monotonic clock when this was read; only differences have a meaning."""
    vcpus: int
    vcpu_time_seconds: float | None
    """Σ over vCPUs of the time they ran."""
    vcpu_delay_seconds: float | None
    """Σ over vCPUs of the time they wanted to run and could not."""
    balloon_bytes: int | None = None
    """Memory the guest has at present."""
    memory_usable_bytes: int | None = None
    """Of that, what the guest could still give to a program without swapping, by its balloon driver."""
    memory_updated_at: float | None = None
    """When the guest last told its memory, in seconds since the epoch."""
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    disk_read_ops: int | None = None
    disk_write_ops: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None
    net_rx_packets: int | None = None
    net_tx_packets: int | None = None


@dataclass(frozen=True, slots=True)
class PoolSpace:
    """The room of one active storage pool."""

    capacity_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is to stay free of something: a share of all of it or an amount, whichever is more."""

    share: float = 0.0
    amount: int = 0

    def of(self, total: int) -> int:
        """Give the amount to keep of a total."""
        return max(self.amount, math.ceil(self.share * total))


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What the operator grants of a host."""

    reserve_memory: Reserve = Reserve(share=0.05)
    reserve_pool_space: Reserve = Reserve()
    reserve_addresses: int = 0
    vcpus_per_core: float = 16.0
    """Guests mostly wait: OpenStack Nova's `initial_cpu_allocation_ratio` is as much."""
    pool_space_overcommit: float = 1.0
    """By how much the growth that thin volumes may still take is divided."""
    memory_pressure: float = 0.2
    """From this PSI share on (`some avg10` of memory) nothing is cloned."""
    preempt_every_seconds: float = 60.0
    """No more than one instance is drained for a more urgent group in this time."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """What one running domain, ours or not, may take of its host; None where libvirt does not tell."""

    uuid: str
    name: str
    memory_bytes: int | None
    """The most it may have."""
    balloon_bytes: int | None
    """What it has at present."""
    vcpus: int | None
    overhead_bytes: int = 0
    """What QEMU itself takes beside the guest's memory."""
    hugepages: bool = False
    macs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PoolRoom:
    """A storage pool, and what its thin volumes may still take of it."""

    capacity_bytes: int
    available_bytes: int
    growth_bytes: int
    """Σ capacity - allocation of all volumes that are written to."""
    overlays: tuple[str, ...] = ()
    """The volumes with a backing store that `growth_bytes` was summed over."""
    images: Mapping[str, int] = field(default_factory=dict)
    """The size of the disk of each golden image that some policy names, and so what one overlay may come to."""


@dataclass(frozen=True, slots=True)
class AddressRoom:
    """The DHCP ranges of a network."""

    addresses: int
    taken: int
    """Addresses of them with a live lease or a host of their own."""
    holders: tuple[str, ...] = ()
    """The MAC addresses that hold one."""


@dataclass(frozen=True, slots=True)
class HostCapacity:
    """What one host has to give. What could not be read is None or absent, and `unread` says why by resource."""

    host: str
    limits: HostLimits = HostLimits()
    cores: int | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    hugepages_bytes: int = 0
    """Memory set aside for guests with huge pages."""
    tenants: tuple[Tenant, ...] = ()
    pools: Mapping[str, PoolRoom] = field(default_factory=dict)
    """Those that policies use; one that is missing or not active is not among them."""
    networks: Mapping[str, AddressRoom] = field(default_factory=dict)
    """Those that policies use and that give out addresses."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Why, by the names of `Resource`; a pool's or network's name follows after a space."""


@dataclass(frozen=True, slots=True)
class HostInventory:
    """All domains of one host, and its active storage pools as far as somebody asked for them."""

    host: str
    domains: tuple[Domain, ...]
    pools: Mapping[str, PoolSpace] = field(default_factory=dict)
    capacity: HostCapacity | None = None
    """None where nobody asked for it."""


@dataclass(frozen=True, slots=True)
class ExternalSample:
    """One figure that was asked for over the network; `at` is when it was true, in seconds since the epoch."""

    value: float
    at: float


@dataclass(frozen=True, slots=True)
class Probe:
    """What asking an instance over the network gave last: a TCP port that opened, an HTTP status that was right."""

    passed: bool
    at: float
    """When it was asked, in seconds since the epoch."""
    failures: int = 0
    """How often in a row it did not pass, up to this one."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Leftover:
    """An instance whose volumes are in the ledger, while neither a domain of ours nor an action is left of it."""

    host: str
    instance: str


class SlotState(StrEnum):
    """Whether a load balancer sends anything to a slot."""

    READY = "ready"
    DRAIN = "drain"
    """What is connected stays, and nothing new comes."""
    MAINT = "maint"
    """Nothing at all."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a load balancer's backend that may stand for an instance."""

    name: str
    address: str
    port: int
    state: SlotState
    weight: int = 1
    initial_weight: int = 1
    """What the balancer's configuration says."""
    sessions: int | None = None
    """Connections or requests under way; None where the balancer does not tell."""
    healthy: bool | None = None
    """What the balancer's own checks say; None where it does not tell."""

    @property
    def serves(self) -> bool:
        """Whether new requests are sent there."""
        return self.state is SlotState.READY and self.healthy is not False


@dataclass(frozen=True, slots=True)
class TrafficView:
    """What a group's load balancer had when it was last looked at."""

    at: float
    """When it was read, in seconds since the epoch."""
    wanted_at: float | None
    """The tick whose wishes had been put there before; None where there were none yet."""
    slots: tuple[Slot, ...] = ()
    queue: int | None = None
    """Requests that wait for any server of the backend."""
    response_seconds: float | None = None
    """The mean time to a response, of the backend's last 1024 requests."""


@dataclass(frozen=True, slots=True)
class GoldenState:
    """A golden image as it was last looked at."""

    stamp: str | None
    """Tells one state of the volume from another, by its sizes and time of change; None where it cannot be told."""
    content: str | None = None
    """What it holds: a digest, or the stamp itself where contents are not read; None where it was not read yet."""
    read: Mapping[str, str] = field(default_factory=dict)
    """What it held when it had the stamps that instances were cloned under, as far as it was read then."""
    expected: str | None = None
    """What it must hold, being a version of the catalog; None for any other volume."""

    @property
    def unread(self) -> bool:
        """Whether it is not known what it holds now, but will be."""
        return self.stamp is not None and self.content is None


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """Whether a schedule's span is active, and until when that is so; None where it never changes again."""

    active: bool
    until: float | None = None


class Change(StrEnum):
    """What an operator can ask of a group or of an instance."""

    SCALE = "scale"
    AUTO = "auto"
    PAUSE = "pause"
    RESUME = "resume"
    RESET = "reset"
    """Try launches again after the breaker stopped them."""
    DELETE = "delete"
    """Remove every instance of a group without a policy."""
    PROTECT = "protect"
    UNPROTECT = "unprotect"
    DETACH = "detach"
    ATTACH = "attach"
    REFRESH = "refresh"
    """Replace what does not stand on the policy's golden image."""
    CANCEL_REFRESH = "cancel_refresh"
    """Stop a refresh where it is."""
    ROLL_BACK = "roll_back"
    """Go back to the image that was in service before the refresh."""


@dataclass(frozen=True, slots=True)
class Request:
    """An operator's request, a row of the journal until a tick has taken it into memory."""

    id: int
    at: float
    by: str
    group: str
    change: Change
    count: int | None = None
    for_seconds: float | None = None
    instance: str | None = None
    """The instance it is about; None for one about the whole group."""


@dataclass(frozen=True, slots=True)
class Observation:
    """All inputs of one `step`."""

    at: float
    interval_seconds: float
    hosts: Mapping[str, HostSample | Unknown] = field(default_factory=dict)
    inventory: Mapping[str, HostInventory | Unknown] = field(default_factory=dict)
    domains: Mapping[str, DomainCounters] = field(default_factory=dict)
    """By domain UUID."""
    in_flight: tuple[InFlight, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    requests: tuple[Request, ...] = ()
    workers: int = 4
    """How many actions may be under way at once on each host."""
    leftovers: tuple[Leftover, ...] = ()
    """Of the hosts that could be read."""
    leftover_grace_seconds: float = 600.0
    """How long something must have been left over, without a break, before it is collected."""
    ledger_lost: bool = False
    """The journal was begun anew and no operator has accepted that yet: nothing is collected."""
    external: Mapping[str, ExternalSample | Unknown] = field(default_factory=dict)
    """By the key of the signal that asks for it."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """By instance id; an instance that was not asked yet is not among them."""
    traffic: Mapping[str, TrafficView | Unknown] = field(default_factory=dict)
    """By group, of those that have a load balancer; one that was not asked yet is not among them."""
    schedules: Mapping[str, ScheduleState] = field(default_factory=dict)
    """By the key of the schedule; one that could not be told is not among them."""
    golden: Mapping[str, GoldenState] | None = None
    """By `core.golden.golden_key`, of those that were looked at; None where nobody looks."""
