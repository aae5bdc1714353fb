"""From an admitted count and the instances there are, to the actions that move one toward the other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s

from autoscaler.core.action import Action, Clone, Start
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory
from autoscaler.core.policy import Image, Policy
from autoscaler.core.transition import InstanceState

HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Some of a group's actions in one tick, and what held others."""

    actions: tuple[Action, ...] = ()
    reasons: tuple[Reason, ...] = ()


def instance_id(controller: str, group: str, sequence: int) -> str:
    """Name an instance: unique to controller, group and sequence number, and the same for the same three."""
    digest = blake2s(f"{controller}/{group}/{sequence}".encode(), digest_size=4).hexdigest()
    return f"{group}-{digest}"


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
    policy: Policy,
    images: Sequence[Image],
    instances: Sequence[Instance],
    memory: GroupMemory,
    *,
    at: float,
    controller: str,
) -> tuple[Plan, int]:
    """Clone what lacks, one of each of `images`; also gives how many instance ids were given out after it.

    Owned instances in any state and clones in flight all count against `max`, so a failed one is removed before it is
    replaced where there is no room for both.
    """
    wanted = len(images)
    if not wanted:
        return Plan(), memory.sequence
    returning = sum(instance.state is InstanceState.RETURNING for instance in instances)
    if returning:
        return Plan(reasons=(because(ReasonCode.HELD_BY_RETURN, returning=returning, wanted=wanted),)), memory.sequence
    count, limits = _clones_allowed(policy, images, instances, memory, at)
    taken = {instance.id for instance in instances}
    actions: list[Clone] = []
    sequence = memory.sequence
    while len(actions) < count:
        name = instance_id(controller, policy.group, sequence)
        sequence += 1
        if name not in taken:
            image = images[len(actions)]
            actions.append(Clone(policy.group, policy.host, name, image, policy.machine, policy.cloud_init))
    return Plan(tuple(actions), limits), sequence


def _clones_allowed(
    policy: Policy, images: Sequence[Image], instances: Sequence[Instance], memory: GroupMemory, at: float
) -> tuple[int, tuple[Reason, ...]]:
    wanted = len(images)
    held = _held(policy, images, memory, at)
    if held is not None:
        return 0, (held,)
    owned, most = sum(instance.owned for instance in instances), policy.size.max
    room = max(0, most - owned)
    budget = policy.launch.per_hour(policy.size)
    left = max(0, budget - len(memory.launched))
    if memory.failures:
        trial = any(instance.live and instance.state is not InstanceState.READY for instance in instances)
        reason = because(ReasonCode.LIMITED_TO_TRIAL_LAUNCH, failures=memory.failures, wanted=wanted)
        return min(room, left, 0 if trial else 1), (reason,)
    if left < min(wanted, room):
        until = memory.launched[0] + HOUR
        return left, (because(ReasonCode.HELD_BY_BUDGET, budget=budget, wanted=wanted, until=until),)
    if wanted > room:
        return room, (because(ReasonCode.HELD_BY_OCCUPIED_MAX, owned=owned, max=most, wanted=wanted),)
    return wanted, ()


def _held(policy: Policy, images: Sequence[Image], memory: GroupMemory, at: float) -> Reason | None:
    """Tell what keeps a group from any launch."""
    wanted = len(images)
    unknown = next((image for image in images if not image.found), None)
    if unknown is not None:
        return because(ReasonCode.HELD_BY_UNKNOWN_IMAGE, image=str(unknown), host=policy.host, wanted=wanted)
    if memory.tripped_at is not None:
        return because(ReasonCode.HELD_BY_BREAKER, failures=memory.failures, wanted=wanted, group=policy.group)
    if memory.retry_at is not None and at < memory.retry_at:
        return because(ReasonCode.HELD_BY_LAUNCH_BACKOFF, failures=memory.failures, until=memory.retry_at)
    return None
