"""A group behind a load balancer, both simulated, tick by tick."""

from dataclasses import dataclass, replace

import pytest

from autoscaler.core.decision import ReasonCode
from autoscaler.core.memory import GroupMemory
from autoscaler.core.observation import Change, Observation, Probe, Slot, SlotState, TrafficView, Unknown
from autoscaler.core.policy import (
    Drain,
    Health,
    HttpCheck,
    Image,
    Mode,
    Policy,
    Ready,
    Size,
    Traffic,
    TrafficKind,
    WhenDown,
)
from autoscaler.core.status import Finished, group_statuses, wanted_traffic
from autoscaler.core.step import StepResult
from autoscaler.core.traffic import SetAddress, SetState, SetWeight, corrections
from autoscaler.core.transition import InstanceState
from tests.support.plant import Plant

TRAFFIC = Traffic(TrafficKind.HAPROXY, socket="/s", backend="web", slots="web", drain_seconds=30.0)
POLICY = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 4),
    warm_up_seconds=0.0,
    drain=Drain(deadline_seconds=1.0),
    traffic=TRAFFIC,
)


@dataclass
class Served(Plant):
    """A plant with a balancer in front of it; `down` is why it does not answer."""

    interval_seconds: float = 1.0
    down: str | None = None
    size: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restart()
        self.view: TrafficView | Unknown | None = None
        self.last: StepResult | None = None
        self.sessions: dict[str, int] = {}
        self.failing: set[str] = set()
        self.watched = frozenset({"web"})

    def restart(self) -> None:
        """Let the balancer forget everything."""
        self.slots = [Slot(f"web{n}", "127.0.0.1", 1, SlotState.MAINT, 100, 100, 0) for n in range(1, self.size + 1)]

    def observe(self) -> Observation:
        self.host.watch_addresses(self.watched)
        seen = super().observe()
        seen = replace(seen, traffic={} if self.view is None else {"web": self.view})
        self.observation = seen
        return seen

    def tick(self) -> StepResult:
        result = super().tick()
        assert self.observation is not None
        self.last = result
        self.finished = Finished((self.policy,), self.observation, result, ())
        wanted = wanted_traffic(self.finished).get("web")
        if self.down is not None:
            self.view = Unknown(self.down)
            return result
        now = TrafficView(self.clock.at, None if wanted is None else wanted.at, self._seen())
        if wanted is not None:
            for correction in corrections(now, wanted):
                self.slots = [self._corrected(s, correction) if s.name == correction.slot else s for s in self.slots]
        self.view = replace(now, slots=self._seen())
        return result

    def _corrected(self, slot: Slot, correction: SetAddress | SetWeight | SetState) -> Slot:
        match correction:
            case SetAddress(address=address, port=port):
                return replace(slot, address=address, port=port)
            case SetWeight(weight=weight):
                return replace(slot, weight=weight)
            case SetState(state=state):
                return replace(slot, state=state)

    def _seen(self) -> tuple[Slot, ...]:
        return tuple(
            replace(slot, sessions=self.sessions.get(slot.address, 0), healthy=slot.address not in self.failing)
            for slot in self.slots
        )

    def states(self) -> list[InstanceState]:
        (status,) = group_statuses(self.finished)
        return [instance.state for instance in status.instances]

    def serving(self) -> list[str]:
        return sorted(slot.address for slot in self.slots if slot.state is SlotState.READY)

    def codes(self) -> set[ReasonCode]:
        assert self.last is not None
        return {reason.code for reason in self.last.decisions[0].reasons}

    def group(self) -> GroupMemory:
        return self.memory.groups["web"]

    def group_ids(self) -> list[str]:
        known = self.memory.groups.get("web")
        return [] if known is None else sorted(known.instances)

    def address(self, instance: str) -> str:
        address = self.group().instances[instance].address
        assert address is not None
        return address


def grown(count: int = 2, policy: Policy = POLICY, slots: int = 4) -> Served:
    plant = Served(policy, size=slots)
    plant.ask(Change.SCALE, count)
    plant.run(20)
    assert plant.states() == [InstanceState.READY] * count
    assert len(plant.serving()) == min(count, slots)
    return plant


def leaving(plant: Served) -> str:
    """Let one leave, which has sessions; gives its id."""
    for slot in plant.slots:
        plant.sessions[slot.address] = 2
    plant.ask(Change.SCALE, 1)
    plant.run(2)
    (name,) = [n for n, known in plant.group().instances.items() if known.draining is not None]
    return name


def test_it_is_served_when_it_is_ready_and_not_before() -> None:
    plant = Served(POLICY)
    while not plant.serving():
        plant.run(0)
        plant.clock.advance(1)
        assert len(plant.serving()) <= plant.states().count(InstanceState.READY)
    assert plant.states() == [InstanceState.READY]


def test_sessions_are_waited_for() -> None:
    plant = grown()
    name = leaving(plant)
    plant.run(15)
    assert plant.address(name) not in plant.serving()
    assert InstanceState.DRAINING in plant.states()
    assert ReasonCode.WAITS_FOR_SESSIONS in plant.codes()
    plant.sessions.clear()
    plant.run(8)
    assert plant.states() == [InstanceState.READY]
    assert [slot.state for slot in plant.slots].count(SlotState.MAINT) == 3


def test_they_are_cut_at_the_deadline() -> None:
    plant = grown()
    leaving(plant)
    began = plant.clock.at
    said: set[ReasonCode] = set()
    while InstanceState.DRAINING in plant.states():
        plant.run(0)
        said |= plant.codes()
        plant.clock.advance(1)
    assert {ReasonCode.WAITS_FOR_SESSIONS, ReasonCode.SESSIONS_CUT} <= said
    assert 29 <= plant.clock.at - began <= 33


def test_it_is_taken_back_into_service_when_the_load_returns() -> None:
    plant = grown()
    leaving(plant)
    plant.ask(Change.SCALE, 2)
    plant.run(3)
    assert plant.states() == [InstanceState.READY] * 2
    assert len(plant.serving()) == 2


def test_a_balancer_that_restarted_is_filled_again() -> None:
    plant = grown(3)
    before = plant.serving()
    plant.restart()
    plant.run(2)
    assert plant.serving() == before


@pytest.mark.parametrize(("when_down", "waits"), [(WhenDown.WAIT, True), (WhenDown.IGNORE, False)])
def test_a_balancer_that_is_down_delays_who_leaves_and_who_becomes_ready(when_down: WhenDown, *, waits: bool) -> None:
    plant = grown(2, replace(POLICY, traffic=replace(TRAFFIC, when_down=when_down), ready=Ready(timeout_seconds=60)))
    plant.down = "Connection refused"
    plant.run(3)
    assert ReasonCode.BALANCER_UNKNOWN in plant.codes()
    plant.ask(Change.SCALE, 1)
    plant.run(100)
    assert (InstanceState.DRAINING in plant.states()) is waits
    plant.ask(Change.SCALE, 3)
    # Longer than an instance may take to become ready: waiting is no failure.
    plant.run(100)
    assert plant.states().count(InstanceState.READY) == (2 if waits else 3)
    assert plant.states().count(InstanceState.BOOTING) == (1 if waits else 0)
    plant.down = None
    plant.run(5)
    assert plant.states() == [InstanceState.READY] * 3
    assert len(plant.serving()) == 3


def test_the_last_ones_stay_in_service() -> None:
    policy = replace(POLICY, traffic=replace(TRAFFIC, min_in_service=1), health=Health(probe_failures=1))
    plant = grown(2, policy)
    name = leaving(plant)
    assert plant.address(name) not in plant.serving()
    plant.ask(Change.SCALE, 2)
    plant.run(2)
    others = [n for n in plant.group().instances if n != name]
    plant.failing.add(plant.address(others[0]))
    plant.ask(Change.SCALE, 1)
    plant.run(60)
    assert plant.serving(), "the balancer's checks find the other one down"
    assert ReasonCode.KEPT_IN_SERVICE in plant.codes()


def test_what_is_unhealthy_is_taken_out_when_its_replacement_serves() -> None:
    ready = Ready(http=HttpCheck())
    plant = Served(replace(POLICY, ready=ready))
    plant.ask(Change.SCALE, 2)
    for _ in range(20):
        plant.probes = {name: Probe(passed=True, at=plant.clock.at) for name in plant.group_ids()}
        plant.run(0)
        plant.clock.advance(1)
    assert len(plant.serving()) == 2
    sick = min(plant.group().instances)
    gone = plant.address(sick)
    plant.sessions[gone] = 1
    for _ in range(15):
        plant.probes = {n: Probe(n != sick, plant.clock.at, 0 if n != sick else 9) for n in plant.group_ids()}
        plant.run(0)
        plant.clock.advance(1)
    assert gone not in plant.serving()
    assert len(plant.serving()) == 2
    assert sick in plant.group().instances, "its session has not ended"
    plant.sessions.clear()
    for _ in range(8):
        plant.run(0)
        plant.clock.advance(1)
    assert sick not in plant.group().instances


def test_whom_the_balancer_finds_down_is_replaced_where_the_policy_says_so() -> None:
    plant = grown(2, replace(POLICY, traffic=replace(TRAFFIC, unhealthy=True)))
    sick = min(plant.group().instances)
    plant.failing.add(plant.address(sick))
    plant.run(30)
    assert sick not in plant.group().instances
    assert plant.states() == [InstanceState.READY] * 2
    deaf = grown(2)
    deaf.failing.add(deaf.address(min(deaf.group().instances)))
    before = set(deaf.group().instances)
    deaf.run(30)
    assert set(deaf.group().instances) == before


def test_too_few_slots_are_said() -> None:
    plant = grown(2, slots=1)
    assert ReasonCode.BALANCER_LACKS_SLOTS in plant.codes()
    assert len(plant.serving()) == 1


def test_hosts_that_cannot_be_listed_change_nothing_at_the_balancer() -> None:
    plant = grown(2)
    before = plant.serving()
    plant.broken.add("inventory")
    plant.run(10)
    assert plant.serving() == before
    assert wanted_traffic(plant.finished) == {}


def test_a_shadow_touches_no_balancer() -> None:
    plant = grown(2)
    plant.policy = replace(plant.policy, mode=Mode.SHADOW)
    plant.run(2)
    assert wanted_traffic(plant.finished) == {"web": None}


def test_an_address_that_is_not_told_for_a_while_is_kept() -> None:
    plant = grown(2)
    before = plant.serving()
    plant.watched = frozenset()
    plant.run(10)
    assert plant.serving() == before
