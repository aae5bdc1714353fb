"""One tick's thinking, as a pure function. The daemon, the dry run and the simulator all call this."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoscaler.core.action import Action, InFlight, Intent, IntentState
from autoscaler.core.admission import MADE_ROOM_FOR, Admission, Asking, admit
from autoscaler.core.behavior import note_change
from autoscaler.core.capacity import Ledger
from autoscaler.core.clock import set_back
from autoscaler.core.count import decide_count, describe_inputs, take_in_loads
from autoscaler.core.decision import Decision, Reason, ReasonCode, because
from autoscaler.core.golden import golden_reasons, keep_off
from autoscaler.core.instances import (
    Instance,
    classify,
    domains_by_group,
    flights_by_group,
    remember,
    serving,
    unread_hosts,
)
from autoscaler.core.launches import launched_seconds, note_launches, with_warm_up
from autoscaler.core.leaving import delete, leave
from autoscaler.core.leftovers import collects
from autoscaler.core.lives import follow, noticed
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import Change, Domain, DomainCounters, HostInventory, Observation, Unknown
from autoscaler.core.policy import Image, Mode, Policy, stand_in
from autoscaler.core.reconcile import clones, starts, turns
from autoscaler.core.refresh import hold_refresh, take_in_refresh
from autoscaler.core.refresh_status import refresh_reasons
from autoscaler.core.replacing import launch_image, launch_images
from autoscaler.core.serving import take_in_traffic, traffic_reasons
from autoscaler.core.signals import is_complete
from autoscaler.core.taking_in import (
    take_in_clones,
    take_in_failed_launches,
    take_in_instances,
    take_in_outcomes,
    take_in_requests,
)
from autoscaler.core.traffic import figures
from autoscaler.core.transition import Transition


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gives: a decision per policy, the actions to begin, and the memory after it."""

    decisions: tuple[Decision, ...]
    actions: tuple[Action, ...]
    memory: Memory
    transitions: tuple[Transition, ...] = ()
    """What happened to instances since the step before, and what this step's actions begin for them."""
    ledgers: tuple[Ledger, ...] = ()
    """What each host had to give, with what was granted now."""


def step(policies: Sequence[Policy], observation: Observation, memory: Memory) -> StepResult:
    """Decide for every group. Pure: the same arguments give the same result."""
    memory, shifted_seconds = set_back(memory, observation.at)
    # A group without a policy keeps its memory: its instances run on unmanaged, and the file may come back.
    groups = dict(memory.groups)
    decisions: list[Decision] = []
    actions: list[Action] = []
    transitions: list[Transition] = []
    launches = dict(memory.launches)
    owned, flights = domains_by_group(observation, memory.controller), flights_by_group(observation)
    ordered = sorted(policies, key=lambda policy: policy.group)
    seen = [
        _look(policy, observation, memory, owned.get(policy.group, ()), flights.get(policy.group, ()))
        for policy in ordered
    ]
    chosen = turns([i for each in seen if each.acts(observation.at) for i in each.instances], observation.workers)
    counted = [_count(each, observation, memory) for each in seen]
    granted = admit([each.asking(observation.at) for each in counted if not each.unread], observation, memory.preempted)
    for each in counted:
        decision, planned, group = _plan(_granted(each, granted), observation, memory, chosen)
        if shifted_seconds:
            reason = because(ReasonCode.CLOCK_SET_BACK, seconds=shifted_seconds)
            decision = replace(decision, reasons=(reason, *decision.reasons))
        decisions.append(decision)
        actions.extend(planned)
        groups[each.policy.group], begun = _follow(each, group, planned, observation)
        transitions += (*each.transitions, *begun)
        note_launches(launches, each.launched_seconds)
    for each in _unmanaged(owned, flights, policies, observation, memory):
        planned = delete(each.policy, each.instances, each.group, observation.at) if each.group.deleting else ()
        actions.extend(planned)
        group, begun = _follow(each, each.group, planned, observation)
        transitions += (*each.transitions, *begun)
        groups[each.policy.group] = group
        if group.deleting and not group.lives and _all_read(observation):
            del groups[each.policy.group]
    held = frozenset(each.policy.group for each in seen if each.group.paused or each.policy.mode is Mode.SHADOW)
    collected, leftovers = collects(observation, memory.leftovers, held)
    actions.extend(collected)
    after = Memory(
        memory.controller,
        observation.at,
        groups,
        _counters(observation, memory),
        launches,
        leftovers=leftovers,
        preempted=granted.preempted,
    )
    return StepResult(tuple(decisions), tuple(actions), after, tuple(transitions), tuple(granted.ledgers.values()))


def _all_read(observation: Observation) -> bool:
    return not any(isinstance(inventory, Unknown) for inventory in observation.inventory.values())


def _unmanaged(
    owned: Mapping[str, tuple[Domain, ...]],
    flights: Mapping[str, tuple[InFlight, ...]],
    policies: Sequence[Policy],
    observation: Observation,
    memory: Memory,
) -> list["_Seen"]:
    """Look at the groups that have no policy: remembered, running, or spoken of by an operator."""
    asked = {request.group for request in observation.requests if request.change is Change.DELETE}
    names = {*memory.groups, *owned, *asked} - {policy.group for policy in policies}
    return [
        _look(stand_in(name), observation, memory, owned.get(name, ()), flights.get(name, ())) for name in sorted(names)
    ]


def _follow(
    seen: "_Seen", group: GroupMemory, planned: Sequence[Action], observation: Observation
) -> tuple[GroupMemory, tuple[Transition, ...]]:
    """Take what is planned into the lives of the instances."""
    if seen.unread:
        return group, ()
    begun = tuple(InFlight(Intent(0, observation.at, action), IntentState.OPEN) for action in planned)
    instances = classify(seen.domains, (*seen.flights, *begun), group, observation)
    lives, transitions = follow(seen.policy.group, group, instances, observation)
    return replace(group, lives=lives), transitions


def all_instances(
    policies: Sequence[Policy], observation: Observation, memory: Memory
) -> dict[str, tuple[Instance, ...]]:
    """List the instances of every group, with a policy or without, as the step that gave this memory saw them."""
    owned, flights = domains_by_group(observation, memory.controller), flights_by_group(observation)
    names = {*owned, *memory.groups, *(policy.group for policy in policies)}
    return {
        name: classify(owned.get(name, ()), flights.get(name, ()), memory.groups.get(name, GroupMemory()), observation)
        for name in sorted(names)
    }


def _counters(observation: Observation, memory: Memory) -> dict[str, DomainCounters]:
    """Keep what the next rates start from: complete counters, of domains that may still be there."""
    complete = {uuid: now for uuid, now in observation.domains.items() if is_complete(now)}
    listed = {
        domain.uuid
        for inventory in observation.inventory.values()
        if isinstance(inventory, HostInventory)
        for domain in inventory.domains
    }
    unread = not _all_read(observation)
    kept = {uuid: before for uuid, before in memory.counters.items() if unread or uuid in listed}
    return kept | complete


@dataclass(frozen=True, slots=True)
class _Seen:
    """A group as this tick finds it: what was asked, what ended, and its instances unless a host was not read."""

    policy: Policy
    group: GroupMemory
    domains: tuple[Domain, ...] = ()
    flights: tuple[InFlight, ...] = ()
    instances: tuple[Instance, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    reasons: tuple[Reason, ...] = ()
    """What could not be done of what was asked, and what somebody did to instances."""
    transitions: tuple[Transition, ...] = ()
    launched_seconds: tuple[tuple[Image, float], ...] = ()
    """How long those took that became ready now, from clone to ready, each with its image."""
    decision: Decision | None = None
    """What was decided for it, once it was."""
    before: GroupMemory = field(default_factory=GroupMemory)
    """What was remembered before that."""
    clones: int = 0
    """How many clones its host was found to have room for."""

    def asking(self, at: float) -> Asking:
        """Say what it asks of the hosts."""
        assert self.decision is not None
        lacking = leave(self.policy, self.decision.desired, self.instances, self.group, at=at).lacking
        # What is cloned now takes the room, whatever image the policy names.
        policy = replace(self.policy, image=launch_image(self.policy, self.group))
        acts = self.acts(at) and self.group.tripped_at is None and policy.image.found
        return Asking(policy, self.decision, self.instances, acts, lacking, self.group.samples)

    def acts(self, at: float) -> bool:
        """Whether it may start instances now."""
        backs_off = self.group.retry_at is not None and at < self.group.retry_at
        return not (self.group.paused or self.policy.mode is Mode.SHADOW or backs_off)


def _look(
    policy: Policy,
    observation: Observation,
    memory: Memory,
    domains: tuple[Domain, ...],
    flights: tuple[InFlight, ...],
) -> _Seen:
    at = observation.at
    policy = with_warm_up(policy, memory.launches)
    group = memory.groups.get(policy.group, GroupMemory())
    group, refused = take_in_requests(group, policy, observation.requests, at)
    group = take_in_outcomes(group, policy, observation)
    unread = unread_hosts(observation, policy, group.instances)
    if unread:
        return _Seen(policy, hold_refresh(group, at), unread=unread, reasons=refused)
    group = take_in_instances(group, remember(group, policy, domains, observation), at)
    instances = classify(domains, flights, group, observation)
    group = take_in_traffic(group, policy, instances, observation)
    group = take_in_refresh(group, policy, instances, observation)
    launched = launched_seconds(group, policy, instances, at)
    lives, transitions = follow(policy.group, group, instances, observation)
    group = replace(group, lives=lives)
    reasons = refused + noticed(instances, transitions) + traffic_reasons(policy, instances, group, observation)
    reasons += golden_reasons(policy, instances, observation)
    reasons += refresh_reasons(policy, instances, group, at)
    return _Seen(policy, group, domains, flights, instances, (), reasons, transitions, launched)


def _count(seen: _Seen, observation: Observation, memory: Memory) -> _Seen:
    """Decide how many instances the group should have, whatever the hosts can carry."""
    policy, group, instances = seen.policy, replace(seen.group, deleting=False), seen.instances
    told = figures(observation.traffic.get(policy.group))
    observation = replace(observation, external={**observation.external, **told})
    if seen.unread:
        held = _hold_unread(policy, group, observation, seen.unread)
        return replace(seen, group=group, decision=replace(held, reasons=held.reasons + seen.reasons))
    group = take_in_loads(group, policy, serving(instances), observation, memory)
    current = group.admitted if group.admitted is not None else sum(instance.live for instance in instances)
    before = group
    decision, group = decide_count(policy, group, current, observation)
    decision = replace(decision, reasons=decision.reasons + seen.reasons)
    return replace(seen, group=group, decision=decision, before=before)


def _granted(seen: _Seen, granted: Admission) -> _Seen:
    """Take in what the hosts can carry of it."""
    if seen.unread:
        return seen
    assert seen.decision is not None
    decision = granted.decisions[seen.policy.group]
    refused = decision.admitted <= decision.current < seen.decision.admitted
    remembered = granted.remembered[seen.policy.group]
    group = replace(
        seen.group,
        admitted=remembered,
        changes=note_change(seen.before, seen.policy, remembered - decision.current, decision.at),
        scaled_out_at=seen.before.scaled_out_at if refused else seen.group.scaled_out_at,
    )
    return replace(seen, group=group, decision=decision, clones=granted.clones[seen.policy.group])


def _plan(
    seen: _Seen, observation: Observation, memory: Memory, chosen: frozenset[str]
) -> tuple[Decision, tuple[Action, ...], GroupMemory]:
    """Find the actions that lead to what was granted."""
    policy, group, instances, decision = seen.policy, seen.group, seen.instances, seen.decision
    assert decision is not None
    at = observation.at
    if seen.unread:
        return decision, (), group
    if group.paused or policy.mode is Mode.SHADOW:
        code = ReasonCode.PAUSED if group.paused else ReasonCode.SHADOW
        return replace(decision, reasons=(*decision.reasons, because(code))), (), group
    fitting = seen.clones if any(reason.code in MADE_ROOM_FOR for reason in decision.reasons) else None
    left = leave(policy, decision.admitted, instances, group, at=at, fitting=fitting)
    group = take_in_failed_launches(replace(group, instances=left.instances), policy, instances, left.actions, at)
    group = take_in_clones(group, (), at)
    going = {action.instance for action in left.actions}
    started = starts(policy, [i for i in instances if i.id not in going], chosen, group, at)
    images = launch_images(policy, decision.admitted, left.lacking, (instances, group))[: seen.clones]
    cloned, sequence = clones(policy, images, instances, group, at=at, controller=memory.controller)
    cloned = keep_off(cloned, observation, memory.controller)
    reasons = decision.reasons + left.reasons + started.reasons + cloned.reasons
    actions = (*left.actions, *started.actions, *cloned.actions)
    group = take_in_clones(group, cloned.actions, at)
    # Ids that were given out and then not used are given out again.
    given_out = sequence if cloned.actions else group.sequence
    return replace(decision, reasons=reasons), actions, replace(group, sequence=given_out)


def _hold_unread(
    policy: Policy, group: GroupMemory, observation: Observation, unread: Sequence[tuple[str, str]]
) -> Decision:
    """Do nothing for a group whose instances cannot be listed."""
    current = policy.size.min if group.admitted is None else group.admitted
    reasons = tuple(because(ReasonCode.HELD_BY_UNKNOWN_INVENTORY, host=host, why=why) for host, why in unread)
    inputs = describe_inputs(policy, group, observation)
    return Decision(policy.group, observation.at, current, inputs, (), current, current, current, reasons)
