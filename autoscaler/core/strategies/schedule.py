"""Schedules: bounds, or a count, while a span is active.

Which spans are active is part of the observation, so that the core knows no calendar and a replay meets the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from autoscaler.core.decision import Parameter, ReasonCode, Recommendation, because
from autoscaler.core.observation import ScheduleState
from autoscaler.core.policy import Policy, Schedule

States = Mapping[str, ScheduleState]


def in_force(policy: Policy, states: States) -> Policy:
    """Narrow a policy's size to what its active schedules say; where they contradict each other, max holds."""
    active = [each for each in policy.schedules if _is_active(each, states)]
    if not active:
        return policy
    high = min([policy.size.max, *(each.max for each in active if each.max is not None)])
    low = max([policy.size.min, *(each.min for each in active if each.min is not None)])
    return replace(policy, size=replace(policy.size, min=min(low, high), max=high))


def recommend(schedules: Sequence[Schedule], states: States) -> Iterator[Recommendation]:
    """Wish for the counts of active schedules, and record what the others stand at.

    One that cannot be told blocks scale-in; one that is not active, or only sets bounds, abstains.
    """
    for schedule in schedules:
        name = f"schedule {schedule.cron} {schedule.timezone}"
        state = states.get(schedule.key)
        if state is None:
            yield Recommendation(name, None, because(ReasonCode.SCHEDULE_UNKNOWN, cron=schedule.cron))
            continue
        about: dict[str, Parameter] = {"cron": schedule.cron}
        if state.until is not None:
            about["edge"] = state.until
        if not state.active:
            yield Recommendation(name, None, because(ReasonCode.SCHEDULE_INACTIVE, **about), abstains=True)
            continue
        if schedule.desired is not None:
            reason = because(ReasonCode.SCHEDULE_DESIRES, **about, count=schedule.desired)
            yield Recommendation(name, schedule.desired, reason)
        if schedule.min is not None:
            reason = because(ReasonCode.SCHEDULE_SETS_MIN, **about, min=schedule.min)
            yield Recommendation(name, None, reason, abstains=True)
        if schedule.max is not None:
            reason = because(ReasonCode.SCHEDULE_SETS_MAX, **about, max=schedule.max)
            yield Recommendation(name, None, reason, abstains=True)


def _is_active(schedule: Schedule, states: States) -> bool:
    state = states.get(schedule.key)
    return state is not None and state.active
