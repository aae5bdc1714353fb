"""What ended, was asked for, or was found since the last tick, taken into a group's memory."""

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core.action import Action, Clone, Collect, Drain, IntentState, Outcome, Remove, Start
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, InstanceMemory, Override
from autoscaler.core.observation import Change, Observation, Request
from autoscaler.core.policy import Policy
from autoscaler.core.reconcile import HOUR
from autoscaler.core.refresh import ask
from autoscaler.core.transition import InstanceState

_FIRST_BACKOFF_SECONDS = 10.0
_LONGEST_BACKOFF_SECONDS = 300.0
_REMOVAL_BACKOFF_SECONDS = 30.0


def take_in_requests(
    group: GroupMemory, policy: Policy, requests: Sequence[Request], at: float
) -> tuple[GroupMemory, tuple[Reason, ...]]:
    """Do what operators asked for, and say what could not be done."""
    reasons: tuple[Reason, ...] = ()
    for request in requests:
        if request.group != policy.group:
            continue
        if request.instance is None:
            group = _of_group(group, policy, request, at)
        else:
            group, refused = _of_instance(group, policy, request, request.instance)
            reasons += refused
    return group, reasons


def _of_group(group: GroupMemory, policy: Policy, request: Request, at: float) -> GroupMemory:
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
        case Change.RESET:
            group = replace(group, failures=0, retry_at=None, tripped_at=None)
        case Change.DELETE:
            group = replace(group, deleting=True)
        case Change.REFRESH | Change.CANCEL_REFRESH | Change.ROLL_BACK if policy.hosts:
            group = ask(group, policy, request, at)
    return group


def _of_instance(
    group: GroupMemory, policy: Policy, request: Request, name: str
) -> tuple[GroupMemory, tuple[Reason, ...]]:
    known = group.instances.get(name)
    if known is None:
        return group, ()
    admitted = group.admitted
    match request.change:
        case Change.PROTECT:
            assert request.for_seconds is not None
            known = replace(known, protected_until=request.at + request.for_seconds)
        case Change.UNPROTECT:
            known = replace(known, protected_until=None)
        case Change.DETACH:
            known = replace(known, detached=True, draining=None, draining_since=None, drained=False)
        case Change.ATTACH if known.detached:
            owned = sum(life.state is not InstanceState.DETACHED for life in group.lives.values())
            if policy.hosts and owned >= policy.size.max:
                refusal = because(ReasonCode.ATTACH_REFUSED_BY_MAX, instance=name, owned=owned, max=policy.size.max)
                return group, (refusal,)
            # One more than before: that it came back is no reason for another to leave at once.
            admitted = None if admitted is None else min(admitted + 1, max(policy.size.max, admitted))
            known = replace(known, detached=False)
    return replace(group, admitted=admitted, instances={**group.instances, name: known}), ()


def take_in_outcomes(group: GroupMemory, policy: Policy, observation: Observation) -> GroupMemory:
    """Count what failed, and back off from it; note whose drain hooks ended."""
    for outcome in observation.outcomes:
        action = outcome.intent.action
        if action.group != policy.group or isinstance(action, Collect):
            continue
        if isinstance(action, Drain):
            group = _drained(group, action.instance)
        elif outcome.state is IntentState.FAILED:
            group = _failed(group, policy, outcome, observation.at)
    return group


def _drained(group: GroupMemory, instance: str) -> GroupMemory:
    """Note that hooks ended, however they did: one that fails keeps no instance for ever."""
    known = group.instances.get(instance)
    if known is None or known.draining is None:
        return group
    return replace(group, instances={**group.instances, instance: replace(known, drained=True)})


def _failed(group: GroupMemory, policy: Policy, outcome: Outcome, at: float) -> GroupMemory:
    action = outcome.intent.action
    if isinstance(action, Remove):
        return replace(group, removal_retry_at=at + _REMOVAL_BACKOFF_SECONDS)
    if outcome.failure is not None and outcome.failure.kind is HypervisorErrorKind.INTERRUPTED:
        return group
    if isinstance(action, Start):
        return _start_failed(_back_off(group, at), action.instance)
    return _launch_failed(group, policy, at)


def _start_failed(group: GroupMemory, instance: str) -> GroupMemory:
    known = group.instances.get(instance)
    if known is None:
        return group
    return replace(
        group, instances={**group.instances, instance: replace(known, failed_starts=known.failed_starts + 1)}
    )


def _back_off(group: GroupMemory, at: float) -> GroupMemory:
    backoff = min(_FIRST_BACKOFF_SECONDS * 2**group.failures, _LONGEST_BACKOFF_SECONDS)
    return replace(group, failures=group.failures + 1, retry_at=at + backoff)


def _launch_failed(group: GroupMemory, policy: Policy, at: float) -> GroupMemory:
    """Back off, and trip the breaker where that was one too many; what cannot be brought back does not."""
    group, breaker = _back_off(group, at), policy.launch.breaker
    trips = group.tripped_at is None and 0 < breaker <= group.failures
    return replace(group, tripped_at=at) if trips else group


def take_in_instances(group: GroupMemory, remembered: dict[str, InstanceMemory], at: float) -> GroupMemory:
    """Keep what is known of the instances; one that became ready ends a row of failed launches.

    It does not close a breaker: that is the operator's to do, who knows why launches failed.
    """
    group = replace(group, instances=remembered)
    if any(instance.ready_at == at for instance in remembered.values()):
        return replace(group, failures=0, retry_at=None)
    return group


def take_in_failed_launches(
    group: GroupMemory, policy: Policy, instances: Sequence[Instance], actions: Sequence[Action], at: float
) -> GroupMemory:
    """Count the removal of an instance that failed before it ever was ready as a failed launch."""
    failed = {i.id for i in instances if i.state is InstanceState.FAILED}
    for action in actions:
        known = group.instances.get(action.instance)
        if isinstance(action, Remove) and action.instance in failed and (known is None or known.ready_at is None):
            group = _launch_failed(group, policy, at)
    return group


def take_in_clones(group: GroupMemory, actions: Sequence[Action], at: float) -> GroupMemory:
    """Count what is cloned against the budget of an hour."""
    begun = tuple(at for action in actions if isinstance(action, Clone))
    return replace(group, launched=tuple(each for each in group.launched if each > at - HOUR) + begun)
