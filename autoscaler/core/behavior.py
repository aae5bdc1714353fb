"""What keeps a group steady between a recommendation and a desired count.

Bounds, windows, rates, projected load and cooldowns.

Every limiter returns the count it lets through and, where it changed it, the reason.
"""

from collections.abc import Callable, Iterable, Sequence
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


@dataclass(frozen=True, slots=True)
class _Direction:
    """Which way a count is to change, and what slows it there."""

    name: str
    limits: DirectionLimits
    sign: int
    """What an instance more, or less, adds to the count."""

    def nearest(self, counts: Iterable[int]) -> int:
        """Choose the count that goes least far in this direction."""
        return (min if self.sign > 0 else max)(counts)

    def farthest(self, counts: Iterable[int]) -> int:
        """Choose the count that goes farthest in this direction."""
        return (max if self.sign > 0 else min)(counts)

    def beyond(self, count: int, other: int) -> bool:
        """Whether a count goes farther in this direction than another."""
        return (count - other) * self.sign > 0


def _direction(wanted: int, situation: Situation) -> _Direction:
    behavior = situation.policy.behavior
    if wanted > situation.current:
        return _Direction("out", behavior.scale_out, 1)
    return _Direction("in", behavior.scale_in, -1)


def _limit_out(wanted: int, situation: Situation) -> Limited:
    if not situation.policy.behavior.scale_out.enabled:
        return situation.current, (because(ReasonCode.SCALE_OUT_OFF, wanted=wanted),)
    return _slow(wanted, situation, (_stabilize, _rate, _cool_down))


def _limit_in(wanted: int, situation: Situation) -> Limited:
    if not situation.policy.behavior.scale_in.enabled:
        return situation.current, (because(ReasonCode.SCALE_IN_OFF, wanted=wanted),)
    unread = _unread(wanted, situation)
    if unread is not None:
        return situation.current, (unread,)
    return _slow(wanted, situation, (_stabilize, _project, _rate, _cool_down))


def _slow(wanted: int, situation: Situation, limiters: Sequence[Callable[[int, Situation], Limited]]) -> Limited:
    """Apply one limiter after another, until nothing is left of the change."""
    reasons: tuple[Reason, ...] = ()
    for limiter in limiters:
        if wanted == situation.current:
            break
        wanted, more = limiter(wanted, situation)
        reasons += more
    return wanted, reasons


def _stabilize(wanted: int, situation: Situation) -> Limited:
    """Go no farther than the most careful wish of the window; nowhere while the window is not full."""
    direction, current = _direction(wanted, situation), situation.current
    if direction.limits.stabilization_seconds <= 0:
        return wanted, ()
    wishes = _settled_wishes(situation, direction.limits)
    careful = direction.nearest((wanted, *(wish.count for wish in wishes)))
    settled = direction.farthest((current, careful)) if wishes else current
    if settled == wanted:
        return wanted, ()
    held = [wish for wish in wishes if direction.beyond(wanted, wish.count)]
    return settled, (_stabilization(direction, wanted, situation, settled, held),)


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


def _rate(wanted: int, situation: Situation) -> Limited:
    """Go no farther than the policy's rates let the count change within their periods."""
    direction, current = _direction(wanted, situation), situation.current
    limits = direction.limits
    if not limits.rates:
        return wanted, ()
    bounds = {_bound(rate, direction, situation): rate for rate in reversed(limits.rates)}
    choose = direction.farthest if limits.select is Select.MAX else direction.nearest
    chosen = choose(bounds)
    allowed = direction.nearest((wanted, direction.farthest((current, chosen))))
    return allowed, () if allowed == wanted else (
        _limited_by_rate(direction, wanted, allowed, bounds[chosen], situation),
    )


def _bound(rate: Rate, direction: _Direction, situation: Situation) -> int:
    start = _before(rate, situation)
    if rate.count is not None:
        bound = start + direction.sign * rate.count
    else:
        # A part of an instance counts as a whole one, so that a share lets at least something change.
        exact = start * (1 + direction.sign * (rate.share or 0.0))
        bound = ceil(exact - _EPSILON) if direction.sign > 0 else int(exact + _EPSILON)
    # A share of nothing would never leave zero.
    return max(bound, 1) if direction.sign > 0 else bound


def _before(rate: Rate, situation: Situation) -> int:
    """Give the count at the start of a rate's period."""
    return situation.current - sum(change.delta for change in _within(rate, situation))


def _within(rate: Rate, situation: Situation) -> list[SizeChange]:
    return [change for change in situation.memory.changes if change.at > situation.at - rate.per_seconds]


def _limited_by_rate(direction: _Direction, wanted: int, allowed: int, rate: Rate, situation: Situation) -> Reason:
    first = min((change.at for change in _within(rate, situation)), default=situation.at)
    return because(
        ReasonCode.LIMITED_BY_RATE,
        direction=direction.name,
        wanted=wanted,
        extreme=allowed,
        window_seconds=rate.per_seconds,
        until=first + rate.per_seconds,
    )


def _cool_down(wanted: int, situation: Situation) -> Limited:
    """Wait after the last change: of either kind before a scale-in, of its own kind before a scale-out."""
    direction, memory = _direction(wanted, situation), situation.memory
    since = (memory.scaled_out_at,) if direction.sign > 0 else (memory.scaled_in_at, memory.scaled_out_at)
    cooldown = direction.limits.cooldown_seconds
    until = max((at + cooldown for at in since if at is not None), default=situation.at)
    if situation.at >= until:
        return wanted, ()
    reason = because(ReasonCode.HELD_BY_COOLDOWN, direction=direction.name, wanted=wanted, until=until)
    return situation.current, (reason,)


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


def _stabilization(
    direction: _Direction, wanted: int, situation: Situation, extreme: int, others: Sequence[Wish]
) -> Reason:
    """Say what holds; it lets go when the last of the `others`, or the start of the record, has left the window."""
    holding = others or situation.memory.wishes[:1]
    since = holding[-1].at if holding else situation.at
    return because(
        ReasonCode.HELD_BY_STABILIZATION,
        direction=direction.name,
        wanted=wanted,
        window_seconds=direction.limits.stabilization_seconds,
        extreme=extreme,
        until=since + direction.limits.stabilization_seconds,
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
