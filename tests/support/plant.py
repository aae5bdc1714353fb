"""A simulated host under the pure step, without journal or threads: for tests that run many ticks."""

from dataclasses import dataclass, replace

from autoscaler.codec import canonical, parse
from autoscaler.core.action import Clone, Drain, Failure, InFlight, Intent, IntentState, Outcome, Start
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.instances import Instance, domains_by_group
from autoscaler.core.memory import Memory
from autoscaler.core.observation import (
    Change,
    ExternalSample,
    Observation,
    Ownership,
    Probe,
    Request,
    TrafficView,
    Unknown,
)
from autoscaler.core.policy import Policy, metrics_of, wanted_by
from autoscaler.core.ports import VolumeRef
from autoscaler.core.step import StepResult, all_instances, step
from autoscaler.core.transition import Transition
from autoscaler.policy.calendar import Calendar
from autoscaler.sampler import Sampler
from autoscaler.simulate.host import Clock, Guest, SimulatedHost

CONTROLLER = "11111111-2222-3333-4444-555555555555"


@dataclass
class Plant:
    """Ticks a group's policy against a simulated host; actions take `action_seconds`."""

    policy: Policy
    interval_seconds: float = 10.0
    action_seconds: float = 1.0
    demand: float = 0.0
    others: tuple[Policy, ...] = ()
    """Groups beside the one that is looked at."""

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.broken: set[str] = set()
        self.traffic: dict[str, TrafficView | Unknown] = {}
        self.host = SimulatedHost(
            "local",
            CONTROLLER,
            self.clock,
            demand=lambda _at: self.demand,
            guest=Guest(boot_seconds=4.0),
            images=frozenset({(self.policy.image.pool, self.policy.image.volume)}),
            fault=self._fault,
        )
        self.memory = Memory(CONTROLLER)
        self.sampler = Sampler({"local": self.host}, {"local": self.host.sample}, self.interval_seconds)
        self.calendar = Calendar()
        self.external: dict[str, ExternalSample | Unknown] = {}
        self.flights: list[tuple[float, InFlight]] = []
        self.outcomes: list[Outcome] = []
        self.requests: list[Request] = []
        self.observation: Observation | None = None
        self.probes: dict[str, Probe] = {}
        self.drained: list[str] = []
        self.transitions: list[Transition] = []
        self.managed = True
        self._rows = 0

    def _fault(self, method: str) -> None:
        if method in self.broken:
            raise HypervisorError(HypervisorErrorKind.FAILED, f"{method} fails, as told")

    def ask(
        self, change: Change, count: int | None = None, for_seconds: float = 3600.0, instance: str | None = None
    ) -> None:
        self._rows += 1
        seconds = for_seconds if count is not None or change is Change.PROTECT else None
        group = self.policy.group
        self.requests.append(Request(self._rows, self.clock.at, "tester", group, change, count, seconds, instance))

    def observe(self) -> Observation:
        self._end_actions()
        seen = self.sampler.observe(self.clock.at, metrics_of(self.policies), wanted_by(self.policies))
        flights = tuple(flight for _, flight in self.flights)
        self.observation = replace(
            seen,
            in_flight=flights,
            outcomes=tuple(self.outcomes),
            requests=tuple(self.requests),
            external={**seen.external, **self.external},
            schedules=self.calendar.states((self.policy,), self.clock.at),
            probes=dict(self.probes),
            traffic=dict(self.traffic),
        )
        self.outcomes, self.requests = [], []
        return self.observation

    def tick(self) -> StepResult:
        observation = self.observe()
        policies = self.policies if self.managed else self.others
        result = step(policies, observation, self.memory)
        restored = step(policies, observation, parse(canonical(self.memory), Memory))
        assert canonical(restored) == canonical(result), "restoring the memory changed the step"
        self.memory = result.memory
        self.transitions += result.transitions
        for action in result.actions:
            self._rows += 1
            flight = InFlight(Intent(self._rows, self.clock.at, action), IntentState.OPEN)
            self.flights.append((self.clock.at + self.action_seconds, flight))
        return result

    def run(self, seconds: float) -> StepResult:
        """Tick for a while; gives the last result."""
        until = self.clock.at + seconds
        while True:
            result = self.tick()
            if self.clock.at + self.interval_seconds > until:
                return result
            self.clock.advance(self.interval_seconds)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All groups' policies."""
        return (self.policy, *self.others)

    def owned(self, group: str | None = None) -> set[str]:
        """Every owned instance in any state and every one in flight, as the last observation had them."""
        assert self.observation is not None
        group = group or self.policy.group
        listed = domains_by_group(self.observation, CONTROLLER).get(group, ())
        ids = {domain.ownership.instance for domain in listed if domain.ownership is not None}
        flights = [flight.intent.action for flight in self.observation.in_flight]
        return ids | {action.instance for action in flights if action.group == group}

    def _end_actions(self) -> None:
        due = [flight for at, flight in self.flights if at <= self.clock.at]
        self.flights = [(at, flight) for at, flight in self.flights if at > self.clock.at]
        for flight in due:
            state, failure = IntentState.DONE, None
            try:
                self._carry_out(flight.intent)
            except HypervisorError as error:
                state, failure = IntentState.FAILED, Failure(error.kind, str(error))
            self.outcomes.append(Outcome(flight.intent, state, self.clock.at, failure))

    def _carry_out(self, intent: Intent) -> None:
        action = intent.action
        if isinstance(action, Clone):
            volume = VolumeRef("local", action.image.pool, f"{action.instance}.qcow2", action.instance)
            self.host.validate(action)
            self.host.create_overlay(action, volume)
            self.host.define(
                action, volume, Ownership(CONTROLLER, action.group, action.instance, "digest", intent.at, action.image)
            )
            self.host.start(action.instance)
        elif isinstance(action, Start):
            self.host.start(action.instance)
        elif isinstance(action, Drain):
            self.drained.append(action.instance)
        else:
            self.host.destroy(action.instance)
            self.host.delete_volume(VolumeRef("local", "default", f"{action.instance}.qcow2", action.instance))
            self.host.undefine(action.instance)


def group_instances(policy: Policy, observation: Observation, memory: Memory) -> tuple[Instance, ...]:
    """List one group's instances as the step that gave this memory saw them."""
    return all_instances((policy,), observation, memory)[policy.group]
