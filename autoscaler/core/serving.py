"""Which instances of a group are to be served, and which may go as far as those they serve are concerned.

What is remembered of this stands with each instance, so that a restart in the middle of a drain goes on with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.leaving import too_many_sick
from autoscaler.core.memory import GroupMemory, InstanceMemory
from autoscaler.core.observation import Domain, Observation, Slot, SlotState, TrafficView, Unknown
from autoscaler.core.policy import Mode, Policy, Traffic, TrafficKind, WhenDown
from autoscaler.core.traffic import Service, Wanted, slot_of
from autoscaler.core.transition import InstanceState

_LEAVING = frozenset({InstanceState.DRAINING, InstanceState.UNHEALTHY})
_EMPTIED = frozenset({InstanceState.DRAINING, InstanceState.UNHEALTHY, InstanceState.STOPPING, InstanceState.DETACHED})
"""Nothing new is sent to these; what is under way there may end."""


def take_in_traffic(
    group: GroupMemory, policy: Policy, instances: Sequence[Instance], observation: Observation
) -> GroupMemory:
    """Note each instance's address, and of those that leave whether the load balancer lets them go."""
    view = observation.traffic.get(policy.group)
    remembered = dict(group.instances)
    for instance in instances:
        known = remembered.get(instance.id)
        if known is not None:
            known = replace(known, address=_address(known.address, instance.domain))
            known = replace(known, served=_is_served(known.address, policy, view))
            remembered[instance.id] = _note_leaving(known, instance, policy, view, observation.at)
    return replace(group, instances=remembered)


def wanted(policy: Policy, instances: Sequence[Instance], group: GroupMemory, at: float) -> Wanted | None:
    """Say what the group's load balancer should have; None where nothing is to be done with it."""
    traffic = policy.traffic
    if traffic is None or policy.mode is Mode.SHADOW:
        return None
    keep_sick = too_many_sick(policy, instances)
    services = []
    for instance in sorted(instances, key=lambda i: (i.created_at, i.id)):
        known = group.instances.get(instance.id)
        state = _wanted_state(instance, keep_sick=keep_sick)
        if known is not None and known.address is not None and state is not None:
            warm = known.ready_at is None or at - known.ready_at >= policy.warm_up_seconds
            share = 1.0 if warm or state is not SlotState.READY else traffic.weight_warming
            services.append(Service(instance.id, instance.host, known.address, traffic.port, state, share))
    return Wanted(policy.group, traffic, tuple(services), at, policy.min_in_service)


def traffic_reasons(
    policy: Policy, instances: Sequence[Instance], group: GroupMemory, observation: Observation
) -> tuple[Reason, ...]:
    """Say what the load balancer holds up, and what it lacks."""
    traffic, view = policy.traffic, observation.traffic.get(policy.group)
    if traffic is None or view is None:
        return ()
    if isinstance(view, Unknown):
        return (because(ReasonCode.BALANCER_UNKNOWN, why=view.why),)
    reasons: list[Reason] = []
    if traffic.kind is TrafficKind.HAPROXY and len(view.slots) < policy.size.max:
        reasons.append(because(ReasonCode.BALANCER_LACKS_SLOTS, slots=len(view.slots), max=policy.size.max))
    nowhere = [i for i in instances if i.state is InstanceState.READY and _addressless(group.instances.get(i.id))]
    reasons += [because(ReasonCode.UNSERVED_WITHOUT_ADDRESS, instance=i.id) for i in nowhere]
    return (*reasons, *_waits(policy, traffic, instances, group, view))


def _waits(
    policy: Policy, traffic: Traffic, instances: Sequence[Instance], group: GroupMemory, view: TrafficView
) -> Iterator[Reason]:
    for instance in instances:
        known = group.instances.get(instance.id)
        if instance.state is not InstanceState.DRAINING or known is None or known.address is None:
            continue
        slot = slot_of(view, known.address, traffic.port)
        if slot is None or slot.sessions == 0:
            continue
        if slot.state is SlotState.READY:
            if known.unwanted_since is not None and (view.wanted_at or 0.0) >= known.unwanted_since:
                yield because(ReasonCode.KEPT_IN_SERVICE, instance=instance.id, min=policy.min_in_service)
        elif known.released:
            yield because(ReasonCode.SESSIONS_CUT, instance=instance.id, sessions=_sessions(slot))
        elif known.unserved_since is not None:
            until = known.unserved_since + traffic.drain_seconds
            yield because(ReasonCode.WAITS_FOR_SESSIONS, instance=instance.id, sessions=_sessions(slot), until=until)


def _sessions(slot: Slot) -> int | str:
    return "unknown" if slot.sessions is None else slot.sessions


def _is_served(address: str | None, policy: Policy, view: TrafficView | Unknown | None) -> bool:
    """Whether an instance gets the requests it is there for, as far as its load balancer tells."""
    traffic = policy.traffic
    if traffic is None:
        return True
    if not isinstance(view, TrafficView):
        return view is not None and traffic.when_down is WhenDown.IGNORE
    slot = None if address is None else slot_of(view, address, traffic.port)
    return slot is not None and slot.serves


def _addressless(known: InstanceMemory | None) -> bool:
    return known is None or known.address is None


def _address(before: str | None, domain: Domain | None) -> str | None:
    """Keep to one address as long as the instance has it, or nobody can tell just now."""
    if domain is None or not domain.addresses or before in domain.addresses:
        return before
    return domain.addresses[0]


def _wanted_state(instance: Instance, *, keep_sick: bool) -> SlotState | None:
    if instance.state is InstanceState.READY or (instance.state is InstanceState.UNHEALTHY and keep_sick):
        return SlotState.READY
    return SlotState.DRAIN if instance.state in _EMPTIED else None


def _note_leaving(
    known: InstanceMemory, instance: Instance, policy: Policy, view: TrafficView | Unknown | None, at: float
) -> InstanceMemory:
    traffic = policy.traffic
    if traffic is None or instance.state not in _LEAVING:
        return replace(known, unwanted_since=None, unserved_since=None, released=False)
    draining = known.draining_since if instance.state is InstanceState.DRAINING else None
    since = draining if draining is not None else known.unwanted_since if known.unwanted_since is not None else at
    known = replace(known, unwanted_since=since)
    if known.address is None:
        return replace(known, released=True)
    if not isinstance(view, TrafficView):
        return replace(known, released=traffic.when_down is WhenDown.IGNORE)
    if view.wanted_at is None or view.wanted_at < since:
        return replace(known, released=False)
    return _note_sessions(known, traffic, slot_of(view, known.address, traffic.port), at)


def _note_sessions(known: InstanceMemory, traffic: Traffic, slot: Slot | None, at: float) -> InstanceMemory:
    if slot is None:
        return replace(known, released=True)
    if slot.state is SlotState.READY:
        return replace(known, unserved_since=None, released=False)
    since = at if known.unserved_since is None else known.unserved_since
    ended = slot.sessions == 0 or traffic.kind is TrafficKind.FILE_SD
    return replace(known, unserved_since=since, released=ended or at - since >= traffic.drain_seconds)
