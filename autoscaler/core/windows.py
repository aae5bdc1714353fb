"""Windows over time-stamped samples, shared by load windows and stabilization windows."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from math import ceil
from operator import attrgetter
from typing import Protocol, TypeVar

MAX_GAP_INTERVALS = 2.0

_at = attrgetter("at")


class Stamped(Protocol):
    """Anything with a time."""

    @property
    def at(self) -> float:
        """Seconds since the epoch."""
        ...


S = TypeVar("S", bound=Stamped)


def trim(samples: Sequence[S], at: float, window_seconds: float) -> tuple[S, ...]:
    """Drop what no window ending at `at` or later can need: all but the newest of those before its start."""
    first = max(bisect_right(samples, at - window_seconds, key=_at) - 1, 0)
    return tuple(samples[first:])


def is_full(samples: Sequence[S], at: float, window_seconds: float, interval_seconds: float) -> bool:
    """Whether samples cover the window up to `at` with no gap over two intervals."""
    inside = trim(samples, at, window_seconds)
    return bool(inside) and inside[0].at <= at - window_seconds and is_dense(inside, at, interval_seconds)


def is_dense(samples: Sequence[S], at: float, interval_seconds: float) -> bool:
    """Whether there is no gap over two intervals between the samples, nor between the newest and `at`."""
    times, widest = [*map(_at, samples), at], MAX_GAP_INTERVALS * interval_seconds
    return max([later - earlier for earlier, later in pairwise(times)], default=0.0) <= widest


def weights(samples: Sequence[S], at: float, window_seconds: float, interval_seconds: float) -> list[tuple[S, float]]:
    """Give each sample inside the window the seconds it speaks for: since the one before, two intervals at most."""
    kept = trim(samples, at, window_seconds)
    start = at - window_seconds
    longest = MAX_GAP_INTERVALS * interval_seconds
    weighed: list[tuple[S, float]] = []
    before: float | None = None
    for sample in kept:
        at = sample.at
        if at > start:
            span = interval_seconds if before is None else at - (max(start, before))
            weighed.append((sample, min(longest, span)))
        before = at
    return weighed


def fold(values: Sequence[tuple[float, float]], take: str) -> float | None:
    """Make one value of a window's values, each with its weight, oldest first; None where nothing has a weight.

    `take` is avg (by weight), max, last, or a percentile p1 to p99 (the least value that so much of the weight is at or
    below).
    """
    total = sum([weight for _, weight in values])
    if total <= 0:
        return None
    match take:
        case "avg":
            return sum([value * weight for value, weight in values]) / total
        case "max":
            return max(value for value, weight in values if weight > 0)
        case "last":
            return values[-1][0]
    wanted, passed = total * int(take[1:]) / 100, 0.0
    ordered = sorted(values)
    for value, weight in ordered:
        passed += weight
        if passed >= wanted:
            return value
    return ordered[-1][0]


def statistic(name: str, values: Sequence[float]) -> float:
    """Make one value of several (at least one): avg, max, min, sum, or a percentile p1 to p99 by nearest rank."""
    match name:
        case "avg":
            return sum(values) / len(values)
        case "max":
            return max(values)
        case "min":
            return min(values)
        case "sum":
            return sum(values)
    return sorted(values)[ceil(len(values) * int(name[1:]) / 100) - 1]
