"""From an admitted count and the instances there are, to the actions that move one toward the other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s

from autoscaler.core.action import Action, Clone, Remove, Start
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import READY_TIMEOUT, Instance
from autoscaler.core.memory import GroupMemory
from autoscaler.core.policy import Policy
from autoscaler.core.transition import InstanceState


@dataclass(frozen=True, slots=True)
class Plan:
    """Some of a group's actions in one tick, and what held others."""

    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()


def instance_id(controller: str, group: str, sequence: int) -> str:
    """Name an instance: unique to controller, group and sequence number, and the same for the same three."""
    digest = blake2s(f"{controller}/{group}/{sequence}".encode(), digest_size=4).hexdigest()
    return f"{group}-{digest}"


def removals(policy: Policy, admitted: int, instances: Sequence[Instance], memory: GroupMemory, at: float) -> Plan:
    """Remove what failed and what is too many: what is not ready first, then the newest."""
    failed = [i for i in instances if i.state is InstanceState.FAILED]
    live = [i for i in instances if i.live]
    idle = sorted((i for i in live if i.in_flight is None), key=_expendable)
    surplus = idle[: max(0, len(live) - admitted)]
    if not failed and not surplus:
        return Plan()
    if memory.removal_retry_at is not None and at < memory.removal_retry_at:
        return Plan(reasons=(because(ReasonCode.HELD_BY_REMOVAL_BACKOFF, until=memory.removal_retry_at),))
    actions = [_remove(policy, i, i.detail or "failed", deadline_seconds=0.0) for i in failed]
    actions += [_remove(policy, i, "scale_in", policy.drain.deadline_seconds) for i in surplus]
    return Plan(tuple(actions), tuple(_why_failed(policy, instance) for instance in failed))


def turns(instances: Sequence[Instance], at_once: int) -> frozenset[str]:
    """Name whose turn it is to be brought back, of all groups: the oldest, while fewer than `at_once` come up per host.

    A host that boots everything it has at once serves nobody for long.
    """
    waiting = [i for i in instances if i.state is InstanceState.RETURNING and i.in_flight is None]
    coming = Counter(
        i.host
        for i in instances
        if i.state is InstanceState.BOOTING or (i.state is InstanceState.RETURNING and i.in_flight is not None)
    )
    chosen = set()
    for instance in sorted(waiting, key=lambda i: (i.created_at, i.id)):
        if coming[instance.host] < at_once:
            coming[instance.host] += 1
            chosen.add(instance.id)
    return frozenset(chosen)


def starts(
    policy: Policy, instances: Sequence[Instance], chosen: frozenset[str], memory: GroupMemory, at: float
) -> Plan:
    """Bring back what went off with its host and has its turn."""
    waiting = [i for i in instances if i.state is InstanceState.RETURNING and i.in_flight is None]
    if not waiting:
        return Plan()
    if memory.retry_at is not None and at < memory.retry_at:
        reason = because(ReasonCode.HELD_BY_LAUNCH_BACKOFF, failures=memory.failures, until=memory.retry_at)
        return Plan(reasons=(reason,))
    begun = sorted((i for i in waiting if i.id in chosen), key=lambda i: (i.created_at, i.id))
    reasons = tuple(because(ReasonCode.BROUGHT_BACK, instance=i.id, state=i.detail or "off") for i in begun)
    if len(begun) < len(waiting):
        reasons += (because(ReasonCode.RETURN_WAITS, waiting=len(waiting) - len(begun)),)
    return Plan(tuple(Start(policy.group, i.host, i.id) for i in begun), reasons)


def clones(
    policy: Policy, admitted: int, instances: Sequence[Instance], memory: GroupMemory, *, at: float, controller: str
) -> tuple[Plan, int]:
    """Clone what lacks; also gives how many instance ids were given out after it.

    Owned instances in any state and clones in flight all count against `max`, so a failed one is removed before it is
    replaced where there is no room for both.
    """
    lacking = admitted - sum(instance.live for instance in instances)
    if lacking <= 0:
        return Plan(), memory.sequence
    returning = sum(instance.state is InstanceState.RETURNING for instance in instances)
    if returning:
        return Plan(reasons=(because(ReasonCode.HELD_BY_RETURN, returning=returning, wanted=lacking),)), memory.sequence
    count, limits = _clones_allowed(policy, lacking, instances, memory, at)
    taken = {instance.id for instance in instances}
    actions: list[Clone] = []
    sequence = memory.sequence
    while len(actions) < count:
        name = instance_id(controller, policy.group, sequence)
        sequence += 1
        if name not in taken:
            actions.append(Clone(policy.group, policy.host, name, policy.image, policy.machine))
    return Plan(tuple(actions), limits), sequence


def _clones_allowed(
    policy: Policy, wanted: int, instances: Sequence[Instance], memory: GroupMemory, at: float
) -> tuple[int, tuple[Reason, ...]]:
    if memory.retry_at is not None and at < memory.retry_at:
        return 0, (because(ReasonCode.HELD_BY_LAUNCH_BACKOFF, failures=memory.failures, until=memory.retry_at),)
    owned, most = len(instances), policy.size.max
    room = max(0, most - owned)
    if memory.failures:
        trial = any(instance.live and instance.state is not InstanceState.READY for instance in instances)
        reason = because(ReasonCode.LIMITED_TO_TRIAL_LAUNCH, failures=memory.failures, wanted=wanted)
        return min(room, 0 if trial else 1), (reason,)
    if wanted > room:
        return room, (because(ReasonCode.HELD_BY_OCCUPIED_MAX, owned=owned, max=most, wanted=wanted),)
    return wanted, ()


def _why_failed(policy: Policy, instance: Instance) -> Reason:
    if instance.detail == READY_TIMEOUT:
        timeout = policy.ready.timeout_seconds
        return because(ReasonCode.READY_TIMEOUT, instance=instance.id, timeout_seconds=timeout)
    return because(ReasonCode.REPLACES_FAILED_INSTANCE, instance=instance.id, state=instance.detail or "failed")


def _expendable(instance: Instance) -> tuple[bool, float, str]:
    """Sort key: what is not ready goes first, then the newest."""
    return instance.state is InstanceState.READY, -instance.created_at, instance.id


def _remove(policy: Policy, instance: Instance, reason: str, deadline_seconds: float) -> Remove:
    return Remove(policy.group, instance.host, instance.id, reason, deadline_seconds)
