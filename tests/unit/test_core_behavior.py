import pytest

from autoscaler.core.behavior import Situation, limit
from autoscaler.core.decision import Input, Reason, ReasonCode, because
from autoscaler.core.memory import GroupMemory, Wish
from autoscaler.core.policy import Behavior, DirectionLimits, Image, Policy, Size

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
) -> Situation:
    policy = Policy("web", Image("p", "v"), Size(*size), behavior=Behavior(0.1, out, into))
    history = tuple(
        Wish(AT - 10.0 * age, count) for age, count in zip(range(len(wishes) - 1, -1, -1), wishes, strict=True)
    )
    memory = GroupMemory(wishes=history, scaled_out_at=scaled_out_at, scaled_in_at=scaled_in_at)
    return Situation(policy, memory, (seen,), current, AT, 10.0)


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
