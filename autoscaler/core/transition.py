"""The states of an instance's life, and one step from one to the next."""

from dataclasses import dataclass
from enum import StrEnum


class InstanceState(StrEnum):
    """Where an instance is in its life."""

    REQUESTED = "requested"
    CLONING = "cloning"
    BOOTING = "booting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    """Was ready, and serves no more as far as one can tell; to be replaced."""
    RETURNING = "returning"
    """Off since its host was rebooted, or saved, and being brought back."""
    DRAINING = "draining"
    """Still serves, and is to leave; taken back when the load returns."""
    STOPPING = "stopping"
    FAILED = "failed"
    DETACHED = "detached"
    """Taken out of its group by an operator: neither counted, measured nor removed."""
    REMOVED = "removed"
    """Nothing of it is left; seen in transitions only."""


class TransitionReason(StrEnum):
    """Why an instance went from one state to another, or was found changed by somebody's hand."""

    REQUESTED = "requested"
    CLONING = "cloning"
    STARTED = "started"
    BECAME_READY = "became_ready"
    ADOPTED = "adopted"
    """Ours by its metadata, and not remembered."""
    SCALE_IN = "scale_in"
    TAKEN_BACK = "taken_back"
    LAUNCH_FAILED = "launch_failed"
    READY_TIMEOUT = "ready_timeout"
    CRASHED = "crashed"
    IO_ERROR = "io_error"
    AGENT_SILENT = "agent_silent"
    PROBE_FAILED = "probe_failed"
    BALANCER_DOWN = "balancer_down"
    """Its load balancer's checks find it down."""
    RECOVERED = "recovered"
    REPLACED = "replaced"
    MAX_LIFETIME = "max_lifetime"
    REFRESHED = "refreshed"
    """Another golden image takes the place of the one it stands on."""
    HOST_REBOOTED = "host_rebooted"
    SAVED = "saved"
    BROUGHT_BACK = "brought_back"
    DETACHED = "detached"
    ATTACHED = "attached"
    GROUP_DELETED = "group_deleted"
    REMOVED = "removed"
    REMOVAL_FAILED = "removal_failed"
    STOPPED_BY_SOMEBODY = "stopped_by_somebody"
    STARTED_BY_SOMEBODY = "started_by_somebody"
    UNDEFINED_BY_SOMEBODY = "undefined_by_somebody"
    PAUSED_BY_SOMEBODY = "paused_by_somebody"
    RESUMED_BY_SOMEBODY = "resumed_by_somebody"
    RENAMED_BY_SOMEBODY = "renamed_by_somebody"
    UNREACHABLE = "unreachable"
    """Its host is no longer in the configuration."""
    REACHABLE = "reachable"


@dataclass(frozen=True, slots=True)
class Transition:
    """One instance went from one state to another at a tick, or was found changed in the state it is in.

    `before` is None for an instance seen for the first time. Where `before` and `after` are the same, only what
    `reason` tells has changed: somebody paused, resumed or renamed it, or its host went out of reach.
    """

    group: str
    instance: str
    host: str
    before: InstanceState | None
    after: InstanceState
    at: float
    """When a tick noticed it, in seconds since the epoch."""
    reason: TransitionReason
