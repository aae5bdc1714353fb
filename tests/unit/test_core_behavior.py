from dataclasses import replace

import pytest

from autoscaler.core.behavior import Situation, limit, note_change
from autoscaler.core.decision import Input, Reason, ReasonCode, because
from autoscaler.core.memory import GroupMemory, LoadSample, SizeChange, Wish
from autoscaler.core.policy import (
    Behavior,
    DirectionLimits,
    Image,
    Policy,
    Rate,
    Select,
    Size,
    TargetTracking,
)
from autoscaler.core.reading import Reading

AT = 1000.0
LOOSE = DirectionLimits(0.0, 0.0)
SEEN = Input("guest.cpu", 0.5, 0.5, 0.0, 0.5, 2, 0, 0, 60.0, window_full=True)


def situation(
    current: int,
    *,
    size: tuple[int, int] = (1, 8),
    out: DirectionLimits = LOOSE,
    into: DirectionLimits = LOOSE,
    wishes: tuple[int, ...] = (),
    scaled_out_at: float | None = None,
    scaled_in_at: float | None = None,
    seen: Input = SEEN,
    changes: tuple[tuple[float, int], ...] = (),
    quorum: float = 1.0,
    readings: tuple[Reading, ...] = (),
) -> Situation:
    policy = Policy("web", Image("p", "v"), Size(*size), behavior=Behavior(0.1, out, into, quorum))
    history = tuple(
        Wish(AT - 10.0 * age, count) for age, count in zip(range(len(wishes) - 1, -1, -1), wishes, strict=True)
    )
    memory = GroupMemory(
        wishes=history,
        scaled_out_at=scaled_out_at,
        scaled_in_at=scaled_in_at,
        changes=tuple(SizeChange(AT - age, delta) for age, delta in changes),
    )
    return Situation(policy, memory, (seen,), current, AT, 10.0, readings)


def code(reasons: tuple[Reason, ...]) -> list[ReasonCode]:
    return [reason.code for reason in reasons]


def test_bounds() -> None:
    assert limit(12, situation(4)) == (8, (because(ReasonCode.SCALE_OUT_LIMITED_BY_MAX, max=8, wanted=12),))
    assert limit(0, situation(4)) == (1, (because(ReasonCode.RAISED_TO_MIN, min=1, wanted=0),))
    assert limit(3, situation(3)) == (3, ())


def test_a_group_outside_its_bounds_comes_inside_at_once() -> None:
    held = DirectionLimits(600.0, 600.0)
    below = situation(0, size=(2, 8), out=held, scaled_out_at=AT)
    assert limit(2, below) == (2, (because(ReasonCode.RAISED_TO_MIN, min=2, wanted=2),))
    above = situation(6, size=(1, 4), into=held, scaled_in_at=AT)
    assert limit(5, above)[0] == 4
    # Below the lowered max the load alone decides, and it is held.
    count, reasons = limit(1, above)
    assert (count, code(reasons)) == (4, [ReasonCode.LOWERED_TO_MAX, ReasonCode.HELD_BY_STABILIZATION])


@pytest.mark.parametrize(
    ("wishes", "wanted", "count", "held"),
    [
        ((1, 1, 1, 1), 1, 1, False),
        ((1, 3, 1, 1), 1, 3, True),
        ((5, 1, 1, 1), 1, 4, True),
        ((1, 1, 1), 1, 4, True),  # the window is not full: hold
        ((2, 1, 1, 2), 2, 2, False),
    ],
)
def test_scale_in_takes_the_highest_wish_of_its_window(
    wishes: tuple[int, ...], wanted: int, count: int, held: bool
) -> None:
    limited, reasons = limit(wanted, situation(4, into=DirectionLimits(0.0, 30.0), wishes=wishes))
    assert (limited, code(reasons)) == (count, [ReasonCode.HELD_BY_STABILIZATION] if held else [])


@pytest.mark.parametrize(
    ("wishes", "wanted", "count", "held"),
    [
        ((6, 6, 6, 6), 6, 6, False),
        ((6, 5, 6, 6), 6, 5, True),
        ((6, 3, 6, 6), 6, 4, True),
        ((6, 6, 6), 6, 4, True),
    ],
)
def test_scale_out_takes_the_lowest_wish_of_its_window(
    wishes: tuple[int, ...], wanted: int, count: int, held: bool
) -> None:
    limited, reasons = limit(wanted, situation(4, out=DirectionLimits(0.0, 30.0), wishes=wishes))
    assert (limited, code(reasons)) == (count, [ReasonCode.HELD_BY_STABILIZATION] if held else [])


@pytest.mark.parametrize(
    ("wanted", "scaled_out_at", "scaled_in_at", "count", "until"),
    [
        (6, AT - 59, None, 4, AT + 1),
        (6, AT - 60, None, 6, None),
        (6, None, AT - 1, 6, None),  # a scale-in does not hold a scale-out
        (2, AT - 10, None, 4, AT + 80),
        (2, None, AT - 10, 4, AT + 80),
        (2, AT - 95, AT - 90, 2, None),
    ],
)
def test_cooldown(
    wanted: int, scaled_out_at: float | None, scaled_in_at: float | None, count: int, until: float | None
) -> None:
    here = situation(
        4,
        out=DirectionLimits(60.0, 0.0),
        into=DirectionLimits(90.0, 0.0),
        scaled_out_at=scaled_out_at,
        scaled_in_at=scaled_in_at,
    )
    limited, reasons = limit(wanted, here)
    assert limited == count
    assert [reason.parameters["until"] for reason in reasons] == ([] if until is None else [until])


def test_scale_in_needs_whole_load() -> None:
    missing = Input("guest.cpu", 0.1, 0.1, 0.0, 0.5, 2, 0, 1, 60.0, window_full=True)
    unfilled = Input("guest.cpu", 0.1, 0.1, 0.0, 0.5, 2, 0, 0, 60.0, window_full=False)
    assert limit(1, situation(4, seen=missing)) == (4, (because(ReasonCode.HELD_BY_MISSING_LOAD, missing=1, wanted=1),))
    assert code(limit(1, situation(4, seen=unfilled))[1]) == [ReasonCode.HELD_BY_UNFILLED_WINDOW]
    assert limit(6, situation(4, seen=missing)) == (6, ())


@pytest.mark.parametrize(
    ("quorum", "measured", "missing", "count"),
    [(1.0, 9, 1, 4), (0.9, 9, 1, 1), (0.5, 1, 1, 1), (0.5, 1, 2, 4), (0.5, 0, 1, 4), (1.0, 0, 0, 1)],
)
def test_the_quorum_of_a_scale_in(quorum: float, measured: int, missing: int, count: int) -> None:
    seen = replace(SEEN, measured=measured, missing=missing)
    assert limit(1, situation(4, seen=seen, quorum=quorum))[0] == count


@pytest.mark.parametrize(
    ("rates", "select", "changes", "wanted", "allowed", "until"),
    [
        ((Rate(60.0, count=2),), Select.MAX, (), 8, 6, AT + 60),
        ((Rate(60.0, count=2),), Select.MAX, (), 6, 6, None),
        ((Rate(60.0, count=2),), Select.MAX, ((59.0, 1),), 8, 5, AT + 1),
        ((Rate(60.0, count=2),), Select.MAX, ((60.0, 2),), 8, 6, AT + 60),
        ((Rate(60.0, count=2),), Select.MAX, ((30.0, 3),), 8, 4, AT + 30),
        ((Rate(60.0, count=2),), Select.MAX, ((30.0, -1),), 8, 7, AT + 30),  # what went away may come back
        ((Rate(60.0, share=0.3),), Select.MAX, (), 8, 6, AT + 60),  # 5.2 is rounded up
        ((Rate(60.0, count=1), Rate(30.0, share=1.0)), Select.MAX, (), 8, 8, None),
        ((Rate(60.0, count=1), Rate(30.0, share=1.0)), Select.MIN, (), 8, 5, AT + 60),
    ],
)
def test_the_rate_of_a_scale_out(
    rates: tuple[Rate, ...],
    select: Select,
    changes: tuple[tuple[float, int], ...],
    wanted: int,
    allowed: int,
    until: float | None,
) -> None:
    limits = DirectionLimits(0.0, 0.0, rates=rates, select=select)
    count, reasons = limit(wanted, situation(4, out=limits, changes=changes))
    assert count == allowed
    assert [(reason.code, reason.parameters["until"]) for reason in reasons] == (
        [] if until is None else [(ReasonCode.LIMITED_BY_RATE, until)]
    )


@pytest.mark.parametrize(
    ("rates", "select", "changes", "allowed"),
    [
        ((Rate(60.0, count=2),), Select.MAX, (), 6),
        ((Rate(60.0, count=2),), Select.MAX, ((10.0, -2),), 8),
        ((Rate(60.0, count=2),), Select.MAX, ((10.0, -1),), 7),
        ((Rate(60.0, share=0.3),), Select.MAX, (), 5),  # 5.6 stay
        ((Rate(60.0, share=0.1), Rate(60.0, count=4)), Select.MAX, (), 4),
        ((Rate(60.0, share=0.1), Rate(60.0, count=4)), Select.MIN, (), 7),
    ],
)
def test_the_rate_of_a_scale_in(
    rates: tuple[Rate, ...], select: Select, changes: tuple[tuple[float, int], ...], allowed: int
) -> None:
    limits = DirectionLimits(0.0, 0.0, rates=rates, select=select)
    assert limit(1, situation(8, into=limits, changes=changes))[0] == allowed


def test_a_share_of_nothing_lets_one_be() -> None:
    limits = DirectionLimits(0.0, 0.0, rates=(Rate(60.0, share=1.0),))
    assert limit(5, situation(0, size=(0, 8), out=limits))[0] == 1


def test_a_direction_that_is_switched_off() -> None:
    off = DirectionLimits(0.0, 0.0, enabled=False)
    assert limit(1, situation(4, into=off)) == (4, (because(ReasonCode.SCALE_IN_OFF, wanted=1),))
    assert limit(6, situation(4, out=off)) == (4, (because(ReasonCode.SCALE_OUT_OFF, wanted=6),))
    assert limit(6, situation(4, into=off))[0] == 6
    # The bounds are the operator's word, whatever is switched off.
    assert limit(6, situation(6, size=(1, 4), into=off))[0] == 4
    assert limit(2, situation(0, size=(2, 4), out=off))[0] == 2


def test_changes_are_remembered_for_as_long_as_a_rate_needs_them() -> None:
    into = DirectionLimits(0.0, 0.0, rates=(Rate(60.0, count=2),))
    policy = Policy("web", Image("p", "v"), Size(1, 8), behavior=Behavior(0.1, LOOSE, into))
    memory = GroupMemory(changes=(SizeChange(940.0, 1), SizeChange(941.0, 2)))
    assert note_change(memory, policy, -1, AT) == (SizeChange(941.0, 2), SizeChange(AT, -1))
    assert note_change(memory, policy, 0, AT) == (SizeChange(941.0, 2),)
    assert note_change(memory, replace(policy, behavior=Behavior()), -1, AT) == ()


def test_a_scale_in_stops_where_the_load_of_those_left_would_call_for_more() -> None:
    """Another strategy wants four removed; target tracking would add again below three."""
    samples = [LoadSample(AT - 10.0 * n, 0.3, 1.5, 1.5, 5, 0, 0, serving=5) for n in range(6, -1, -1)]
    reading = Reading(TargetTracking("guest.cpu", 0.5), samples, AT, 10.0)
    count, reasons = limit(1, situation(5, readings=(reading,)))
    assert (count, code(reasons)) == (3, [ReasonCode.LIMITED_BY_PROJECTION])
    assert reasons[0].parameters["load"] == pytest.approx(1.5)
    slow = situation(5, readings=(reading,), into=DirectionLimits(60.0, 0.0), scaled_in_at=AT - 10)
    assert code(limit(1, slow)[1]) == [ReasonCode.LIMITED_BY_PROJECTION, ReasonCode.HELD_BY_COOLDOWN]
    assert limit(1, slow)[0] == 5
