"""Target tracking: as many instances as carry the demand at the target load.

The arithmetic is the Horizontal Pod Autoscaler's `ceil(count x metric / target)`, applied to the demand (the summed
load of what was measured) instead of to the count, so that instances still booting do not call for more of themselves.
What could not be measured is taken as idle when scaling out and as full when scaling in.
"""

from math import ceil

from autoscaler.core.decision import ReasonCode, Recommendation, because
from autoscaler.core.policy import Behavior, TargetTracking
from autoscaler.core.reading import Demand
from autoscaler.core.strategies import View

_ROUNDING_DIGITS = 9
"""Below this, a quotient differs from a whole number by floating point alone."""


def recommend(strategy: TargetTracking, view: View) -> Recommendation:
    """Wish for a count."""
    name = f"target_tracking {strategy.source}"
    demand, load = view.reading.demand, view.reading.value
    if demand is None or load is None:
        return Recommendation(name, None, because(ReasonCode.NO_SIGNAL, metric=strategy.metric))
    count, code = count_for(demand, view.current, strategy.target, view.behavior)
    unit = strategy.kind.unit.value
    reason = because(code, metric=strategy.metric, load=load, target=strategy.target, unit=unit, count=count)
    return Recommendation(name, count, reason)


def count_for(demand: Demand, current: int, target: float, behavior: Behavior) -> tuple[int, ReasonCode]:
    """Give the count that carries a demand, and what it follows from."""
    needed, possible = _instances(demand.low, target), _instances(demand.high, target)
    carried = current * target
    if needed > current:
        if demand.low > carried * (1 + behavior.tolerance_out):
            return needed, ReasonCode.TARGET_EXCEEDED
        return current, ReasonCode.WITHIN_TOLERANCE
    if possible < current:
        if demand.high < carried * (1 - behavior.tolerance_in):
            return possible, ReasonCode.TARGET_UNDERRUN
        return current, ReasonCode.WITHIN_TOLERANCE
    return current, ReasonCode.WITHIN_TARGET


def highest_tolerable(strategy: TargetTracking, behavior: Behavior) -> float:
    """Give the load from which on it would scale out."""
    return strategy.target * (1 + behavior.tolerance_out)


def _instances(demand: float, target: float) -> int:
    return max(ceil(round(demand / target, _ROUNDING_DIGITS)), 0)
