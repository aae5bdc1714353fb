"""Who sends a group's instances their requests."""

from dataclasses import dataclass
from enum import StrEnum


class TrafficKind(StrEnum):
    """How a load balancer is told whom to serve by."""

    HAPROXY = "haproxy"
    """HAProxy's runtime API."""
    FILE = "file"
    """A file made from a template, and a command that lets the balancer read it."""
    FILE_SD = "file_sd"
    """Prometheus' file of targets."""
    WEBHOOK = "webhook"


class WhenDown(StrEnum):
    """What a balancer that does not answer holds up."""

    WAIT = "wait"
    """An instance becomes ready, and one that leaves is removed, when it answers again."""
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who sends the group's instances their requests."""

    kind: TrafficKind
    port: int = 80
    """Where the instances serve."""
    socket: str = ""
    """HAProxy's runtime API: the path of a unix socket, or host:port."""
    backend: str = ""
    slots: str = ""
    """The prefix of a `server-template`: slots are named so, with a number behind."""
    template: str = ""
    path: str = ""
    reload: tuple[str, ...] = ()
    """A program with its arguments."""
    url: str = ""
    weight_warming: float = 0.1
    """What share of the weight an instance has while it warms up."""
    drain_seconds: float = 30.0
    """How long sessions may take to end once nothing new comes."""
    unhealthy: bool = False
    """Whether an instance that the balancer's checks find down counts as unhealthy."""
    when_down: WhenDown = WhenDown.WAIT
    min_in_service: int | None = None
    """So many are never taken out of service; None for one where `size.min` is above zero."""
