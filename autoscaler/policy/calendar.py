"""Schedules: what may stand in them, and which are active at a time.

A span begins when its cron expression fires in its time zone, and lasts its duration of real time. Where a clock is set
back, a wall time that comes twice begins a span the first time only, unless the hour is left open (`*`); where a clock
is set forward, a wall time that is left out begins its span as much later.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import merge
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from apscheduler.triggers.cron import CronTrigger

from autoscaler.core.observation import ScheduleState
from autoscaler.core.policy import Policy, Schedule
from autoscaler.core.words import nearest
from autoscaler.policy.values import WrongValueError, found

_FIELDS = ("minute", "hour", "day", "month", "weekday")
_WEEKDAY = 4
_HOUR = 1
_LONGEST_CHAIN = 1000
"""After so many spans that run into each other the end of them is not looked for."""
_INSTANT = timedelta(microseconds=1)
_WIDEST_SHIFT = timedelta(hours=3)
"""More than any clock is ever set forward or back by daylight saving."""


def read_cron(value: object) -> str:
    """Read a cron expression of five fields; weekdays by name only."""
    fields = value.split() if isinstance(value, str) else []
    if len(fields) != len(_FIELDS):
        expected = " ".join(_FIELDS)
        raise WrongValueError(f"must be a cron expression of five fields ({expected}) such as '0 8 * * mon-fri'")
    if any(character.isdigit() for character in fields[_WEEKDAY].partition("/")[0]):
        raise WrongValueError(
            f"'{fields[_WEEKDAY]}' for the weekday is read differently by different programs; write names, such as"
            " mon-fri or sat,sun"
        )
    cron = " ".join(fields)
    try:
        fires = _trigger(cron).get_next_fire_time(None, datetime(2000, 1, 1, tzinfo=UTC))
    except ValueError as error:
        raise WrongValueError(f"{found(value)} is no cron expression: {str(error).lower()}") from error
    if fires is None:
        raise WrongValueError(f"{found(value)} names a day that never comes")
    return cron


def read_timezone(value: object) -> str:
    """Read the name of a time zone of the IANA database."""
    known = available_timezones()
    if not isinstance(value, str) or value not in known:
        near = nearest(value, known) if isinstance(value, str) else ""
        hint = f"; {near}" if near.startswith("did you mean") else ""
        raise WrongValueError(f"must be a time zone such as Europe/Berlin or UTC, not {found(value)}{hint}")
    return value


class Calendar:
    """Tells which schedules are active. Remembers each answer until its next edge; the answers depend on `at` alone."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, ScheduleState]] = {}

    def states(self, policies: Iterable[Policy], at: float) -> dict[str, ScheduleState]:
        """Tell of every schedule of these policies, by its key, whether it is active at `at` (since the epoch)."""
        schedules = {schedule.key: schedule for policy in policies for schedule in policy.schedules}
        self._known = {key: self._state(schedule, at) for key, schedule in schedules.items()}
        return {key: state for key, (_, state) in self._known.items()}

    def _state(self, schedule: Schedule, at: float) -> tuple[float, ScheduleState]:
        told_at, known = self._known.get(schedule.key, (at, None))
        if known is not None and told_at <= at and (known.until is None or at < known.until):
            return told_at, known
        return at, state(schedule, at)


def state(schedule: Schedule, at: float) -> ScheduleState:
    """Tell whether a schedule is active at `at`, and until when that is so."""
    now, span = datetime.fromtimestamp(at, UTC), timedelta(seconds=schedule.for_seconds)
    fires = _fires(schedule, now - span)
    first = next(fires, None)
    if first is None:
        return ScheduleState(active=False)
    if first > now:
        return ScheduleState(active=False, until=first.timestamp())
    end = first + span
    for fire in islice(fires, _LONGEST_CHAIN):
        if fire > end:
            return ScheduleState(active=True, until=end.timestamp())
        end = fire + span
    return ScheduleState(active=True, until=end.timestamp())


def _fires(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Give the instants later than `after` at which the spans begin, in order.

    The trigger counts wall time, as if it knew no time zone; what a wall time is in real time is for zoneinfo to say.
    """
    zone = ZoneInfo(schedule.timezone)
    hour_is_open = schedule.cron.split()[_HOUR].startswith("*")
    streams = [_instants(schedule.cron, zone, after, fold) for fold in ((0, 1) if hour_is_open else (0,))]
    last = after
    for instant in merge(*streams):
        if instant > last:
            last = instant
            yield instant


def _instants(cron: str, zone: ZoneInfo, after: datetime, fold: int) -> Iterator[datetime]:
    trigger = _trigger(cron)
    wall = after.astimezone(zone).replace(tzinfo=UTC) - _WIDEST_SHIFT
    while (fire := trigger.get_next_fire_time(None, wall)) is not None:
        first, second = (fire.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
        left_out = (first.utcoffset() or timedelta()) < (second.utcoffset() or timedelta())
        yield (second if fold and not left_out else first).astimezone(UTC)
        wall = fire + _INSTANT


@cache
def _trigger(cron: str) -> CronTrigger:
    return CronTrigger.from_crontab(cron, timezone=UTC)
