"""An instance's life: when it is ready and well, how it is launched, drained, removed and refreshed."""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from autoscaler.core.policy.behavior import Size


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """An HTTP GET that an instance has to answer with this status."""

    port: int = 80
    path: str = "/"
    status: int = 200


@dataclass(frozen=True, slots=True)
class Ready:
    """When an instance counts as ready: every gate asked for is passed, within a time from its start."""

    agent: bool = True
    """The guest agent answers."""
    address: bool = False
    """An IP address of the guest is known."""
    tcp_port: int | None = None
    """The guest takes connections on this port."""
    http: HttpCheck | None = None
    timeout_seconds: float = 300.0

    @property
    def probes(self) -> bool:
        """Whether an instance has to be asked over the network."""
        return self.tcp_port is not None or self.http is not None


@dataclass(frozen=True, slots=True)
class Health:
    """When an instance that was ready counts as unhealthy, and when so many do that none is replaced."""

    probe_failures: int = 3
    """Probes that failed in a row."""
    agent_silent_seconds: float = 300.0
    """How long an agent that had answered says nothing; heard only where `ready` asks for the agent."""
    max_unhealthy_share: float = 0.5
    """Above this share of the group nothing is replaced; a single unhealthy instance always is."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What keeps launches that go wrong from being repeated for ever."""

    breaker: int = 5
    """After so many failed launches in a row none is tried until an operator resets the group; 0 for never."""
    budget: int | None = None
    """Instances that may be made within an hour; None for what no sound policy needs."""

    def per_hour(self, size: Size) -> int:
        """Give the instances that may be made within an hour: as asked for, else 60 or four times the maximum."""
        return self.budget if self.budget is not None else max(60, 4 * size.max)


class HookKind(StrEnum):
    """How a drain hook is run."""

    COMMAND = "command"
    """A program on the daemon's machine."""
    WEBHOOK = "webhook"
    AGENT = "agent"
    """A program in the guest, through its agent."""


@dataclass(frozen=True, slots=True)
class Hook:
    """One thing to be done before an instance leaves; what it leaves undone at its deadline holds nothing up."""

    kind: HookKind
    argv: tuple[str, ...] = ()
    """The program with its arguments; empty for a webhook."""
    url: str = ""
    """Where to POST; empty for anything but a webhook."""
    deadline_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class Drain:
    """How an instance leaves: hooks, a wait until it is idle, the request to shut down, the power-off."""

    deadline_seconds: float = 60.0
    """From the request to shut down to the power-off."""
    idle: float | None = None
    """The load below which it is idle, a fraction of its capacity; None: it is not waited for."""
    wait_seconds: float = 300.0
    """How long it is waited for."""
    hooks: tuple[Hook, ...] = ()


class RemovalOrder(StrEnum):
    """Which of several equally good instances leaves first."""

    NEWEST = "newest"
    OLDEST = "oldest"
    LEAST_LOADED = "least_loaded"


@dataclass(frozen=True, slots=True)
class Removal:
    """Which instances leave."""

    order: RemovalOrder = RemovalOrder.NEWEST
    min_lifetime_seconds: float = 0.0
    """Younger ones are not scaled in."""
    max_lifetime_seconds: float | None = None
    """Older ones are replaced, one at a time."""


@dataclass(frozen=True, slots=True)
class CountOrShare:
    """So many instances of a group: a count, or a share of all of them, rounded up."""

    count: int | None = None
    share: float = 1.0

    def of(self, total: int) -> int:
        """Give the number of so many, at most all of them."""
        return min(total, ceil(self.share * total - 1e-9) if self.count is None else self.count)


@dataclass(frozen=True, slots=True)
class Refresh:
    """How a new version of the golden image replaces a group's instances."""

    canary: int = 1
    """How many are made of the new image before any other."""
    canary_soak_seconds: float = 60.0
    """How long the canaries are watched once they are ready."""
    batch: CountOrShare = CountOrShare(share=0.25)
    """How many are replaced before a pause; at least one."""
    pause_seconds: float = 60.0
    min_in_service: CountOrShare = CountOrShare(share=1.0)
    """So many of the group serve at any time, as far as the refresh has a say."""
    timeout_seconds: float = 3600.0
    """How long it goes on without coming any further."""
    rollback: bool = True
    """Whether it goes back by itself to the image that was in service when the new one proves bad."""
