"""What drives the tick: APScheduler, guarded against a clock that is set back, and waking early on events."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

_JOB = "tick"
_SHORTEST_GAP_SECONDS = 0.5


class _DaemonThreadExecutor(BaseExecutor):  # type: ignore[misc]
    """Runs each job in a daemon thread: APScheduler's own pool would wait at exit for a tick that hangs."""

    def _do_submit_job(self, job: Job, run_times: list[datetime]) -> None:
        def run() -> None:
            events = run_job(job, job._jobstore_alias, run_times, self._logger.name)  # noqa: SLF001 - as APScheduler's own executors do
            self._run_job_success(job.id, events)

        threading.Thread(target=run, name="tick", daemon=True).start()


class _Every(BaseTrigger):  # type: ignore[misc]
    """Fires every so many seconds, and never in the past.

    APScheduler's own interval lists every time that was missed before it coalesces them, under its lock: for a clock
    set forward from 1970 that takes for ever.
    """

    def __init__(self, seconds: float) -> None:
        self._interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        following = (previous_fire_time or now) + self._interval
        return following if following > now else now + self._interval


class Ticker:
    """Calls `tick(lateness_seconds)` every interval, one at a time; `tick` must not raise."""

    def __init__(self, interval_seconds: float, tick: Callable[[float], None]) -> None:
        self._interval = interval_seconds
        self._tick = tick
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": _DaemonThreadExecutor()})
        self._began = time.monotonic()
        self._ticked = False
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        # A tick that outlasts its interval is measured as lateness; APScheduler's own line a tick would only flood.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)

    def start(self) -> None:
        """Begin ticking, at once."""
        self._scheduler.add_job(
            self._run,
            _Every(self._interval),
            id=_JOB,
            next_run_time=datetime.now(UTC),
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
        )
        self._scheduler.start()
        threading.Thread(target=self._guard, name="tick-guard", daemon=True).start()

    def wake(self) -> None:
        """Ask for a tick sooner than the interval."""
        self._wanted.set()

    def stop(self) -> None:
        """Begin no more ticks; one under way is not waited for."""
        self._stopped.set()
        self._wanted.set()
        self._scheduler.shutdown(wait=False)

    def _run(self) -> None:
        now = time.monotonic()
        lateness = max(now - self._began - self._interval, 0.0) if self._ticked else 0.0
        self._began, self._ticked = now, True
        self._wanted.clear()
        self._tick(lateness)

    def _guard(self) -> None:
        """Pull the next tick to now when one is wanted, or when none began for two intervals.

        APScheduler plans by the wall clock: one set back an hour would stop the ticks for an hour.
        """
        while not self._stopped.is_set():
            wanted = self._wanted.wait(min(self._interval, 1.0))
            quiet = time.monotonic() - self._began
            if self._stopped.is_set():
                return
            if quiet > 2 * self._interval or (wanted and quiet >= _SHORTEST_GAP_SECONDS):
                self._scheduler.modify_job(_JOB, next_run_time=datetime.now(UTC))
                self._stopped.wait(_SHORTEST_GAP_SECONDS)
            elif wanted:
                self._stopped.wait(_SHORTEST_GAP_SECONDS - quiet)
