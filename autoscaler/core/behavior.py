"""What keeps a group steady between a recommendation and a desired count: bounds, windows, cooldowns.

Every limiter returns the count it lets through and, where it changed it, the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoscaler.core.decision import Input, Reason, ReasonCode, because
from autoscaler.core.memory import GroupMemory, Wish
from autoscaler.core.policy import DirectionLimits, Policy, Size, Starved
from autoscaler.core.windows import is_full, trim

STARVED_STEAL = 0.3
"""From this share of withheld time on the host is the bottleneck: the guests' load says too little to remove one."""

Limited = tuple[int, tuple[Reason, ...]]


@dataclass(frozen=True, slots=True)
class Situation:
    """What the limiters look at; `memory.wishes` already holds this tick's."""

    policy: Policy
    memory: GroupMemory
    inputs: Sequence[Input]
    current: int
    at: float
    interval_seconds: float


def limit(wanted: int, situation: Situation) -> Limited:
    """Apply the bounds, then whatever holds the direction that is left.

    A group outside its bounds comes inside them at once, whatever holds it; limits start from there.
    """
    size, current = situation.policy.size, situation.current
    bounded, reasons = bound(wanted, size)
    if current > size.max:
        reasons += (because(ReasonCode.LOWERED_TO_MAX, max=size.max, current=current),)
    elif current < size.min <= wanted:
        reasons += (because(ReasonCode.RAISED_TO_MIN, min=size.min, wanted=wanted),)
    inside = replace(situation, current=min(max(current, size.min), size.max))
    held: Limited = (bounded, ())
    if bounded > inside.current:
        held = _limit_out(bounded, inside)
    elif bounded < inside.current:
        held = _limit_in(bounded, inside)
    return held[0], reasons + held[1]


def bound(wanted: int, size: Size) -> Limited:
    """Keep a count within min and max."""
    if wanted > size.max:
        return size.max, (because(ReasonCode.SCALE_OUT_LIMITED_BY_MAX, max=size.max, wanted=wanted),)
    if wanted < size.min:
        return size.min, (because(ReasonCode.RAISED_TO_MIN, min=size.min, wanted=wanted),)
    return wanted, ()


def _limit_out(wanted: int, situation: Situation) -> Limited:
    limits = situation.policy.behavior.scale_out
    current = situation.current
    stabilized: tuple[Reason, ...] = ()
    if limits.stabilization_seconds > 0:
        wishes = _settled_wishes(situation, limits)
        settled = max(current, min(wanted, *wishes)) if wishes else current
        if settled < wanted:
            stabilized = (_stabilization("out", wanted, limits, settled),)
            wanted = settled
    if wanted == current:
        return current, stabilized
    cooled, reasons = _cool_down("out", wanted, situation, limits, (situation.memory.scaled_out_at,))
    return cooled, stabilized + reasons


def _limit_in(wanted: int, situation: Situation) -> Limited:
    current, limits, memory = situation.current, situation.policy.behavior.scale_in, situation.memory
    unread = _unread(wanted, situation.inputs, starved_holds=situation.policy.starved is Starved.HOLD)
    if unread is not None:
        return current, (unread,)
    stabilized: tuple[Reason, ...] = ()
    if limits.stabilization_seconds > 0:
        wishes = _settled_wishes(situation, limits)
        settled = min(current, max(wanted, *wishes)) if wishes else current
        if settled > wanted:
            stabilized = (_stabilization("in", wanted, limits, settled),)
            wanted = settled
    if wanted == current:
        return current, stabilized
    cooled, reasons = _cool_down("in", wanted, situation, limits, (memory.scaled_in_at, memory.scaled_out_at))
    return cooled, stabilized + reasons


def _unread(wanted: int, inputs: Sequence[Input], *, starved_holds: bool) -> Reason | None:
    """Tell why the load does not allow a scale-in, if it does not."""
    for seen in inputs:
        if seen.missing:
            return because(ReasonCode.HELD_BY_MISSING_LOAD, missing=seen.missing, wanted=wanted)
        if starved_holds and seen.steal is not None and seen.steal >= STARVED_STEAL:
            return because(ReasonCode.HELD_BY_STARVED_GUESTS, steal=seen.steal, wanted=wanted)
        if not seen.window_full:
            return because(
                ReasonCode.HELD_BY_UNFILLED_WINDOW,
                metric=seen.metric,
                window_seconds=seen.window_seconds,
                wanted=wanted,
            )
    return None


def _settled_wishes(situation: Situation, limits: DirectionLimits) -> tuple[int, ...]:
    """Give the wishes of a full stabilization window; empty while it is not full."""
    window = limits.stabilization_seconds
    if not is_full(situation.memory.wishes, situation.at, window, situation.interval_seconds):
        return ()
    return tuple(wish.count for wish in trim(situation.memory.wishes, situation.at, window))


def _cool_down(
    direction: str, wanted: int, situation: Situation, limits: DirectionLimits, since: Sequence[float | None]
) -> Limited:
    until = max((at + limits.cooldown_seconds for at in since if at is not None), default=situation.at)
    if situation.at >= until:
        return wanted, ()
    return situation.current, (because(ReasonCode.HELD_BY_COOLDOWN, direction=direction, wanted=wanted, until=until),)


def _stabilization(direction: str, wanted: int, limits: DirectionLimits, extreme: int) -> Reason:
    return because(
        ReasonCode.HELD_BY_STABILIZATION,
        direction=direction,
        wanted=wanted,
        window_seconds=limits.stabilization_seconds,
        extreme=extreme,
    )


def note_wish(memory: GroupMemory, policy: Policy, wanted: int, at: float) -> tuple[Wish, ...]:
    """Append a wish and drop what no stabilization window can need."""
    behavior = policy.behavior
    window = max(behavior.scale_out.stabilization_seconds, behavior.scale_in.stabilization_seconds)
    return trim((*memory.wishes, Wish(at, wanted)), at, window)
