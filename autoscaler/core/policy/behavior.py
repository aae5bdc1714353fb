"""How large a group may be, and what slows its scaling."""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Size:
    """Bounds on the number of instances; `max` counts every owned instance and every clone in flight."""

    min: int
    max: int


class Select(StrEnum):
    """Which of several rate limits counts."""

    MAX = "max"
    """The one that allows the larger change."""
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so much change within a period: a count, or a share of the count at the period's start."""

    per_seconds: float
    count: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class DirectionLimits:
    """What slows a group down in one direction."""

    cooldown_seconds: float
    stabilization_seconds: float
    enabled: bool = True
    rates: tuple[Rate, ...] = ()
    select: Select = Select.MAX
    tolerance: float | None = None
    """How far from its target a signal may be in this direction; None is the behaviour's own."""


@dataclass(frozen=True, slots=True)
class Behavior:
    """What keeps a group steady."""

    tolerance: float = 0.1
    scale_out: DirectionLimits = DirectionLimits(cooldown_seconds=0.0, stabilization_seconds=0.0)
    scale_in: DirectionLimits = DirectionLimits(cooldown_seconds=300.0, stabilization_seconds=300.0)
    quorum: float = 1.0
    """The share of the serving instances that must be measured for a scale-in; the others are then taken as full."""

    @property
    def tolerance_out(self) -> float:
        """How far above its target a signal may be."""
        own = self.scale_out.tolerance
        return self.tolerance if own is None else own

    @property
    def tolerance_in(self) -> float:
        """How far below its target a signal may be."""
        own = self.scale_in.tolerance
        return self.tolerance if own is None else own
