"""What an operator asked for, as the core sees it. `autoscaler.policy` makes these from YAML.

Durations are in seconds, sizes in bytes, shares as fractions of one (0.6 is 60 %).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.metrics import METRICS, PROMETHEUS, Metric, Source


class Mode(StrEnum):
    """Whether decisions are carried out."""

    ACTIVE = "active"
    SHADOW = "shadow"
    """Everything is decided and recorded, nothing is done."""


class Accelerator(StrEnum):
    """How a guest's instructions are run."""

    AUTO = "auto"
    """KVM where a guest was seen to boot under it, emulation elsewhere."""
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class Image:
    """The golden image: a volume of a storage pool on the group's host."""

    pool: str
    volume: str


USER_NETWORK = "user"
"""The network name that stands for QEMU's user-mode networking."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The shape of every instance of a group."""

    vcpus: int = 1
    memory_bytes: int = 1024 * 1024 * 1024
    network: str = "default"
    accelerator: Accelerator = Accelerator.AUTO


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds on the number of instances; `max` counts every owned instance and every clone in flight."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class Signal:
    """What a strategy looks at: a metric, how the instances' values become one, and how a window's become one."""

    metric: str
    across: str = field(default="avg", kw_only=True)
    """Over the instances: avg, max, min, sum, or p1 to p99. Without effect on what is one value by itself."""
    over_seconds: float = field(default=60.0, kw_only=True)
    take: str = field(default="avg", kw_only=True)
    """Of the window: avg (by time), max, last, or p1 to p99."""
    query: str | None = field(default=None, kw_only=True)
    """The PromQL expression of the metric prometheus."""
    per_instance: bool = field(default=False, kw_only=True)
    """Divide what a query gives by the instances that serve."""
    pool: str | None = field(default=None, kw_only=True)
    """The storage pool of the metric host.pool_free."""

    @property
    def kind(self) -> Metric:
        """What is known of the metric."""
        return METRICS[self.metric]

    @property
    def source(self) -> str:
        """What has to be read for it; the key under which an observation holds external figures."""
        detail = self.query if self.metric == PROMETHEUS else self.pool
        return self.metric if detail is None else f"{self.metric} {detail}"

    @property
    def series(self) -> str:
        """The name of the series of group samples it is a window of."""
        if self.kind.source is Source.GUEST:
            return f"{self.across} {self.metric}"
        return f"{self.source} per instance" if self.per_instance else self.source

    @property
    def exists_at_zero(self) -> bool:
        """Whether it can be told while the group has no instance."""
        return self.kind.source is not Source.GUEST and not self.per_instance


@dataclass(frozen=True, slots=True)
class TargetTracking(Signal):
    """Keep the signal near `target`, by as many instances as carry the load."""

    target: float


@dataclass(frozen=True, slots=True)
class Step:
    """What to do while the signal is in [lower, upper): one of `change`, `percent` and `exact` is given."""

    lower: float | None = None
    upper: float | None = None
    change: int | None = None
    """Instances to add; negative to remove."""
    percent: float | None = None
    """The same as a fraction of the count."""
    exact: int | None = None

    @property
    def adds(self) -> bool:
        """Whether it asks for more instances whatever their count."""
        return (self.change or 0) > 0 or (self.percent or 0.0) > 0

    @property
    def removes(self) -> bool:
        """Whether it may ask for fewer instances."""
        return (self.change or 0) < 0 or (self.percent or 0.0) < 0 or self.exact is not None

    def holds(self, value: float) -> bool:
        """Whether `value` lies within."""
        return (self.lower is None or value >= self.lower) and (self.upper is None or value < self.upper)


@dataclass(frozen=True, slots=True)
class StepScaling(Signal):
    """Change the count by how far the signal has gone."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class ThresholdScaling(Signal):
    """Add while the signal stays above a line, remove while it stays below another.

    The condition must hold for all of `over_seconds`, or, with `breaches` and `samples`, in so many of the last ones.
    """

    above: float | None = field(default=None, kw_only=True)
    below: float | None = field(default=None, kw_only=True)
    add: int = field(default=1, kw_only=True)
    remove: int = field(default=1, kw_only=True)
    breaches: int | None = field(default=None, kw_only=True)
    samples: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Bounds or a count for spans that begin by a calendar. When they are active is told by the observation."""

    cron: str
    timezone: str
    for_seconds: float
    min: int | None = None
    max: int | None = None
    desired: int | None = None

    @property
    def key(self) -> str:
        """The key under which an observation tells whether it is active."""
        return f"{self.cron} {self.timezone} {self.for_seconds:g}"


Strategy = TargetTracking | StepScaling | ThresholdScaling | Schedule


class Select(StrEnum):
    """Which of several rate limits counts."""

    MAX = "max"
    """The one that allows the larger change."""
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so much change within a period: a count, or a share of the count at the period's start."""

    per_seconds: float
    count: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class DirectionLimits:
    """What slows a group down in one direction."""

    cooldown_seconds: float
    stabilization_seconds: float
    enabled: bool = True
    rates: tuple[Rate, ...] = ()
    select: Select = Select.MAX
    tolerance: float | None = None
    """How far from its target a signal may be in this direction; None is the behaviour's own."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """What keeps a group steady."""

    tolerance: float = 0.1
    scale_out: DirectionLimits = DirectionLimits(cooldown_seconds=0.0, stabilization_seconds=0.0)
    scale_in: DirectionLimits = DirectionLimits(cooldown_seconds=300.0, stabilization_seconds=300.0)
    quorum: float = 1.0
    """The share of the serving instances that must be measured for a scale-in; the others are then taken as full."""

    @property
    def tolerance_out(self) -> float:
        """How far above its target a signal may be."""
        own = self.scale_out.tolerance
        return self.tolerance if own is None else own

    @property
    def tolerance_in(self) -> float:
        """How far below its target a signal may be."""
        own = self.scale_in.tolerance
        return self.tolerance if own is None else own


@dataclass(frozen=True, slots=True)
class Ready:
    """When an instance counts as ready, and how long it may take from its start."""

    agent: bool = True
    timeout_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Drain:
    """How an instance leaves: asked to shut down, and destroyed after the deadline."""

    deadline_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One group: where it runs, what it is made of, and how it scales."""

    group: str
    image: Image
    size: Size
    hosts: tuple[str, ...] = ("local",)
    mode: Mode = Mode.ACTIVE
    machine: Machine = field(default_factory=Machine)
    scaling: tuple[Strategy, ...] = ()
    behavior: Behavior = field(default_factory=Behavior)
    warm_up_seconds: float = 60.0
    ready: Ready = field(default_factory=Ready)
    drain: Drain = field(default_factory=Drain)

    @property
    def host(self) -> str:
        """The host new instances are cloned on."""
        return self.hosts[0]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What its strategies look at."""
        return tuple(strategy for strategy in self.scaling if isinstance(strategy, Signal))

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules among its strategies."""
        return tuple(strategy for strategy in self.scaling if isinstance(strategy, Schedule))


def metrics_of(policies: Iterable[Policy]) -> frozenset[str]:
    """Name the metrics that some policy scales by."""
    return frozenset(signal.metric for policy in policies for signal in policy.signals)


def queries_of(policies: Iterable[Policy]) -> dict[str, str]:
    """Give the PromQL expressions that some policy scales by, by the key their answer has in an observation."""
    return {signal.source: signal.query for policy in policies for signal in policy.signals if signal.query is not None}


def pools_of(policies: Iterable[Policy]) -> frozenset[tuple[str, str]]:
    """Name the pools whose free space some policy scales by, each as (host, pool)."""
    return frozenset(
        (policy.host, signal.pool) for policy in policies for signal in policy.signals if signal.pool is not None
    )
