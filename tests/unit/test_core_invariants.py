"""The invariants of every policy, held against random loads, faults, restarts, late and backward ticks."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from autoscaler.core.action import Clone, Drain, InFlight, Intent, IntentState, Remove, Start
from autoscaler.core.behavior import STARVED_STEAL
from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Change, DomainState, ExternalSample, Observation, Probe, ScheduleState, Unknown
from autoscaler.core.policy import (
    Behavior,
    DirectionLimits,
    Health,
    Hook,
    HookKind,
    Image,
    Launch,
    Policy,
    Rate,
    Ready,
    Removal,
    RemovalOrder,
    Schedule,
    Select,
    Size,
    Step,
    StepScaling,
    Strategy,
    TargetTracking,
    ThresholdScaling,
)
from autoscaler.core.policy import Drain as DrainPolicy
from autoscaler.core.step import StepResult, step
from autoscaler.core.transition import InstanceState
from autoscaler.core.windows import is_full
from autoscaler.policy.calendar import Calendar
from tests.support.plant import Plant, group_instances

limits = st.builds(DirectionLimits, st.sampled_from([0.0, 15.0, 60.0]), st.sampled_from([0.0, 20.0, 60.0]))
policies = st.builds(
    lambda low, extra, target, over, tolerance, out, into, warm_up, agent, drain, removal, probed: Policy(
        group="web",
        image=Image("default", "golden.qcow2"),
        size=Size(low, low + extra),
        scaling=(TargetTracking("guest.cpu", target, over_seconds=over),),
        behavior=Behavior(tolerance, out, into),
        warm_up_seconds=warm_up,
        warm_up_auto=warm_up == 0.0,
        ready=Ready(agent=agent, tcp_port=80 if probed else None, timeout_seconds=40.0),
        health=Health(agent_silent_seconds=30.0),
        launch=Launch(breaker=4, budget=40),
        drain=drain,
        removal=removal,
    ),
    low=st.integers(1, 3),
    extra=st.integers(0, 5),
    target=st.sampled_from([0.2, 0.35, 0.6, 1.0]),
    over=st.sampled_from([10.0, 30.0]),
    tolerance=st.sampled_from([0.0, 0.1]),
    out=limits,
    into=limits,
    warm_up=st.sampled_from([0.0, 15.0]),
    agent=st.booleans(),
    drain=st.builds(
        DrainPolicy,
        idle=st.sampled_from([None, 0.1]),
        wait_seconds=st.just(60.0),
        hooks=st.sampled_from([(), (Hook(HookKind.COMMAND, ("leave",)),)]),
    ),
    removal=st.builds(
        Removal, st.sampled_from(RemovalOrder), st.sampled_from([0.0, 60.0]), st.sampled_from([None, 200.0])
    ),
    probed=st.booleans(),
)

EXPLICIT = frozenset({ReasonCode.HELD_BY_OPERATOR, ReasonCode.LOWERED_TO_MAX})
"""What may shrink a group though its load does not say so: an operator's word."""


class Group(RuleBasedStateMachine):
    """One group on one simulated host."""

    @initialize(policy=policies, action_seconds=st.sampled_from([1.0, 25.0]))
    def begin(self, policy: Policy, action_seconds: float) -> None:
        self._begin(policy, action_seconds)

    def _begin(self, policy: Policy, action_seconds: float = 1.0) -> None:
        self.plant = Plant(policy, action_seconds=action_seconds)
        self.before: Memory | None = None
        self.result: StepResult | None = None
        self.told: dict[str, InstanceState] = {}
        self.out_at: float | None = None
        """When the load last scaled the group out."""

    def _tick(self) -> None:
        self.before = self.plant.memory
        self.result = self.plant.tick()
        self._check()
        decision = self.result.decisions[0]
        forced = {ReasonCode.HELD_BY_OPERATOR, ReasonCode.RAISED_TO_MIN}
        if decision.admitted > decision.current and not forced & {reason.code for reason in decision.reasons}:
            self.out_at = decision.at

    @rule(seconds=st.sampled_from([10.0, 10.0, 10.0, 10.0, 3.0, 35.0, 0.0]))
    def tick(self, seconds: float) -> None:
        self.plant.clock.advance(seconds)
        self._tick()

    @rule(count=st.integers(3, 12))
    def steady(self, count: int) -> None:
        for _ in range(count):
            self.plant.clock.advance(10.0)
            self._tick()

    @rule(seconds=st.sampled_from([5.0, 3600.0]))
    def set_clock_back(self, seconds: float) -> None:
        self.plant.clock.advance(-seconds)
        self.out_at = None if self.out_at is None else self.out_at - seconds
        self.plant.host._accounted_at = min(self.plant.host._accounted_at, self.plant.clock.at)
        self._tick()

    @rule(busy=st.floats(0.0, 8.0))
    def load(self, busy: float) -> None:
        self.plant.demand = busy

    @rule(share=st.sampled_from([0.0, 0.1, 0.6]))
    def starve(self, share: float) -> None:
        self.plant.host.steal = share

    @rule(methods=st.sets(st.sampled_from(["create_overlay", "start", "undefine"]), max_size=2))
    def break_actions(self, methods: set[str]) -> None:
        self.plant.broken = methods

    @rule(method=st.sampled_from(["inventory", "counters"]))
    def tick_without(self, method: str) -> None:
        self.plant.broken.add(method)
        self.plant.clock.advance(10.0)
        self._tick()
        self.plant.broken.discard(method)

    @rule(data=st.data(), state=st.sampled_from([DomainState.SHUTOFF, DomainState.CRASHED, DomainState.PAUSED]))
    def disturb(self, data: st.DataObject, state: DomainState) -> None:
        instances = sorted(self.plant.host._machines)
        if instances:
            self.plant.host.set_state(data.draw(st.sampled_from(instances)), state)

    @rule(saving=st.booleans())
    def reboot_host(self, saving: bool) -> None:
        self.plant.host.reboot(saving=saving)

    @rule(data=st.data(), change=st.sampled_from([Change.PROTECT, Change.UNPROTECT, Change.DETACH, Change.ATTACH]))
    def ask_of_instance(self, data: st.DataObject, change: Change) -> None:
        instances = sorted(self.plant.host._machines)
        if instances:
            self.plant.ask(change, for_seconds=120.0, instance=data.draw(st.sampled_from(instances)))

    @rule(data=st.data(), passed=st.booleans())
    def probe(self, data: st.DataObject, passed: bool) -> None:
        at = self.plant.clock.at
        for name in sorted(self.plant.host._machines):
            self.plant.probes.setdefault(name, Probe(passed=True, at=at))
        if self.plant.probes:
            name = data.draw(st.sampled_from(sorted(self.plant.probes)))
            self.plant.probes[name] = Probe(passed, at, 0 if passed else 3)

    @rule(data=st.data(), silent=st.booleans())
    def silence(self, data: st.DataObject, silent: bool) -> None:
        instances = sorted(self.plant.host._machines)
        if instances:
            self.plant.host.silence(data.draw(st.sampled_from(instances)), silent=silent)

    @rule(data=st.data())
    def undefine(self, data: st.DataObject) -> None:
        instances = sorted(self.plant.host._machines)
        if instances:
            self.plant.host.forget(data.draw(st.sampled_from(instances)))

    @rule(change=st.sampled_from([Change.AUTO, Change.PAUSE, Change.RESUME, Change.RESET]))
    def ask(self, change: Change) -> None:
        self.plant.ask(change)

    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        size = self.plant.policy.size
        self.plant.ask(Change.SCALE, data.draw(st.integers(size.min, size.max)), for_seconds=60.0)

    @rule(maximum=st.integers(1, 8))
    def change_max(self, maximum: int) -> None:
        size = Size(min(self.plant.policy.size.min, maximum), maximum)
        self.plant.policy = replace(self.plant.policy, size=size)

    def _check(self) -> None:
        assert self.result is not None
        observation, decision = self.plant.observation, self.result.decisions[0]
        assert observation is not None
        self._bounds_hold(observation, decision)
        self._nothing_blind(observation, decision)
        self._scale_in_is_earned(observation, decision)
        self._operators_are_heard()
        self._lives_are_told(observation)
        self._nothing_is_done_where_nothing_differs(observation, decision)
        self._what_is_off_stays_off(decision)
        self._more_load_calls_for_no_less(observation, decision)

    def _operators_are_heard(self) -> None:
        """What is protected or detached is not removed, whatever it comes to."""
        assert self.result is not None
        at = self.plant.clock.at
        known = self.result.memory.groups["web"].instances
        for action in self.result.actions:
            memory = known.get(action.instance)
            if not isinstance(action, Remove | Drain) or memory is None:
                continue
            assert not memory.detached
            assert memory.protected_until is None or memory.protected_until <= at
        if self.result.memory.groups["web"].tripped_at is not None:
            assert not any(isinstance(action, Clone) for action in self.result.actions)
        assert len(self.result.memory.groups["web"].launched) <= 40

    def _lives_are_told(self, observation: Observation) -> None:
        """Each life goes on where the tick before left it, and is in the state that its instance is in."""
        assert self.result is not None
        after = self.result.memory.groups["web"].lives
        for transition in self.result.transitions:
            assert self.told.get(transition.instance) is transition.before
            if transition.after is InstanceState.REMOVED:
                del self.told[transition.instance]
            else:
                self.told[transition.instance] = transition.after
        assert {name: life.state for name, life in after.items()} == self.told
        if not isinstance(observation.inventory["local"], Unknown):
            begun = tuple(InFlight(Intent(0, 0.0, action), IntentState.OPEN) for action in self.result.actions)
            planned = replace(observation, in_flight=observation.in_flight + begun)
            listed = group_instances(self.plant.policy, planned, self.result.memory)
            assert {i.id: i.state for i in listed} == self.told

    def _bounds_hold(self, observation: Observation, decision: Decision) -> None:
        assert self.result is not None
        clones = [action for action in self.result.actions if isinstance(action, Clone)]
        there = self.plant.owned()
        memory = self.result.memory.groups["web"].instances
        owned = {name for name in there if name not in memory or not memory[name].detached}
        if clones:
            assert len(owned) + len(clones) <= self.plant.policy.size.max
        assert len({clone.instance for clone in clones} - there) == len(clones)
        removed = [action.instance for action in self.result.actions if isinstance(action, Remove)]
        under_way = {flight.intent.action.instance for flight in observation.in_flight}
        assert len(set(removed)) == len(removed)
        started = [action.instance for action in self.result.actions if isinstance(action, Start)]
        assert not (set(removed) | set(started)) & under_way, "two actions on one instance"
        assert not set(removed) & set(started)
        assert len(started) <= observation.workers
        assert not (started and clones), "nothing is cloned while instances are brought back"

    def _nothing_blind(self, observation: Observation, decision: Decision) -> None:
        assert self.result is not None
        if isinstance(observation.inventory["local"], Unknown):
            assert not self.result.actions
            assert decision.admitted == decision.current or self.before is None
        if self.result.memory.groups["web"].paused:
            assert not self.result.actions

    def _scale_in_is_earned(self, observation: Observation, decision: Decision) -> None:
        assert self.before is not None
        policy, memory = self.plant.policy, self.before.groups.get("web")
        shrinks = decision.admitted < min(decision.current, policy.size.max)
        if memory is None or not shrinks or EXPLICIT & {reason.code for reason in decision.reasons}:
            return
        at = observation.at
        assert all(seen.measured >= policy.behavior.quorum * (seen.measured + seen.missing) for seen in decision.inputs)
        assert all(seen.window_full for seen in decision.inputs)
        assert all(seen.steal is None or seen.steal < STARVED_STEAL for seen in decision.inputs)
        assert all(schedule.key in observation.schedules for schedule in policy.schedules)
        after = self.result.memory.groups["web"] if self.result else memory
        for signal in policy.signals:
            if not isinstance(signal, ThresholdScaling) or signal.samples is None:
                samples = after.samples[signal.series]
                assert is_full(samples, at, signal.over_seconds, observation.interval_seconds)
        moved = (self.before.at or at) - at if (self.before.at or at) > at else 0.0
        for scaled_at in (memory.scaled_out_at, memory.scaled_in_at):
            if scaled_at is not None:
                assert at - (scaled_at - moved) >= policy.behavior.scale_in.cooldown_seconds
        window = policy.behavior.scale_in.stabilization_seconds
        recent = [wish.count for wish in after.wishes if wish.at > at - window]
        assert decision.admitted >= min(max(recent, default=0), decision.current)
        if self.out_at is not None and window > 0:
            assert at - self.out_at >= window, "in, within the stabilization window of an out"

    def _nothing_is_done_where_nothing_differs(self, observation: Observation, decision: Decision) -> None:
        assert self.result is not None
        if isinstance(observation.inventory["local"], Unknown) or observation.in_flight:
            return
        if {ReasonCode.REPLACES_OLD_INSTANCE, ReasonCode.REPLACES_UNHEALTHY_INSTANCE} & {
            r.code for r in decision.reasons
        }:
            return
        instances = group_instances(self.plant.policy, observation, self.result.memory)
        if len(instances) == decision.admitted and all(i.state is InstanceState.READY for i in instances):
            assert not self.result.actions

    def _what_is_off_stays_off(self, decision: Decision) -> None:
        behavior, codes = self.plant.policy.behavior, {reason.code for reason in decision.reasons}
        if not behavior.scale_out.enabled and not codes & {ReasonCode.HELD_BY_OPERATOR, ReasonCode.RAISED_TO_MIN}:
            assert decision.admitted <= decision.current
        if not behavior.scale_in.enabled and not codes & EXPLICIT:
            assert decision.admitted >= decision.current

    def _more_load_calls_for_no_less(self, observation: Observation, decision: Decision) -> None:
        """Take the same memory and busier guests: no target calls for fewer instances."""
        assert self.before is not None
        busier = {
            uuid: replace(now, vcpu_time_seconds=(now.vcpu_time_seconds or 0.0) + 2.0)
            for uuid, now in observation.domains.items()
        }
        if not busier:
            return
        other = step((self.plant.policy,), replace(observation, domains=busier), self.before).decisions[0]
        for calm, busy in zip(decision.recommendations, other.recommendations, strict=True):
            if calm.strategy.startswith("target_tracking") and calm.count is not None:
                assert busy.count is not None
                assert busy.count >= calm.count


Group.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)
TestGroup = Group.TestCase


def _each(*strategies: st.SearchStrategy[Strategy]) -> st.SearchStrategy[tuple[Strategy, ...]]:
    return st.lists(st.one_of(*strategies), min_size=1, max_size=3).map(tuple)


over = st.sampled_from([10.0, 30.0])
takes = st.sampled_from(["avg", "max", "last", "p50"])
of_guests = {"metric": st.sampled_from(["guest.cpu", "guest.steal"]), "across": st.sampled_from(["avg", "max", "p50"])}
of_hosts = {"metric": st.just("host.cpu")}
of_queries = {"metric": st.just("prometheus"), "query": st.just("q"), "per_instance": st.booleans()}
lines = st.sampled_from([(0.8, 0.3), (0.6, 0.5), (0.5, None), (None, 0.4)])
counts = st.integers(1, 3)


def targets(**signal: st.SearchStrategy[Any]) -> st.SearchStrategy[Strategy]:
    return st.builds(TargetTracking, target=st.sampled_from([0.2, 0.6]), over_seconds=over, take=takes, **signal)


def thresholds(**signal: st.SearchStrategy[Any]) -> st.SearchStrategy[Strategy]:
    return st.builds(
        lambda line, nm, **more: ThresholdScaling(above=line[0], below=line[1], breaches=nm[0], samples=nm[1], **more),
        lines,
        st.sampled_from([(None, None), (None, None), (2, 3)]),
        over_seconds=over,
        add=counts,
        remove=counts,
        **signal,
    )


steps = st.sampled_from(
    [
        (Step(0.7, 0.9, change=1), Step(0.9, None, percent=0.5), Step(None, 0.2, change=-1)),
        (Step(0.6, None, exact=4), Step(None, 0.3, exact=1)),
        (Step(0.5, None, change=2),),
        (Step(None, 0.5, percent=-0.5),),
    ]
)


def step_scalings(**signal: st.SearchStrategy[Any]) -> st.SearchStrategy[Strategy]:
    return st.builds(StepScaling, steps=steps, over_seconds=over, take=takes, **signal)


schedules = st.builds(
    Schedule,
    st.just("*/5 * * * *"),
    st.just("UTC"),
    st.sampled_from([60.0, 120.0, 300.0]),
    min=st.none() | st.integers(1, 4),
    max=st.none() | st.integers(1, 4),
    desired=st.none() | st.integers(1, 4),
)
rates = st.lists(
    st.builds(Rate, st.sampled_from([15.0, 60.0]), count=counts)
    | st.builds(Rate, st.sampled_from([15.0, 60.0]), share=st.sampled_from([0.3, 1.0])),
    max_size=2,
).map(tuple)
any_limits = st.builds(
    DirectionLimits,
    st.sampled_from([0.0, 0.0, 60.0]),
    st.sampled_from([0.0, 20.0, 60.0]),
    st.sampled_from([True, True, True, False]),
    rates,
    st.sampled_from(Select),
    st.none() | st.sampled_from([0.0, 0.2]),
)
kinds = [
    kind(**signal) for kind in (targets, thresholds, step_scalings) for signal in (of_guests, of_hosts, of_queries)
]
policies_of_all = st.builds(
    lambda low, extra, scaling, behavior, warm_up: Policy(
        group="web",
        image=Image("default", "golden.qcow2"),
        size=Size(low, low + extra),
        scaling=scaling,
        behavior=behavior,
        warm_up_seconds=warm_up,
        ready=Ready(agent=True, timeout_seconds=40.0),
    ),
    low=st.integers(1, 3),
    extra=st.integers(0, 5),
    scaling=_each(*kinds, schedules),
    behavior=st.builds(Behavior, st.sampled_from([0.0, 0.1]), any_limits, any_limits, st.sampled_from([0.5, 1.0])),
    warm_up=st.sampled_from([0.0, 15.0]),
)


class GroupOfAll(Group):
    """One group by policies of all strategies and signals."""

    @initialize(policy=policies_of_all)
    def begin(self, policy: Policy) -> None:
        self._begin(policy)

    @rule(value=st.sampled_from([0.0, 0.3, 0.7, 1.5, 4.0]), age=st.sampled_from([0.0, 30.0, 100.0]))
    def answer(self, value: float, age: float) -> None:
        self.plant.external["prometheus q"] = ExternalSample(value, self.plant.clock.at - age)

    @rule()
    def answer_nothing(self) -> None:
        self.plant.external["prometheus q"] = Unknown("refused")

    @rule()
    def tick_without_calendar(self) -> None:
        calendar, self.plant.calendar = self.plant.calendar, _NoCalendar()
        self.plant.clock.advance(10.0)
        self._tick()
        self.plant.calendar = calendar


class _NoCalendar(Calendar):
    """Tells nothing."""

    def states(self, policies: Iterable[Policy], at: float) -> dict[str, ScheduleState]:
        return {}


GroupOfAll.TestCase.settings = settings(Group.TestCase.settings, max_examples=60)
TestGroupOfAll = GroupOfAll.TestCase


FLAPPING = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 6),
    scaling=(ThresholdScaling("guest.cpu", above=0.6, below=0.5, over_seconds=10.0),),
    behavior=Behavior(scale_in=DirectionLimits(60.0, 0.0)),
    warm_up_seconds=0.0,
)
"""Lines so near to each other that one instance is too few and two are too many."""


@example(FLAPPING, 0.9, 0.0)
@settings(max_examples=15, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
@given(policies_of_all, st.floats(0.0, 6.0), st.sampled_from([0.0, 0.3, 1.5]))
def test_a_steady_load_comes_to_rest(policy: Policy, busy: float, figure: float) -> None:
    """Whatever the policy, but for schedules (those change what is asked for) and for no cooldown at all.

    Until a window has passed, what those carried that were removed is missing from it.
    """
    into = replace(policy.behavior.scale_in, cooldown_seconds=60.0)
    scaling = tuple(each for each in policy.scaling if not isinstance(each, Schedule))
    policy = replace(policy, scaling=scaling, behavior=replace(policy.behavior, scale_in=into))
    plant = Plant(policy, demand=busy)
    counts = []
    for _ in range(120):
        plant.external["prometheus q"] = ExternalSample(figure, plant.clock.at)
        counts.append(plant.tick().decisions[0].admitted)
        plant.clock.advance(10.0)
    assert len(set(counts[-30:])) == 1, counts


def test_owned_counts_every_state() -> None:
    """The invariants above speak of `owned`; this shows that it sees what is shut off, booting and in flight."""
    policy = Policy("web", Image("default", "golden.qcow2"), Size(3, 3))
    plant = Plant(policy)
    plant.run(30.0)
    instances = sorted(plant.host._machines)
    plant.host.set_state(instances[0], DomainState.SHUTOFF)
    plant.observe()
    assert plant.owned() == set(instances)
    assert plant.observation is not None
    states = {i.id: i.state for i in group_instances(policy, plant.observation, plant.memory)}
    assert states[instances[0]] is InstanceState.FAILED
