"""Runs a controller, the daemon's own or another, against a recorded load on the plant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Protocol

from autoscaler.core.decision import Decision, Reason
from autoscaler.core.group_load import EvenLoad, decide_on_load
from autoscaler.core.memory import GroupMemory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Policy, Size
from autoscaler.policy.calendar import Calendar
from autoscaler.simulate.plant import Conditions, Plant

_ROUNDING_DIGITS = 9

Progress = Callable[[int], None]
"""Called with the number of steps done since it was called last."""
_PROGRESS_STEPS = 2000


@dataclass(frozen=True, slots=True)
class Seen:
    """What a controller may know at one step."""

    at: float
    load: float | None
    """The instances' utilisation, which saturates at 1; None while none is ready."""
    ready: int
    warming: int
    """Of the ready ones, those younger than the controller's warm-up."""
    desired: int
    """What was asked for last."""


class Controller(Protocol):
    """Asked for a count at every step."""

    warm_up_seconds: float

    def __call__(self, seen: Seen) -> int:
        """Give the count of instances that there should be."""
        ...


@dataclass(frozen=True)
class Scenario:
    """What all contestants meet alike: a demand in busy instances at every step, and the plant's ways."""

    demand: Sequence[float]
    step_seconds: float
    size: Size
    line: float = 0.7
    """The utilisation that is not to be exceeded."""
    conditions: Conditions = field(default_factory=Conditions)
    start: float = 0.0
    """The time of the first step, in seconds since the epoch."""

    @cached_property
    def needed(self) -> list[int]:
        """The fewest instances that keep the line, at every step, whatever the bounds."""
        return [ceil(round(busy / self.line, _ROUNDING_DIGITS)) for busy in self.demand]

    @cached_property
    def oracle(self) -> list[int]:
        """The fewest instances, booting ones among them, that keep the line within the bounds: see `measures`."""
        return ahead(self.needed, self.conditions.lead_ticks(self.step_seconds), self.size)


def ahead(needed: Sequence[int], ticks: int, size: Size) -> list[int]:
    """Give the largest need of each step and the `ticks` after it, within the bounds."""
    best: list[int] = [0] * len(needed)
    window: list[int] = []
    first = 0
    for index in range(len(needed) - 1, -1, -1):
        while len(window) > first and needed[window[-1]] <= needed[index]:
            window.pop()
        window.append(index)
        if window[first] > index + ticks:
            first += 1
        best[index] = min(max(needed[window[first]], size.min), size.max)
    return best


@dataclass(frozen=True, slots=True)
class Change:
    """A count that was changed, and why."""

    step: int
    before: int
    after: int
    reasons: tuple[Reason, ...]


@dataclass(slots=True)
class Course:
    """What happened, step by step."""

    ready: list[int] = field(default_factory=list)
    """Instances that served during the step."""
    existing: list[int] = field(default_factory=list)
    desired: list[int] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    failed_launches: int = 0


class OwnPolicy:
    """The daemon's own decisions for one policy, by the core's code."""

    def __init__(self, policy: Policy, initial: int, interval_seconds: float) -> None:
        self._policy = policy
        self._interval_seconds = interval_seconds
        self._memory = GroupMemory(admitted=initial)
        self._calendar = Calendar()
        self.warm_up_seconds = policy.warm_up_seconds
        self.decision: Decision | None = None
        """The last one."""

    def __call__(self, seen: Seen) -> int:
        """Decide."""
        load = EvenLoad(seen.load or 0.0, seen.ready - seen.warming, seen.warming)
        schedules = self._calendar.states((self._policy,), seen.at)
        observation = Observation(seen.at, self._interval_seconds, schedules=schedules)
        self.decision, self._memory = decide_on_load(self._policy, self._memory, load, observation)
        return self.decision.admitted

    def why(self) -> tuple[Reason, ...]:
        """Give the last decision's reasons: what was called for, then what limited it."""
        if self.decision is None:
            return ()
        return (*(wish.reason for wish in self.decision.recommendations), *self.decision.reasons)


def rehearse(scenario: Scenario, controller: Controller, progress: Progress = lambda _steps: None) -> Course:
    """Run a controller through the whole demand, beginning with as many instances as the oracle has then."""
    before = scenario.oracle[0]
    plant = Plant(scenario.conditions, before)
    course = Course()
    why = getattr(controller, "why", tuple)
    for step, busy in enumerate(scenario.demand):
        at = scenario.start + step * scenario.step_seconds
        plant.advance(at)
        ready = plant.ready
        load = min(1.0, busy / ready) if ready else None
        warming = plant.warming(at, controller.warm_up_seconds)
        count = controller(Seen(at, load, ready, warming, before))
        plant.aim(count, at)
        course.ready.append(plant.ready)
        course.existing.append(plant.existing)
        course.desired.append(count)
        if count != before:
            course.changes.append(Change(step, before, count, why()))
        before = count
        if step % _PROGRESS_STEPS == _PROGRESS_STEPS - 1:
            progress(_PROGRESS_STEPS)
    progress(len(scenario.demand) % _PROGRESS_STEPS)
    course.failed_launches = plant.failed
    return course


def rehearse_policy(scenario: Scenario, policy: Policy, progress: Progress = lambda _steps: None) -> Course:
    """Run the daemon's own decisions for a policy through the whole demand."""
    own = OwnPolicy(policy, scenario.oracle[0], scenario.step_seconds)
    return rehearse(scenario, own, progress)
