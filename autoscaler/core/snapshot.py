"""What the last finished tick left for those who look: metrics, page and commands. Immutable, swapped in whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from autoscaler.core.capacity import Key, Ledger
from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.memory import UNDER_WAY, Override, RefreshPhase, Setback
from autoscaler.core.observation import Consumer, HostSample, TrafficView
from autoscaler.core.policy import Image, Mode, Size, TrafficKind
from autoscaler.core.traffic import Service
from autoscaler.core.transition import InstanceState, TransitionReason


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance; `load` is a fraction of its capacity, None where it was not measured."""

    instance: str
    host: str
    state: InstanceState
    since: float
    load: float | None = None
    detail: str | None = None
    reason: TransitionReason | None = None
    """Why it is in this state; None where no tick has seen it come into it."""
    protected_until: float | None = None
    """Until when an operator keeps it from being removed."""
    address: str | None = None
    """The IP address it is reached by, where somebody asked for it and it is known."""
    complaint: str | None = None
    """What the last probe found wrong with it; None where it found nothing, or there was none."""
    image: Image | None = None
    """The golden image it stands on; None where nobody can tell."""


@dataclass(frozen=True, slots=True)
class TrafficStatus:
    """A group's load balancer: what it should have, and what it had."""

    kind: TrafficKind
    wanted: tuple[Service, ...]
    view: TrafficView | None
    """None where it was not looked at yet, or could not be: then `why` says why."""
    why: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshStatus:
    """A group's refresh that is under way, or its last one."""

    target: Image
    previous: Image | None
    """What was in service before; None where nobody can tell, and of a rollback."""
    phase: RefreshPhase
    since: float
    started_at: float
    by: str
    back: bool = False
    refused: Image | None = None
    """What a rollback takes out of service."""
    why: Setback | None = None
    culprit: str | None = None
    """The instance that made it go back."""
    batch: int = 0
    old: int = 0
    """How many are still to be replaced."""
    new: int = 0
    """How many stand on the target."""
    ready: int = 0
    """How many of these serve."""
    spared: int = 0
    """How many stay on another image because they are protected or detached."""
    pinned: bool = False
    """New instances are made of what was in service before, and not of what the policy says."""

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self.phase in UNDER_WAY


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One group after a tick; mode, size and decision are None for a group whose policy file vanished."""

    group: str
    mode: Mode | None
    size: Size | None
    paused: bool
    override: Override | None
    decision: Decision | None
    instances: tuple[InstanceStatus, ...]
    breaker_open: bool = False
    """Launches failed so often that none is tried until an operator resets the group."""
    image_changed: bool = False
    """A golden image is not what its instances were cloned from."""
    replacement_stopped: bool = False
    """So many instances are unhealthy that none is replaced."""
    deleting: bool = False
    """An operator has all its instances removed."""
    traffic: TrafficStatus | None = None
    """None for a group without a load balancer."""
    port: int | None = None
    """Where its instances serve, by its policy."""
    image: Image | None = None
    """The golden image its policy names."""
    refresh: RefreshStatus | None = None
    """None where there was none yet."""

    @property
    def listed(self) -> bool:
        """Whether its instances could be listed: where they could not, `instances` is empty and the group is not."""
        reasons = () if self.decision is None else self.decision.reasons
        return all(reason.code is not ReasonCode.HELD_BY_UNKNOWN_INVENTORY for reason in reasons)


@dataclass(frozen=True, slots=True)
class ImageLaunches:
    """How long the last launches of an image took from clone to ready, in seconds."""

    image: str
    """POOL/VOLUME."""
    count: int
    p50_seconds: float
    p95_seconds: float


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host; `why` says what could not be read."""

    host: str
    connected: bool
    why: str | None
    sample: HostSample | None


@dataclass(frozen=True, slots=True)
class Portion:
    """How much one instance takes of one resource."""

    key: Key
    amount: int


@dataclass(frozen=True, slots=True)
class GroupRoom:
    """What one instance of a group takes of the host that its clones go to."""

    group: str
    live: int
    max: int
    need: tuple[Portion, ...]


@dataclass(frozen=True, slots=True)
class HostRoom:
    """A host's ledger after a tick, with what was granted in it, and the groups whose clones go there."""

    ledger: Ledger
    ballooned_bytes: int
    """What all running guests have of the host's memory at present, of the most they may have."""
    groups: tuple[GroupRoom, ...]
    top: tuple[Consumer, ...] = ()
    swap_total_bytes: int | None = None
    swap_used_bytes: int | None = None
    growth_bytes: Mapping[str, int] = field(default_factory=dict)
    """By pool: what its thin volumes may still come to take, whatever of it the limits count."""


@dataclass(frozen=True, slots=True)
class TickStatus:
    """The last finished tick."""

    number: int
    at: float
    duration_seconds: float
    lateness_seconds: float
    """How much later than the interval asked for it began."""


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """What became of the last reading of the policy files."""

    ok: bool
    at: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Durations:
    """A cumulative histogram in Prometheus' sense: `buckets[i]` counts durations up to `bounds[i]` seconds."""

    bounds: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0, 600.0)
    buckets: tuple[int, ...] = (0,) * 8
    count: int = 0
    sum_seconds: float = 0.0

    def add(self, seconds: float) -> "Durations":
        """Return the histogram with one more duration."""
        buckets = tuple(n + (seconds <= bound) for n, bound in zip(self.buckets, self.bounds, strict=True))
        return Durations(self.bounds, buckets, self.count + 1, self.sum_seconds + seconds)


@dataclass(frozen=True, slots=True)
class Scaling:
    """A decision that changed the size of its group."""

    at: float
    before: int
    admitted: int
    reason: ReasonCode | None
    """The first of those that were decisive; None where none was told."""

    @property
    def direction(self) -> Literal["out", "in"]:
        """Whether it added instances or removed some."""
        return "out" if self.admitted > self.before else "in"


@dataclass(frozen=True, slots=True)
class GroupTotals:
    """Monotone counts since the daemon's start, of one group."""

    reasons: Mapping[str, int] = field(default_factory=dict)
    """Decisions by reason code."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed actions by kind of error."""
    clones: Durations = field(default_factory=Durations)
    """From the intent to the started domain."""
    launches: Durations = field(default_factory=Durations)
    """From the intent to ready."""
    removals: Durations = field(default_factory=Durations)
    transitions: Mapping[str, int] = field(default_factory=dict)
    """Instances that came into a state."""
    failed_launches: int = 0
    """Instances that were lost before they ever were ready."""
    scalings: Mapping[str, int] = field(default_factory=dict)
    """Decisions that changed the size, by direction."""
    scaled: Scaling | None = None
    """The last of them."""
    admitted: int | None = None
    """What the last decision admitted."""


@dataclass(frozen=True, slots=True)
class Totals:
    """Monotone counts since the daemon's start."""

    groups: Mapping[str, GroupTotals] = field(default_factory=dict)
    ticks: Durations = field(default_factory=Durations)
    tick_failures: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything there is to see."""

    version: str
    controller: str
    started_at: float
    at: float
    interval_seconds: float
    tick: TickStatus | None = None
    last_success_at: float | None = None
    reload: ReloadStatus | None = None
    hosts: tuple[HostStatus, ...] = ()
    groups: tuple[GroupStatus, ...] = ()
    images: tuple[ImageLaunches, ...] = ()
    totals: Totals = field(default_factory=Totals)
    webhooks: Mapping[str, int] = field(default_factory=dict)
    """Webhooks' attempts and deliveries since the daemon's start, by what became of them."""
    room: tuple[HostRoom, ...] = ()
