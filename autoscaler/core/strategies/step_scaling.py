"""Step scaling: the further the signal has gone, the larger the change.

The arithmetic is that of AWS' step scaling policies, with absolute bounds: a change is applied to the instances that
serve, so that those still booting or warming up are not called for twice; a share is rounded towards zero, but never to
nothing. A scale-out is judged with whatever is unmeasured as idle, a scale-in with it as full.
"""

from autoscaler.core.decision import Parameter, ReasonCode, Recommendation, because
from autoscaler.core.policy import Step, StepScaling
from autoscaler.core.strategies import View


def recommend(strategy: StepScaling, view: View) -> Recommendation:
    """Wish for a count; abstains where nothing is to be added and no step could remove."""
    name = f"step {strategy.source}"
    figures = view.reading.figures
    if figures is None:
        return Recommendation(name, None, because(ReasonCode.NO_SIGNAL, metric=strategy.metric))
    about: dict[str, Parameter] = {
        "metric": strategy.metric,
        "load": figures.value,
        "unit": strategy.kind.unit.value,
    }
    current = view.current
    out = _count(_find(strategy, figures.least), view)
    if out > current:
        return Recommendation(name, out, because(ReasonCode.STEP_OUT, **about, count=out))
    into = _count(_find(strategy, figures.most), view)
    if into < current:
        return Recommendation(name, into, because(ReasonCode.STEP_IN, **about, count=into))
    abstains = not any(step.removes for step in strategy.steps)
    return Recommendation(name, current, because(ReasonCode.WITHIN_STEPS, **about, count=current), abstains)


def would_add(strategy: StepScaling, value: float, count: int) -> bool:
    """Whether at `value`, with `count` instances, it would ask for more."""
    step = _find(strategy, value)
    return step is not None and (step.adds or (step.exact or 0) > count)


def _find(strategy: StepScaling, value: float) -> Step | None:
    return next((step for step in strategy.steps if step.holds(value)), None)


def _count(step: Step | None, view: View) -> int:
    """Give the count a step asks for; the present one without a step."""
    if step is None:
        return view.current
    if step.exact is not None:
        return step.exact
    if step.adds:
        return max(view.current, view.serving + _change(step, view.serving))
    return max(view.current - _change(step, view.current), 0)


def _change(step: Step, count: int) -> int:
    if step.change is not None:
        return abs(step.change)
    return max(int(count * abs(step.percent or 0.0) + 1e-9), 1)
