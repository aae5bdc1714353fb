import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.decision import ReasonCode, Recommendation, because
from autoscaler.core.memory import LoadSample
from autoscaler.core.policy import TargetTracking
from autoscaler.core.strategies import combine
from autoscaler.core.strategies.target_tracking import Demand, demand_over, describe_input, recommend

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
    ],
)
def test_recommend(
    low: float, high: float, current: int, target: float, tolerance: float, count: int, code: ReasonCode
) -> None:
    strategy = TargetTracking("guest.cpu", target)
    wish = recommend(strategy, Demand(low, high), 0.5, current, tolerance)
    assert (wish.count, wish.reason.code) == (count, code)


def test_no_samples_is_no_wish() -> None:
    wish = recommend(STRATEGY, None, None, 3, 0.1)
    assert (wish.count, wish.reason) == (None, because(ReasonCode.NO_SIGNAL, metric="guest.cpu"))


demands = st.floats(0.0, 40.0)


@settings(derandomize=True, deadline=None)
@given(demands, demands, st.integers(1, 40), st.floats(0.05, 1.0), st.floats(0.0, 0.5), st.floats(0.0, 5.0))
def test_a_rising_signal_never_lowers_the_wish(
    one: float, other: float, current: int, target: float, tolerance: float, unmeasured: float
) -> None:
    strategy = TargetTracking("guest.cpu", target)
    low, high = sorted((one, other))
    calm = recommend(strategy, Demand(low, low + unmeasured), 0.5, current, tolerance)
    busy = recommend(strategy, Demand(high, high + unmeasured), 0.5, current, tolerance)
    assert calm.count is not None
    assert busy.count is not None
    assert calm.count <= busy.count


def sample(at: float, value: float | None, low: float, high: float | None = None, missing: int = 0) -> LoadSample:
    return LoadSample(at, value, low, low if high is None else high, 1, 0, missing)


def test_the_window_averages_demand_not_load() -> None:
    """One instance at 90 %, then three at 30 %: the demand was 0.9 all along, and three are enough."""
    samples = [
        LoadSample(10.0, 0.9, 0.9, 0.9, 1, 0, 0),
        LoadSample(20.0, 0.9, 0.9, 0.9, 1, 0, 0),
        LoadSample(30.0, 0.3, 0.9, 0.9, 3, 0, 0),
    ]
    demand = demand_over(STRATEGY, samples, 30.0, 10.0)
    assert demand is not None
    assert (demand.low, demand.high) == pytest.approx((0.9, 0.9))


def test_input_of_the_record() -> None:
    samples = [sample(0, 0.2, 0.2), sample(10, 0.4, 0.4), sample(20, None, 0.0, 1.0, 1), sample(30, 0.8, 0.8)]
    seen = describe_input(STRATEGY, samples, 35.0, 10.0)
    assert seen.value == pytest.approx((0.4 * 5 + 0.8 * 10) / 15)
    assert (seen.latest, seen.age_seconds, seen.window_full, seen.measured) == (0.8, 5.0, True, 1)
    nothing = describe_input(STRATEGY, [], 35.0, 10.0)
    assert (nothing.value, nothing.age_seconds, nothing.window_full) == (None, None, False)


@pytest.mark.parametrize(
    ("counts", "current", "combined"),
    [([5, 3], 2, 5), ([1, 3], 4, 3), ([1, 6], 4, 6), ([1, None], 4, 4), ([6, None], 4, 6), ([None], 4, 4)],
)
def test_out_if_any_wants_in_only_if_all_agree(counts: list[int | None], current: int, combined: int) -> None:
    wishes = [Recommendation("s", count, because(ReasonCode.WITHIN_TARGET)) for count in counts]
    assert combine(wishes, current) == combined
