"""Steps, thresholds and schedules, by tables."""

from typing import Any

import pytest

from autoscaler.core.decision import ReasonCode
from autoscaler.core.memory import LoadSample
from autoscaler.core.observation import ScheduleState
from autoscaler.core.policy import (
    Behavior,
    Image,
    Policy,
    Schedule,
    Signal,
    Size,
    Step,
    StepScaling,
    TargetTracking,
    ThresholdScaling,
)
from autoscaler.core.projection import fewest
from autoscaler.core.reading import Reading
from autoscaler.core.strategies import View, schedule, step_scaling, threshold

AT = 1000.0


def sample(age: float, value: float | None, members: int = 4, serving: int = 4, **more: Any) -> LoadSample:
    total = (value or 0.0) * members
    missing = 0 if value is not None else members
    return LoadSample(AT - age, value, total, total, members - missing, 0, missing, serving=serving, **more)


def view(strategy: Signal, samples: list[LoadSample], current: int = 4, changed_at: float | None = None) -> View:
    return View(Reading(strategy, samples, AT, 10.0), current, Behavior(), changed_at)


def steady(value: float | None, **more: Any) -> list[LoadSample]:
    return [sample(10.0 * n, value, **more) for n in range(7, -1, -1)]


STEPS = StepScaling(
    "guest.cpu",
    (
        Step(0.7, 0.85, change=1),
        Step(0.85, 0.95, percent=0.5),
        Step(0.95, None, exact=9),
        Step(None, 0.1, percent=-0.5),
        Step(0.1, 0.2, change=-1),
    ),
)


@pytest.mark.parametrize(
    ("value", "current", "count", "code"),
    [
        (0.5, 4, 4, ReasonCode.WITHIN_STEPS),
        (0.69, 4, 4, ReasonCode.WITHIN_STEPS),
        (0.7, 4, 5, ReasonCode.STEP_OUT),  # from is included
        (0.85, 4, 6, ReasonCode.STEP_OUT),  # to is not
        (0.95, 4, 9, ReasonCode.STEP_OUT),
        (1.0, 9, 9, ReasonCode.WITHIN_STEPS),
        (0.2, 4, 4, ReasonCode.WITHIN_STEPS),
        (0.15, 4, 3, ReasonCode.STEP_IN),
        (0.05, 4, 2, ReasonCode.STEP_IN),
        (0.05, 5, 3, ReasonCode.STEP_IN),  # 2.5 is rounded towards zero
        (0.05, 1, 0, ReasonCode.STEP_IN),  # but not to nothing
    ],
)
def test_steps(value: float, current: int, count: int, code: ReasonCode) -> None:
    wish = step_scaling.recommend(STEPS, view(STEPS, steady(value), current))
    assert (wish.count, wish.reason.code, wish.abstains) == (count, code, False)


def test_steps_add_to_those_that_serve() -> None:
    """Two of six are on their way: what was added for this load is not added again."""
    assert step_scaling.recommend(STEPS, view(STEPS, steady(0.9, serving=4), 6)).count == 6
    assert step_scaling.recommend(STEPS, view(STEPS, steady(0.9, serving=6), 6)).count == 9


def test_a_step_window_is_scaled_to_the_instances_there_are() -> None:
    """Four at 90 %, then eight at 45 %: the window's average is above 70 %, its demand is not."""
    samples = [sample(10.0 * n, 0.9) for n in range(7, 1, -1)] + [sample(0, 0.45, members=8, serving=8)]
    assert step_scaling.recommend(STEPS, view(STEPS, samples, 8)).reason.code is ReasonCode.WITHIN_STEPS


def test_what_is_unmeasured_is_idle_on_the_way_out_and_full_on_the_way_in() -> None:
    out = step_scaling.recommend(STEPS, view(STEPS, steady(0.75, least=0.6, most=0.9)))
    into = step_scaling.recommend(STEPS, view(STEPS, steady(0.15, least=0.1, most=0.4)))
    assert (out.count, into.count) == (4, 4)


def test_steps_without_a_way_in_abstain_while_quiet() -> None:
    only_out = StepScaling("guest.cpu", (Step(0.7, None, change=1),))
    quiet = step_scaling.recommend(only_out, view(only_out, steady(0.1)))
    assert (quiet.count, quiet.abstains) == (4, True)
    assert not step_scaling.recommend(only_out, view(only_out, steady(0.9))).abstains
    blind = step_scaling.recommend(only_out, view(only_out, steady(None)))
    assert (blind.count, blind.abstains, blind.reason.code) == (None, False, ReasonCode.NO_SIGNAL)


HELD = ThresholdScaling("guest.cpu", above=0.8, below=0.2, over_seconds=30.0, add=2, remove=1)
OF_FIVE = ThresholdScaling("guest.cpu", above=0.8, below=0.2, breaches=3, samples=5)


def ages(*values: float | None) -> list[LoadSample]:
    """Give samples ten seconds apart, the last one now."""
    return [sample(10.0 * (len(values) - 1 - n), value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("strategy", "samples", "changed_at", "count"),
    [
        (HELD, ages(0.9, 0.9, 0.9, 0.9), None, 6),
        (HELD, ages(0.9, 0.9, 0.9), None, 4),  # for twenty seconds only
        (HELD, ages(0.9, 0.9, 0.8, 0.9), None, 4),  # on the line is not above it
        (HELD, ages(0.9, 0.9, None, 0.9), None, 4),  # what could not be told breaks it
        (HELD, [sample(40, 0.9), sample(0, 0.9)], None, 4),  # so does a gap
        (HELD, ages(0.1, 0.1, 0.1, 0.1), None, 3),
        (HELD, ages(0.1, 0.3, 0.1, 0.1), None, 4),
        (HELD, ages(0.9, 0.1, 0.1, 0.1, 0.1), None, 3),
        (OF_FIVE, ages(0.9, 0.1, 0.9, 0.5, 0.9), None, 6 - 1),
        (OF_FIVE, ages(0.9, 0.1, 0.9, 0.5, 0.5), None, 4),
        (OF_FIVE, ages(0.9, 0.9, 0.9), None, 5),
        (OF_FIVE, ages(0.9, 0.9, 0.9, 0.9, 0.9), AT - 20, 4),  # two since the count last changed
        (OF_FIVE, ages(0.1, 0.1, 0.1, 0.5, 0.5), None, 3),
        (OF_FIVE, ages(0.1, 0.1, 0.1), None, 4),  # a scale-in wants all five to be there
    ],
)
def test_thresholds(
    strategy: ThresholdScaling, samples: list[LoadSample], changed_at: float | None, count: int
) -> None:
    assert threshold.recommend(strategy, view(strategy, samples, changed_at=changed_at)).count == count


def test_thresholds_judge_each_direction_by_its_imputation() -> None:
    assert threshold.recommend(HELD, view(HELD, steady(0.9, least=0.7, most=0.95))).count == 4
    assert threshold.recommend(HELD, view(HELD, steady(0.1, least=0.05, most=0.3))).count == 4


def test_a_threshold_without_a_way_in_abstains_while_quiet() -> None:
    only_out = ThresholdScaling("guest.cpu", above=0.8)
    only_in = ThresholdScaling("guest.cpu", below=0.2)
    assert threshold.recommend(only_out, view(only_out, steady(0.1))).abstains
    assert not threshold.recommend(only_in, view(only_in, steady(0.5))).abstains
    assert threshold.recommend(only_in, view(only_in, steady(0.1))).count == 3
    assert threshold.recommend(only_out, view(only_out, [])).count is None


DAY = Schedule("0 8 * * mon-fri", "UTC", 36000.0, min=3, max=6)
PEAK = Schedule("0 12 * * mon-fri", "UTC", 3600.0, desired=5)
POLICY = Policy("web", Image("p", "v"), Size(1, 8), scaling=(DAY, PEAK))


def states(day: bool | None, peak: bool | None) -> dict[str, ScheduleState]:
    told = {DAY.key: day, PEAK.key: peak}
    return {key: ScheduleState(active, 2000.0) for key, active in told.items() if active is not None}


@pytest.mark.parametrize(
    ("day", "peak", "size", "counts", "abstentions"),
    [
        (False, False, (1, 8), [None, None], 2),
        (True, False, (3, 6), [None, None, None], 3),
        (True, True, (3, 6), [None, None, 5], 2),
        (False, True, (1, 8), [None, 5], 1),
        (None, None, (1, 8), [None, None], 0),  # what cannot be told blocks scale-in
    ],
)
def test_schedules(
    day: bool | None, peak: bool | None, size: tuple[int, int], counts: list[int | None], abstentions: int
) -> None:
    told = states(day, peak)
    assert schedule.in_force(POLICY, told).size == Size(*size)
    wishes = list(schedule.recommend(POLICY.schedules, told))
    assert [wish.count for wish in wishes] == counts
    assert sum(wish.abstains for wish in wishes) == abstentions


def test_of_schedules_that_contradict_each_other_max_holds() -> None:
    low = Schedule("0 8 * * *", "UTC", 60.0, max=2)
    policy = Policy("web", Image("p", "v"), Size(1, 8), scaling=(DAY, low))
    active = ScheduleState(active=True)
    assert schedule.in_force(policy, {DAY.key: active, low.key: active}).size == Size(2, 2)


@pytest.mark.parametrize(
    ("strategy", "value", "members", "wanted", "count"),
    [
        (TargetTracking("guest.cpu", 0.6), 0.3, 4, 2, 2),  # 1.2 over 2 is the target
        (TargetTracking("guest.cpu", 0.6), 0.3, 4, 1, 2),
        (TargetTracking("guest.cpu", 0.6), 0.33, 4, 2, 2),  # 66 % is within tolerance
        (TargetTracking("guest.cpu", 0.6), 0.34, 4, 2, 3),
        (STEPS, 0.4, 4, 1, 3),  # 0.8 and more would add again
        (STEPS, 0.15, 4, 1, 1),
        (HELD, 0.45, 4, 2, 3),
        (HELD, 0.4, 4, 2, 2),  # on the line is not above it
        (HELD, 0.1, 4, 0, 1),
        (ThresholdScaling("guest.cpu", below=0.2), 0.9, 4, 1, 1),  # it would never call for more
        (ThresholdScaling("host.cpu", above=0.8), 0.7, 4, 1, 1),  # not carried by the group alone
        (StepScaling("guest.net.rx_bytes", (Step(100.0, None, change=1),), across="sum"), 90.0, 4, 1, 1),
        (ThresholdScaling("prometheus", query="x", above=50.0), 20.0, 4, 1, 2),
    ],
)
def test_projection(strategy: Signal, value: float, members: int, wanted: int, count: int) -> None:
    """As Azure does: not where the load of those left would call for more again."""
    reading = Reading(strategy, steady(value, members=members), AT, 10.0)
    found, veto = fewest((reading,), wanted, members, Behavior())
    assert found == count
    assert (veto is None) is (count == wanted)


def test_no_projection_will_do() -> None:
    reading = Reading(HELD, steady(0.79), AT, 10.0)
    found, veto = fewest((reading,), 3, 4, Behavior())
    assert found == 4
    assert veto is not None
    assert veto.projected == pytest.approx(0.79 * 4 / 3)
