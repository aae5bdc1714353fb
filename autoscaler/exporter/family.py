"""What a family of series is: its name, its meaning, where a snapshot has it, and how many series it can have."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from autoscaler.core.snapshot import Durations, Snapshot

Sample = tuple[tuple[str, ...], float | Durations | None]
"""The values of a family's labels, and the figure; None where there is none to tell."""

Samples = Callable[[Snapshot], Iterable[Sample]]

_SUFFIXES = {"_seconds": "seconds", "_bytes": "bytes", "_ratio": "share of one", "_total": "count"}
_SERIES_PER_HISTOGRAM = len(Durations().bounds) + len(("+Inf", "_sum", "_count"))
_ENTITIES = ("instance", "pool", "network", "metric", "group", "host", "image")
"""Labels whose values come from the installation, those that tell which of the others first."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its series."""

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    samples: Samples
    unit: str = ""
    """What is counted; empty where the name ends with it."""
    choices: int = 1
    """How many series it has at most for each of what `per` names."""

    @property
    def per(self) -> str:
        """What the number of its series grows with; empty where it does not grow."""
        return next((label for label in _ENTITIES if label in self.labels), "")

    @property
    def series(self) -> int:
        """How many series it has at most for each of what `per` names, with those of a histogram."""
        return self.choices * (_SERIES_PER_HISTOGRAM if self.kind == "histogram" else 1)

    @property
    def measured_in(self) -> str:
        """Its unit. Raises ValueError for a family that does not tell it."""
        found = self.unit or next((unit for suffix, unit in _SUFFIXES.items() if self.name.endswith(suffix)), "")
        if not found:
            raise ValueError(f"{self.name} tells no unit: end its name with one, or say unit= in its row")
        return found


def series_per_entity(families: Iterable[Family]) -> dict[str, int]:
    """Sum up how many series there are at most for each group, instance, host …; the empty key has the constant."""
    sums = dict.fromkeys(("", *reversed(_ENTITIES)), 0)
    for family in families:
        sums[family.per] += family.series
    return sums
