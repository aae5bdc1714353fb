"""Where each instance was in its life at the last tick and is now: what lies between is a transition."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from autoscaler.core.action import Clone, IntentState, Remove
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, InstanceMemory, Life
from autoscaler.core.observation import HostInventory, Observation
from autoscaler.core.transition import InstanceState, Transition, TransitionReason

_S, _R = InstanceState, TransitionReason

_ARRIVALS: Mapping[InstanceState, TransitionReason] = {
    _S.REQUESTED: _R.REQUESTED,
    _S.CLONING: _R.CLONING,
    _S.BOOTING: _R.STARTED,
    _S.READY: _R.BECAME_READY,
    _S.DETACHED: _R.DETACHED,
    _S.RETURNING: _R.HOST_REBOOTED,
    _S.DRAINING: _R.SCALE_IN,
    _S.STOPPING: _R.STOPPED_BY_SOMEBODY,
    _S.REMOVED: _R.REMOVED,
    _S.FAILED: _R.LAUNCH_FAILED,
    _S.UNHEALTHY: _R.AGENT_SILENT,
}
"""Why an instance is most often in a state, where nothing more is known."""

_FROM: Mapping[tuple[InstanceState, InstanceState], TransitionReason] = {
    (_S.UNHEALTHY, _S.READY): _R.RECOVERED,
    (_S.DRAINING, _S.READY): _R.TAKEN_BACK,
    (_S.RETURNING, _S.BOOTING): _R.BROUGHT_BACK,
    (_S.RETURNING, _S.READY): _R.BROUGHT_BACK,
    (_S.STOPPING, _S.READY): _R.REMOVAL_FAILED,
    (_S.STOPPING, _S.BOOTING): _R.REMOVAL_FAILED,
    (_S.STOPPING, _S.FAILED): _R.REMOVAL_FAILED,
    (_S.STOPPING, _S.UNHEALTHY): _R.REMOVAL_FAILED,
    (_S.READY, _S.FAILED): _R.STOPPED_BY_SOMEBODY,
    (_S.DRAINING, _S.FAILED): _R.STOPPED_BY_SOMEBODY,
    (_S.UNHEALTHY, _S.FAILED): _R.STOPPED_BY_SOMEBODY,
    (_S.FAILED, _S.BOOTING): _R.STARTED_BY_SOMEBODY,
    (_S.FAILED, _S.READY): _R.STARTED_BY_SOMEBODY,
}

_RESTS = frozenset({_S.REQUESTED, _S.CLONING})
"""States of what has no domain yet: what is gone from them was a launch that failed."""


def follow(
    group: str, memory: GroupMemory, instances: Sequence[Instance], observation: Observation
) -> tuple[dict[str, Life], tuple[Transition, ...]]:
    """Bring the lives of a group up to what is seen of its instances, or planned for them."""
    lives: dict[str, Life] = {}
    transitions: list[Transition] = []
    for instance in instances:
        before = memory.lives.get(instance.id)
        life = _life(instance, before, memory.instances.get(instance.id), observation.at)
        if before is not None and before.state is InstanceState.STOPPING and _stays(instance.id, life, observation):
            life = replace(life, reason=TransitionReason.REMOVAL_FAILED)
        lives[instance.id] = life
        transition = _transition(group, instance.id, before, life, observation.at)
        if transition is not None:
            transitions.append(transition)
    for name, before in memory.lives.items():
        if name in lives:
            continue
        if isinstance(observation.inventory.get(before.host), HostInventory):
            reason = _why_gone(name, before, observation)
            after, at = InstanceState.REMOVED, observation.at
            transitions.append(Transition(group, name, before.host, before.state, after, at, reason))
        elif name in memory.instances:
            lives[name] = before
    return lives, tuple(transitions)


def _stays(name: str, life: Life, observation: Observation) -> bool:
    """Whether an instance is there after all because its removal failed."""
    return life.state is not InstanceState.STOPPING and any(
        isinstance(outcome.intent.action, Remove) and outcome.intent.action.instance == name
        for outcome in observation.outcomes
    )


def _life(instance: Instance, before: Life | None, known: InstanceMemory | None, at: float) -> Life:
    if before is not None and before.state is instance.state:
        return Life(instance.host, before.state, before.since, before.reason, instance.note)
    if before is None:
        # What is found at the first look may have been there for long.
        return Life(instance.host, instance.state, instance.since, _why_there(instance), instance.note)
    return Life(instance.host, instance.state, at, _why(instance, before, known), instance.note)


def _why_there(instance: Instance) -> TransitionReason:
    new = instance.in_flight is not None and isinstance(instance.in_flight.intent.action, Clone)
    return _ARRIVALS[instance.state] if new else TransitionReason.ADOPTED


def _why(instance: Instance, before: Life, known: InstanceMemory | None) -> TransitionReason:
    told = _told(instance, known)
    if told is not None:
        return told
    if before.state is InstanceState.DETACHED:
        return TransitionReason.ATTACHED
    if before.state is InstanceState.STOPPING and before.reason is TransitionReason.STOPPED_BY_SOMEBODY:
        return before.reason
    return _FROM.get((before.state, instance.state), _ARRIVALS[instance.state])


def _told(instance: Instance, known: InstanceMemory | None) -> TransitionReason | None:
    """Give the reason that the planner or the memory of the instance tells."""
    match instance.state:
        case InstanceState.STOPPING if instance.in_flight is not None:
            action = instance.in_flight.intent.action
            if not isinstance(action, Remove):
                return TransitionReason.UNDEFINED_BY_SOMEBODY
            return _known_reason(action.reason) or TransitionReason.REPLACED
        case InstanceState.DRAINING | InstanceState.UNHEALTHY if known is not None:
            return known.draining if instance.state is InstanceState.DRAINING else known.sick
        case InstanceState.FAILED | InstanceState.RETURNING:
            return _known_reason(instance.detail)
    return None


def _known_reason(text: str | None) -> TransitionReason | None:
    return TransitionReason(text) if text in {reason.value for reason in TransitionReason} else None


def _why_gone(name: str, before: Life, observation: Observation) -> TransitionReason:
    ended = [outcome for outcome in observation.outcomes if outcome.intent.action.instance == name]
    if any(isinstance(each.intent.action, Remove) and each.state is IntentState.DONE for each in ended):
        return TransitionReason.REMOVED
    if before.state in _RESTS or any(isinstance(each.intent.action, Clone) for each in ended):
        return TransitionReason.LAUNCH_FAILED
    by_hand = {TransitionReason.STOPPED_BY_SOMEBODY, TransitionReason.UNDEFINED_BY_SOMEBODY}
    removing = before.state is InstanceState.STOPPING and before.reason not in by_hand
    return TransitionReason.REMOVED if removing else TransitionReason.UNDEFINED_BY_SOMEBODY


def _transition(group: str, name: str, before: Life | None, life: Life, at: float) -> Transition | None:
    state = before.state if before is not None else None
    if before is None or before.state is not life.state:
        reason = life.reason or _ARRIVALS[life.state]
        return Transition(group, name, life.host, state, life.state, at, reason)
    if before.note is life.note:
        return None
    return Transition(group, name, life.host, state, life.state, at, life.note or _ENDED_NOTES[before.note])


def noticed(instances: Sequence[Instance], transitions: Sequence[Transition]) -> tuple[Reason, ...]:
    """Say what somebody did to instances that is left as it is."""
    paused = [i for i in instances if i.note is TransitionReason.PAUSED_BY_SOMEBODY]
    reasons = [because(ReasonCode.PAUSED_BY_SOMEBODY, instance=i.id) for i in paused]
    gone = [each for each in transitions if each.reason is TransitionReason.UNDEFINED_BY_SOMEBODY]
    reasons += [because(ReasonCode.UNDEFINED_BY_SOMEBODY, instance=each.instance) for each in gone]
    hosts = Counter(i.host for i in instances if not i.reachable)
    reasons += [because(ReasonCode.UNREACHABLE_INSTANCES, host=host, count=n) for host, n in sorted(hosts.items())]
    return tuple(reasons)


_ENDED_NOTES: Mapping[TransitionReason | None, TransitionReason] = {
    TransitionReason.PAUSED_BY_SOMEBODY: TransitionReason.RESUMED_BY_SOMEBODY,
    TransitionReason.RENAMED_BY_SOMEBODY: TransitionReason.RENAMED_BY_SOMEBODY,
    TransitionReason.UNREACHABLE: TransitionReason.REACHABLE,
}
