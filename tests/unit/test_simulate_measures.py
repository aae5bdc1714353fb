"""The plant, the figures by hand, and the oracle that nobody undercuts."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.group_load import EvenLoad
from autoscaler.core.policy import Image, Policy, Size, TargetTracking
from autoscaler.core.signals import Measured, Warming, group_sample
from autoscaler.simulate.against import contest, contest_policy
from autoscaler.simulate.baselines import NAMES, Asked, oracle
from autoscaler.simulate.measures import measure
from autoscaler.simulate.plant import Conditions, Plant
from autoscaler.simulate.rehearsal import Change, Course, Scenario, Seen, ahead, rehearse, rehearse_policy

ANY_SIZE = Size(0, 100)
WEB = Policy("web", Image("default", "golden.qcow2"), Size(1, 20), scaling=(TargetTracking("guest.cpu", 0.5),))


def scenario(demand: list[float], *, boot: float = 30.0, size: Size = ANY_SIZE, line: float = 0.5) -> Scenario:
    return Scenario(demand, 15.0, size, line, Conditions((boot,)))


def replayed(counts: list[int]) -> Asked:
    """A controller that asks for these counts, one after another."""
    given_counts = iter(counts)
    return Asked(lambda _seen: next(given_counts))


@pytest.mark.parametrize(
    ("demand", "ready", "expected"),
    [
        # d = 2 2 2 2: exactly right.
        ([1.0] * 4, [2, 2, 2, 2], {"above_line": 0, "saturated": 0, "theta_under": 0, "theta_over": 0, "upsilon": 0}),
        # One of two for half of the time: half of what is needed is missing for half of the time.
        ([1.0] * 4, [1, 1, 2, 2], {"above_line": 0.5, "saturated": 0.5, "theta_under": 25, "tau_under": 50}),
        # Twice what is needed for a quarter of the time; s moved twice while d did not.
        ([1.0] * 4, [2, 4, 2, 2], {"theta_over": 25, "tau_over": 25, "upsilon": 100 * 2 / 3}),
        # d = 2 4 4 2, s follows one step later: against it twice, with it once never.
        ([1.0, 2.0, 2.0, 1.0], [2, 2, 4, 4], {"tau_under": 25, "theta_under": 12.5, "tau_over": 25, "theta_over": 25}),
        ([1.0, 2.0, 2.0, 1.0], [2, 2, 4, 4], {"upsilon": 100.0}),
        # No load needs nobody, and what stands there then is counted whole.
        ([0.0, 0.0], [1, 0], {"above_line": 0, "theta_over": 50, "tau_over": 50, "saturated": 0}),
        ([1.0, 0.0], [0, 0], {"above_line": 0.5, "saturated": 0.5, "theta_under": 50}),
    ],
)
def test_the_figures_agree_with_those_by_hand(
    demand: list[float], ready: list[int], expected: dict[str, float]
) -> None:
    measures = measure(scenario(demand), Course(ready, ready, ready))
    assert {name: getattr(measures, name) for name in expected} == pytest.approx(expected)


def test_cost_counts_booting_instances_too_and_is_relative_to_the_oracle() -> None:
    # d = 2 2 4 4, two steps to boot: the oracle has 4 from the first step on.
    course = Course([2, 2, 4, 4], [2, 4, 4, 4], [2, 4, 4, 4], [Change(1, 2, 4, ())])
    measures = measure(scenario([1.0, 1.0, 2.0, 2.0]), course)
    assert measures.instance_hours == pytest.approx(14 * 15 / 3600)
    assert measures.cost == pytest.approx(14 / 16)
    assert measures.changes == 1


@pytest.mark.parametrize(
    ("needed", "ticks", "expected"),
    [
        ([1, 5, 2, 2], 0, [1, 5, 2, 2]),
        ([1, 5, 2, 2], 1, [5, 5, 2, 2]),
        ([1, 1, 1, 7, 1], 2, [1, 7, 7, 7, 1]),
        ([9, 0, 0], 5, [8, 1, 1]),
    ],
)
def test_the_oracle_looks_as_far_ahead_as_a_boot_takes(needed: list[int], ticks: int, expected: list[int]) -> None:
    assert ahead(needed, ticks, Size(1, 8)) == expected


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 8))
def test_the_window_ahead_is_the_largest_of_it(needed: list[int], ticks: int) -> None:
    assert ahead(needed, ticks, Size(0, 30)) == [max(needed[k : k + ticks + 1]) for k in range(len(needed))]


def test_an_instance_is_ready_one_boot_delay_after_it_was_asked_for() -> None:
    course = rehearse(scenario([1.0] * 6, boot=40.0), replayed([2, 4, 4, 4, 4, 4]))
    assert course.existing == [2, 4, 4, 4, 4, 4]
    assert course.ready == [2, 2, 2, 2, 4, 4]


def test_what_is_not_ready_goes_first() -> None:
    course = rehearse(scenario([1.0] * 5, boot=30.0), replayed([2, 5, 3, 3, 1]))
    assert course.existing == [2, 5, 3, 3, 1]
    assert course.ready == [2, 2, 2, 3, 1]


def test_load_saturates_as_reality_does() -> None:
    seen: list[Seen] = []

    def watch(now: Seen) -> int:
        seen.append(now)
        return 4

    rehearse(scenario([2.0, 6.0, 3.0], size=Size(4, 4)), Asked(watch))
    assert [now.load for now in seen] == [0.5, 1.0, 0.75]


def test_without_a_ready_instance_there_is_no_load() -> None:
    seen: list[Seen] = []

    def watch(now: Seen) -> int:
        seen.append(now)
        return 0

    rehearse(scenario([0.0, 3.0], size=Size(0, 0)), Asked(watch))
    assert [now.load for now in seen] == [None, None]


def test_young_instances_are_told_as_warming() -> None:
    plant = Plant(Conditions((15.0,)), 2)
    plant.aim(4, 0.0)
    plant.advance(15.0)
    assert (plant.ready, plant.warming(15.0, 60.0), plant.warming(74.0, 60.0), plant.warming(75.0, 60.0)) == (
        4,
        2,
        2,
        0,
    )


def test_failed_launches_are_tried_again_and_chance_repeats_itself() -> None:
    conditions = Conditions((15.0, 45.0), failures=0.5, slow_boots=True, seed=7)
    runs = []
    for _ in range(2):
        plant = Plant(conditions, 0)
        course = []
        for tick in range(60):
            plant.advance(tick * 15.0)
            plant.aim(10, tick * 15.0)
            course.append((plant.ready, plant.existing))
        runs.append((course, plant.failed))
    assert runs[0] == runs[1]
    assert runs[0][1] > 0
    assert runs[0][0][-1] == (10, 10)


def test_hosts_have_room_for_so_many_only() -> None:
    plant = Plant(Conditions((15.0,), capacity=3), 1)
    plant.aim(10, 0.0)
    assert plant.existing == 3


@given(
    st.lists(st.floats(0, 9), min_size=1, max_size=50),
    st.lists(st.integers(0, 12), min_size=50, max_size=50),
    st.sampled_from([1.0, 15.0, 40.0, 90.0]),
)
def test_nobody_who_keeps_the_line_costs_less_than_the_oracle(
    demand: list[float], extra: list[int], boot: float
) -> None:
    """Every course of at least what the oracle asks keeps the line; of any course that keeps it, the cost is over 1."""
    world = scenario(demand, boot=boot, line=0.7)
    asked = [max(0, count + more - 6) for count, more in zip(world.oracle, extra, strict=False)]
    for counts in (asked, [count + more for count, more in zip(world.oracle, extra, strict=False)]):
        measures = measure(world, rehearse(world, replayed(counts)))
        assert measures.above_line > 0 or measures.cost >= 1 - 1e-12
    assert measures.above_line == 0
    exact = measure(world, rehearse(world, oracle(world)))
    assert exact.above_line == 0
    assert exact.cost == pytest.approx(1.0)


def test_an_even_load_is_that_of_as_many_instances() -> None:
    loads = EvenLoad(0.25, 3, 2).members()
    assert sorted(map(repr, loads.values())) == sorted(map(repr, [Measured(0.25, 0.0)] * 3 + [Warming()] * 2))
    assert group_sample(EvenLoad(0.0, 0).members(), "avg", 5.0) is None


def daily(days: float) -> list[float]:
    """A seeded day: a wave, and noise without any library of chance."""
    return [
        4 - 3 * math.cos(tick * 30 / 86400 * math.tau) + (tick * 7919 % 101) / 150 for tick in range(int(days * 2880))
    ]


def test_the_daemon_decides_by_its_own_code_and_says_why() -> None:
    course = rehearse_policy(Scenario([1.0] * 40 + [4.0] * 40, 15.0, WEB.size, 0.7, Conditions((60.0,))), WEB)
    assert course.desired[:40] == [2] * 40
    assert course.desired[-1] == 8
    first = course.changes[0]
    assert first.after > first.before == 2
    assert {reason.code for reason in first.reasons} == {"target_exceeded"}


def test_all_contestants_meet_on_seeded_load() -> None:
    world = Scenario(daily(0.5), 30.0, Size(1, 30), 0.7, Conditions((180.0,)))
    rows = {name: contest(world, name) for name in NAMES}
    rows["ours"] = contest_policy(world, WEB)
    assert rows["oracle"].best.measures.above_line == 0
    assert rows["oracle"].best.measures.cost == pytest.approx(1)
    keeping = {name: row.best.measures.cost for name, row in rows.items() if row.best.measures.keeps()}
    assert {"ours", "oracle", "static", "hpa", "aws"} <= keeping.keys()
    assert keeping["ours"] <= min(keeping[name] for name in ("static", "aws", "nomad", "cloudstack") if name in keeping)
    assert rows["ours"].default.setting == "as is"
