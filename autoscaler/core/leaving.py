"""Which instances leave, in which order, and how: what failed, what is unhealthy, what is too old or too many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoscaler.core.action import Action, Drain, Remove
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, InstanceMemory
from autoscaler.core.policy import Policy, RemovalOrder
from autoscaler.core.replacing import is_refused, leave_now, running, stands_on, to_be_replaced
from autoscaler.core.transition import InstanceState, TransitionReason

_AT_ONCE = frozenset({TransitionReason.IO_ERROR})
"""What is unhealthy in these ways cannot shut itself down."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """What leaves at this tick, what stays after all, and how many are to be cloned beside it."""

    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()
    instances: Mapping[str, InstanceMemory] = field(default_factory=dict)
    """What is remembered of each instance after it."""
    lacking: int = 0
    """How many instances are to be cloned."""


@dataclass(frozen=True, slots=True)
class _Sides:
    """A group's instances by what is to become of them."""

    good: tuple[Instance, ...]
    """They serve, or will, and may stay."""
    replaced: tuple[Instance, ...]
    """They are to leave when what replaces them is ready: unhealthy, or the one that is too old."""
    reasons: tuple[Reason, ...]
    refreshed: tuple[Instance, ...] = ()
    """They are to leave as the group's refresh has it."""


def leave(
    policy: Policy,
    admitted: int,
    instances: Sequence[Instance],
    memory: GroupMemory,
    *,
    at: float,
    fitting: int | None = None,
) -> Leaving:
    """Plan what leaves of a group that should have `admitted` instances.

    `fitting` is how many more its host can carry; None where that is no matter of what its instances take of it.
    """
    known = dict(memory.instances)
    failed = [i for i in instances if i.state is InstanceState.FAILED and i.reachable and i.in_flight is None]
    sides = _take_sides(policy, admitted, instances, memory, at)
    lacking, back = _take_back(admitted - len(sides.good), instances, memory)
    for instance in back:
        known[instance.id] = replace(known[instance.id], draining=None, draining_since=None, drained=False)
    taken_back = tuple(because(ReasonCode.TAKEN_BACK, instance=instance.id) for instance in back)
    replaced = _replaced_now(policy, admitted, sides, lacking, (instances, _launches_held(memory, at)))
    wanted = lacking - len(replaced)
    refreshed, waits = leave_now(policy, admitted, sides.refreshed, (wanted, fitting), (instances, memory))
    surplus, spared = _surplus(policy, len(sides.good) - admitted, sides.good, memory, at)
    gone = [i for i in failed if not i.protected]
    reasons = tuple(_why_failed(policy, instance) for instance in gone)
    leaving = [
        *((i, i.detail or "failed", 0.0) for i in gone),
        *((i, _why_replaced(i).value, _grace(policy, i)) for i in replaced if _may_be_replaced(policy, i, known)),
    ]
    chosen = [(i, TransitionReason.SCALE_IN) for i in surplus]
    chosen += [(i, TransitionReason.MAX_LIFETIME) for i in replaced if i.state is not InstanceState.UNHEALTHY]
    chosen += [(i, TransitionReason.REFRESHED) for i in refreshed]
    drained = _drain(policy, chosen, known, at)
    waited = [i for i in instances if i.state is InstanceState.DRAINING and i not in back and not i.protected]
    ended = [i for i in waited if _has_drained(policy, known[i.id], memory.loads.get(i.id), at) and i.in_flight is None]
    leaving += [(i, i.detail or "scale_in", policy.drain.deadline_seconds) for i in ended]
    leaving += [(i, why.value, policy.drain.deadline_seconds) for i, why in drained.at_once]
    reasons += sides.reasons + taken_back + spared + waits + drained.reasons
    if leaving and memory.removal_retry_at is not None and at < memory.removal_retry_at:
        held = because(ReasonCode.HELD_BY_REMOVAL_BACKOFF, until=memory.removal_retry_at)
        return Leaving(drained.actions, (held, *sides.reasons), {**known, **drained.instances}, max(0, lacking))
    removes = tuple(Remove(policy.group, i.host, i.id, why, deadline) for i, why, deadline in leaving)
    return Leaving((*removes, *drained.actions), reasons, {**known, **drained.instances}, max(0, lacking))


def delete(policy: Policy, instances: Sequence[Instance], memory: GroupMemory, at: float) -> tuple[Remove, ...]:
    """Remove every instance of a group that is to be deleted, but for what is protected or detached."""
    if memory.removal_retry_at is not None and at < memory.removal_retry_at:
        return ()
    kept = {InstanceState.DETACHED, InstanceState.STOPPING}
    why, deadline = TransitionReason.GROUP_DELETED.value, policy.drain.deadline_seconds
    return tuple(
        Remove(policy.group, i.host, i.id, why, deadline)
        for i in instances
        if i.in_flight is None and i.state not in kept and not i.protected and i.reachable
    )


def too_many_sick(policy: Policy, instances: Sequence[Instance]) -> bool:
    """Whether so many are unhealthy that it is seldom their own fault."""
    sick = len(_sick(instances))
    live = sum(instance.live for instance in instances)
    return sick > max(1.0, policy.health.max_unhealthy_share * (live + sick))


def _sick(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    return tuple(i for i in instances if i.state is InstanceState.UNHEALTHY and i.reachable)


def _take_sides(policy: Policy, admitted: int, instances: Sequence[Instance], memory: GroupMemory, at: float) -> _Sides:
    sides = _failing_sides(policy, admitted, instances, memory, at)
    refreshed = to_be_replaced(policy, admitted, sides.good, memory)
    return replace(sides, good=tuple(i for i in sides.good if i not in refreshed), refreshed=refreshed)


def _failing_sides(
    policy: Policy, admitted: int, instances: Sequence[Instance], memory: GroupMemory, at: float
) -> _Sides:
    live = tuple(i for i in instances if i.live)
    sick = _sick(instances)
    # What a rollback takes out of service is ill for a known reason.
    if too_many_sick(policy, [i for i in instances if not is_refused(i, memory)]):
        # So many at once are seldom ill by themselves: they count as present, and nothing is cloned in their place.
        stopped = because(ReasonCode.REPLACEMENT_STOPPED, unhealthy=len(sick), owned=len(live) + len(sick))
        return _Sides((*live, *sick), (), (stopped,))
    if sick:
        reasons = tuple(
            because(ReasonCode.REPLACES_UNHEALTHY_INSTANCE, instance=i.id, state=i.detail or "unhealthy") for i in sick
        )
        return _Sides(live, sick, reasons)
    old = _oldest_expired(policy, admitted, instances, at) if running(memory) is None else None
    if old is None:
        return _Sides(live, (), ())
    lifetime = policy.removal.max_lifetime_seconds or 0.0
    reason = because(ReasonCode.REPLACES_OLD_INSTANCE, instance=old.id, lifetime_seconds=lifetime)
    return _Sides(tuple(i for i in live if i is not old), (old,), (reason,))


def _oldest_expired(policy: Policy, admitted: int, instances: Sequence[Instance], at: float) -> Instance | None:
    """Find the one that is too old, if any, while the group is whole and nothing else is on its way out."""
    lifetime = policy.removal.max_lifetime_seconds
    live = [i for i in instances if i.live]
    leaving = {InstanceState.DRAINING, InstanceState.STOPPING, InstanceState.FAILED}
    if lifetime is None or len(live) < admitted or any(i.state in leaving for i in instances):
        return None
    expired = [
        i
        for i in live
        if i.state is InstanceState.READY and i.in_flight is None and not i.protected and at - i.created_at > lifetime
    ]
    return min(expired, key=lambda i: (i.created_at, i.id), default=None)


def _take_back(lacking: int, instances: Sequence[Instance], memory: GroupMemory) -> tuple[int, list[Instance]]:
    """Keep what drains while the load has returned, and what an operator protects; give what lacks after it."""
    draining = [i for i in instances if i.state is InstanceState.DRAINING and not _is_going(i)]
    protected = [i for i in draining if i.protected]
    spare = sorted(
        (i for i in draining if not i.protected and _may_stay(i, memory)),
        key=lambda i: (-i.since, i.id),
    )
    back = protected + spare[: max(0, lacking - len(protected))]
    return lacking - len(back), back


def _may_stay(instance: Instance, memory: GroupMemory) -> bool:
    """Whether an instance drains only because it was one too many, or because a refresh wanted it gone."""
    why, refresh = memory.instances[instance.id].draining, running(memory)
    if why is TransitionReason.REFRESHED:
        return refresh is None or stands_on(refresh.target, instance)
    return why is TransitionReason.SCALE_IN


def _is_going(instance: Instance) -> bool:
    return instance.in_flight is not None and isinstance(instance.in_flight.intent.action, Remove)


def _replaced_now(
    policy: Policy, admitted: int, sides: _Sides, lacking: int, group: tuple[Sequence[Instance], bool]
) -> list[Instance]:
    """Choose whose replacement is there already, or has no room before it is gone.

    `group` is all instances, and whether launches are held: nothing makes room for what will not come.
    """
    instances, held = group
    free = [i for i in sides.replaced if not i.protected and i.in_flight is None]
    ready = sum(i.state is InstanceState.READY for i in sides.good)
    if ready >= admitted:
        return free
    if held:
        return []
    owned = sum(i.owned for i in instances)
    room = max(0, policy.size.max - owned)
    stopping = sum(i.state in {InstanceState.STOPPING, InstanceState.FAILED} for i in instances)
    return free[: max(0, lacking - room - stopping)]


def _launches_held(memory: GroupMemory, at: float) -> bool:
    return memory.tripped_at is not None or (memory.retry_at is not None and at < memory.retry_at)


def _surplus(
    policy: Policy, count: int, good: Sequence[Instance], memory: GroupMemory, at: float
) -> tuple[list[Instance], tuple[Reason, ...]]:
    """Choose what is too many: unhealthy first, then what is not ready, then by the policy's order."""
    if count <= 0:
        return [], ()
    idle = [i for i in good if i.in_flight is None]
    free = [i for i in idle if not i.protected]
    # A clock that was set back makes an instance younger than nothing.
    ripe = [i for i in free if max(at - i.created_at, 0.0) >= policy.removal.min_lifetime_seconds]
    chosen = sorted(ripe, key=lambda i: _expendable(i, policy.removal.order, memory.loads))[:count]
    reasons: list[Reason] = []
    # Only what would otherwise have left was spared.
    if len(chosen) < min(count, len(idle)):
        if len(free) < len(idle):
            reasons.append(because(ReasonCode.SPARED_BY_PROTECTION, protected=len(idle) - len(free), wanted=count))
        if len(ripe) < len(free):
            lifetime = policy.removal.min_lifetime_seconds
            reasons.append(
                because(
                    ReasonCode.SPARED_BY_MIN_LIFETIME,
                    young=len(free) - len(ripe),
                    lifetime_seconds=lifetime,
                    wanted=count,
                )
            )
    return chosen, tuple(reasons)


def _expendable(instance: Instance, order: RemovalOrder, loads: Mapping[str, float]) -> tuple[int, float, float, str]:
    """Sort key of who leaves first; a load that is not known is taken for a full one."""
    rank = {InstanceState.UNHEALTHY: 0, InstanceState.READY: 2}.get(instance.state, 1)
    match order:
        case RemovalOrder.NEWEST:
            first = -instance.created_at
        case RemovalOrder.OLDEST:
            first = instance.created_at
        case RemovalOrder.LEAST_LOADED:
            first = loads.get(instance.id, 1.0)
    return rank, first, -instance.created_at, instance.id


@dataclass(frozen=True, slots=True)
class _Drained:
    at_once: tuple[tuple[Instance, TransitionReason], ...]
    actions: tuple[Action, ...]
    reasons: tuple[Reason, ...]
    instances: Mapping[str, InstanceMemory]


def _drain(
    policy: Policy,
    chosen: Sequence[tuple[Instance, TransitionReason]],
    known: Mapping[str, InstanceMemory],
    at: float,
) -> _Drained:
    """Let what serves drain first, where the policy has it drain; everything else goes at once."""
    drain = policy.drain
    at_once: list[tuple[Instance, TransitionReason]] = []
    actions: list[Action] = []
    marked: dict[str, InstanceMemory] = {}
    for instance, why in chosen:
        drains = drain.hooks or drain.idle is not None or policy.traffic is not None
        if instance.state is not InstanceState.READY or not drains:
            at_once.append((instance, why))
            continue
        memory = known[instance.id]
        marked[instance.id] = replace(memory, draining=why, draining_since=at, drained=not drain.hooks)
        if drain.hooks:
            actions.append(Drain(policy.group, instance.host, instance.id, drain.hooks))
    reasons = tuple(because(ReasonCode.DRAINS, instance=name) for name in marked)
    return _Drained(tuple(at_once), tuple(actions), reasons, marked)


def _has_drained(policy: Policy, memory: InstanceMemory, load: float | None, at: float) -> bool:
    if policy.drain.hooks and not memory.drained:
        return False
    if policy.traffic is not None and not memory.released:
        return False
    idle = policy.drain.idle
    waited = memory.draining_since is None or at - memory.draining_since >= policy.drain.wait_seconds
    return idle is None or waited or (load is not None and load < idle)


def _may_be_replaced(policy: Policy, instance: Instance, known: Mapping[str, InstanceMemory]) -> bool:
    """Whether what is unhealthy can go now: what may yet serve somebody is spared its sessions."""
    if instance.state is not InstanceState.UNHEALTHY:
        return False
    return policy.traffic is None or _why_replaced(instance) in _AT_ONCE or known[instance.id].released


def _grace(policy: Policy, instance: Instance) -> float:
    return 0.0 if _why_replaced(instance) in _AT_ONCE else policy.drain.deadline_seconds


def _why_replaced(instance: Instance) -> TransitionReason:
    return TransitionReason(instance.detail) if instance.detail is not None else TransitionReason.REPLACED


def _why_failed(policy: Policy, instance: Instance) -> Reason:
    if instance.detail == TransitionReason.READY_TIMEOUT.value:
        timeout = policy.ready.timeout_seconds
        return because(ReasonCode.READY_TIMEOUT, instance=instance.id, timeout_seconds=timeout)
    return because(ReasonCode.REPLACES_FAILED_INSTANCE, instance=instance.id, state=instance.detail or "failed")
