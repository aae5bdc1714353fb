"""One tick's thinking, as a pure function. The daemon, the dry run and the simulator all call this."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoscaler.core import behavior
from autoscaler.core.action import Action, IntentState, Remove, Start
from autoscaler.core.clock import set_back
from autoscaler.core.decision import Decision, Input, ReasonCode, Recommendation, because
from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.instances import Instance, boots, classify, owned_domains, remember, unread_hosts
from autoscaler.core.memory import GroupMemory, InstanceMemory, LoadSample, Memory, Override
from autoscaler.core.observation import Change, DomainCounters, HostInventory, Observation, Request, Unknown
from autoscaler.core.policy import Mode, Policy
from autoscaler.core.reconcile import Plan, clones, removals, starts, turns
from autoscaler.core.signals import Measured, group_sample, is_complete, member_loads
from autoscaler.core.snapshot import InstanceState
from autoscaler.core.strategies import combine, target_tracking
from autoscaler.core.windows import trim

_FIRST_BACKOFF_SECONDS = 10.0
_LONGEST_BACKOFF_SECONDS = 300.0
_REMOVAL_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gives: a decision per policy, the actions to begin, and the memory after it."""

    decisions: tuple[Decision, ...]
    actions: tuple[Action, ...]
    memory: Memory


def step(policies: Sequence[Policy], observation: Observation, memory: Memory) -> StepResult:
    """Decide for every group. Pure: the same arguments give the same result."""
    memory, shifted_seconds = set_back(memory, observation.at)
    # A group without a policy keeps its memory: its instances run on unmanaged, and the file may come back.
    groups = dict(memory.groups)
    decisions: list[Decision] = []
    actions: list[Action] = []
    seen = [_look(policy, observation, memory) for policy in sorted(policies, key=lambda policy: policy.group)]
    chosen = turns([i for each in seen if each.acts(observation.at) for i in each.instances], observation.workers)
    for each in seen:
        decision, planned, groups[each.policy.group] = _decide(each, observation, memory, chosen)
        if shifted_seconds:
            reason = because(ReasonCode.CLOCK_SET_BACK, seconds=shifted_seconds)
            decision = replace(decision, reasons=(reason, *decision.reasons))
        decisions.append(decision)
        actions.extend(planned)
    after = Memory(memory.controller, observation.at, groups, _counters(observation, memory))
    return StepResult(tuple(decisions), tuple(actions), after)


def group_instances(policy: Policy, observation: Observation, memory: Memory) -> tuple[Instance, ...]:
    """List a group's instances as the step that gave this memory saw them."""
    group = memory.groups.get(policy.group, GroupMemory())
    domains = tuple(owned_domains(observation, memory.controller, policy.group))
    return classify(policy, domains, observation.in_flight, group, observation.at)


def _counters(observation: Observation, memory: Memory) -> dict[str, DomainCounters]:
    """Keep what the next rates start from: complete counters, of domains that may still be there."""
    complete = {uuid: now for uuid, now in observation.domains.items() if is_complete(now)}
    listed = {
        domain.uuid
        for inventory in observation.inventory.values()
        if isinstance(inventory, HostInventory)
        for domain in inventory.domains
    }
    unread = any(isinstance(inventory, Unknown) for inventory in observation.inventory.values())
    kept = {uuid: before for uuid, before in memory.counters.items() if unread or uuid in listed}
    return kept | complete


@dataclass(frozen=True, slots=True)
class _Seen:
    """A group as this tick finds it: what was asked, what ended, and its instances unless a host was not read."""

    policy: Policy
    group: GroupMemory
    instances: tuple[Instance, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()

    def acts(self, at: float) -> bool:
        """Whether it may start instances now."""
        backs_off = self.group.retry_at is not None and at < self.group.retry_at
        return not (self.group.paused or self.policy.mode is Mode.SHADOW or backs_off)


def _look(policy: Policy, observation: Observation, memory: Memory) -> _Seen:
    at = observation.at
    group = memory.groups.get(policy.group, GroupMemory())
    group = _take_in_requests(group, policy, observation.requests)
    group = _take_in_outcomes(group, policy, observation)
    unread = unread_hosts(observation, policy, group.instances)
    if unread:
        return _Seen(policy, group, unread=unread)
    domains = tuple(owned_domains(observation, memory.controller, policy.group))
    remembered = remember(group.instances, domains, policy.ready, boots(observation), at)
    group = _take_in_instances(group, remembered, at)
    return _Seen(policy, group, classify(policy, domains, observation.in_flight, group, at))


def _decide(
    seen: _Seen, observation: Observation, memory: Memory, chosen: frozenset[str]
) -> tuple[Decision, tuple[Action, ...], GroupMemory]:
    policy, group, instances = seen.policy, seen.group, seen.instances
    at = observation.at
    if seen.unread:
        return _hold_unread(policy, group, observation, seen.unread), (), group
    group = _take_in_loads(group, policy, instances, observation, memory)
    current = group.admitted if group.admitted is not None else sum(instance.live for instance in instances)
    decision, group = _decide_count(policy, group, current, observation)
    if group.paused or policy.mode is Mode.SHADOW:
        code = ReasonCode.PAUSED if group.paused else ReasonCode.SHADOW
        return replace(decision, reasons=(*decision.reasons, because(code))), (), group
    removed = removals(policy, decision.admitted, instances, group, at)
    group = _take_in_failed_launches(group, instances, removed, at)
    going = {action.instance for action in removed.actions}
    started = starts(policy, [i for i in instances if i.id not in going], chosen, group, at)
    cloned, sequence = clones(policy, decision.admitted, instances, group, at=at, controller=memory.controller)
    reasons = decision.reasons + removed.reasons + started.reasons + cloned.reasons
    actions = (*removed.actions, *started.actions, *cloned.actions)
    return replace(decision, reasons=reasons), actions, replace(group, sequence=sequence)


def _take_in_requests(group: GroupMemory, policy: Policy, requests: Sequence[Request]) -> GroupMemory:
    for request in requests:
        if request.group != policy.group:
            continue
        match request.change:
            case Change.SCALE:
                assert request.count is not None
                assert request.for_seconds is not None
                override = Override(request.count, request.at + request.for_seconds, request.by)
                group = replace(group, override=override)
            case Change.AUTO:
                group = replace(group, override=None)
            case Change.PAUSE:
                group = replace(group, paused=True)
            case Change.RESUME:
                group = replace(group, paused=False)
    return group


def _take_in_outcomes(group: GroupMemory, policy: Policy, observation: Observation) -> GroupMemory:
    for outcome in observation.outcomes:
        action = outcome.intent.action
        if action.group != policy.group or outcome.state is not IntentState.FAILED:
            continue
        if isinstance(action, Remove):
            group = replace(group, removal_retry_at=observation.at + _REMOVAL_BACKOFF_SECONDS)
        elif outcome.failure is None or outcome.failure.kind is not HypervisorErrorKind.INTERRUPTED:
            group = _launch_failed(group, observation.at)
            if isinstance(action, Start):
                group = _start_failed(group, action.instance)
    return group


def _start_failed(group: GroupMemory, instance: str) -> GroupMemory:
    known = group.instances.get(instance)
    if known is None:
        return group
    return replace(
        group, instances={**group.instances, instance: replace(known, failed_starts=known.failed_starts + 1)}
    )


def _launch_failed(group: GroupMemory, at: float) -> GroupMemory:
    backoff = min(_FIRST_BACKOFF_SECONDS * 2**group.failures, _LONGEST_BACKOFF_SECONDS)
    return replace(group, failures=group.failures + 1, retry_at=at + backoff)


def _take_in_instances(group: GroupMemory, remembered: dict[str, InstanceMemory], at: float) -> GroupMemory:
    group = replace(group, instances=remembered)
    if any(instance.ready_at == at for instance in remembered.values()):
        return replace(group, failures=0, retry_at=None)
    return group


def _take_in_failed_launches(
    group: GroupMemory, instances: Sequence[Instance], removed: Plan, at: float
) -> GroupMemory:
    """Count the removal of an instance that failed before it ever was ready as a failed launch."""
    failed = {i.id for i in instances if i.state is InstanceState.FAILED}
    for action in removed.actions:
        known = group.instances.get(action.instance)
        if action.instance in failed and (known is None or known.ready_at is None):
            group = _launch_failed(group, at)
    return group


def _take_in_loads(
    group: GroupMemory,
    policy: Policy,
    instances: Sequence[Instance],
    observation: Observation,
    memory: Memory,
) -> GroupMemory:
    at = observation.at
    samples: dict[str, tuple[LoadSample, ...]] = {}
    latest: dict[str, float] = {}
    for strategy in policy.scaling:
        counters = (memory.counters, observation.domains)
        loads = member_loads(strategy.metric, instances, group.instances, counters, (at, policy.warm_up_seconds))
        latest |= {name: load.value for name, load in loads.items() if isinstance(load, Measured)}
        series = samples.get(strategy.series, group.samples.get(strategy.series, ()))
        sample = group_sample(loads, strategy.across, at)
        if sample is not None and not (series and series[-1].at == at):
            series = (*series, sample)
        window = max(other.over_seconds for other in policy.scaling if other.series == strategy.series)
        samples[strategy.series] = trim(series, at, window)
    return replace(group, samples=samples, loads=latest)


def _inputs(policy: Policy, group: GroupMemory, observation: Observation) -> tuple[Input, ...]:
    return tuple(
        target_tracking.describe_input(
            strategy, group.samples.get(strategy.series, ()), observation.at, observation.interval_seconds
        )
        for strategy in policy.scaling
    )


def _recommend(
    policy: Policy, group: GroupMemory, inputs: Sequence[Input], current: int, observation: Observation
) -> tuple[Recommendation, ...]:
    if not policy.scaling:
        count = policy.size.min
        return (Recommendation("fixed size", count, because(ReasonCode.FIXED_SIZE, count=count)),)
    recommendations = []
    for strategy, seen in zip(policy.scaling, inputs, strict=True):
        samples = group.samples.get(strategy.series, ())
        demand = target_tracking.demand_over(strategy, samples, observation.at, observation.interval_seconds)
        recommendations.append(
            target_tracking.recommend(strategy, demand, seen.value, current, policy.behavior.tolerance)
        )
    return tuple(recommendations)


def _decide_count(
    policy: Policy, group: GroupMemory, current: int, observation: Observation
) -> tuple[Decision, GroupMemory]:
    at = observation.at
    inputs = _inputs(policy, group, observation)
    recommendations = _recommend(policy, group, inputs, current, observation)
    recommended = combine(recommendations, current)
    wishes = behavior.note_wish(group, policy, behavior.bound(recommended, policy.size)[0], at)
    override = group.override if group.override is not None and at < group.override.until else None
    group = replace(group, wishes=wishes, override=override)
    desired, reasons = _desire(policy, group, inputs, (recommended, current), observation)
    decision = Decision(policy.group, at, current, inputs, recommendations, recommended, desired, desired, reasons)
    group = replace(
        group,
        admitted=decision.admitted,
        scaled_out_at=at if decision.admitted > current else group.scaled_out_at,
        scaled_in_at=at if decision.admitted < current else group.scaled_in_at,
    )
    return decision, group


def _desire(
    policy: Policy,
    group: GroupMemory,
    inputs: Sequence[Input],
    counts: tuple[int, int],
    observation: Observation,
) -> behavior.Limited:
    recommended, current = counts
    if group.paused:
        return current, ()
    if group.override is not None:
        held = group.override
        count, reasons = behavior.bound(held.count, policy.size)
        reason = because(ReasonCode.HELD_BY_OPERATOR, count=held.count, until=held.until, by=held.by)
        return count, (reason, *reasons)
    situation = behavior.Situation(policy, group, inputs, current, observation.at, observation.interval_seconds)
    return behavior.limit(recommended, situation)


def _hold_unread(
    policy: Policy, group: GroupMemory, observation: Observation, unread: Sequence[tuple[str, str]]
) -> Decision:
    """Do nothing for a group whose instances cannot be listed."""
    current = policy.size.min if group.admitted is None else group.admitted
    reasons = tuple(because(ReasonCode.HELD_BY_UNKNOWN_INVENTORY, host=host, why=why) for host, why in unread)
    inputs = _inputs(policy, group, observation)
    return Decision(policy.group, observation.at, current, inputs, (), current, current, current, reasons)
