"""The arithmetic that other autoscalers publish, from policies that are set to their numbers."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from autoscaler.core.count import decide_count
from autoscaler.core.memory import GroupMemory, LoadSample
from autoscaler.core.observation import Observation
from autoscaler.core.policy import (
    Behavior,
    DirectionLimits,
    Image,
    Policy,
    Rate,
    Select,
    Size,
    Step,
    StepScaling,
    Strategy,
    TargetTracking,
)

LOOSE = DirectionLimits(0.0, 0.0)

HPA = Behavior(
    tolerance=0.1,
    scale_out=DirectionLimits(0.0, 0.0, rates=(Rate(15.0, count=4), Rate(15.0, share=1.0))),
    scale_in=DirectionLimits(0.0, 300.0, rates=(Rate(15.0, share=1.0),)),
)
NOMAD = Behavior(0.01, DirectionLimits(300.0, 0.0), DirectionLimits(300.0, 0.0))
AWS_TRACKING = Behavior(0.1, DirectionLimits(0.0, 120.0, tolerance=0.0), DirectionLimits(0.0, 840.0, tolerance=0.1))


def group(strategy: Strategy, behavior: Behavior, most: int = 1000) -> Policy:
    return Policy("web", Image("p", "v"), Size(1, most), scaling=(strategy,), behavior=behavior)


def drive(policy: Policy, count: int, interval: float, figures: Iterable[Callable[[int], float]]) -> list[int]:
    """Tick a group whose instances serve at once; each figure gives the metric by the count of instances."""
    memory, counts = GroupMemory(admitted=count), []
    (signal,) = policy.signals
    for number, figure in enumerate(figures):
        at, value = number * interval, figure(count)
        sample = LoadSample(at, value, value * count, value * count, count, 0, 0, serving=count)
        memory = replace(memory, samples={signal.series: (*memory.samples.get(signal.series, ()), sample)})
        decision, memory = decide_count(policy, memory, count, Observation(at, interval))
        count = decision.admitted
        counts.append(count)
    return counts


def always(value: float) -> Callable[[int], float]:
    return lambda _: value


def shared(demand: float) -> Callable[[int], float]:
    return lambda count: demand / count


def tracking(target: float, over: float) -> TargetTracking:
    return TargetTracking("guest.net.rx_packets", target, over_seconds=over)


@pytest.mark.parametrize(
    ("count", "value", "target", "wanted"),
    [
        (1, 200, 100, 2),  # "if the current metric value is 200m, and the desired value is 100m, doubled"
        (2, 50, 100, 1),  # "if the current value is 50m, halved"
        (3, 75, 50, 5),
        (3, 54, 50, 3),  # 1.08: within the tolerance of 0.1
        (3, 56, 50, 4),
        (10, 46, 50, 10),
        (10, 44, 50, 9),
        (4, 0, 50, 1),
    ],
)
def test_hpa(count: int, value: float, target: float, wanted: int) -> None:
    policy = group(tracking(target, 15.0), replace(HPA, scale_in=LOOSE))
    assert drive(policy, count, 15.0, [shared(value * count)] * 3)[-1] == wanted


def test_hpa_grows_by_four_or_double() -> None:
    """The default policies of scaleUp, selected by Max."""
    policy = group(tracking(10.0, 15.0), HPA)
    assert drive(policy, 1, 15.0, [shared(1000.0)] * 6) == [5, 10, 20, 40, 80, 100]
    least = replace(HPA, scale_out=replace(HPA.scale_out, select=Select.MIN))
    assert drive(replace(policy, behavior=least), 1, 15.0, [shared(1000.0)] * 6) == [2, 4, 8, 12, 16, 20]


def test_hpa_counts_what_was_added_within_the_period() -> None:
    """At ticks of 5 s the limit of 15 s holds all the same."""
    policy = group(tracking(10.0, 15.0), HPA)
    assert drive(policy, 1, 5.0, [shared(1000.0)] * 7) == [5, 5, 5, 10, 10, 10, 20]


def test_hpa_scale_down_by_ten_percent_or_four_pods() -> None:
    """The example of the documentation: 80 to 10; 10 % of 72 is 7.2, rounded up to 8; four a minute beneath 40."""
    scale_in = DirectionLimits(0.0, 0.0, rates=(Rate(60.0, count=4), Rate(60.0, share=0.1)))
    policy = group(tracking(10.0, 60.0), Behavior(0.1, LOOSE, scale_in))
    counts = drive(policy, 80, 60.0, [shared(100.0)] * 20)
    assert counts[1:5] == [72, 64, 57, 51]
    smaller = [(before, after) for before, after in pairwise(counts) if 14 <= before <= 40]
    assert smaller
    assert all(before - after == 4 for before, after in smaller)
    assert counts[-1] == 10


def test_hpa_takes_the_highest_recommendation_of_300_s() -> None:
    policy = group(tracking(10.0, 15.0), HPA)
    counts = drive(policy, 8, 15.0, [shared(80.0)] * 21 + [shared(20.0)] * 21)
    assert counts[:40] == [8] * 40
    assert counts[41] == 2


@pytest.mark.parametrize(
    ("count", "value", "wanted"),
    [(5, 80.0, 6), (5, 70.6, 5), (5, 70.8, 6), (5, 69.4, 5), (10, 62.0, 9), (10, 35.0, 5)],
)
def test_nomad(count: int, value: float, wanted: int) -> None:
    """The target-value strategy: the count times metric by target, rounded up, ignored within a threshold of 1 %."""
    policy = group(tracking(70.0, 10.0), NOMAD)
    assert drive(policy, count, 10.0, [shared(value * count)] * 3)[-1] == wanted


def test_nomad_cools_down_for_five_minutes() -> None:
    counts = drive(group(tracking(10.0, 10.0), NOMAD), 2, 10.0, [shared(40.0)] * 3 + [shared(90.0)] * 30)
    assert counts == [4] * 30 + [9] * 3


def test_aws_target_tracking_waits_for_three_datapoints_above_and_fifteen_below() -> None:
    policy = group(tracking(50.0, 60.0), AWS_TRACKING)
    assert drive(policy, 4, 60.0, [shared(240.0)] * 3) == [4, 4, 5]
    assert drive(policy, 8, 60.0, [shared(200.0)] * 16)[13:] == [8, 4, 4]
    # Below the target, yet not below 90 % of it.
    assert drive(policy, 10, 60.0, [shared(455.0)] * 20) == [10] * 20


AWS_STEPS = StepScaling(
    "guest.cpu",
    (
        Step(0.7, 0.8, percent=0.1),
        Step(0.8, None, percent=0.3),
        Step(0.3 + 1e-9, 0.4 + 1e-9, percent=-0.1),
        Step(None, 0.3 + 1e-9, percent=-0.3),
    ),
    over_seconds=10.0,
)


def test_aws_step_scaling() -> None:
    """The example of the documentation: 10 instances; 60 %, 70 %, 80 %, then 40 % and 30 %."""
    policy = group(AWS_STEPS, Behavior(0.0, LOOSE, LOOSE))
    figures = [always(0.6), always(0.7), always(0.8), always(0.4), always(0.3)]
    assert drive(policy, 10, 10.0, [always(0.5), *figures]) == [10, 10, 11, 14, 13, 10]


@pytest.mark.parametrize(
    ("count", "percent", "wanted"),
    [
        (10, 0.127, 11),
        (3, 0.2, 4),  # 0.6 is rounded to 1
        (100, 0.127, 112),  # 12.7 to 12
        (10, -0.058, 9),  # -0.58 to -1
        (10, -0.667, 4),  # -6.67 to -6
    ],
)
def test_aws_rounding(count: int, percent: float, wanted: int) -> None:
    strategy = StepScaling("guest.cpu", (Step(None, None, percent=percent),), over_seconds=10.0)
    policy = group(strategy, Behavior(0.0, LOOSE, LOOSE))
    assert drive(policy, count, 10.0, [always(0.1), always(0.1)])[0 if percent > 0 else 1] == wanted


def test_azure_projects_before_it_scales_in() -> None:
    """Against flapping: out from 80, in below 60; from 3 to 2 at 58 would be 87 each, and out again."""
    strategy = StepScaling("guest.cpu", (Step(0.8, None, change=1), Step(None, 0.6, change=-1)), over_seconds=10.0)
    policy = group(strategy, Behavior(0.0, LOOSE, LOOSE))
    assert drive(policy, 3, 10.0, [shared(3 * 0.58)] * 5) == [3] * 5
    assert drive(policy, 3, 10.0, [shared(3 * 0.5)] * 5)[-1] == 2


def test_gce_serves_the_peak_of_ten_minutes() -> None:
    strategy = TargetTracking("guest.cpu", 0.6, over_seconds=600.0, take="max")
    policy = group(strategy, Behavior(0.0, LOOSE, LOOSE))
    counts = drive(policy, 2, 60.0, [shared(1.2)] * 3 + [shared(4.2)] + [shared(1.2)] * 12)
    assert counts[2:4] == [2, 7]
    assert counts[4:13] == [7] * 9
    assert counts[13] == 2
