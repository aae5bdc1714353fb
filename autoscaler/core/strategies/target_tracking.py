"""Target tracking: as many instances as carry the demand at the target load.

The arithmetic is the Horizontal Pod Autoscaler's `ceil(count x metric / target)`, applied to the demand (the summed
load of what was measured) instead of to the count, so that instances still booting do not call for more of themselves.
What could not be measured is taken as idle when scaling out and as full when scaling in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from autoscaler.core.decision import Input, ReasonCode, Recommendation, because
from autoscaler.core.memory import LoadSample
from autoscaler.core.policy import TargetTracking
from autoscaler.core.windows import is_full, weights

_ROUNDING_DIGITS = 9
"""Below this, a quotient differs from a whole number by floating point alone."""


@dataclass(frozen=True, slots=True)
class Demand:
    """A window's demand in busy instances, between what is certain and what is possible."""

    low: float
    high: float


def demand_over(
    strategy: TargetTracking, samples: Sequence[LoadSample], at: float, interval_seconds: float
) -> Demand | None:
    """Average the window's samples by the time each speaks for; None without samples."""
    weighed = weights(samples, at, strategy.over_seconds, interval_seconds)
    total = sum(weight for _, weight in weighed)
    if total <= 0:
        return None
    return Demand(
        low=sum(sample.low * weight for sample, weight in weighed) / total,
        high=sum(sample.high * weight for sample, weight in weighed) / total,
    )


def describe_input(
    strategy: TargetTracking, samples: Sequence[LoadSample], at: float, interval_seconds: float
) -> Input:
    """Record what the strategy sees."""
    weighed = weights(samples, at, strategy.over_seconds, interval_seconds)
    known = [(sample.value, weight) for sample, weight in weighed if sample.value is not None and weight > 0]
    total = sum(weight for _, weight in known)
    newest = samples[-1] if samples else None
    measured = next((sample for sample in reversed(samples) if sample.value is not None), None)
    return Input(
        metric=strategy.metric,
        value=sum(value * weight for value, weight in known) / total if known else None,
        latest=measured.value if measured else None,
        age_seconds=at - measured.at if measured else None,
        target=strategy.target,
        measured=newest.measured if newest else 0,
        warming=newest.warming if newest else 0,
        missing=newest.missing if newest else 0,
        window_seconds=strategy.over_seconds,
        window_full=is_full(samples, at, strategy.over_seconds, interval_seconds),
        across=strategy.across,
        steal=measured.steal if measured else None,
    )


def recommend(
    strategy: TargetTracking, demand: Demand | None, load: float | None, current: int, tolerance: float
) -> Recommendation:
    """Wish for a count; `current` is the count now, `load` the window's load for the record."""
    name = f"target_tracking {strategy.metric}"
    if demand is None or load is None:
        return Recommendation(name, None, because(ReasonCode.NO_SIGNAL, metric=strategy.metric))
    count, code = _count(demand, current, strategy.target, tolerance)
    reason = because(code, metric=strategy.metric, load=load, target=strategy.target, count=count)
    return Recommendation(name, count, reason)


def _count(demand: Demand, current: int, target: float, tolerance: float) -> tuple[int, ReasonCode]:
    needed, possible = _instances(demand.low, target), _instances(demand.high, target)
    carried = current * target
    if needed > current:
        if demand.low > carried * (1 + tolerance):
            return needed, ReasonCode.TARGET_EXCEEDED
        return current, ReasonCode.WITHIN_TOLERANCE
    if possible < current:
        if demand.high < carried * (1 - tolerance):
            return possible, ReasonCode.TARGET_UNDERRUN
        return current, ReasonCode.WITHIN_TOLERANCE
    return current, ReasonCode.WITHIN_TARGET


def _instances(demand: float, target: float) -> int:
    return ceil(round(demand / target, _ROUNDING_DIGITS))
