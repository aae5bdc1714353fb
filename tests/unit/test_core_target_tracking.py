from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decision import ReasonCode, Recommendation, because
from autoscaler.core.memory import LoadSample
from autoscaler.core.policy import Behavior, DirectionLimits, TargetTracking
from autoscaler.core.reading import Demand, Reading, describe_input
from autoscaler.core.strategies import View, combine
from autoscaler.core.strategies.target_tracking import count_for, recommend

STRATEGY = TargetTracking("guest.cpu", 0.5, over_seconds=30.0)


@pytest.mark.parametrize(
    ("low", "high", "current", "target", "tolerance", "count", "code"),
    [
        (0.9, 0.9, 1, 0.35, 0.1, 3, ReasonCode.TARGET_EXCEEDED),
        (0.9, 0.9, 3, 0.30, 0.1, 3, ReasonCode.WITHIN_TARGET),  # 0.9/0.3 is 3, whatever floating point says
        (0.52, 0.52, 1, 0.5, 0.1, 1, ReasonCode.WITHIN_TOLERANCE),
        (0.56, 0.56, 1, 0.5, 0.1, 2, ReasonCode.TARGET_EXCEEDED),
        (2.0, 2.0, 4, 0.5, 0.1, 4, ReasonCode.WITHIN_TARGET),
        (0.95, 0.95, 3, 0.5, 0.0, 2, ReasonCode.TARGET_UNDERRUN),
        (1.95, 1.95, 5, 0.5, 0.3, 5, ReasonCode.WITHIN_TOLERANCE),
        (0.0, 0.0, 3, 0.5, 0.1, 0, ReasonCode.TARGET_UNDERRUN),
        # What is unmeasured counts as idle on the way out, as full on the way in, and holds in between.
        (0.6, 2.6, 2, 0.5, 0.0, 2, ReasonCode.WITHIN_TARGET),
        (0.6, 1.6, 6, 0.5, 0.0, 4, ReasonCode.TARGET_UNDERRUN),
        (2.6, 4.6, 2, 0.5, 0.0, 6, ReasonCode.TARGET_EXCEEDED),
        # From nothing, whatever there is to do calls for one.
        (0.01, 0.01, 0, 0.5, 0.1, 1, ReasonCode.TARGET_EXCEEDED),
        (0.0, 0.0, 0, 0.5, 0.1, 0, ReasonCode.WITHIN_TARGET),
        (-3.0, -3.0, 2, 0.5, 0.1, 0, ReasonCode.TARGET_UNDERRUN),
    ],
)
def test_count_for(
    low: float, high: float, current: int, target: float, tolerance: float, count: int, code: ReasonCode
) -> None:
    assert count_for(Demand(low, high), current, target, Behavior(tolerance)) == (count, code)


def test_each_direction_may_have_its_own_tolerance() -> None:
    behavior = Behavior(
        0.1, scale_out=DirectionLimits(0.0, 0.0, tolerance=0.0), scale_in=DirectionLimits(0.0, 0.0, tolerance=0.3)
    )
    assert count_for(Demand(0.52, 0.52), 1, 0.5, behavior)[0] == 2
    assert count_for(Demand(1.95, 1.95), 5, 0.5, behavior)[0] == 5


def view(*samples: LoadSample, strategy: TargetTracking = STRATEGY, current: int = 3, at: float = 35.0) -> View:
    return View(Reading(strategy, samples, at, 10.0), current, Behavior())


def test_no_samples_is_no_wish() -> None:
    wish = recommend(STRATEGY, view())
    assert (wish.count, wish.reason) == (None, because(ReasonCode.NO_SIGNAL, metric="guest.cpu"))


demands = st.floats(0.0, 40.0)


@settings(derandomize=True, deadline=None)
@given(demands, demands, st.integers(0, 40), st.floats(0.05, 1.0), st.floats(0.0, 0.5), st.floats(0.0, 5.0))
def test_a_rising_signal_never_lowers_the_wish(
    one: float, other: float, current: int, target: float, tolerance: float, unmeasured: float
) -> None:
    low, high = sorted((one, other))
    calm, _ = count_for(Demand(low, low + unmeasured), current, target, Behavior(tolerance))
    busy, _ = count_for(Demand(high, high + unmeasured), current, target, Behavior(tolerance))
    assert calm <= busy


def sample(at: float, value: float | None, low: float, high: float | None = None, missing: int = 0) -> LoadSample:
    return LoadSample(at, value, low, low if high is None else high, 1, 0, missing)


def test_the_window_averages_demand_not_load() -> None:
    """One instance at 90 %, then three at 30 %: the demand was 0.9 all along, and three are enough."""
    samples = [
        LoadSample(10.0, 0.9, 0.9, 0.9, 1, 0, 0),
        LoadSample(20.0, 0.9, 0.9, 0.9, 1, 0, 0),
        LoadSample(30.0, 0.3, 0.9, 0.9, 3, 0, 0),
    ]
    reading = Reading(STRATEGY, samples, 30.0, 10.0)
    demand = reading.demand
    assert demand is not None
    assert (demand.low, demand.high) == pytest.approx((0.9, 0.9))
    # What one instance carried then is a third of that by the three that are there now.
    figures = reading.figures
    assert figures is not None
    assert (figures.value, figures.least, figures.most) == pytest.approx((0.3, 0.3, 0.3))


@pytest.mark.parametrize(("take", "value"), [("avg", 0.5), ("max", 0.9), ("last", 0.2), ("p50", 0.4), ("p95", 0.9)])
def test_how_a_window_becomes_one_value(take: str, value: float) -> None:
    samples = [sample(10, 0.4, 0.4), sample(20, 0.9, 0.9), sample(30, 0.2, 0.2)]
    reading = Reading(replace(STRATEGY, take=take), samples, 30.0, 10.0)
    assert reading.value == pytest.approx(value)
    demand = reading.demand
    assert demand is not None
    assert demand.low == pytest.approx(value)


def test_input_of_the_record() -> None:
    samples = [sample(0, 0.2, 0.2), sample(10, 0.4, 0.4), sample(20, None, 0.0, 1.0, 1), sample(30, 0.8, 0.8)]
    seen = describe_input(Reading(STRATEGY, samples, 35.0, 10.0))
    assert seen.value == pytest.approx((0.4 * 5 + 0.8 * 10) / 15)
    assert (seen.latest, seen.age_seconds, seen.window_full, seen.measured) == (0.8, 5.0, True, 1)
    assert seen.low is not None
    assert seen.high is not None
    assert seen.low < seen.high
    nothing = describe_input(Reading(STRATEGY, [], 35.0, 10.0))
    assert (nothing.value, nothing.age_seconds, nothing.window_full, nothing.high) == (None, None, False, None)


def test_a_member_of_an_unbounded_metric_that_is_missing_counts_as_at_its_target() -> None:
    """As the Horizontal Pod Autoscaler does: 100 % of the target when scaling in, nothing when scaling out."""
    strategy = TargetTracking("guest.net.rx_bytes", 100.0, over_seconds=30.0)
    samples = [LoadSample(10.0 * n, 20.0, 40.0, 60.0, 2, 0, 1) for n in range(4)]
    wish = recommend(strategy, view(*samples, strategy=strategy, current=5))
    assert wish.count == 2  # 40 measured and 100 imputed
    assert recommend(strategy, view(*samples, strategy=strategy, current=1)).count == 1


@pytest.mark.parametrize(
    ("counts", "current", "combined"),
    [([5, 3], 2, 5), ([1, 3], 4, 3), ([1, 6], 4, 6), ([1, None], 4, 4), ([6, None], 4, 6), ([None], 4, 4)],
)
def test_out_if_any_wants_in_only_if_all_agree(counts: list[int | None], current: int, combined: int) -> None:
    wishes = [Recommendation("s", count, because(ReasonCode.WITHIN_TARGET)) for count in counts]
    assert combine(wishes, current) == combined
    abstention = Recommendation("s", 9, because(ReasonCode.WITHIN_STEPS), abstains=True)
    assert combine([abstention, *wishes], current) == combined
    assert combine([abstention], current) == current
