"""A simulated host and a journal that outlive the process working on them, which dies where it is told to.

Every case is made of the executor's registry: a new step, or a new action, is covered by itself, or asks for a
scenario in `SCENARIOS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from autoscaler.core import policy as policies
from autoscaler.core.action import Action, Clone, Collect, Drain, Remove, Start
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Change, DomainState, HostInventory
from autoscaler.core.policy import CloudInit, Hook, HookKind, Image, Policy, Ready, Size
from autoscaler.core.step import step
from autoscaler.executor import STEPS
from autoscaler.sampler import Sampler
from autoscaler.simulate.host import Clock, SimulatedHost
from autoscaler.store import Journal, TickRecord
from autoscaler.world import World
from tests.support.contract import InlineWorkers
from tests.support.registry import PORT, all_steps, the_call

INTERVAL_SECONDS = 10.0
GRACE_SECONDS = 30.0
FOREIGN_VOLUME = ("default", "foreign.qcow2")
POLICY = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 3),
    ready=Ready(agent=False),
    drain=policies.Drain(deadline_seconds=5.0),
    cloud_init=CloudInit(),
)


class DeathError(BaseException):
    """The process ends here."""


FAULTS: Mapping[str, HypervisorErrorKind] = {
    "fails": HypervisorErrorKind.FAILED,
    "outcome unknown, not done": HypervisorErrorKind.DEADLINE,
    "outcome unknown, done": HypervisorErrorKind.DEADLINE,
}
STEP_CASES = (
    *FAULTS,
    "dies before begin_step",
    "dies after begin_step",
    "dies before the call",
    "dies after the call",
    "dies before end_step",
    "dies after end_step",
)
ACTION_CASES = ("dies before commit_tick", "dies after commit_tick", "dies before end_intent", "dies after end_intent")


@dataclass(frozen=True)
class Case:
    """One fault, struck once."""

    action: type[Action]
    step: str | None
    """None for what happens to the action as a whole."""
    how: str

    def __str__(self) -> str:
        return (
            " ".join(filter(None, (self.action.__name__.lower(), self.step, self.how)))
            .replace(", ", "-")
            .replace(" ", "-")
        )


def all_cases() -> list[Case]:
    of_steps = [Case(action, step.name, how) for action, step in all_steps() for how in STEP_CASES]
    return of_steps + [Case(action, None, how) for action in STEPS for how in ACTION_CASES]


@dataclass
class Trap:
    """Strikes when the case's moment has come, once."""

    case: Case
    step: str | None = None
    """The step that is under way, of an action of the case's kind."""
    intents: frozenset[int] = frozenset()
    struck: bool = False

    def around(self, moment: str, call: Callable[[], Any]) -> Any:
        """Make a call that may be the moment."""
        if self.struck or moment != self._moment():
            return call()
        self.struck = True
        kind = FAULTS.get(self.case.how)
        error = DeathError() if kind is None else HypervisorError(kind, self.case.how)
        if "before" in self.case.how or self.case.how in {"fails", "outcome unknown, not done"}:
            raise error
        call()
        raise error

    def _moment(self) -> str:
        if self.case.how in FAULTS or self.case.how.endswith("the call"):
            (found,) = (s for a, s in all_steps() if (a, s.name) == (self.case.action, self.case.step))
            # A step that calls no host is struck as its end is noted.
            return the_call(found) or "end_step"
        return self.case.how.split()[-1]


class DyingJournal:
    """The journal, but for the trap in it; it tells the trap which step is under way."""

    def __init__(self, journal: Journal, trap: Trap) -> None:
        self._journal, self._trap = journal, trap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def commit_tick(self, record: TickRecord, actions: tuple[Action, ...]) -> Any:
        mine = any(isinstance(action, self._trap.case.action) for action in actions)
        commit = partial(self._journal.commit_tick, record, actions)
        intents = self._trap.around("commit_tick", commit) if mine else commit()
        self._trap.intents |= {i.id for i in intents if isinstance(i.action, self._trap.case.action)}
        return intents

    def begin_step(self, intent: int, name: str, at: float) -> None:
        if not self._concerns(intent, name):
            self._trap.step = None
            return self._journal.begin_step(intent, name, at)
        self._trap.step = name
        return self._trap.around("begin_step", lambda: self._journal.begin_step(intent, name, at))  # type: ignore[no-any-return]

    def end_step(self, intent: int, name: str, at: float) -> None:
        self._at(self._concerns(intent, name), "end_step", lambda: self._journal.end_step(intent, name, at))

    def end_intent(self, intent: int, *rest: Any) -> None:
        self._at(intent in self._trap.intents, "end_intent", lambda: self._journal.end_intent(intent, *rest))

    def _concerns(self, intent: int, name: str) -> bool:
        return intent in self._trap.intents and name == self._trap.case.step

    def _at(self, concerned: bool, moment: str, call: Callable[[], None]) -> None:
        if concerned:
            self._trap.around(moment, call)
        else:
            call()


class DyingHost:
    """The host, but for the trap in it."""

    def __init__(self, host: SimulatedHost, trap: Trap) -> None:
        self._host, self._trap = host, trap

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._host, name)
        if name not in PORT or self._trap.step is None:
            return attribute
        return lambda *arguments: self._trap.around(name, lambda: attribute(*arguments))


class Machine:
    """What outlives a process: the host, the journal and the time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.journal = Journal.in_memory()
        self.host = SimulatedHost("local", self.journal.controller, self.clock)
        self.policy = POLICY
        self.host.add_foreign("foreign")
        self.host.volumes.add(FOREIGN_VOLUME)

    def start(self, trap: Trap | None = None) -> "Process":
        """Start the daemon, as after a boot or a crash."""
        if trap is None:
            return Process(self, self.journal, self.host)
        return Process(
            self, cast("Journal", DyingJournal(self.journal, trap)), cast("SimulatedHost", DyingHost(self.host, trap))
        )

    def ask(self, count: int) -> None:
        self.journal.add_request(self.clock.now(), "tester", "web", Change.SCALE, count, 1e6)

    def instances(self) -> dict[str, bool]:
        """Our domains, and whether each runs."""
        inventory = self.host.inventory()
        assert isinstance(inventory, HostInventory)
        ours = [d.ownership.instance for d in inventory.domains if d.ownership is not None]
        return {instance: self.host.running(instance) is True for instance in ours}

    def check(self, count: int) -> None:
        """The desired count runs, nothing of ours is left over, and what is not ours is as it was."""
        running = self.instances()
        assert list(running.values()) == [True] * count, running
        volumes = {("default", f"{instance}{end}") for instance in running for end in (".qcow2", ".seed.iso")}
        assert self.host.volumes == self.host.images | {FOREIGN_VOLUME} | volumes
        assert {(v.pool, v.name) for v in self.journal.volumes()} == volumes
        assert self.journal.in_flight() == ()
        (foreign,) = (domain for domain in self.host.inventory().domains if domain.name == "foreign")
        assert foreign.state.value == "running"


class Process:
    """The daemon's tick over a simulated host; what it dies of comes out of `run`."""

    def __init__(self, machine: Machine, journal: Journal, host: SimulatedHost) -> None:
        self._machine = machine
        self._journal = journal
        self._world = World(
            Sampler({"local": host}, {"local": machine.host.sample}, INTERVAL_SECONDS),
            journal,
            InlineWorkers(host, journal, machine.clock),
            GRACE_SECONDS,
        )
        self._memory: Memory = journal.load_memory()

    def tick(self) -> None:
        observation = self._world.observe(self._machine.clock.now(), frozenset())
        result = step((self._machine.policy,), observation, self._memory)
        assert len(self._machine.instances()) <= POLICY.size.max
        record = TickRecord(observation, (self._machine.policy,), result.decisions, result.memory)
        intents = self._world.commit(record, result.actions)
        self._memory = result.memory
        self._world.begin(observation, intents)

    def run(self, ticks: int = 12) -> None:
        for _ in range(ticks):
            self.tick()
            self._machine.clock.advance(INTERVAL_SECONDS)


def _clone(_machine: Machine) -> int:
    return 1


def _remove(machine: Machine) -> int:
    machine.ask(2)
    machine.start().run(4)
    machine.check(2)
    machine.ask(1)
    return 1


def _drain(machine: Machine) -> int:
    hook = Hook(HookKind.COMMAND, ("true",))
    machine.policy = replace(POLICY, drain=replace(POLICY.drain, hooks=(hook,)))
    return _remove(machine)


def _start(machine: Machine) -> int:
    machine.start().run(4)
    machine.host.reboot()
    machine.host.set_state("foreign", DomainState.RUNNING)
    return 1


def _collect(machine: Machine) -> int:
    machine.start().run(4)
    (instance,) = machine.instances()
    machine.host.forget(instance)
    return 1


SCENARIOS: Mapping[type[Action], Callable[[Machine], int]] = {
    Clone: _clone,
    Drain: _drain,
    Remove: _remove,
    Start: _start,
    Collect: _collect,
}
"""What leads to an action of each kind at one of the next ticks; gives the count that is wanted in the end."""


def machine_before(action: type[Action]) -> tuple[Machine, int]:
    machine = Machine()
    return machine, SCENARIOS[action](machine)
