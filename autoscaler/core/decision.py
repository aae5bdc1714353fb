"""The record of one decision: what was seen, wished, limited and granted. English is made elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from autoscaler.core.metrics import Unit

Parameter = int | float | str


class ReasonCode(StrEnum):
    """Everything that can decide or change a count, or hold a group where it is."""

    FIXED_SIZE = "fixed_size"
    TARGET_EXCEEDED = "target_exceeded"
    TARGET_UNDERRUN = "target_underrun"
    WITHIN_TARGET = "within_target"
    WITHIN_TOLERANCE = "within_tolerance"
    STEP_OUT = "step_out"
    STEP_IN = "step_in"
    WITHIN_STEPS = "within_steps"
    ABOVE_THRESHOLD = "above_threshold"
    BELOW_THRESHOLD = "below_threshold"
    WITHIN_THRESHOLDS = "within_thresholds"
    SCHEDULE_DESIRES = "schedule_desires"
    SCHEDULE_SETS_MIN = "schedule_sets_min"
    SCHEDULE_SETS_MAX = "schedule_sets_max"
    SCHEDULE_INACTIVE = "schedule_inactive"
    SCHEDULE_UNKNOWN = "schedule_unknown"
    NO_SIGNAL = "no_signal"
    HELD_BY_OPERATOR = "held_by_operator"
    RAISED_TO_MIN = "raised_to_min"
    SCALE_OUT_LIMITED_BY_MAX = "scale_out_limited_by_max"
    LOWERED_TO_MAX = "lowered_to_max"
    SCALE_OUT_OFF = "scale_out_off"
    SCALE_IN_OFF = "scale_in_off"
    LIMITED_BY_RATE = "limited_by_rate"
    LIMITED_BY_PROJECTION = "limited_by_projection"
    HELD_BY_STABILIZATION = "held_by_stabilization"
    HELD_BY_COOLDOWN = "held_by_cooldown"
    HELD_BY_MISSING_LOAD = "held_by_missing_load"
    HELD_BY_STARVED_GUESTS = "held_by_starved_guests"
    HELD_BY_UNFILLED_WINDOW = "held_by_unfilled_window"
    HELD_BY_UNKNOWN_INVENTORY = "held_by_unknown_inventory"
    HELD_BY_LAUNCH_BACKOFF = "held_by_launch_backoff"
    LIMITED_TO_TRIAL_LAUNCH = "limited_to_trial_launch"
    HELD_BY_REMOVAL_BACKOFF = "held_by_removal_backoff"
    HELD_BY_OCCUPIED_MAX = "held_by_occupied_max"
    PAUSED = "paused"
    SHADOW = "shadow"
    REPLACES_FAILED_INSTANCE = "replaces_failed_instance"
    READY_TIMEOUT = "ready_timeout"
    BROUGHT_BACK = "brought_back"
    RETURN_WAITS = "return_waits"
    HELD_BY_RETURN = "held_by_return"
    REPLACES_UNHEALTHY_INSTANCE = "replaces_unhealthy_instance"
    REPLACES_OLD_INSTANCE = "replaces_old_instance"
    REPLACEMENT_STOPPED = "replacement_stopped"
    DRAINS = "drains"
    TAKEN_BACK = "taken_back"
    SPARED_BY_PROTECTION = "spared_by_protection"
    SPARED_BY_MIN_LIFETIME = "spared_by_min_lifetime"
    HELD_BY_UNKNOWN_IMAGE = "held_by_unknown_image"
    HELD_BY_CHANGED_IMAGE = "held_by_changed_image"
    HELD_BY_UNREAD_IMAGE = "held_by_unread_image"
    IMAGE_CHANGED = "image_changed"
    HELD_BY_BREAKER = "held_by_breaker"
    HELD_BY_BUDGET = "held_by_budget"
    ATTACH_REFUSED_BY_MAX = "attach_refused_by_max"
    PAUSED_BY_SOMEBODY = "paused_by_somebody"
    UNDEFINED_BY_SOMEBODY = "undefined_by_somebody"
    UNREACHABLE_INSTANCES = "unreachable_instances"
    CLOCK_SET_BACK = "clock_set_back"
    REFUSED_FOR_MEMORY = "refused_for_memory"
    REFUSED_FOR_VCPUS = "refused_for_vcpus"
    REFUSED_FOR_HUGEPAGES = "refused_for_hugepages"
    REFUSED_FOR_POOL_SPACE = "refused_for_pool_space"
    REFUSED_FOR_ADDRESSES = "refused_for_addresses"
    REFUSED_FOR_PRESSURE = "refused_for_pressure"
    REFUSED_FOR_UNREAD_CAPACITY = "refused_for_unread_capacity"
    YIELDS_TO_GROUP = "yields_to_group"
    TAKES_ROOM_FROM = "takes_room_from"
    STARVED = "starved"
    ACTS_THOUGH_STARVED = "acts_though_starved"
    BALANCER_UNKNOWN = "balancer_unknown"
    BALANCER_LACKS_SLOTS = "balancer_lacks_slots"
    UNSERVED_WITHOUT_ADDRESS = "unserved_without_address"
    KEPT_IN_SERVICE = "kept_in_service"
    WAITS_FOR_SESSIONS = "waits_for_sessions"
    SESSIONS_CUT = "sessions_cut"
    REFRESH_ASKED = "refresh_asked"
    REFRESH_TRIES = "refresh_tries"
    REFRESH_SOAKS = "refresh_soaks"
    REFRESH_REPLACES = "refresh_replaces"
    REFRESH_PAUSES = "refresh_pauses"
    REFRESH_GOES_BACK = "refresh_goes_back"
    REFRESH_LACKS_ROOM = "refresh_lacks_room"
    REFRESH_WAITS_FOR_SERVICE = "refresh_waits_for_service"
    REFRESH_STARVED = "refresh_starved"
    REFRESH_SPARES = "refresh_spares"
    REFRESH_DONE = "refresh_done"
    REFRESH_CANCELLED = "refresh_cancelled"
    REFRESH_ROLLED_BACK = "refresh_rolled_back"
    REFRESH_FAILED = "refresh_failed"
    LAUNCHES_PINNED = "launches_pinned"


@dataclass(frozen=True, slots=True)
class Reason:
    """A code and its figures."""

    code: ReasonCode
    parameters: Mapping[str, Parameter] = field(default_factory=dict)


def because(code: ReasonCode, **parameters: Parameter) -> Reason:
    """Make a reason."""
    return Reason(code, parameters)


@dataclass(frozen=True, slots=True)
class Input:
    """One metric of a group as the strategies saw it."""

    metric: str
    value: float | None
    """The value over the window, in the metric's unit; None where nothing was measured."""
    latest: float | None
    age_seconds: float | None
    """How old the newest sample is."""
    target: float | None
    """What target tracking keeps it near."""
    measured: int
    warming: int
    missing: int
    window_seconds: float
    window_full: bool
    across: str = "avg"
    steal: float | None = None
    """The share of their time that the host withheld from the guests, at the newest sample."""
    unit: Unit = Unit.SHARE
    take: str = "avg"
    """How the window became one value."""
    source: str | None = None
    """What was read, with the query or pool where there is one."""
    low: float | None = None
    """The demand over the window if what was not measured carries nothing."""
    high: float | None = None
    """The demand over the window if what was not measured is full: the two differ by what was imputed."""
    why: str | None = None
    """Why what is read outside the guests could not be read at this tick; None where it could."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What one strategy wishes; None where it cannot tell."""

    strategy: str
    count: int | None
    reason: Reason
    abstains: bool = False
    """It has no say: neither does it want more nor could it ever agree to fewer."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Recommended by the strategies, desired after the behaviour's limits, admitted after the hosts' limits."""

    group: str
    at: float
    current: int
    """The count that was admitted before."""
    inputs: tuple[Input, ...]
    recommendations: tuple[Recommendation, ...]
    recommended: int
    desired: int
    admitted: int
    reasons: tuple[Reason, ...]


ABOUT_REFRESH = frozenset({code for code in ReasonCode if code.startswith("refresh_")} | {ReasonCode.LAUNCHES_PINNED})
"""What is said of a refresh: it changes what instances stand on, not how many there are."""
_OF_NO_COUNT = frozenset({ReasonCode.PAUSED, ReasonCode.SHADOW}) | ABOUT_REFRESH


def decisive(decision: Decision) -> tuple[Reason, ...]:
    """Tell what made the count: its limits, or what was called for where none applied."""
    limits = tuple(reason for reason in decision.reasons if reason.code not in _OF_NO_COUNT)
    return limits or tuple(wish.reason for wish in decision.recommendations) or decision.reasons


def scales(decision: Decision, admitted_before: int | None) -> bool:
    """Tell whether a decision changes the size of its group; one that is only repeated does not."""
    return decision.admitted not in (decision.current, admitted_before)


LIMITERS = frozenset(
    {
        ReasonCode.SCALE_OUT_LIMITED_BY_MAX,
        ReasonCode.RAISED_TO_MIN,
        ReasonCode.SCALE_OUT_OFF,
        ReasonCode.SCALE_IN_OFF,
        ReasonCode.LIMITED_BY_RATE,
        ReasonCode.LIMITED_BY_PROJECTION,
        ReasonCode.HELD_BY_STABILIZATION,
        ReasonCode.HELD_BY_COOLDOWN,
        ReasonCode.HELD_BY_MISSING_LOAD,
        ReasonCode.HELD_BY_STARVED_GUESTS,
        ReasonCode.HELD_BY_UNFILLED_WINDOW,
    }
)
"""What lets through another count than the `wanted` among its parameters."""


@dataclass(frozen=True, slots=True)
class ButFor:
    """What a decision would have been without one limiter: `more` instances (negative for fewer)."""

    more: int
    reason: Reason
    until: float | None
    """When that limiter lets go, if nothing else changes; None where that cannot be told."""


def but_for(decision: Decision) -> tuple[ButFor, ...]:
    """Tell what each limiter kept a decision from."""
    found = []
    for reason in decision.reasons:
        wanted, until = reason.parameters.get("wanted"), reason.parameters.get("until")
        if reason.code in LIMITERS and isinstance(wanted, int) and wanted != decision.admitted:
            more = wanted - decision.admitted
            found.append(ButFor(more, reason, float(until) if isinstance(until, int | float) else None))
    return tuple(found)
