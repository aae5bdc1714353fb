"""What a group is scaled by: signals and strategies."""

from dataclasses import dataclass, field

from autoscaler.core.metrics import METRICS, PROMETHEUS, Metric, Source


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
        return self.kind.source in {Source.HOST, Source.EXTERNAL} and not self.per_instance


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
