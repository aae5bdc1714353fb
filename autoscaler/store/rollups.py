"""Minutes of load put together to longer spans, so that a history of days is no longer than one of hours."""

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby

from autoscaler.store.records import Rollup

MAX_SPANS = 360
_MINUTE_SECONDS = 60


def span_of(since: float, until: float) -> int:
    """Give the shortest span, in seconds and whole minutes, of which at most `MAX_SPANS` cover this time."""
    minutes = max(until - since, 0.0) / _MINUTE_SECONDS
    return max(math.ceil(minutes / MAX_SPANS), 1) * _MINUTE_SECONDS


def put_together(rollups: Iterable[Rollup], span_seconds: int) -> tuple[Rollup, ...]:
    """Put minutes together, given oldest first; averages weigh by the number of samples."""
    return tuple(
        _one(begin, tuple(minutes))
        for begin, minutes in groupby(rollups, lambda each: each.minute // span_seconds * span_seconds)
    )


def _one(begin: int, minutes: tuple[Rollup, ...]) -> Rollup:
    if len(minutes) == 1:
        return replace(minutes[0], minute=begin)
    samples = sum(each.samples for each in minutes)
    return Rollup(
        begin,
        samples,
        sum(each.avg * each.samples for each in minutes) / samples,
        min(each.min for each in minutes),
        max(each.max for each in minutes),
        minutes[-1].admitted,
    )
