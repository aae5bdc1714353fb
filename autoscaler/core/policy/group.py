"""One group's policy as a whole."""

from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from autoscaler.core.policy.behavior import Behavior, Size
from autoscaler.core.policy.life import Drain, Health, Launch, Ready, Refresh, Removal
from autoscaler.core.policy.machine import CloudInit, Image, Machine
from autoscaler.core.policy.scaling import Schedule, Signal, Strategy
from autoscaler.core.policy.traffic import Traffic


class Mode(StrEnum):
    """Whether decisions are carried out."""

    ACTIVE = "active"
    SHADOW = "shadow"
    """Everything is decided and recorded, nothing is done."""


class Starved(StrEnum):
    """What to do with a group whose guests do not get the CPU they want, because their host has none to give."""

    HOLD = "hold"
    """Neither clone nor scale in: another instance would only take CPU from those there are."""
    ALARM = "alarm"
    """Act, and say so."""
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Policy:
    """One group: where it runs, what it is made of, and how it scales."""

    group: str
    image: Image
    size: Size
    hosts: tuple[str, ...] = ("local",)
    mode: Mode = Mode.ACTIVE
    machine: Machine = field(default_factory=Machine)
    scaling: tuple[Strategy, ...] = ()
    behavior: Behavior = field(default_factory=Behavior)
    warm_up_seconds: float = 60.0
    warm_up_auto: bool = False
    """The warm-up follows the measured launches; `warm_up_seconds` holds until there are any."""
    ready: Ready = field(default_factory=Ready)
    health: Health = field(default_factory=Health)
    launch: Launch = field(default_factory=Launch)
    drain: Drain = field(default_factory=Drain)
    removal: Removal = field(default_factory=Removal)
    refresh: Refresh = field(default_factory=Refresh)
    priority: int = 50
    """From 0 to 100; where room is scarce the more urgent group takes it, if need be from a less urgent one."""
    starved: Starved = Starved.HOLD
    traffic: Traffic | None = None
    cloud_init: CloudInit | None = None
    """None: instances get no seed for cloud-init."""

    @property
    def min_in_service(self) -> int:
        """How many the load balancer is always left."""
        asked = None if self.traffic is None else self.traffic.min_in_service
        return min(1, self.size.min) if asked is None else asked

    @property
    def host(self) -> str:
        """The host new instances are cloned on."""
        return self.hosts[0]

    @property
    def signals(self) -> tuple[Signal, ...]:
        """What its strategies look at."""
        return tuple(strategy for strategy in self.scaling if isinstance(strategy, Signal))

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """The schedules among its strategies."""
        return tuple(strategy for strategy in self.scaling if isinstance(strategy, Schedule))


def stand_in(group: str) -> Policy:
    """Make what stands in for the policy of a group that has none.

    It names no host, nothing is cloned by it, and nobody is judged by it: the policy may come back.
    """
    return Policy(
        group,
        Image("", ""),
        Size(0, 0),
        hosts=(),
        ready=Ready(timeout_seconds=inf),
        health=Health(agent_silent_seconds=inf),
    )
