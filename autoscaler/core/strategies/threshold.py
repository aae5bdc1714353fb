"""Thresholds: add once the signal has stayed above a line, remove once it has stayed below another.

"Stayed" is CloudStack's and Azure's duration (every sample of the window, without a gap), or CloudWatch's M out of N
datapoints; of those, only the ones since the count last changed, so that one rise is not answered twice. A scale-out is
judged with whatever is unmeasured as idle, a scale-in with it as full.
"""

from collections.abc import Callable, Sequence

from autoscaler.core.decision import Parameter, ReasonCode, Recommendation, because
from autoscaler.core.memory import LoadSample
from autoscaler.core.policy import ThresholdScaling
from autoscaler.core.strategies import View
from autoscaler.core.windows import is_full, trim


def recommend(strategy: ThresholdScaling, view: View) -> Recommendation:
    """Wish for a count; abstains where nothing is to be added and nothing could be removed."""
    name = f"threshold {strategy.source}"
    newest, current = view.reading.newest, view.current
    if newest is None or newest.value is None:
        return Recommendation(name, None, because(ReasonCode.NO_SIGNAL, metric=strategy.metric))
    about: dict[str, Parameter] = {
        "metric": strategy.metric,
        "load": newest.value,
        "unit": strategy.kind.unit.value,
    }
    above, below = strategy.above, strategy.below
    if above is not None and _stayed(view, strategy, lambda sample: _least(sample) > above, whole=False):
        count = max(current, view.serving + strategy.add)
        return Recommendation(name, count, because(ReasonCode.ABOVE_THRESHOLD, **about, target=above, count=count))
    if below is not None and _stayed(view, strategy, lambda sample: _most(sample) < below, whole=True):
        count = max(current - strategy.remove, 0)
        return Recommendation(name, count, because(ReasonCode.BELOW_THRESHOLD, **about, target=below, count=count))
    reason = because(ReasonCode.WITHIN_THRESHOLDS, **about, count=current)
    return Recommendation(name, current, reason, abstains=below is None)


def _stayed(view: View, strategy: ThresholdScaling, breaches: Callable[[LoadSample], bool], *, whole: bool) -> bool:
    """Whether the condition held for its duration, or in enough samples; `whole` asks for all samples to be there."""
    reading = view.reading
    if strategy.samples is not None and strategy.breaches is not None:
        since = float("-inf") if view.changed_at is None else view.changed_at
        last = [sample for sample in reading.samples[-strategy.samples :] if sample.at > since]
        if whole and not (reading.is_full and len(last) == strategy.samples):
            return False
        return _fresh(last, view) and sum(map(breaches, last)) >= strategy.breaches
    window = trim(reading.samples, reading.at, strategy.over_seconds)
    full = is_full(window, reading.at, strategy.over_seconds, reading.interval_seconds)
    return full and all(map(breaches, window))


def _fresh(samples: Sequence[LoadSample], view: View) -> bool:
    return bool(samples) and view.reading.at - samples[-1].at <= 2 * view.reading.interval_seconds


def _least(sample: LoadSample) -> float:
    """Give the value with what is unmeasured as idle; what could not be told is above no line."""
    known = sample.value if sample.least is None else sample.least
    return float("-inf") if sample.value is None or known is None else known


def _most(sample: LoadSample) -> float:
    """Give the value with what is unmeasured as full; what could not be told is below no line."""
    known = sample.value if sample.most is None else sample.most
    return float("inf") if sample.value is None or known is None else known
