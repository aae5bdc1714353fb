"""From what was seen of a group's load to the count it should have."""

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core import behavior
from autoscaler.core.decision import Decision, Input, ReasonCode, Recommendation, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, LoadSample, Memory
from autoscaler.core.metrics import Source, Unit
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Policy, Signal, StepScaling, TargetTracking, ThresholdScaling
from autoscaler.core.reading import Reading, describe_input, retention_seconds
from autoscaler.core.signals import (
    FULL,
    Load,
    Measured,
    Members,
    group_sample,
    member_loads,
    outside_sample,
    why_unread,
)
from autoscaler.core.strategies import View, combine, schedule, step_scaling, target_tracking, threshold
from autoscaler.core.transition import InstanceState
from autoscaler.core.windows import trim

_SHOWN_LOADS = ("guest.cpu", "guest.memory")
"""The metrics that stand for an instance's load, a fraction of its capacity, wherever one figure is shown."""


def take_in_loads(
    group: GroupMemory,
    policy: Policy,
    instances: Sequence[Instance],
    observation: Observation,
    memory: Memory,
) -> GroupMemory:
    """Add this tick's load to the samples each strategy reads."""
    at, interval = observation.at, observation.interval_seconds
    loads = _loads(group, policy, instances, observation, memory)
    members = _members(group, policy, instances, at)
    alike: dict[str, list[Signal]] = {}
    for signal in policy.signals:
        alike.setdefault(signal.series, []).append(signal)
    samples: dict[str, tuple[LoadSample, ...]] = {}
    for name, signals in alike.items():
        series = group.samples.get(name, ())
        sample = _sample(signals[0], loads, policy, members, observation)
        if sample is not None and not (series and series[-1].at == at):
            series = (*series, sample)
        samples[name] = trim(series, at, max(retention_seconds(signal, interval) for signal in signals))
    shown = next((loads[metric] for metric in _SHOWN_LOADS if metric in loads), {})
    latest = {name: load.value for name, load in shown.items() if isinstance(load, Measured)}
    return replace(group, samples=samples, loads=latest)


def _loads(
    group: GroupMemory, policy: Policy, instances: Sequence[Instance], observation: Observation, memory: Memory
) -> dict[str, dict[str, Load]]:
    """Give the members' loads by metric; of the metrics that are measured in guests."""
    metrics = dict.fromkeys(signal.metric for signal in policy.signals if signal.kind.source is Source.GUEST)
    warm = (observation.at, policy.warm_up_seconds)
    counters = (memory.counters, observation.domains)
    return {
        metric: member_loads(metric, instances, group.instances, counters, warm, observation.interval_seconds)
        for metric in metrics
    }


def _members(group: GroupMemory, policy: Policy, instances: Sequence[Instance], at: float) -> Members:
    ready = [instance.id for instance in instances if instance.state is InstanceState.READY and instance.domain]
    ages = [at - (group.instances[name].ready_at or float("-inf")) for name in ready]
    return Members(sum(age >= policy.warm_up_seconds for age in ages), len(ready))


def _sample(
    signal: Signal, loads: dict[str, dict[str, Load]], policy: Policy, members: Members, observation: Observation
) -> LoadSample | None:
    if signal.kind.source is not Source.GUEST:
        return outside_sample(signal, policy.host, members, observation)
    full = FULL if signal.kind.unit is Unit.SHARE else None
    return group_sample(loads[signal.metric], signal.across, observation.at, full=full)


def _readings(policy: Policy, group: GroupMemory, observation: Observation) -> tuple[Reading, ...]:
    return tuple(
        Reading(signal, group.samples.get(signal.series, ()), observation.at, observation.interval_seconds)
        for signal in policy.signals
    )


def describe_inputs(policy: Policy, group: GroupMemory, observation: Observation) -> tuple[Input, ...]:
    """Record what each strategy sees."""
    return _describe(_readings(policy, group, observation), policy, observation)


def _describe(readings: Sequence[Reading], policy: Policy, observation: Observation) -> tuple[Input, ...]:
    return tuple(
        replace(describe_input(reading), why=why_unread(reading.signal, policy.host, observation))
        for reading in readings
    )


def _recommend(
    policy: Policy, group: GroupMemory, readings: Sequence[Reading], current: int, observation: Observation
) -> tuple[Recommendation, ...]:
    fixed: tuple[Recommendation, ...] = ()
    if not readings:
        count = policy.size.min
        fixed = (Recommendation("fixed size", count, because(ReasonCode.FIXED_SIZE, count=count)),)
    changed_at = max((at for at in (group.scaled_out_at, group.scaled_in_at) if at is not None), default=None)
    views = [View(reading, current, policy.behavior, changed_at) for reading in readings]
    scheduled = schedule.recommend(policy.schedules, observation.schedules)
    return (*fixed, *map(_ask, views), *scheduled)


def _ask(view: View) -> Recommendation:
    strategy = view.reading.signal
    match strategy:
        case TargetTracking():
            return target_tracking.recommend(strategy, view)
        case StepScaling():
            return step_scaling.recommend(strategy, view)
    assert isinstance(strategy, ThresholdScaling)
    return threshold.recommend(strategy, view)


def decide_count(
    policy: Policy, group: GroupMemory, current: int, observation: Observation
) -> tuple[Decision, GroupMemory]:
    """Decide how many instances the group should have; `current` is the count admitted before."""
    at = observation.at
    policy = schedule.in_force(policy, observation.schedules)
    readings = _readings(policy, group, observation)
    inputs = _describe(readings, policy, observation)
    recommendations = _recommend(policy, group, readings, current, observation)
    recommended = combine(recommendations, current)
    wishes = behavior.note_wish(group, policy, behavior.bound(recommended, policy.size)[0], at)
    override = group.override if group.override is not None and at < group.override.until else None
    group = replace(group, wishes=wishes, override=override)
    situation = behavior.Situation(policy, group, inputs, current, at, observation.interval_seconds, readings)
    desired, reasons = _desire(recommended, situation)
    decision = Decision(policy.group, at, current, inputs, recommendations, recommended, desired, desired, reasons)
    group = replace(
        group,
        admitted=decision.admitted,
        scaled_out_at=at if decision.admitted > current else group.scaled_out_at,
        scaled_in_at=at if decision.admitted < current else group.scaled_in_at,
        changes=behavior.note_change(group, policy, decision.admitted - current, at),
    )
    return decision, group


def _desire(recommended: int, situation: behavior.Situation) -> behavior.Limited:
    group = situation.memory
    if group.paused:
        return situation.current, ()
    if group.override is not None:
        held = group.override
        count, reasons = behavior.bound(held.count, situation.policy.size)
        reason = because(ReasonCode.HELD_BY_OPERATOR, count=held.count, until=held.until, by=held.by)
        return count, (reason, *reasons)
    return behavior.limit(recommended, situation)
