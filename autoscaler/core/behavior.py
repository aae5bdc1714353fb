"""What keeps a group steady between a recommendation and a desired count.

Bounds, windows, rates, projected load and cooldowns.

Every limiter returns the count it lets through and, where it changed it, the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from autoscaler.core import projection
from autoscaler.core.decision import Input, Reason, ReasonCode, because
from autoscaler.core.memory import GroupMemory, SizeChange, Wish
from autoscaler.core.policy import DirectionLimits, Policy, Rate, Select, Size, Starved
from autoscaler.core.reading import Reading
from autoscaler.core.windows import is_full, trim

STARVED_STEAL = 0.3
"""From this share of withheld time on the host is the bottleneck: the guests' load says too little to remove one."""

_EPSILON = 1e-9
"""Below this, a product differs from a whole number by floating point alone."""
_LARGEST = 1e300
"""Stands for infinity, which JSON does not know."""

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
    readings: Sequence[Reading] = ()


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
    limits, current = situation.policy.behavior.scale_out, situation.current
    if not limits.enabled:
        return current, (because(ReasonCode.SCALE_OUT_OFF, wanted=wanted),)
    reasons: tuple[Reason, ...] = ()
    for limiter in (_stabilize_out, _rate_out, _cool_down_out):
        if wanted == current:
            break
        wanted, more = limiter(wanted, situation)
        reasons += more
    return wanted, reasons


def _limit_in(wanted: int, situation: Situation) -> Limited:
    current, limits = situation.current, situation.policy.behavior.scale_in
    if not limits.enabled:
        return current, (because(ReasonCode.SCALE_IN_OFF, wanted=wanted),)
    unread = _unread(wanted, situation)
    if unread is not None:
        return current, (unread,)
    reasons: tuple[Reason, ...] = ()
    for limiter in (_stabilize_in, _project, _rate_in, _cool_down_in):
        if wanted == current:
            break
        wanted, more = limiter(wanted, situation)
        reasons += more
    return wanted, reasons


def _stabilize_out(wanted: int, situation: Situation) -> Limited:
    limits, current = situation.policy.behavior.scale_out, situation.current
    if limits.stabilization_seconds <= 0:
        return wanted, ()
    wishes = _settled_wishes(situation, limits)
    settled = max(current, min(wanted, *(wish.count for wish in wishes))) if wishes else current
    if settled == wanted:
        return wanted, ()
    lower = [wish for wish in wishes if wish.count < wanted]
    return settled, (_stabilization("out", wanted, situation, limits, settled, lower),)


def _stabilize_in(wanted: int, situation: Situation) -> Limited:
    limits, current = situation.policy.behavior.scale_in, situation.current
    if limits.stabilization_seconds <= 0:
        return wanted, ()
    wishes = _settled_wishes(situation, limits)
    settled = min(current, max(wanted, *(wish.count for wish in wishes))) if wishes else current
    if settled == wanted:
        return wanted, ()
    higher = [wish for wish in wishes if wish.count > wanted]
    return settled, (_stabilization("in", wanted, situation, limits, settled, higher),)


def _project(wanted: int, situation: Situation) -> Limited:
    count, veto = projection.fewest(situation.readings, wanted, situation.current, situation.policy.behavior)
    if veto is None:
        return wanted, ()
    signal = veto.reading.signal
    reason = because(
        ReasonCode.LIMITED_BY_PROJECTION,
        metric=signal.metric,
        load=min(veto.projected, _LARGEST),
        unit=signal.kind.unit.value,
        wanted=wanted,
        extreme=count,
    )
    return count, (reason,)


def _rate_out(wanted: int, situation: Situation) -> Limited:
    limits, current = situation.policy.behavior.scale_out, situation.current
    if not limits.rates:
        return wanted, ()
    bounds = []
    for rate in limits.rates:
        start = _before(rate, situation)
        # A share of nothing would never leave zero.
        most = start + rate.count if rate.count is not None else ceil(start * (1 + (rate.share or 0.0)) - _EPSILON)
        bounds.append((max(most, 1), rate))
    bound, rate = (max if limits.select is Select.MAX else min)(bounds, key=lambda entry: entry[0])
    allowed = min(wanted, max(current, bound))
    return allowed, () if allowed == wanted else (_limited_by_rate("out", wanted, allowed, rate, situation),)


def _rate_in(wanted: int, situation: Situation) -> Limited:
    limits, current = situation.policy.behavior.scale_in, situation.current
    if not limits.rates:
        return wanted, ()
    bounds = []
    for rate in limits.rates:
        start = _before(rate, situation)
        least = start - rate.count if rate.count is not None else int(start * (1 - (rate.share or 0.0)) + _EPSILON)
        bounds.append((least, rate))
    bound, rate = (min if limits.select is Select.MAX else max)(bounds, key=lambda entry: entry[0])
    allowed = max(wanted, min(current, bound))
    return allowed, () if allowed == wanted else (_limited_by_rate("in", wanted, allowed, rate, situation),)


def _before(rate: Rate, situation: Situation) -> int:
    """Give the count at the start of a rate's period."""
    return situation.current - sum(change.delta for change in _within(rate, situation))


def _within(rate: Rate, situation: Situation) -> list[SizeChange]:
    return [change for change in situation.memory.changes if change.at > situation.at - rate.per_seconds]


def _limited_by_rate(direction: str, wanted: int, allowed: int, rate: Rate, situation: Situation) -> Reason:
    first = min((change.at for change in _within(rate, situation)), default=situation.at)
    return because(
        ReasonCode.LIMITED_BY_RATE,
        direction=direction,
        wanted=wanted,
        extreme=allowed,
        window_seconds=rate.per_seconds,
        until=first + rate.per_seconds,
    )


def _cool_down_out(wanted: int, situation: Situation) -> Limited:
    return _cool_down("out", wanted, situation, (situation.memory.scaled_out_at,))


def _cool_down_in(wanted: int, situation: Situation) -> Limited:
    return _cool_down("in", wanted, situation, (situation.memory.scaled_in_at, situation.memory.scaled_out_at))


def _unread(wanted: int, situation: Situation) -> Reason | None:
    """Tell why the load does not allow a scale-in, if it does not."""
    holds = situation.policy.starved is Starved.HOLD
    for seen in situation.inputs:
        if seen.missing and seen.measured < situation.policy.behavior.quorum * (seen.measured + seen.missing):
            return because(ReasonCode.HELD_BY_MISSING_LOAD, missing=seen.missing, wanted=wanted)
        if holds and seen.steal is not None and seen.steal >= STARVED_STEAL:
            return because(ReasonCode.HELD_BY_STARVED_GUESTS, steal=seen.steal, wanted=wanted)
        if not seen.window_full:
            return because(
                ReasonCode.HELD_BY_UNFILLED_WINDOW,
                metric=seen.metric,
                window_seconds=seen.window_seconds,
                wanted=wanted,
            )
    return None


def _settled_wishes(situation: Situation, limits: DirectionLimits) -> tuple[Wish, ...]:
    """Give the wishes of a full stabilization window; empty while it is not full."""
    window = limits.stabilization_seconds
    if not is_full(situation.memory.wishes, situation.at, window, situation.interval_seconds):
        return ()
    return trim(situation.memory.wishes, situation.at, window)


def _cool_down(direction: str, wanted: int, situation: Situation, since: Sequence[float | None]) -> Limited:
    behavior = situation.policy.behavior
    limits = behavior.scale_out if direction == "out" else behavior.scale_in
    until = max((at + limits.cooldown_seconds for at in since if at is not None), default=situation.at)
    if situation.at >= until:
        return wanted, ()
    return situation.current, (because(ReasonCode.HELD_BY_COOLDOWN, direction=direction, wanted=wanted, until=until),)


def _stabilization(
    direction: str, wanted: int, situation: Situation, limits: DirectionLimits, extreme: int, others: Sequence[Wish]
) -> Reason:
    """Say what holds; it lets go when the last of the `others`, or the start of the record, has left the window."""
    holding = others or situation.memory.wishes[:1]
    since = holding[-1].at if holding else situation.at
    return because(
        ReasonCode.HELD_BY_STABILIZATION,
        direction=direction,
        wanted=wanted,
        window_seconds=limits.stabilization_seconds,
        extreme=extreme,
        until=since + limits.stabilization_seconds,
    )


def note_change(memory: GroupMemory, policy: Policy, delta: int, at: float) -> tuple[SizeChange, ...]:
    """Append a change of the count and drop what no rate limit can need."""
    rates = policy.behavior.scale_out.rates + policy.behavior.scale_in.rates
    longest = max((rate.per_seconds for rate in rates), default=0.0)
    kept = tuple(change for change in memory.changes if change.at > at - longest)
    return (*kept, SizeChange(at, delta)) if delta and rates else kept


def note_wish(memory: GroupMemory, policy: Policy, wanted: int, at: float) -> tuple[Wish, ...]:
    """Append a wish and drop what no stabilization window can need."""
    behavior = policy.behavior
    window = max(behavior.scale_out.stabilization_seconds, behavior.scale_in.stabilization_seconds)
    return trim((*memory.wishes, Wish(at, wanted)), at, window)
