"""The section `scaling` of a policy file: strategies, the signals they look at, and what they become for the core."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from autoscaler.core.metrics import METRICS, POOL_FREE, PROMETHEUS, Source, Unit
from autoscaler.core.policy import Schedule, Signal, Size, Step, StepScaling, Strategy, TargetTracking, ThresholdScaling
from autoscaler.core.signals import FULL
from autoscaler.policy.calendar import read_cron, read_timezone
from autoscaler.policy.fields import DAY, HOUR, Duration, Flag, Name, Text, Whole, count, duration, seconds
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    BrokenRulesError,
    WrongValueError,
    found,
    one_of,
    read_number,
    read_share,
    read_size,
    read_statistic,
    read_whole,
    write_duration,
    write_number,
    write_share,
    write_size,
)

_SIGNAL = Signal("")
_THRESHOLD = ThresholdScaling("")
_MOST = 1000
_SAMPLES = re.compile(r"([1-9][0-9]?) of ([1-9][0-9]?)")

# How a figure of a metric is written; read and checked once the metric is known.
_Figure = Annotated[Any, WithJsonSchema({"type": ["string", "number"], "examples": ["60%", "20MiB", 50]})]
_Across = Annotated[str, BeforeValidator(read_statistic("avg", "max", "min", "sum"))]
_Take = Annotated[str, BeforeValidator(read_statistic("avg", "max", "last"))]


def read_figure(value: object, metric: str, across: str | None = None) -> float:
    """Read a value of a metric as it is written for its unit."""
    match METRICS[metric].unit:
        case Unit.SHARE:
            figure = read_share(value)
            if figure > FULL and across != "sum":
                raise WrongValueError(f"{write_share(figure)} is out of bounds; {metric} is never above 100%")
            return figure
        case Unit.BYTES | Unit.BYTES_PER_SECOND:
            return float(read_size(value))
    number = read_number(value)
    if number < 0 and metric != PROMETHEUS:
        raise WrongValueError(f"{value} is out of bounds; {metric} is never below 0")
    return number


def write_figure(value: float, metric: str) -> object:
    """Write what `read_figure` reads."""
    match METRICS[metric].unit:
        case Unit.SHARE:
            return write_share(value)
        case Unit.BYTES | Unit.BYTES_PER_SECOND:
            return write_size(int(value))
    return write_number(value)


def _read_amount(value: object) -> float:
    """Read a number of instances, an int, or a share of them, a float."""
    amount = read_share(value) if isinstance(value, str) else read_whole(value)
    if amount <= 0:
        raise WrongValueError(f"{value} is out of bounds; allowed: above 0")
    return amount


_Amount = Annotated[
    Any,
    BeforeValidator(_read_amount),
    WithJsonSchema({"type": ["string", "integer"], "examples": [1, "50%"]}),
]


class SignalSection(Section):
    """What a strategy looks at."""

    metric: Annotated[
        str, BeforeValidator(one_of(METRICS)), WithJsonSchema({"type": "string", "enum": sorted(METRICS)})
    ]
    query: Text | None = None
    per_instance: Flag = _SIGNAL.per_instance
    pool: Name | None = None
    across: _Across = _SIGNAL.across

    @field_validator("query", "per_instance", "pool", "across")
    @classmethod
    def _fits(cls, value: object, info: ValidationInfo) -> object:
        metric = info.data.get("metric")
        if metric is None:
            return value
        belongs = {"query": metric == PROMETHEUS, "per_instance": metric == PROMETHEUS, "pool": metric == POOL_FREE}
        if info.field_name == "across" and METRICS[metric].source is not Source.GUEST and value != _SIGNAL.across:
            raise WrongValueError(f"{metric} is one value, not one of each instance; remove across")
        if not belongs.get(info.field_name or "", True) and value:
            raise WrongValueError(f"{metric} has no {info.field_name}; remove it")
        return value

    @model_validator(mode="after")
    def _has_query(self) -> Self:
        if self.metric == PROMETHEUS and self.query is None:
            raise WrongValueError("the key 'query' is missing; write the PromQL expression to scale by")
        return self

    def signal(self, pool: str) -> dict[str, Any]:
        """Give the fields of the core's signal; `pool` is the group's own."""
        own = self.pool or pool
        return {
            "metric": self.metric,
            "across": self.across,
            "query": self.query,
            "per_instance": self.per_instance,
            "pool": own if self.metric == POOL_FREE else None,
        }


class _WindowSection(SignalSection):
    """A signal over a window."""

    over: Annotated[Duration, seconds(1, HOUR)] = duration(_SIGNAL.over_seconds)
    take: _Take = _SIGNAL.take

    def signal(self, pool: str) -> dict[str, Any]:
        """Give the fields of the core's signal; `pool` is the group's own."""
        return {**super().signal(pool), "over_seconds": self.over, "take": self.take}


class TargetTrackingSection(_WindowSection):
    """Keep the load near a target."""

    TAG: ClassVar[str | None] = "target_tracking"
    type: Literal["target_tracking"]
    target: _Figure

    @field_validator("target")
    @classmethod
    def _target(cls, value: object, info: ValidationInfo) -> object:
        metric = info.data.get("metric")
        if metric is None:
            return value
        target = read_figure(value, metric, info.data.get("across"))
        if target <= 0:
            raise WrongValueError(f"{write_figure(target, metric)} is out of bounds; a target is above 0")
        return target

    @field_validator("metric")
    @classmethod
    def _rises(cls, value: str) -> str:
        if METRICS[value].falls:
            raise WrongValueError(f"{value} falls as load rises, so no target can be kept; use step or threshold")
        return value

    @field_validator("across")
    @classmethod
    def _shared(cls, value: str) -> str:
        if value == "sum":
            raise WrongValueError("a sum does not fall with more instances, so no target can be kept; use avg")
        return value

    def to_core(self, pool: str) -> TargetTracking:
        """Give the core's strategy."""
        return TargetTracking(target=self.target, **self.signal(pool))


class StepSection(Section):
    """What to do while the signal lies between two bounds."""

    from_: _Figure | None = None
    to: _Figure | None = None
    add: _Amount | None = None
    remove: _Amount | None = None
    exact: Annotated[Whole, count(0, _MOST)] | None = None

    def to_core(self, metric: str, across: str | None) -> Step:
        """Give the core's step. Raises WrongValueError for bounds that are not written as the metric is."""
        lower, upper = (_bound(self, key, metric, across) for key in ("from", "to"))
        if lower is None and upper is None:
            raise WrongValueError("a step needs a bound; write from, to or both")
        if lower is not None and upper is not None and lower >= upper:
            raise WrongValueError(f"{found(self.from_)} is not below to, which is {found(self.to)}", below=("from",))
        given = [name for name in ("add", "remove", "exact") if getattr(self, name) is not None]
        if len(given) != 1:
            raise WrongValueError("a step does one thing; write one of add, remove and exact")
        sign = -1 if self.remove is not None else 1
        amount = self.remove if self.add is None else self.add
        return Step(
            lower,
            upper,
            change=sign * amount if isinstance(amount, int) else None,
            percent=sign * amount if isinstance(amount, float) else None,
            exact=self.exact,
        )


def _bound(step: StepSection, key: str, metric: str, across: str | None) -> float | None:
    value = step.from_ if key == "from" else step.to
    if value is None:
        return None
    try:
        return read_figure(value, metric, across)
    except WrongValueError as error:
        raise WrongValueError(str(error), below=(key,)) from error


class StepScalingSection(_WindowSection):
    """Change the count by how far the signal has gone."""

    TAG: ClassVar[str | None] = "step"
    type: Literal["step"]
    steps: list[StepSection]

    @field_validator("steps")
    @classmethod
    def _steps(cls, value: list[StepSection], info: ValidationInfo) -> list[StepSection]:
        metric = info.data.get("metric")
        if metric is None:
            return value
        if not value:
            raise WrongValueError("a step policy needs steps; write at least one")
        errors: list[WrongValueError] = []
        known: list[tuple[int, Step]] = []
        for index, section in enumerate(value):
            try:
                known.append((index, section.to_core(metric, info.data.get("across"))))
            except WrongValueError as error:
                errors.append(WrongValueError(str(error), below=(index, *error.below)))
        if errors := errors or list(_overlaps(known)):
            raise BrokenRulesError(errors)
        return value

    def to_core(self, pool: str) -> StepScaling:
        """Give the core's strategy."""
        return StepScaling(
            steps=tuple(step.to_core(self.metric, self.across) for step in self.steps), **self.signal(pool)
        )


def _overlaps(steps: Sequence[tuple[int, Step]]) -> Iterator[WrongValueError]:
    """Find steps that speak of the same values."""
    infinite = float("inf")
    ordered = sorted(steps, key=lambda entry: -infinite if entry[1].lower is None else entry[1].lower)
    for (first, before), (second, after) in pairwise(ordered):
        if before.upper is None or after.lower is None or after.lower < before.upper:
            yield WrongValueError(f"overlaps with steps[{min(first, second)}]", below=(max(first, second),))


class ThresholdSection(SignalSection):
    """Add above a line, remove below another, once the signal has stayed there."""

    TAG: ClassVar[str | None] = "threshold"
    type: Literal["threshold"]
    above: _Figure | None = None
    below: _Figure | None = None
    for_: Annotated[Duration, seconds(0, HOUR)] = duration(_THRESHOLD.over_seconds)
    samples: Text | None = None
    add: Annotated[Whole, count(1, _MOST)] = _THRESHOLD.add
    remove: Annotated[Whole, count(1, _MOST)] = _THRESHOLD.remove

    @field_validator("above", "below")
    @classmethod
    def _line(cls, value: object, info: ValidationInfo) -> object:
        metric = info.data.get("metric")
        if metric is None or value is None:
            return value
        line, above = read_figure(value, metric, info.data.get("across")), info.data.get("above")
        if info.field_name == "below" and isinstance(above, float) and line > above:
            raise WrongValueError(f"{found(value)} is above the line above, {write_figure(above, metric)}")
        return line

    @field_validator("samples")
    @classmethod
    def _n_of_m(cls, value: str | None, info: ValidationInfo) -> str | None:
        parts = _SAMPLES.fullmatch(value) if value is not None else None
        if value is not None and (parts is None or int(parts[1]) > int(parts[2])):
            raise WrongValueError(f"must be written N of M, such as 3 of 5, not {found(value)}")
        if value is not None and info.data.get("for_") != _THRESHOLD.over_seconds:
            raise WrongValueError("a condition holds for a duration or in a number of samples; remove for or samples")
        return value

    @model_validator(mode="after")
    def _has_line(self) -> Self:
        if self.above is None and self.below is None:
            raise WrongValueError("a threshold policy needs a line; write above, below or both")
        return self

    def to_core(self, pool: str) -> ThresholdScaling:
        """Give the core's strategy."""
        parts = _SAMPLES.fullmatch(self.samples) if self.samples is not None else None
        return ThresholdScaling(
            above=self.above,
            below=self.below,
            over_seconds=self.for_,
            breaches=int(parts[1]) if parts else None,
            samples=int(parts[2]) if parts else None,
            add=self.add,
            remove=self.remove,
            **self.signal(pool),
        )


class ScheduleSection(Section):
    """Bounds or a count for spans that begin by a calendar."""

    TAG: ClassVar[str | None] = "schedule"
    type: Literal["schedule"]
    cron: Annotated[str, BeforeValidator(read_cron)]
    timezone: Annotated[str, BeforeValidator(read_timezone)] = "UTC"
    for_: Annotated[Duration, seconds(1, 7 * DAY)]
    min: Annotated[Whole, count(0, _MOST)] | None = None
    max: Annotated[Whole, count(0, _MOST)] | None = None
    desired: Annotated[Whole, count(0, _MOST)] | None = None

    @field_validator("max")
    @classmethod
    def _above_min(cls, value: int | None, info: ValidationInfo) -> int | None:
        low = info.data.get("min")
        if value is not None and low is not None and value < low:
            raise WrongValueError(f"{value} is less than min, which is {low}")
        return value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.min is None and self.max is None and self.desired is None:
            raise WrongValueError("a schedule changes something; write min, max or desired")
        return self

    def to_core(self, pool: str) -> Schedule:  # noqa: ARG002 - all kinds are made alike
        """Give the core's strategy."""
        return Schedule(self.cron, self.timezone, self.for_, self.min, self.max, self.desired)


class UnknownKindSection(Section):
    """A strategy of no known kind; always refused for its type."""

    TAG: ClassVar[str | None] = ""
    type: Annotated[
        str,
        BeforeValidator(one_of(["target_tracking", "step", "threshold", "schedule"])),
        WithJsonSchema({"type": "string", "const": ""}),
    ]

    model_config = ConfigDict(extra="ignore")

    def to_core(self, pool: str) -> Strategy:
        """Never called: no file that is valid holds one."""
        raise AssertionError(pool)


def _tag(entry: object) -> str:
    word = entry.get("type") if isinstance(entry, dict) else getattr(entry, "TAG", None)
    known = (TargetTrackingSection, StepScalingSection, ThresholdSection, ScheduleSection)
    return word if isinstance(word, str) and any(word == section.TAG for section in known) else ""


StrategySection = Annotated[
    Annotated[TargetTrackingSection, Tag("target_tracking")]
    | Annotated[StepScalingSection, Tag("step")]
    | Annotated[ThresholdSection, Tag("threshold")]
    | Annotated[ScheduleSection, Tag("schedule")]
    | Annotated[UnknownKindSection, Tag("")],
    Discriminator(_tag),
]


def twice(scaling: Sequence[Strategy]) -> Iterator[WrongValueError]:
    """Find targets for one and the same figure."""
    seen: dict[Signal, int] = {}
    for index, entry in enumerate(scaling):
        if not isinstance(entry, TargetTracking):
            continue
        first = seen.setdefault(replace(entry, target=1.0), index)
        if first != index:
            over = write_duration(entry.over_seconds)
            message = f"{entry.metric} {entry.across} over {over} has a target, in scaling[{first}]"
            yield WrongValueError(message, ("scaling", index))


def poolless(scaling: Sequence[Strategy]) -> Iterator[WrongValueError]:
    """Find free space that is to be looked at in no pool, where the image does not name one."""
    for index, entry in enumerate(scaling):
        if isinstance(entry, Signal) and entry.pool == "":
            message = f"{entry.metric} needs a pool here, as an image by its name may be in any; write pool"
            yield WrongValueError(message, ("scaling", index))


def unreachable(scaling: Sequence[Strategy], tolerance: float) -> Iterator[WrongValueError]:
    """Find targets so high that a group under full load would still be within its tolerance."""
    for index, entry in enumerate(scaling):
        if not isinstance(entry, TargetTracking) or entry.kind.unit is not Unit.SHARE:
            continue
        if entry.target * (1 + tolerance) >= FULL:
            message = (
                f"{write_share(entry.target)} with a tolerance of {write_share(tolerance)} reaches 100%, and no load is"
                " above that: the group would never scale out; lower the target or behavior.tolerance"
            )
            yield WrongValueError(message, ("scaling", index, "target"))


def blind(scaling: Sequence[Strategy], size: Size) -> Iterator[WrongValueError]:
    """Find groups that could never tell that they must leave zero."""
    signals = [entry for entry in scaling if isinstance(entry, Signal)]
    if size.min > 0 or not signals or any(signal.exists_at_zero for signal in signals):
        return
    names = " and ".join(sorted({signal.metric for signal in signals}))
    message = f"must be at least 1 with scaling by {names}: without an instance nothing runs to be measured"
    yield WrongValueError(message, ("size", "min"))


def beyond(scaling: Sequence[Strategy], size: Size) -> Iterator[WrongValueError]:
    """Find counts of schedules and steps that the group's size does not allow."""
    for index, entry in enumerate(scaling):
        counts: list[tuple[tuple[int | str, ...], int | None]] = []
        if isinstance(entry, Schedule):
            counts = [(("min",), entry.min), (("max",), entry.max), (("desired",), entry.desired)]
        elif isinstance(entry, StepScaling):
            counts = [(("steps", number, "exact"), step.exact) for number, step in enumerate(entry.steps)]
        for below, number in counts:
            if number is not None and not size.min <= number <= size.max:
                message = f"{number} is out of bounds; the group's size allows {size.min} to {size.max}"
                yield WrongValueError(message, ("scaling", index, *below))


def to_data(strategy: Strategy) -> dict[str, object]:
    """Turn a core strategy into the plain data of its entry, with every default written out."""
    match strategy:
        case TargetTracking():
            figure = write_figure(strategy.target, strategy.metric)
            return {"type": "target_tracking", **_signal_data(strategy), "target": figure, **_window_data(strategy)}
        case StepScaling():
            steps = [_step_data(step, strategy.metric) for step in strategy.steps]
            return {"type": "step", **_signal_data(strategy), **_window_data(strategy), "steps": steps}
        case ThresholdScaling():
            return {"type": "threshold", **_signal_data(strategy), **_threshold_data(strategy)}
    bounds = {"min": strategy.min, "max": strategy.max, "desired": strategy.desired}
    return {
        "type": "schedule",
        "cron": strategy.cron,
        "timezone": strategy.timezone,
        "for": write_duration(strategy.for_seconds),
        **{key: value for key, value in bounds.items() if value is not None},
    }


def _signal_data(signal: Signal) -> dict[str, object]:
    data: dict[str, object] = {"metric": signal.metric}
    if signal.metric == PROMETHEUS:
        data |= {"query": signal.query, "per_instance": signal.per_instance}
    if signal.pool is not None:
        data["pool"] = signal.pool
    if signal.kind.source is Source.GUEST:
        data["across"] = signal.across
    return data


def _window_data(signal: Signal) -> dict[str, object]:
    return {"over": write_duration(signal.over_seconds), "take": signal.take}


def _step_data(step: Step, metric: str) -> dict[str, object]:
    bounds = {"from": step.lower, "to": step.upper}
    data = {key: write_figure(bound, metric) for key, bound in bounds.items() if bound is not None}
    if step.exact is not None:
        return data | {"exact": step.exact}
    key = "add" if step.adds else "remove"
    if step.change is not None:
        return data | {key: abs(step.change)}
    return data | {key: write_share(abs(step.percent or 0.0))}


def _threshold_data(strategy: ThresholdScaling) -> dict[str, object]:
    lines = {"above": strategy.above, "below": strategy.below}
    data = {key: write_figure(line, strategy.metric) for key, line in lines.items() if line is not None}
    if strategy.samples is None:
        data["for"] = write_duration(strategy.over_seconds)
    else:
        data["samples"] = f"{strategy.breaches} of {strategy.samples}"
    return data | {"add": strategy.add, "remove": strategy.remove}
