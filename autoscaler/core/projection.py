"""The load that fewer instances would have to carry, as Azure's autoscale projects it before every scale-in.

A strategy that would call for more at the new count vetoes it; a smaller step is tried then, and none if none will do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from autoscaler.core.policy import Behavior, StepScaling, TargetTracking, ThresholdScaling
from autoscaler.core.reading import Reading
from autoscaler.core.strategies import step_scaling, target_tracking

_ROUNDING_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Veto:
    """Whose signal would be too high, and how high."""

    reading: Reading
    projected: float


def fewest(readings: Sequence[Reading], wanted: int, current: int, behavior: Behavior) -> tuple[int, Veto | None]:
    """Give the fewest instances from `wanted` on that no strategy objects to, and what speaks against `wanted`."""
    loads = [(reading, load) for reading in readings if (load := _load(reading)) is not None]
    first: Veto | None = None
    for count in range(wanted, current):
        veto = next((veto for entry in loads if (veto := _object(*entry, count, behavior)) is not None), None)
        if veto is None:
            return count, first
        first = first or veto
    return current, first


def _load(reading: Reading) -> float | None:
    """Give the demand that is shared by the instances, with whatever is unmeasured as full; None where it is not."""
    if not reading.scales:
        return None
    demand = reading.demand
    return None if demand is None else demand.high


def _object(reading: Reading, load: float, count: int, behavior: Behavior) -> Veto | None:
    projected = round(load / count, _ROUNDING_DIGITS) if count else (float("inf") if load > 0 else 0.0)
    return Veto(reading, projected) if _exceeds(reading, projected, count, behavior) else None


def _exceeds(reading: Reading, projected: float, count: int, behavior: Behavior) -> bool:
    match reading.signal:
        case TargetTracking() as strategy:
            return projected > round(target_tracking.highest_tolerable(strategy, behavior), _ROUNDING_DIGITS)
        case StepScaling() as strategy:
            return step_scaling.would_add(strategy, projected, count)
        case ThresholdScaling(above=float() as above):
            return projected > above
    return False
