"""What goes into the journal and comes out of it. Times are seconds since the epoch."""

from collections.abc import Mapping
from dataclasses import dataclass

from autoscaler.core.action import InFlight, Outcome
from autoscaler.core.decision import Decision
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Observation, Request
from autoscaler.core.policy import Policy
from autoscaler.core.ports import VolumeRef
from autoscaler.core.transition import Transition


@dataclass(frozen=True, slots=True)
class TickRecord:
    """One tick's inputs and results, committed as a whole."""

    observation: Observation
    policies: tuple[Policy, ...]
    decisions: tuple[Decision, ...]
    memory: Memory
    """What the step left, for the next tick."""
    duration_seconds: float = 0.0
    """From the tick's begin to this commit."""
    transitions: tuple[Transition, ...] = ()
    """What happened to instances, for the events."""


@dataclass(frozen=True, slots=True)
class ReplayTick:
    """A tick as it was, for `step` to be run again."""

    id: int
    policies: tuple[Policy, ...]
    observation: Observation
    memory_before: Memory | None
    """What the step was given; kept on the first tick after each opening and every 360th, else None."""
    decisions_json: str
    """`canonical(decisions, tuple[Decision, ...])` as it was written."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What the journal adds to an observation, read at one moment: no intent is in two places or in none."""

    in_flight: tuple[InFlight, ...]
    outcomes: tuple[Outcome, ...]
    requests: tuple[Request, ...]
    ledger: tuple[VolumeRef, ...] = ()
    """The volumes that are ours."""
    ledger_lost: bool = False
    """Whether the journal was begun anew and nobody has accepted that yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an action; `ended_at` is None while it is under way, or for ever when it failed."""

    name: str
    begun_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, of a group, an instance or neither."""

    id: int
    at: float
    kind: str
    group: str | None
    instance: str | None
    detail: Mapping[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Rollup:
    """A group's load over one minute, or over several that were put together, in the metric's own unit."""

    minute: int
    """When the first minute began."""
    samples: int
    avg: float
    min: float
    max: float
    admitted: int
    """The last admitted count in this time."""


@dataclass(frozen=True, slots=True)
class History:
    """What became of a group since a time."""

    group: str
    since: float
    until: float
    decisions: tuple[Decision, ...]
    """Those that differed from the one before, the newest of them, oldest first."""
    loads: Mapping[str, tuple[Rollup, ...]]
    """By metric, over spans of `span_seconds`; one without any measured load is not among them."""
    span_seconds: int
