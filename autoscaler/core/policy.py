"""What an operator asked for, as the core sees it. `autoscaler.policy` makes these from YAML.

Durations are in seconds, sizes in bytes, shares as fractions of one (0.6 is 60 %).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum


class Mode(StrEnum):
    """Whether decisions are carried out."""

    ACTIVE = "active"
    SHADOW = "shadow"
    """Everything is decided and recorded, nothing is done."""


class Accelerator(StrEnum):
    """How a guest's instructions are run."""

    AUTO = "auto"
    """KVM where a guest was seen to boot under it, emulation elsewhere."""
    KVM = "kvm"
    TCG = "tcg"


class Starved(StrEnum):
    """What to do with a group whose guests do not get the CPU they want, because their host has none to give."""

    HOLD = "hold"
    """Neither clone nor scale in: another instance would only take CPU from those there are."""
    ALARM = "alarm"
    """Act, and say so."""
    IGNORE = "ignore"


class Across(StrEnum):
    """How the loads of a group's instances become one."""

    AVG = "avg"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Image:
    """The golden image: a volume of a storage pool on the group's host."""

    pool: str
    volume: str


USER_NETWORK = "user"
"""The network name that stands for QEMU's user-mode networking."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The shape of every instance of a group."""

    vcpus: int = 1
    memory_bytes: int = 1024 * 1024 * 1024
    network: str = "default"
    accelerator: Accelerator = Accelerator.AUTO
    hugepages: bool = False
    """Whether the guest's memory is taken from the host's huge pages."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds on the number of instances; `max` counts every owned instance and every clone in flight."""

    min: int
    max: int


@dataclass(frozen=True, slots=True)
class TargetTracking:
    """Keep the group's load near `target` (a fraction of one instance's capacity)."""

    metric: str
    target: float
    across: Across = Across.AVG
    over_seconds: float = 60.0

    @property
    def series(self) -> str:
        """The name of the series of group samples this strategy reads."""
        return f"{self.across.value} {self.metric}"


@dataclass(frozen=True, slots=True)
class DirectionLimits:
    """What slows a group down in one direction."""

    cooldown_seconds: float
    stabilization_seconds: float


@dataclass(frozen=True, slots=True)
class Behavior:
    """What keeps a group steady."""

    tolerance: float = 0.1
    scale_out: DirectionLimits = DirectionLimits(cooldown_seconds=0.0, stabilization_seconds=0.0)
    scale_in: DirectionLimits = DirectionLimits(cooldown_seconds=300.0, stabilization_seconds=300.0)


@dataclass(frozen=True, slots=True)
class Ready:
    """When an instance counts as ready, and how long it may take from its start."""

    agent: bool = True
    timeout_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Drain:
    """How an instance leaves: asked to shut down, and destroyed after the deadline."""

    deadline_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """One group: where it runs, what it is made of, and how it scales."""

    group: str
    image: Image
    size: Size
    hosts: tuple[str, ...] = ("local",)
    mode: Mode = Mode.ACTIVE
    machine: Machine = field(default_factory=Machine)
    scaling: tuple[TargetTracking, ...] = ()
    behavior: Behavior = field(default_factory=Behavior)
    warm_up_seconds: float = 60.0
    ready: Ready = field(default_factory=Ready)
    drain: Drain = field(default_factory=Drain)
    priority: int = 50
    """From 0 to 100; where room is scarce the more urgent group takes it, if need be from a less urgent one."""
    starved: Starved = Starved.HOLD

    @property
    def host(self) -> str:
        """The host new instances are cloned on."""
        return self.hosts[0]


def metrics_of(policies: Iterable[Policy]) -> frozenset[str]:
    """Name the metrics that some policy scales by."""
    return frozenset(strategy.metric for policy in policies for strategy in policy.scaling)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the hosts' pools and networks has to be read, because some policy uses it."""

    images: frozenset[Image] = frozenset()
    networks: frozenset[str] = frozenset()


def wanted_by(policies: Iterable[Policy]) -> Wanted:
    """Name what these policies use."""
    chosen = tuple(policies)
    networks = frozenset(policy.machine.network for policy in chosen) - {USER_NETWORK}
    return Wanted(frozenset(policy.image for policy in chosen), networks)
