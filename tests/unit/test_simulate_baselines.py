"""The published algorithms do what their sources say."""

import pytest

from autoscaler.core.policy import Size
from autoscaler.simulate.baselines import aws, cloudstack, hpa, hpa_count, nomad, react, static_counts
from autoscaler.simulate.rehearsal import Controller, Scenario, Seen

SIZE = Size(1, 10)


def seen(at: float, load: float | None, ready: int, desired: int | None = None, warming: int = 0) -> Seen:
    return Seen(at, load, ready, warming, ready if desired is None else desired)


def steady(controller: Controller, load: float, count: int, seconds: int, step: int = 15) -> list[int]:
    """What it asks for while load and instances stay as they are."""
    return [controller(seen(at, load, count)) for at in range(0, seconds, step)]


@pytest.mark.parametrize(
    ("count", "ready", "load", "expected"),
    [
        (4, 4, 0.5, 4),
        (4, 4, 0.54, 4),  # within ±10 %
        (4, 4, 0.46, 4),
        (4, 4, 0.56, 5),
        (4, 4, 1.0, 8),
        (4, 4, 0.2, 2),
        (8, 4, 1.0, 8),  # booting ones count as idle: the ratio comes back to 1
        (8, 4, 0.6, 8),  # and nothing is done when it crosses 1
        (6, 4, 1.0, 8),
        (6, 4, 0.2, 2),  # and are left out of a scale-in
    ],
)
def test_hpa(count: int, ready: int, load: float, expected: int) -> None:
    assert hpa_count(count, ready, load, 0.5) == expected


def test_hpa_grows_by_four_or_double_and_shrinks_to_the_highest_wish_of_five_minutes() -> None:
    controller = hpa(0.1, Size(1, 100))
    assert controller(seen(0, 1.0, 2)) == 6
    assert controller(seen(15, 1.0, 20)) == 40
    controller = hpa(0.5, SIZE)
    assert controller(seen(0, 0.5, 6)) == 6
    assert [controller(seen(at, 0.1, 6)) for at in range(15, 330, 15)] == [6] * 19 + [2] * 2


def test_aws_waits_three_minutes_out_and_fifteen_in() -> None:
    asked = steady(aws(0.5, SIZE), 0.9, 3, 300)
    assert asked.index(6) * 15 == 120
    asked = steady(aws(0.5, SIZE), 0.2, 5, 1200)
    assert asked.index(2) * 15 == 840
    assert set(steady(aws(0.5, SIZE), 0.46, 5, 2400)) == {5}


def test_aws_does_not_shrink_while_instances_warm_up() -> None:
    controller = aws(0.5, SIZE)
    assert {controller(seen(at, 0.1, 5, warming=1)) for at in range(0, 2400, 15)} == {5}


def test_nomad_scales_by_the_ratio_and_cools_down() -> None:
    controller = nomad(0.5, SIZE)
    assert controller(seen(0, 0.504, 4)) == 4
    assert controller(seen(15, 0.52, 4)) == 5
    assert controller(seen(300, 0.9, 5)) == 5
    assert controller(seen(315, 0.9, 5)) == 9


@pytest.mark.parametrize(
    ("load", "ready", "desired", "expected"),
    [(0.8, 3, 3, 4), (0.8, 3, 4, 4), (0.6, 3, 3, 3), (0.4, 3, 3, 2), (0.1, 1, 1, 1), (None, 0, 1, 1)],
)
def test_react_adds_and_removes_one(load: float | None, ready: int, desired: int, expected: int) -> None:
    assert react(0.7, SIZE)(seen(0, load, ready, desired)) == expected


def test_cloudstack_adds_one_after_its_duration_and_is_quiet_then() -> None:
    asked = steady(cloudstack(0.7, SIZE), 0.9, 2, 600, step=30)
    assert [at * 30 for at, count in enumerate(asked) if count == 3] == [60, 360]
    assert steady(cloudstack(0.7, SIZE), 0.2, 2, 90, step=30) == [2, 2, 1]
    assert set(steady(cloudstack(0.7, SIZE), 0.5, 2, 600)) == {2}


@pytest.mark.parametrize("make", [hpa, aws, react, cloudstack, nomad])
def test_all_keep_within_the_bounds(make: type) -> None:
    for load in (0.0, 1.0):
        assert set(steady(make(0.5, Size(3, 3)), load, 3, 3000)) == {3}


def test_the_best_fixed_count_leaves_out_what_may_be_above_the_line() -> None:
    world = Scenario([1.0] * 98 + [3.0, 6.0], 15.0, Size(1, 50), line=0.5)
    assert static_counts(world, 0.01) == (12, 6)
    assert static_counts(world, 0.0) == (12, 12)
