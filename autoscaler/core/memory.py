"""What the controller remembers from tick to tick. Serialisable; restoring it at any tick changes no later decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.observation import DomainCounters
from autoscaler.core.policy import Image
from autoscaler.core.transition import InstanceState, TransitionReason


@dataclass(frozen=True, slots=True)
class LoadSample:
    """A group's load at one tick. `low` and `high` bound the demand in busy instances (the sum of their loads)."""

    at: float
    value: float | None
    low: float
    """Demand if what is warming or missing carries nothing."""
    high: float
    """Demand if what is warming or missing is fully loaded."""
    measured: int
    warming: int
    missing: int
    steal: float | None = None
    """Average over what was measured: the share of its vCPUs' time that a guest wanted to run and could not."""
    least: float | None = None
    """`value` if what is warming or missing carries nothing."""
    most: float | None = None
    """`value` if what is warming or missing is fully loaded."""
    serving: int = 0
    """Instances that were ready and warmed up, measured or not."""

    @property
    def unmeasured(self) -> int:
        """How many values had to be imputed."""
        return self.warming + self.missing

    @property
    def members(self) -> int:
        """How many values there should be: the ready instances, or one for what is one value by itself."""
        return self.measured + self.unmeasured


@dataclass(frozen=True, slots=True)
class Wish:
    """A combined recommendation at one tick, for the stabilization windows."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class SizeChange:
    """A change of the admitted count, for the rate limits; `delta` is negative for a scale-in."""

    at: float
    delta: int


@dataclass(frozen=True, slots=True)
class InstanceMemory:
    """What is remembered of one instance."""

    host: str
    started_at: float
    """When it was first seen running, since it was last brought back."""
    ready_at: float | None = None
    boot: str | None = None
    """The boot of its host in which it was last seen running; None where the host does not tell."""
    off: bool = False
    """It went off with its host, or was saved, and is to be brought back."""
    failed_starts: int = 0
    """Attempts to bring it back that failed in a row."""
    returned: bool = False
    """It was brought back: that it becomes ready is no launch."""
    timed_out: bool = False
    """It was not ready in time, and is removed even if it comes up late."""
    silent_since: float | None = None
    """Since when its agent, which had answered, says nothing."""
    sick: TransitionReason | None = None
    """Why it is unhealthy; None while it is well."""
    draining: TransitionReason | None = None
    """Why it is to leave; None while it is not."""
    draining_since: float | None = None
    drained: bool = False
    """Its hooks have ended, however they did."""
    detached: bool = False
    protected_until: float | None = None
    address: str | None = None
    """Where it is reached; None while no address is known."""
    unwanted_since: float | None = None
    """Since when nothing new is to be sent to it."""
    unserved_since: float | None = None
    """Since when the load balancer was seen to send it nothing new."""
    served: bool = True
    """Its load balancer sends it requests, or it has none."""
    released: bool = False
    """What the load balancer had under way there has ended, or has had its time."""


@dataclass(frozen=True, slots=True)
class Life:
    """Where an instance was in its life at the last tick, whether or not it has a domain yet."""

    host: str
    state: InstanceState
    since: float
    reason: TransitionReason | None = None
    """Why it came to be in this state; None where no tick saw it come."""
    note: TransitionReason | None = None
    """What somebody did to it that changes no state: paused or renamed it, or took its host out of reach."""


@dataclass(frozen=True, slots=True)
class Override:
    """A size an operator holds a group at, until a time."""

    count: int
    until: float
    by: str


class RefreshPhase(StrEnum):
    """How far a refresh has come."""

    ASKED = "asked"
    """No tick has looked at the group since."""
    CANARY = "canary"
    """The first instances are made of the new image."""
    SOAK = "soak"
    """They are ready, and watched."""
    BATCH = "batch"
    """A batch is being replaced."""
    PAUSE = "pause"
    """A batch was replaced; the next one waits."""
    DONE = "done"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    """It stopped where it was, because it came no further."""


UNDER_WAY = frozenset(
    {RefreshPhase.ASKED, RefreshPhase.CANARY, RefreshPhase.SOAK, RefreshPhase.BATCH, RefreshPhase.PAUSE}
)


class Setback(StrEnum):
    """Why a refresh went back, or stopped."""

    ASKED = "asked"
    """An operator wants it."""
    CANARY_NOT_MADE = "canary_not_made"
    CANARY_NOT_READY = "canary_not_ready"
    CANARY_FAILED = "canary_failed"
    """It went off."""
    CANARY_UNHEALTHY = "canary_unhealthy"
    LAUNCHES_FAILED = "launches_failed"
    NO_PROGRESS = "no_progress"


@dataclass(frozen=True, slots=True)
class RefreshState:
    """A refresh of a group's instances, under way or ended: one at most is remembered."""

    target: Image
    """What the instances are to stand on."""
    by: str
    started_at: float
    phase: RefreshPhase = RefreshPhase.ASKED
    since: float = 0.0
    """When it came into its phase."""
    previous: Image | None = None
    """What was in service before; None where nobody can tell, and while a refresh goes back to it."""
    back: bool = False
    """It is a rollback: the target is what was in service before."""
    refused: Image | None = None
    """The image that nothing is launched from any more, as long as it is the policy's."""
    why: Setback | None = None
    """Why it goes back, or failed."""
    culprit: str | None = None
    """The instance it was, where it was one."""
    failed: int = 0
    """Launches from the target that failed in a row."""
    held: bool = False
    """The guests are starved by their host: nothing of it is done."""
    goal: int = 0
    """How many instances are to stand on the target at the end of this batch."""
    batch: int = 0
    """The number of this batch, from one."""
    furthest: int | None = None
    """The most that were ready on the target beyond those that were not on it."""
    progress_at: float = 0.0
    """When it last came any further, or could not have."""

    @property
    def running(self) -> bool:
        """Whether it is under way."""
        return self.phase in UNDER_WAY

    @property
    def unproven(self) -> bool:
        """Whether nothing but canaries is to be made of the target."""
        trial = {RefreshPhase.ASKED, RefreshPhase.CANARY, RefreshPhase.SOAK}
        return not self.back and self.phase in trial


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """What is remembered of one group."""

    admitted: int | None = None
    sequence: int = 0
    """How many instance ids were given out."""
    samples: Mapping[str, tuple[LoadSample, ...]] = field(default_factory=dict)
    """Per signal's series, the samples of its longest window, oldest first."""
    wishes: tuple[Wish, ...] = ()
    changes: tuple[SizeChange, ...] = ()
    """What the rate limits can still need, oldest first."""
    scaled_out_at: float | None = None
    scaled_in_at: float | None = None
    instances: Mapping[str, InstanceMemory] = field(default_factory=dict)
    loads: Mapping[str, float] = field(default_factory=dict)
    """The latest load of each instance, by instance id."""
    override: Override | None = None
    paused: bool = False
    failures: int = 0
    """Launches that failed in a row."""
    retry_at: float | None = None
    """When the next launch may be tried after failures."""
    removal_retry_at: float | None = None
    """When the next removal may be tried after one failed."""
    lives: Mapping[str, Life] = field(default_factory=dict)
    """Every instance that is there or in flight, by its id."""
    tripped_at: float | None = None
    """When failed launches tripped the breaker: none is tried until an operator resets the group."""
    launched: tuple[float, ...] = ()
    """When instances were cloned within the last hour, oldest first."""
    deleting: bool = False
    """An operator wants all its instances removed, as it has no policy any more."""
    refresh: RefreshState | None = None
    """The refresh that is under way, or the last one."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of everything."""

    controller: str
    """The controller's UUID, made once per state directory."""
    at: float | None = None
    groups: Mapping[str, GroupMemory] = field(default_factory=dict)
    counters: Mapping[str, DomainCounters] = field(default_factory=dict)
    """The previous counters, by domain UUID."""
    launches: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Per image, how many seconds its last launches took from clone to ready, oldest first."""
    leftovers: Mapping[str, float] = field(default_factory=dict)
    """Since when each instance has been left over, by `HOST/INSTANCE`."""
    preempted: Mapping[str, float] = field(default_factory=dict)
    """When an instance was last drained for a more urgent group, by host."""
