"""Everything one tick may know. Times are seconds since the epoch unless the name says otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.action import InFlight, Outcome


@dataclass(frozen=True, slots=True)
class Unknown:
    """What could not be read, and why. Never empty, never zero."""

    why: str


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
class HostInventory:
    """All domains of one host, and its active storage pools as far as somebody asked for them."""

    host: str
    domains: tuple[Domain, ...]
    pools: Mapping[str, PoolSpace] = field(default_factory=dict)


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
    external: Mapping[str, ExternalSample | Unknown] = field(default_factory=dict)
    """By the key of the signal that asks for it."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """By instance id; an instance that was not asked yet is not among them."""
    traffic: Mapping[str, TrafficView | Unknown] = field(default_factory=dict)
    """By group, of those that have a load balancer; one that was not asked yet is not among them."""
    schedules: Mapping[str, ScheduleState] = field(default_factory=dict)
    """By the key of the schedule; one that could not be told is not among them."""
