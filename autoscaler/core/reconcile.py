"""From an admitted count and the instances there are, to the actions that move one toward the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s

from autoscaler.core.action import Action, Clone, Remove
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import READY_TIMEOUT, Instance
from autoscaler.core.memory import GroupMemory
from autoscaler.core.policy import Policy
from autoscaler.core.snapshot import InstanceState


@dataclass(frozen=True, slots=True)
class Plan:
    """The actions of one group in one tick; `sequence` is how many instance ids were given out after it."""

    actions: tuple[Action, ...]
    reasons: tuple[Reason, ...]
    sequence: int


def instance_id(controller: str, group: str, sequence: int) -> str:
    """Name an instance: unique to controller, group and sequence number, and the same for the same three."""
    digest = blake2s(f"{controller}/{group}/{sequence}".encode(), digest_size=4).hexdigest()
    return f"{group}-{digest}"


def plan(
    policy: Policy, admitted: int, instances: Sequence[Instance], memory: GroupMemory, *, at: float, controller: str
) -> Plan:
    """Clone what lacks, remove what failed and what is too many.

    Owned instances in any state and clones in flight all count against `max`, so a failed one is removed before it is
    replaced where there is no room for both.
    """
    live = [instance for instance in instances if instance.live]
    removals, reasons = _removals(policy, instances, len(live) - admitted, memory, at)
    if len(live) >= admitted:
        return Plan(removals, reasons, memory.sequence)
    count, limits = _clones_allowed(policy, admitted - len(live), len(instances), memory, at)
    taken = {instance.id for instance in instances}
    clones: list[Action] = []
    sequence = memory.sequence
    while len(clones) < count:
        name = instance_id(controller, policy.group, sequence)
        sequence += 1
        if name not in taken:
            clones.append(Clone(policy.group, policy.host, name, policy.image, policy.machine))
    return Plan((*removals, *clones), reasons + limits, sequence)


def _clones_allowed(
    policy: Policy, wanted: int, owned: int, memory: GroupMemory, at: float
) -> tuple[int, tuple[Reason, ...]]:
    if memory.retry_at is not None and at < memory.retry_at:
        return 0, (because(ReasonCode.HELD_BY_LAUNCH_BACKOFF, failures=memory.failures, until=memory.retry_at),)
    room = max(0, policy.size.max - owned)
    # After a failure one launch at a time proves that it works again.
    count = min(wanted, room, 1 if memory.failures else wanted)
    if wanted > room:
        return count, (because(ReasonCode.HELD_BY_OCCUPIED_MAX, owned=owned, max=policy.size.max, wanted=wanted),)
    return count, ()


def _removals(
    policy: Policy,
    instances: Sequence[Instance],
    excess: int,
    memory: GroupMemory,
    at: float,
) -> tuple[tuple[Action, ...], tuple[Reason, ...]]:
    failed = [i for i in instances if i.state is InstanceState.FAILED]
    idle = sorted((i for i in instances if i.live and i.in_flight is None), key=_expendable)
    surplus = idle[: max(0, excess)]
    if not failed and not surplus:
        return (), ()
    if memory.removal_retry_at is not None and at < memory.removal_retry_at:
        return (), (because(ReasonCode.HELD_BY_REMOVAL_BACKOFF, until=memory.removal_retry_at),)
    removals = [_remove(policy, i, i.detail or "failed", deadline_seconds=0.0) for i in failed]
    removals += [_remove(policy, i, "scale_in", policy.drain.deadline_seconds) for i in surplus]
    return tuple(removals), tuple(_why_failed(policy, instance) for instance in failed)


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
