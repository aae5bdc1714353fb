"""From what was seen of a group's load to the count it should have."""

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core import behavior
from autoscaler.core.decision import Decision, Input, ReasonCode, Recommendation, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, LoadSample, Memory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Policy
from autoscaler.core.signals import Measured, group_sample, member_loads
from autoscaler.core.strategies import combine, target_tracking
from autoscaler.core.windows import trim


def take_in_loads(
    group: GroupMemory,
    policy: Policy,
    instances: Sequence[Instance],
    observation: Observation,
    memory: Memory,
) -> GroupMemory:
    """Add this tick's load to the samples each strategy reads."""
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


def describe_inputs(policy: Policy, group: GroupMemory, observation: Observation) -> tuple[Input, ...]:
    """Record what each strategy sees."""
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


def decide_count(
    policy: Policy, group: GroupMemory, current: int, observation: Observation
) -> tuple[Decision, GroupMemory]:
    """Decide how many instances the group should have; `current` is the count admitted before."""
    at = observation.at
    inputs = describe_inputs(policy, group, observation)
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
