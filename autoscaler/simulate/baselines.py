"""Published algorithms, to be measured against on the same plant. Each is a plain function that makes a controller.

The bounds are applied to all alike by `bounded`. Where a source polls more slowly than the simulation steps, it acts
at its own pace.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor

from autoscaler.core.policy import Size
from autoscaler.simulate.rehearsal import Controller, Scenario, Seen

_ROUNDING_DIGITS = 9


@dataclass(slots=True)
class Asked:
    """A controller made of a function, with the warm-up it wants to be told of."""

    decide: Callable[[Seen], int]
    warm_up_seconds: float = 0.0

    def __call__(self, seen: Seen) -> int:
        """Ask it."""
        return self.decide(seen)


def bounded(decide: Callable[[Seen], int], size: Size) -> Callable[[Seen], int]:
    """Keep a count within min and max."""
    return lambda seen: min(max(decide(seen), size.min), size.max)


def _up(value: float) -> int:
    return ceil(round(value, _ROUNDING_DIGITS))


def hpa_count(count: int, ready: int, load: float, target: float, tolerance: float = 0.1) -> int:
    """Give the Horizontal Pod Autoscaler's wish before its limits.

    kubernetes/kubernetes pkg/controller/podautoscaler/replica_calculator.go, GetResourceReplicas: ceil(ready x ratio),
    ignored within the tolerance; pods not ready yet count as idle when that would scale out, and if that takes the
    ratio back across 1, nothing is done.
    """
    ratio = load / target
    booting = count - ready
    if booting > 0 and ratio > 1:
        ratio = load * ready / (count * target)
        return count if ratio <= 1 + tolerance else _up(ratio * count)
    if abs(ratio - 1) <= tolerance:
        return count
    return _up(ratio * ready)


def hpa(target: float, size: Size) -> Controller:
    """Make a Horizontal Pod Autoscaler with its defaults.

    autoscaling/v2 HorizontalPodAutoscalerBehavior: every 15 s; out at most the larger of +100 % and +4 pods per 15 s;
    in to the highest wish of the last 300 s.
    """
    wishes: deque[tuple[float, int]] = deque()

    def decide(seen: Seen) -> int:
        count = seen.desired
        wish = count if seen.load is None else hpa_count(count, seen.ready, seen.load, target)
        wish = min(max(wish, size.min), size.max)
        while wishes and (wishes[-1][1] <= wish or wishes[0][0] <= seen.at - 300):
            if wishes[-1][1] <= wish:
                wishes.pop()
            else:
                wishes.popleft()
        wishes.append((seen.at, wish))
        if wish > count:
            return min(wish, max(2 * count, count + 4))
        return min(count, wishes[0][1])

    return Asked(bounded(decide, size))


def aws(target: float, size: Size) -> Controller:
    """Make AWS target tracking, with detailed monitoring.

    Amazon EC2 Auto Scaling User Guide, "Target tracking scaling policies": alarms on one-minute averages, out after 3
    above the target, in after 15 below 90 % of it; default instance warm-up 300 s, in which an instance counts for the
    capacity but not for the metric, and no scale-in happens.
    """
    points: deque[float] = deque(maxlen=15)
    minute: list[float] = []
    ends = [float("-inf")]

    def decide(seen: Seen) -> int:
        count = seen.desired
        if seen.load is not None:
            minute.append(seen.load)
        if seen.at < ends[0]:
            return count
        ends[0] = seen.at + 60
        if not minute:
            return count
        points.append(sum(minute) / len(minute))
        minute.clear()
        newest = list(points)
        warming = seen.warming + count - seen.ready
        if len(newest) >= 3 and min(newest[-3:]) > target:
            return max(count, _up((count - warming) * newest[-1] / target))
        if len(newest) == 15 and max(newest) < 0.9 * target and not warming:
            return min(count, _up(count * newest[-1] / target))
        return count

    return Asked(bounded(decide, size), warm_up_seconds=300.0)


def nomad(target: float, size: Size) -> Controller:
    """Make Nomad Autoscaler's target-value strategy.

    hashicorp/nomad-autoscaler plugins/builtin/strategy/target-value/plugin/plugin.go: ceil(count x metric/target),
    nothing within a threshold of 1 %; policy default cooldown 5 min after an action.
    """
    cooled = [float("-inf")]

    def decide(seen: Seen) -> int:
        count = seen.desired
        if seen.load is None or seen.at < cooled[0]:
            return count
        factor = seen.load / target
        wish = count if abs(factor - 1) <= 0.01 else _up(count * factor)
        wish = min(max(wish, size.min), size.max)
        if wish != count:
            cooled[0] = seen.at + 300
        return wish

    return Asked(decide)


def react(target: float, size: Size) -> Controller:
    """Make React: one more when all instances are above the upper threshold, one less when two could do with one.

    T. C. Chieu et al., "Dynamic Scaling of Web Applications in a Virtualized Cloud Computing Environment", ICEBE 2009.
    The threshold is `target`; evenly spread load is above it on all instances or on none, and one is idle when the
    others would stay below it. It waits for what it asked for.
    """

    def decide(seen: Seen) -> int:
        count = seen.desired
        if seen.load is None or count > seen.ready:
            return count
        if seen.load > target:
            return count + 1
        if count > 1 and seen.load * count / (count - 1) < target:
            return count - 1
        return count

    return Asked(bounded(decide, size))


def cloudstack(target: float, size: Size) -> Controller:
    """Make CloudStack's VM groups: one at a time on a condition that held for its duration, then a quiet time.

    Apache CloudStack Administration Guide, "Configuring AutoScale": polling interval 30 s, quiet time 300 s. The
    conditions, which have no default, are: above `target` for 60 s, below half of it for 60 s.
    """
    begun = {"above": float("inf"), "below": float("inf")}
    next_poll = [float("-inf")]
    quiet = [float("-inf")]

    def decide(seen: Seen) -> int:
        count, at = seen.desired, seen.at
        if seen.load is None or at < next_poll[0]:
            return count
        next_poll[0] = at + 30
        for name, holds in (("above", seen.load > target), ("below", seen.load < target / 2)):
            begun[name] = min(begun[name], at) if holds else float("inf")
        if at < quiet[0]:
            return count
        change = (begun["above"] <= at - 60) - (begun["below"] <= at - 60)
        wish = min(max(count + change, size.min), size.max)
        if wish != count:
            quiet[0] = at + 300
        return wish

    return Asked(decide)


def static(count: int) -> Controller:
    """Hold a fixed count, as where nothing scales."""
    return Asked(lambda _seen: count)


def oracle(scenario: Scenario) -> Controller:
    """Know the demand one boot delay ahead: see `measures`."""
    counts = iter(scenario.oracle)
    return Asked(lambda _seen: next(counts))


@dataclass(frozen=True, slots=True)
class Published:
    """An algorithm with a target, and the target it comes with (a fraction of one instance's capacity)."""

    make: Callable[[float, Size], Controller]
    default_target: float
    source: str


ALGORITHMS: Mapping[str, Published] = {
    "hpa": Published(hpa, 0.8, "Kubernetes HPA v2"),
    "aws": Published(aws, 0.5, "AWS target tracking"),
    "nomad": Published(nomad, 0.7, "Nomad target-value"),
    "react": Published(react, 0.7, "React, Chieu 2009"),
    "cloudstack": Published(cloudstack, 0.7, "CloudStack"),
}
NAMES = (*ALGORITHMS, "static", "oracle")


def static_counts(scenario: Scenario, within: float) -> tuple[int, int]:
    """Give the fixed counts that keep the line always, and but for a share `within` of the time."""
    needed, size = sorted(scenario.needed), scenario.size
    allowed = floor(within * len(needed) + 1e-9)
    always, mostly = (min(max(count, size.min), size.max) for count in (needed[-1], needed[-1 - allowed]))
    return always, mostly
