"""Schedules across daylight saving, midnights, restarts and clocks that go backward."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.observation import ScheduleState
from autoscaler.core.policy import Image, Policy, Schedule, Size
from autoscaler.policy.calendar import Calendar, state

HOUR = 3600.0


def at(text: str) -> float:
    """Read a time in UTC."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()


def berlin(cron: str, hours: float) -> Schedule:
    return Schedule(cron, "Europe/Berlin", hours * HOUR, min=2)


OFFICE = berlin("0 8 * * mon-fri", 10)
NIGHT = berlin("30 2 * * *", 1)
HALF_HOURS = berlin("*/30 * * * *", 0.25)


@pytest.mark.parametrize(
    ("schedule", "when", "active", "until"),
    [
        # Friday, in winter: 8:00 is 7:00 UTC. The end does not belong to the span.
        (OFFICE, "2026-01-09 06:59", False, "2026-01-09 07:00"),
        (OFFICE, "2026-01-09 07:00", True, "2026-01-09 17:00"),
        (OFFICE, "2026-01-09 16:59", True, "2026-01-09 17:00"),
        (OFFICE, "2026-01-09 17:00", False, "2026-01-12 07:00"),
        (OFFICE, "2026-01-10 09:00", False, "2026-01-12 07:00"),
        # The Monday after the clock was set forward: 8:00 is 6:00 UTC.
        (OFFICE, "2026-03-30 06:00", True, "2026-03-30 16:00"),
        (OFFICE, "2026-03-30 05:59", False, "2026-03-30 06:00"),
        # 2:30 is left out on 29 March: it comes an hour later by the wall, in its right time.
        (NIGHT, "2026-03-28 01:30", True, "2026-03-28 02:30"),
        (NIGHT, "2026-03-29 01:29", False, "2026-03-29 01:30"),
        (NIGHT, "2026-03-29 01:30", True, "2026-03-29 02:30"),
        (NIGHT, "2026-03-30 00:30", True, "2026-03-30 01:30"),
        # 2:30 comes twice on 25 October: the first one counts.
        (NIGHT, "2026-10-25 00:30", True, "2026-10-25 01:30"),
        (NIGHT, "2026-10-25 01:30", False, "2026-10-26 01:30"),
        # An open hour fires in both.
        (HALF_HOURS, "2026-10-25 00:35", True, "2026-10-25 00:45"),
        (HALF_HOURS, "2026-10-25 01:35", True, "2026-10-25 01:45"),
        # A span over the night of the change lasts its hours of real time.
        (berlin("0 22 * * sat", 10), "2026-03-29 06:59", True, "2026-03-29 07:00"),
        (berlin("0 22 * * sat", 10), "2026-10-25 05:59", True, "2026-10-25 06:00"),
        # Spans that run into each other are one.
        (berlin("0 * * * *", 2), "2026-05-01 12:30", True, None),
        (berlin("0 8-10 * * *", 1), "2026-05-01 06:30", True, "2026-05-01 09:00"),
        (berlin("0 0 29 feb *", 24), "2026-05-01 06:30", False, "2028-02-28 23:00"),
    ],
)
def test_whether_a_span_is_active(schedule: Schedule, when: str, active: bool, until: str | None) -> None:
    told = state(schedule, at(when))
    assert told.active is active
    if until is not None:
        assert told.until == at(until)
    else:
        assert told.until is not None
        assert told.until > at(when) + 24 * HOUR


POLICY = Policy("web", Image("p", "v"), Size(1, 4), scaling=(OFFICE, NIGHT, HALF_HOURS))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.sampled_from(["2026-03-28 22:00", "2026-10-24 22:00", "2026-01-09 06:00"]),
    st.lists(st.integers(-90, 400), min_size=1, max_size=30),
)
def test_what_is_remembered_changes_no_answer(start: str, minutes: list[int]) -> None:
    """Late, repeated and backward ticks, and a restart at any of them, get the answer of a calendar without a past."""
    calendar, now = Calendar(), at(start)
    for passed in minutes:
        now += passed * 60
        assert calendar.states([POLICY], now) == {each.key: state(each, now) for each in POLICY.schedules}


def test_a_span_is_active_for_as_long_as_it_says() -> None:
    """Counted minute by minute over a night in which the clock is set, at every zone's own time."""
    for zone, night in (("Europe/Berlin", "2026-03-28 12:00"), ("America/New_York", "2026-11-01 00:00")):
        schedule, start = Schedule("15 2 * * *", zone, 40 * 60.0, min=2), at(night)
        assert sum(state(schedule, start + 60.0 * minute).active for minute in range(24 * 60)) == 40


def test_policies_without_schedules_have_no_states() -> None:
    assert Calendar().states([Policy("web", Image("p", "v"), Size(1, 4))], 0.0) == {}
    assert state(berlin("0 8 * * mon", 1), 0.0) == ScheduleState(active=False, until=at("1970-01-05 07:00"))
