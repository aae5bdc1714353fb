"""What a finished step looks like from outside, and the counts that grow with it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from autoscaler.core.action import Clone, InFlight, Intent, IntentState, Outcome, Remove
from autoscaler.core.capacity import need_of
from autoscaler.core.decision import Decision, ReasonCode, decisive, scales
from autoscaler.core.errors import ControlError
from autoscaler.core.instances import Instance, unread_hosts
from autoscaler.core.launches import failed_launch, image_name, quantile, with_warm_up
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import (
    Change,
    HostCapacity,
    HostInventory,
    HostSample,
    Observation,
    Probe,
    TrafficView,
    Unknown,
)
from autoscaler.core.policy import Policy
from autoscaler.core.refresh_status import refresh_status
from autoscaler.core.serving import wanted
from autoscaler.core.snapshot import (
    GroupRoom,
    GroupStatus,
    GroupTotals,
    HostRoom,
    HostStatus,
    ImageLaunches,
    InstanceStatus,
    Portion,
    Scaling,
    Snapshot,
    Totals,
    TrafficStatus,
)
from autoscaler.core.step import StepResult, all_instances
from autoscaler.core.traffic import Wanted
from autoscaler.core.transition import InstanceState
from autoscaler.core.words import nearest


@dataclass(frozen=True)
class Finished:
    """A step that was committed: what went in, what came out, and the intents its actions became."""

    policies: tuple[Policy, ...]
    observation: Observation
    result: StepResult
    intents: tuple[Intent, ...]

    @cached_property
    def instances(self) -> Mapping[str, tuple[Instance, ...]]:
        """Every group's instances by its name, those that were just begun among them; looked for once."""
        return all_instances(self.policies, _with_begun(self), self.result.memory)


def group_statuses(finished: Finished) -> tuple[GroupStatus, ...]:
    """List every group that has a policy, and every one that has instances without a policy; sorted by name."""
    decisions = {decision.group: decision for decision in finished.result.decisions}
    statuses = [
        _managed(policy, finished.instances[policy.group], finished, decisions[policy.group])
        for policy in finished.policies
    ]
    for name, instances in finished.instances.items():
        if name not in decisions and instances:
            statuses.append(_unmanaged(name, instances, finished.result.memory))
    return tuple(sorted(statuses, key=lambda status: status.group))


def image_launches(finished: Finished) -> tuple[ImageLaunches, ...]:
    """Tell how long the launches of each policy's image took, of those that were measured."""
    measured = []
    for name in sorted({image_name(policy.image) for policy in finished.policies}):
        seconds = finished.result.memory.launches.get(name, ())
        median, slow = quantile(seconds, 0.5), quantile(seconds, 0.95)
        if median is not None and slow is not None:
            measured.append(ImageLaunches(name, len(seconds), median, slow))
    return tuple(measured)


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
                {name: pool.growth_bytes for name, pool in inventory.capacity.pools.items()},
            )
        )
    return tuple(rooms)


def _on(host: str, finished: Finished) -> list[Policy]:
    return sorted((policy for policy in finished.policies if policy.host == host), key=lambda policy: policy.group)


def _group_room(policy: Policy, capacity: HostCapacity, finished: Finished) -> GroupRoom:
    live = sum(i.live for i in finished.instances[policy.group])
    need = need_of(policy.machine, policy.image, capacity)
    return GroupRoom(policy.group, live, policy.size.max, tuple(Portion(k, amount) for k, amount in need.items()))


def accumulate(totals: Totals, finished: Finished) -> Totals:
    """Add one step's decisions, outcomes and arrivals."""
    groups = dict(totals.groups)
    for decision in finished.result.decisions:
        groups[decision.group] = _count_decision(groups.get(decision.group, GroupTotals()), decision)
    for outcome in finished.observation.outcomes:
        group = outcome.intent.action.group
        groups[group] = _count_outcome(groups.get(group, GroupTotals()), outcome)
    for transition in finished.result.transitions:
        total = groups.get(transition.group, GroupTotals())
        if transition.before is not transition.after:
            total = replace(
                total,
                transitions=_plus(total.transitions, {transition.after.value: 1}),
                failed_launches=total.failed_launches + failed_launch(transition),
            )
        groups[transition.group] = total
    for policy in finished.policies:
        known = finished.result.memory.groups.get(policy.group, GroupMemory())
        for instance in finished.instances[policy.group]:
            memory = known.instances.get(instance.id)
            if memory is not None and memory.ready_at == finished.observation.at and not memory.returned:
                total = groups[policy.group]
                launches = total.launches.add(max(memory.ready_at - instance.created_at, 0.0))
                groups[policy.group] = replace(total, launches=launches)
    return replace(totals, groups=groups)


_WITHOUT_MEMORY = frozenset({InstanceState.REQUESTED, InstanceState.CLONING, InstanceState.STOPPING})


def refuse_change(snapshot: Snapshot, instance: str, change: Change) -> str:
    """Give the group of an instance that may be changed so. Raises ControlError where it may not, or is not there."""
    found = [(status, each) for status in snapshot.groups for each in status.instances if each.instance == instance]
    if not found:
        known = (each.instance for status in snapshot.groups for each in status.instances)
        raise ControlError(f"there is no instance {instance}; {nearest(instance, known, 'instances')}")
    status, listed = found[0]
    if change is not Change.UNPROTECT and listed.state in _WITHOUT_MEMORY:
        raise ControlError(f"{instance} is {listed.state.value}; wait for it to be there, or to be gone")
    if change is Change.ATTACH:
        _refuse_attaching(status, listed)
    if change is Change.DETACH and listed.state is InstanceState.DETACHED:
        raise ControlError(f"{instance} is detached already; `autoscaler attach {instance}` takes it back")
    return status.group


def _refuse_attaching(status: GroupStatus, listed: InstanceStatus) -> None:
    if listed.state is not InstanceState.DETACHED:
        raise ControlError(f"{listed.instance} is not detached: it is {listed.state.value} in group {status.group}")
    owned = sum(each.state is not InstanceState.DETACHED for each in status.instances)
    if status.size is not None and owned >= status.size.max:
        raise ControlError(
            f"group {status.group} has {owned} of at most {status.size.max} instances; "
            "raise size.max in its policy, or scale it in, before taking another"
        )


def wanted_traffic(finished: Finished) -> dict[str, Wanted | None]:
    """Say what each group's load balancer should have: None for hands off; one that is to stay as it is, is left out.

    That is so where not all its instances could be listed.
    """
    observation, memory = finished.observation, finished.result.memory
    found = {}
    for policy in finished.policies:
        group = memory.groups.get(policy.group, GroupMemory())
        if policy.traffic is not None and not unread_hosts(observation, policy, group.instances):
            found[policy.group] = _wanted(policy, finished.instances[policy.group], finished)
    return found


def _wanted(policy: Policy, instances: Sequence[Instance], finished: Finished) -> Wanted | None:
    memory = finished.result.memory
    group = memory.groups.get(policy.group, GroupMemory())
    return wanted(with_warm_up(policy, memory.launches), instances, group, finished.observation.at)


def _traffic(policy: Policy, instances: Sequence[Instance], finished: Finished) -> TrafficStatus | None:
    if policy.traffic is None:
        return None
    view = finished.observation.traffic.get(policy.group)
    services = _wanted(policy, instances, finished)
    return TrafficStatus(
        policy.traffic.kind,
        () if services is None else services.services,
        view if isinstance(view, TrafficView) else None,
        view.why if isinstance(view, Unknown) else None,
    )


def _port(policy: Policy) -> int | None:
    if policy.traffic is not None:
        return policy.traffic.port
    return policy.ready.http.port if policy.ready.http is not None else policy.ready.tcp_port


def _with_begun(finished: Finished) -> Observation:
    begun = tuple(InFlight(intent, IntentState.OPEN) for intent in finished.intents)
    return replace(finished.observation, in_flight=finished.observation.in_flight + begun)


def _managed(policy: Policy, instances: Sequence[Instance], finished: Finished, decision: Decision) -> GroupStatus:
    group = finished.result.memory.groups.get(policy.group, GroupMemory())
    return GroupStatus(
        policy.group,
        policy.mode,
        policy.size,
        group.paused,
        group.override,
        decision,
        tuple(_instance(instance, group, finished.observation.probes) for instance in instances),
        breaker_open=group.tripped_at is not None,
        replacement_stopped=any(reason.code is ReasonCode.REPLACEMENT_STOPPED for reason in decision.reasons),
        image_changed=any(reason.code is ReasonCode.IMAGE_CHANGED for reason in decision.reasons),
        traffic=_traffic(policy, instances, finished),
        port=_port(policy),
        image=policy.image,
        refresh=refresh_status(policy, instances, group, finished.observation.at),
    )


def _unmanaged(name: str, instances: Sequence[Instance], memory: Memory) -> GroupStatus:
    group = memory.groups.get(name, GroupMemory())
    listed = tuple(_instance(instance, group, {}) for instance in instances)
    return GroupStatus(
        name, None, None, paused=False, override=None, decision=None, instances=listed, deleting=group.deleting
    )


def _instance(instance: Instance, group: GroupMemory, probes: Mapping[str, Probe]) -> InstanceStatus:
    life, known = group.lives.get(instance.id), group.instances.get(instance.id)
    followed = life if life is not None and life.state is instance.state else None
    detail = instance.note.value if instance.note is not None else instance.detail
    return InstanceStatus(
        instance.id,
        instance.host,
        instance.state,
        followed.since if followed is not None else instance.since,
        group.loads.get(instance.id),
        detail,
        followed.reason if followed is not None else None,
        known.protected_until if known is not None and instance.protected else None,
        known.address if known is not None else None,
        probe.detail if (probe := probes.get(instance.id)) is not None and not probe.passed else None,
        instance.image,
    )


def _count_decision(totals: GroupTotals, decision: Decision) -> GroupTotals:
    codes = [reason.code.value for reason in decision.reasons]
    codes += [recommendation.reason.code.value for recommendation in decision.recommendations]
    totals = replace(totals, reasons=_plus(totals.reasons, Counter(codes)))
    if scales(decision, totals.admitted):
        code = next((reason.code for reason in decisive(decision)), None)
        scaled = Scaling(decision.at, decision.current, decision.admitted, code)
        totals = replace(totals, scalings=_plus(totals.scalings, {scaled.direction: 1}), scaled=scaled)
    return replace(totals, admitted=decision.admitted)


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
