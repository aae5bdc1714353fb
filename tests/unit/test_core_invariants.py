"""The invariants of every policy, held against random loads, faults, restarts, late and backward ticks."""

from dataclasses import replace

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from autoscaler.core.action import Clone, Drain, InFlight, Intent, IntentState, Remove, Start
from autoscaler.core.behavior import STARVED_STEAL
from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Change, DomainState, Observation, Probe, Unknown
from autoscaler.core.policy import (
    Behavior,
    DirectionLimits,
    Health,
    Hook,
    HookKind,
    Image,
    Launch,
    Policy,
    Ready,
    Removal,
    RemovalOrder,
    Size,
    TargetTracking,
)
from autoscaler.core.policy import Drain as DrainPolicy
from autoscaler.core.step import StepResult, group_instances
from autoscaler.core.transition import InstanceState
from autoscaler.core.windows import is_full
from tests.support.plant import Plant

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

    @initialize(policy=policies)
    def begin(self, policy: Policy) -> None:
        self.plant = Plant(policy)
        self.before: Memory | None = None
        self.result: StepResult | None = None
        self.told: dict[str, InstanceState] = {}

    def _tick(self) -> None:
        self.before = self.plant.memory
        self.result = self.plant.tick()
        self._check()

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
        assert all(seen.missing == 0 and seen.window_full for seen in decision.inputs)
        assert all(seen.steal is None or seen.steal < STARVED_STEAL for seen in decision.inputs)
        strategy = policy.scaling[0]
        after = self.result.memory.groups["web"] if self.result else memory
        assert is_full(after.samples[strategy.series], at, strategy.over_seconds, observation.interval_seconds)
        moved = (self.before.at or at) - at if (self.before.at or at) > at else 0.0
        for scaled_at in (memory.scaled_out_at, memory.scaled_in_at):
            if scaled_at is not None:
                assert at - (scaled_at - moved) >= policy.behavior.scale_in.cooldown_seconds
        window = policy.behavior.scale_in.stabilization_seconds
        recent = [wish.count for wish in after.wishes if wish.at > at - window]
        assert decision.admitted >= min(max(recent, default=0), decision.current)


Group.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)
TestGroup = Group.TestCase


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
