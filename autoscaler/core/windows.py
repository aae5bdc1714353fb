"""Windows over time-stamped samples, shared by load windows and stabilization windows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

MAX_GAP_INTERVALS = 2.0


class Stamped(Protocol):
    """Anything with a time."""

    @property
    def at(self) -> float:
        """Seconds since the epoch."""
        ...


S = TypeVar("S", bound=Stamped)


def trim(samples: Sequence[S], at: float, window_seconds: float) -> tuple[S, ...]:
    """Drop what no window ending at `at` or later can need: all but the newest of those before its start."""
    start = at - window_seconds
    older = [sample for sample in samples if sample.at <= start]
    return (*older[-1:], *(sample for sample in samples if sample.at > start))


def is_full(samples: Sequence[S], at: float, window_seconds: float, interval_seconds: float) -> bool:
    """Whether samples cover the window up to `at` with no gap over two intervals."""
    inside = trim(samples, at, window_seconds)
    if not inside or inside[0].at > at - window_seconds:
        return False
    times = [*(sample.at for sample in inside), at]
    return all(later - earlier <= MAX_GAP_INTERVALS * interval_seconds for earlier, later in pairwise(times))


def weights(samples: Sequence[S], at: float, window_seconds: float, interval_seconds: float) -> list[tuple[S, float]]:
    """Give each sample inside the window the seconds it speaks for: since the one before, two intervals at most."""
    kept = trim(samples, at, window_seconds)
    start = at - window_seconds
    weighed: list[tuple[S, float]] = []
    before: float | None = None
    for sample in kept:
        if sample.at > start:
            span = interval_seconds if before is None else sample.at - max(before, start)
            weighed.append((sample, min(span, MAX_GAP_INTERVALS * interval_seconds)))
        before = sample.at
    return weighed
