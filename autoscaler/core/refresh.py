"""A rolling refresh from phase to phase: canaries, a watch over them, batches with pauses, and the way back.

`replacing` does the counting. All that is remembered is a `RefreshState` with the group, so that a restart in the
middle goes on with it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from autoscaler.core.action import Clone, IntentState
from autoscaler.core.decision import ReasonCode
from autoscaler.core.errors import ControlError, HypervisorErrorKind
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, RefreshPhase, RefreshState, Setback
from autoscaler.core.observation import Change, Observation, Request
from autoscaler.core.policy import Image, Mode, Policy, Starved
from autoscaler.core.replacing import (
    NOT_YET_GONE,
    Refreshing,
    leave_now,
    stands_on,
    to_be_replaced,
)
from autoscaler.core.snapshot import GroupStatus
from autoscaler.core.starvation import starvation
from autoscaler.core.transition import InstanceState, TransitionReason

MOST_FAILED_LAUNCHES = 3
"""So many launches in a row that fail, after the canaries did not, make an image a bad one."""
_NOT_THE_IMAGES_FAULT = frozenset(
    {
        HypervisorErrorKind.INTERRUPTED,
        HypervisorErrorKind.NO_SPACE,
        HypervisorErrorKind.UNREACHABLE,
        HypervisorErrorKind.DEADLINE,
        HypervisorErrorKind.BUSY,
    }
)
_WAITING = frozenset({RefreshPhase.SOAK, RefreshPhase.PAUSE})


# What operators ask for


def ask(group: GroupMemory, policy: Policy, request: Request, at: float) -> GroupMemory:
    """Take an operator's wish in; one that has become meaningless since it was granted changes nothing."""
    refresh = group.refresh
    match request.change:
        case Change.REFRESH:
            under_way = refresh is not None and refresh.running and refresh.target.same_as(policy.image)
            if under_way or not policy.image.found:
                return group
            # What an earlier refresh did not prove yet is nothing to go back to.
            previous = refresh.previous if refresh is not None and refresh.running and refresh.unproven else None
            asked = _asked(policy.image, request.by, at)
            return replace(group, refresh=replace(asked, previous=previous))
        case Change.CANCEL_REFRESH if refresh is not None and refresh.running:
            return replace(group, refresh=_end(refresh, RefreshPhase.CANCELLED, at))
        case Change.ROLL_BACK if refresh is not None and refresh.previous is not None:
            return replace(group, refresh=_back(refresh, refresh.previous, request.by, at, Setback.ASKED))
    return group


def refuse_refresh(group: str, known: GroupStatus | None, change: Change) -> None:
    """Raise ControlError where a wish for a refresh makes no sense; `known` is what the last tick left of the group."""
    status, image = (None, None) if known is None else (known.refresh, known.image)
    running = status is not None and status.running
    if change is Change.REFRESH and image is not None and not image.found:
        raise ControlError(f"group {group} cannot be refreshed: its image {image} leads to no volume at present")
    if change is Change.CANCEL_REFRESH and not running:
        raise ControlError(
            f"no refresh of group {group} is under way; `autoscaler refresh {group} --status` shows more"
        )
    if change is Change.REFRESH and status is not None and running and status.target.same_as(image):
        raise ControlError(
            f"group {group} is being refreshed to {status.target} already; "
            f"`autoscaler refresh {group} --status` shows how far it is"
        )
    if change is not Change.ROLL_BACK:
        return
    if status is None or status.back:
        done = "goes or went back already" if status is not None else "was not refreshed"
        raise ControlError(f"group {group} {done}: to go to another image, change image in its policy and refresh it")
    if status.previous is None:
        raise ControlError(
            f"which image group {group} stood on before its refresh is not known; change image in its policy, reload, "
            f"and run `autoscaler refresh {group}`"
        )


def _asked(target: Image, by: str, at: float) -> RefreshState:
    return RefreshState(target, by, at, since=at, progress_at=at)


def _back(refresh: RefreshState, target: Image, by: str, at: float, why: Setback) -> RefreshState:
    return replace(_asked(target, by, at), back=True, refused=refresh.target, why=why)


def _end(refresh: RefreshState, phase: RefreshPhase, at: float) -> RefreshState:
    # Whoever stops a rollback has not said that the image it leaves is any better.
    return replace(refresh, phase=phase, since=at, held=False, refused=refresh.refused if refresh.back else None)


# From tick to tick


def hold_refresh(group: GroupMemory, at: float) -> GroupMemory:
    """Let nothing of a refresh go by while its group cannot be looked at or acted for."""
    refresh = group.refresh
    if refresh is None or not refresh.running:
        return group
    since = at if refresh.phase in _WAITING else refresh.since
    return replace(group, refresh=replace(refresh, since=since, progress_at=at))


def take_in_refresh(
    memory: GroupMemory, policy: Policy, instances: Sequence[Instance], observation: Observation
) -> GroupMemory:
    """Bring a refresh up to what is seen of its group."""
    refresh, at = memory.refresh, observation.at
    if refresh is None or not policy.hosts:
        # A policy that vanished may come back.
        return hold_refresh(memory, at)
    # A name that leads nowhere at present may lead there again.
    if refresh.refused is not None and policy.image.found and not refresh.refused.same_as(policy.image):
        refresh = replace(refresh, refused=refresh.refused if refresh.running and refresh.back else None)
    memory = replace(memory, refresh=refresh)
    if not refresh.running:
        return memory
    if memory.paused or policy.mode is Mode.SHADOW:
        return hold_refresh(memory, at)
    refresh = _advance(refresh, Refreshing(policy, memory, tuple(instances), at), observation)
    memory = replace(memory, refresh=refresh)
    return hold_refresh(memory, at) if refresh.held else memory


def _advance(refresh: RefreshState, group: Refreshing, observation: Observation) -> RefreshState:
    if refresh.phase is RefreshPhase.ASKED:
        refresh = _begin(refresh, group)
    refresh = replace(refresh, failed=_failed_in_a_row(refresh, group, observation))
    setback = _setback(refresh, group, observation)
    if setback is not None:
        return _set_back(refresh, group, *setback)
    hold = group.policy.starved is Starved.HOLD
    held = hold and starvation(group.policy, group.memory.samples, observation) is not None
    refresh = replace(refresh, held=held)
    return refresh if held else _go_on(refresh, group)


def _begin(refresh: RefreshState, group: Refreshing) -> RefreshState:
    if refresh.back or group.policy.refresh.canary == 0:
        refresh = _next_batch(refresh, group)
    else:
        refresh = replace(refresh, phase=RefreshPhase.CANARY, since=group.at)
    if refresh.back or (refresh.previous is not None and not refresh.previous.same_as(refresh.target)):
        return refresh
    return replace(refresh, previous=_mostly_stood_on(refresh, group))


def _mostly_stood_on(refresh: RefreshState, group: Refreshing) -> Image | None:
    """Give the image in service: what most instances stand on, and of several the oldest's."""
    counted = Counter(i.image for i in group.others(refresh) if i.image is not None)
    oldest = {i.image: i.created_at for i in sorted(group.instances, key=lambda i: (-i.created_at, i.id))}
    return min(counted, key=lambda image: (-counted[image], oldest[image]), default=None)


def _go_on(refresh: RefreshState, group: Refreshing) -> RefreshState:
    at, ready, wanted = group.at, group.ready(refresh), group.goal(refresh)
    others = group.others(refresh)
    if not others and ready >= wanted:
        return _end(refresh, RefreshPhase.ROLLED_BACK if refresh.back else RefreshPhase.DONE, at)
    match refresh.phase:
        case RefreshPhase.SOAK if ready < wanted:
            return _enter(refresh, RefreshPhase.CANARY, at)
        case RefreshPhase.SOAK | RefreshPhase.PAUSE:
            return _next_batch(refresh, group) if at >= waits_until(refresh, group.policy) else refresh
        case RefreshPhase.CANARY if ready >= wanted > 0 or (ready == group.new(refresh) > 0 and _waits(refresh, group)):
            return replace(_enter(refresh, RefreshPhase.SOAK, at), goal=ready)
        case RefreshPhase.BATCH if ready >= wanted and _is_replaced(refresh, group, others):
            return _enter(refresh, RefreshPhase.PAUSE, at)
    return _note_progress(refresh, group)


def waits_until(refresh: RefreshState, policy: Policy) -> float:
    """Give when a refresh goes on that waits of its own will."""
    watched = refresh.phase is RefreshPhase.SOAK
    return refresh.since + (policy.refresh.canary_soak_seconds if watched else policy.refresh.pause_seconds)


def _is_replaced(refresh: RefreshState, group: Refreshing, others: Sequence[Instance]) -> bool:
    """Whether everything of a batch has left."""
    memory = replace(group.memory, refresh=refresh)
    leaving = any(i.state in NOT_YET_GONE for i in others)
    return not leaving and not to_be_replaced(group.policy, group.admitted, group.live, memory)


def _enter(refresh: RefreshState, phase: RefreshPhase, at: float) -> RefreshState:
    # The time that a refresh waits of its own will does not count against it.
    waited = at - refresh.since if refresh.phase in _WAITING else 0.0
    return replace(refresh, phase=phase, since=at, progress_at=refresh.progress_at + waited)


def _next_batch(refresh: RefreshState, group: Refreshing) -> RefreshState:
    count = max(1, group.policy.refresh.batch.of(group.admitted))
    entered = _enter(refresh, RefreshPhase.BATCH, group.at)
    return replace(entered, batch=refresh.batch + 1, goal=group.new(refresh) + count)


def _note_progress(refresh: RefreshState, group: Refreshing) -> RefreshState:
    others = [i for i in group.live if not stands_on(refresh.target, i)]
    far = group.ready(refresh) - len(others)
    if refresh.furthest is None or far > refresh.furthest:
        return replace(refresh, furthest=far, progress_at=group.at)
    # Waiting for room may take as long as it takes.
    waits = _waits(refresh, group) is ReasonCode.REFRESH_LACKS_ROOM
    return replace(refresh, progress_at=group.at) if waits else refresh


def _waits(refresh: RefreshState, group: Refreshing) -> ReasonCode | None:
    """Tell what keeps the next instance from being made of the target, if neither room nor service allow it."""
    memory = replace(group.memory, refresh=refresh)
    replaced = to_be_replaced(group.policy, group.admitted, group.live, memory)
    lacking = group.admitted - (len(group.live) - len(replaced))
    _, reasons = leave_now(group.policy, group.admitted, replaced, (lacking, None), (group.instances, memory))
    return reasons[0].code if reasons else None


# What goes wrong


def _set_back(refresh: RefreshState, group: Refreshing, why: Setback, culprit: str | None) -> RefreshState:
    """Go back to what was in service, or stop where it is."""
    previous = refresh.previous
    if refresh.back or previous is None or not group.policy.refresh.rollback:
        ended = _end(refresh, RefreshPhase.FAILED, group.at)
        refused = refresh.refused if refresh.back else refresh.target if previous is not None else None
        return replace(ended, why=why, culprit=culprit, refused=refused)
    back = replace(_back(refresh, previous, refresh.by, group.at, why), culprit=culprit)
    return _begin(back, group)


def _setback(refresh: RefreshState, group: Refreshing, observation: Observation) -> tuple[Setback, str | None] | None:
    """Tell what makes the target a bad one, and the instance that shows it."""
    if refresh.unproven:
        found = _bad_canary(refresh, group, observation)
        if found is not None:
            return found
    elif (
        not refresh.back
        and refresh.failed
        and (refresh.failed >= MOST_FAILED_LAUNCHES or group.memory.tripped_at is not None)
    ):
        return Setback.LAUNCHES_FAILED, None
    late = group.at - refresh.progress_at > group.policy.refresh.timeout_seconds
    return (Setback.NO_PROGRESS, None) if late and refresh.phase not in _WAITING else None


def _bad_canary(refresh: RefreshState, group: Refreshing, observation: Observation) -> tuple[Setback, str] | None:
    for instance in group.instances:
        if not stands_on(refresh.target, instance) or _was_so_before(instance, refresh, group.memory):
            continue
        if instance.state is InstanceState.UNHEALTHY:
            return Setback.CANARY_UNHEALTHY, instance.id
        if instance.state is InstanceState.FAILED:
            late = instance.detail == TransitionReason.READY_TIMEOUT.value
            return Setback.CANARY_NOT_READY if late else Setback.CANARY_FAILED, instance.id
    failed = next(_launches_not_made(refresh, group.policy, observation), None)
    return None if failed is None else (Setback.CANARY_NOT_MADE, failed)


def _was_so_before(instance: Instance, refresh: RefreshState, memory: GroupMemory) -> bool:
    """Whether an instance was in its state before the refresh began, which then has not shown anything."""
    life = memory.lives.get(instance.id)
    return life is not None and life.state is instance.state and life.since < refresh.started_at


def _launches_not_made(refresh: RefreshState, policy: Policy, observation: Observation) -> Iterator[str]:
    """Name the instances that could not be made of the target, for a reason that may lie with it."""
    for outcome in observation.outcomes:
        action, failure = outcome.intent.action, outcome.failure
        if not isinstance(action, Clone) or action.group != policy.group or outcome.state is not IntentState.FAILED:
            continue
        excused = failure is not None and failure.kind in _NOT_THE_IMAGES_FAULT
        if not excused and refresh.target.same_as(action.image):
            yield action.instance


def _failed_in_a_row(refresh: RefreshState, group: Refreshing, observation: Observation) -> int:
    """Count launches from the target that failed since one of it became ready."""
    known, lives = group.memory.instances, group.memory.lives
    ours = [i for i in group.instances if stands_on(refresh.target, i)]
    if any(i.id in known and known[i.id].ready_at == group.at for i in ours):
        return 0
    # The lives are those of the tick before: one that had failed then is counted already.
    failed = InstanceState.FAILED
    new = [i for i in ours if i.state is failed and i.id in lives and lives[i.id].state is not failed]
    never_ready = sum(i.id not in known or known[i.id].ready_at is None for i in new)
    return refresh.failed + never_ready + sum(1 for _ in _launches_not_made(refresh, group.policy, observation))
