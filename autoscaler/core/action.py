"""What the controller asks to be done, and what became of it."""

from dataclasses import dataclass
from enum import StrEnum

from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.policy import CloudInit, Hook, Image, Machine


@dataclass(frozen=True, slots=True)
class Clone:
    """Make one instance: overlay on the golden image, cloud-init's seed, domain with ownership element, start."""

    group: str
    host: str
    instance: str
    image: Image
    machine: Machine
    cloud_init: CloudInit | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Take one instance away: shut down, destroy after the deadline, delete its volumes, undefine."""

    group: str
    host: str
    instance: str
    reason: str
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Start:
    """Bring one instance back that went off with its host: start its domain, from its managed save if it has one."""

    group: str
    host: str
    instance: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Delete what the ledger says is ours of an instance that is gone: overlay, console's log and seed."""

    group: str
    host: str
    instance: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Run an instance's drain hooks; it serves on meanwhile, and whatever becomes of them it is removed afterwards."""

    group: str
    host: str
    instance: str
    hooks: tuple[Hook, ...]


Action = Clone | Drain | Remove | Start | Collect


@dataclass(frozen=True, slots=True)
class Intent:
    """An action that was committed to the journal before anything acted; `id` is its row."""

    id: int
    at: float
    action: Action


class IntentState(StrEnum):
    """How far an intent has come."""

    OPEN = "open"
    """Waiting for a worker, or under way."""
    UNKNOWN = "unknown"
    """A mutating call exceeded its deadline: counted, neither undone nor repeated until a listing settled it."""
    DONE = "done"
    FAILED = "failed"
    """Not done; what it had begun was undone."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an action failed."""

    kind: HypervisorErrorKind
    message: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """An intent that has not ended, with the last step it began."""

    intent: Intent
    state: IntentState
    step: str | None = None
    failure: Failure | None = None
    """Why its outcome is unknown, or why it is being undone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An intent that ended since the last observation; times are seconds since the epoch."""

    intent: Intent
    state: IntentState
    ended_at: float
    failure: Failure | None = None
