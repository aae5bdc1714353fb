"""What a finished step looks like from outside, and the counts that grow with it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.action import Clone, InFlight, Intent, IntentState, Outcome, Remove
from autoscaler.core.capacity import need_of
from autoscaler.core.decision import Decision
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import (
    Domain,
    DomainState,
    HostCapacity,
    HostInventory,
    HostSample,
    Observation,
    Unknown,
)
from autoscaler.core.policy import Policy
from autoscaler.core.snapshot import (
    GroupRoom,
    GroupStatus,
    GroupTotals,
    HostRoom,
    HostStatus,
    InstanceState,
    InstanceStatus,
    Portion,
    Totals,
)
from autoscaler.core.step import StepResult, group_instances


@dataclass(frozen=True, slots=True)
class Finished:
    """A step that was committed: what went in, what came out, and the intents its actions became."""

    policies: tuple[Policy, ...]
    observation: Observation
    result: StepResult
    intents: tuple[Intent, ...]


def group_statuses(finished: Finished) -> tuple[GroupStatus, ...]:
    """List every group that has a policy, and every one that has instances without a policy; sorted by name."""
    observation = _with_begun(finished)
    memory = finished.result.memory
    decisions = {decision.group: decision for decision in finished.result.decisions}
    managed = [
        _managed(policy, group_instances(policy, observation, memory), memory, decisions[policy.group])
        for policy in finished.policies
    ]
    unmanaged = _unmanaged(observation, memory.controller, frozenset(decisions))
    return tuple(sorted((*managed, *unmanaged), key=lambda status: status.group))


def host_statuses(observation: Observation) -> tuple[HostStatus, ...]:
    """List every host: whether its hypervisor answered, and its load where that could be read."""
    statuses = []
    for host, inventory in sorted(observation.inventory.items()):
        why = inventory.why if isinstance(inventory, Unknown) else None
        sample = observation.hosts.get(host)
        statuses.append(HostStatus(host, why is None, why, sample if isinstance(sample, HostSample) else None))
    return tuple(statuses)


def room_statuses(finished: Finished) -> tuple[HostRoom, ...]:
    """Show the ledger of every host, with what one more of each group would take of it."""
    rooms = []
    for ledger in finished.result.ledgers:
        inventory = finished.observation.inventory[ledger.host]
        assert isinstance(inventory, HostInventory)
        assert inventory.capacity is not None
        told = finished.observation.hosts.get(ledger.host)
        sample = told if isinstance(told, HostSample) else None
        rooms.append(
            HostRoom(
                ledger,
                sum(tenant.balloon_bytes or tenant.memory_bytes or 0 for tenant in inventory.capacity.tenants),
                tuple(_group_room(policy, inventory.capacity, finished) for policy in _on(ledger.host, finished)),
                sample.top if sample is not None else (),
                sample.swap_total_bytes if sample is not None else None,
                sample.swap_used_bytes if sample is not None else None,
            )
        )
    return tuple(rooms)


def _on(host: str, finished: Finished) -> list[Policy]:
    return sorted((policy for policy in finished.policies if policy.host == host), key=lambda policy: policy.group)


def _group_room(policy: Policy, capacity: HostCapacity, finished: Finished) -> GroupRoom:
    live = sum(i.live for i in group_instances(policy, _with_begun(finished), finished.result.memory))
    need = need_of(policy.machine, policy.image, capacity)
    return GroupRoom(policy.group, live, policy.size.max, tuple(Portion(k, amount) for k, amount in need.items()))


def _with_begun(finished: Finished) -> Observation:
    begun = tuple(InFlight(intent, IntentState.OPEN) for intent in finished.intents)
    return replace(finished.observation, in_flight=finished.observation.in_flight + begun)


def accumulate(totals: Totals, finished: Finished) -> Totals:
    """Add one step's decisions, outcomes and arrivals."""
    groups = dict(totals.groups)
    for decision in finished.result.decisions:
        groups[decision.group] = _count_decision(groups.get(decision.group, GroupTotals()), decision)
    for outcome in finished.observation.outcomes:
        group = outcome.intent.action.group
        groups[group] = _count_outcome(groups.get(group, GroupTotals()), outcome)
    for policy in finished.policies:
        known = finished.result.memory.groups.get(policy.group, GroupMemory())
        for instance in group_instances(policy, finished.observation, finished.result.memory):
            memory = known.instances.get(instance.id)
            if memory is not None and memory.ready_at == finished.observation.at and not memory.returned:
                total = groups[policy.group]
                launches = total.launches.add(max(memory.ready_at - instance.created_at, 0.0))
                groups[policy.group] = replace(total, launches=launches)
    return replace(totals, groups=groups)


def _managed(policy: Policy, instances: Sequence[Instance], memory: Memory, decision: Decision) -> GroupStatus:
    group = memory.groups.get(policy.group, GroupMemory())
    listed = tuple(InstanceStatus(i.id, i.host, i.state, i.since, group.loads.get(i.id), i.detail) for i in instances)
    return GroupStatus(policy.group, policy.mode, policy.size, group.paused, group.override, decision, listed)


def _unmanaged(observation: Observation, controller: str, managed: frozenset[str]) -> list[GroupStatus]:
    groups: dict[str, list[InstanceStatus]] = {}
    for inventory in observation.inventory.values():
        if not isinstance(inventory, HostInventory):
            continue
        for domain in inventory.domains:
            owner = domain.ownership
            if owner is not None and owner.controller == controller and owner.group not in managed:
                status = InstanceStatus(owner.instance, domain.host, _state(domain), owner.created_at)
                groups.setdefault(owner.group, []).append(status)
    return [
        GroupStatus(group, None, None, paused=False, override=None, decision=None, instances=tuple(instances))
        for group, instances in groups.items()
    ]


def _state(domain: Domain) -> InstanceState:
    if domain.state is not DomainState.RUNNING:
        return InstanceState.FAILED
    return InstanceState.READY if domain.answers else InstanceState.BOOTING


def _count_decision(totals: GroupTotals, decision: Decision) -> GroupTotals:
    codes = [reason.code.value for reason in decision.reasons]
    codes += [recommendation.reason.code.value for recommendation in decision.recommendations]
    return replace(totals, reasons=_plus(totals.reasons, Counter(codes)))


def _count_outcome(totals: GroupTotals, outcome: Outcome) -> GroupTotals:
    if outcome.state is IntentState.FAILED:
        kind = outcome.failure.kind.value if outcome.failure is not None else "failed"
        return replace(totals, failures=_plus(totals.failures, {kind: 1}))
    seconds = max(outcome.ended_at - outcome.intent.at, 0.0)
    if isinstance(outcome.intent.action, Clone):
        return replace(totals, clones=totals.clones.add(seconds))
    if isinstance(outcome.intent.action, Remove):
        return replace(totals, removals=totals.removals.add(seconds))
    return totals


def _plus(counts: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    return {key: counts.get(key, 0) + more.get(key, 0) for key in {*counts, *more}}
