"""What ended, was asked for, or was found since the last tick, taken into a group's memory."""

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core.action import Collect, IntentState, Remove, Start
from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, InstanceMemory, Override
from autoscaler.core.observation import Change, Observation, Request
from autoscaler.core.policy import Policy
from autoscaler.core.reconcile import Plan
from autoscaler.core.snapshot import InstanceState

_FIRST_BACKOFF_SECONDS = 10.0
_LONGEST_BACKOFF_SECONDS = 300.0
_REMOVAL_BACKOFF_SECONDS = 30.0


def take_in_requests(group: GroupMemory, policy: Policy, requests: Sequence[Request]) -> GroupMemory:
    """Do what operators asked for."""
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


def take_in_outcomes(group: GroupMemory, policy: Policy, observation: Observation) -> GroupMemory:
    """Count what failed, and back off from it."""
    for outcome in observation.outcomes:
        action = outcome.intent.action
        if action.group != policy.group or outcome.state is not IntentState.FAILED or isinstance(action, Collect):
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


def take_in_instances(group: GroupMemory, remembered: dict[str, InstanceMemory], at: float) -> GroupMemory:
    """Keep what is known of the instances; one that became ready ends a row of failed launches."""
    group = replace(group, instances=remembered)
    if any(instance.ready_at == at for instance in remembered.values()):
        return replace(group, failures=0, retry_at=None)
    return group


def take_in_failed_launches(group: GroupMemory, instances: Sequence[Instance], removed: Plan, at: float) -> GroupMemory:
    """Count the removal of an instance that failed before it ever was ready as a failed launch."""
    failed = {i.id for i in instances if i.state is InstanceState.FAILED}
    for action in removed.actions:
        known = group.instances.get(action.instance)
        if action.instance in failed and (known is None or known.ready_at is None):
            group = _launch_failed(group, at)
    return group
