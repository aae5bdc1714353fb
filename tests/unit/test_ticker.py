import threading
import time

from autoscaler.ticker import Ticker
from tests.support.polling import wait_until


class Ticks:
    """What a ticker under test called."""

    def __init__(self, interval_seconds: float) -> None:
        self.lateness: list[float] = []
        self.release = threading.Event()
        self.release.set()
        self.under_way = 0
        self.most_at_once = 0
        self.ticker = Ticker(interval_seconds, self._tick)

    def _tick(self, lateness_seconds: float) -> None:
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self.lateness.append(lateness_seconds)
        self.release.wait(30)
        self.under_way -= 1


def test_ticks_at_once_then_every_interval() -> None:
    ticks = Ticks(1.0)
    began = time.monotonic()
    ticks.ticker.start()
    wait_until(lambda: len(ticks.lateness) == 3, 10, "three ticks")
    assert time.monotonic() - began > 1.5
    ticks.ticker.stop()


def test_wakes_early() -> None:
    ticks = Ticks(3600.0)
    ticks.ticker.start()
    wait_until(lambda: len(ticks.lateness) == 1, 10, "the first tick")
    ticks.ticker.wake()
    wait_until(lambda: len(ticks.lateness) == 2, 10, "the tick that was asked for")
    ticks.ticker.stop()


def test_a_tick_that_hangs_is_not_joined_by_another_and_not_waited_for() -> None:
    ticks = Ticks(0.2)
    ticks.release.clear()
    ticks.ticker.start()
    wait_until(lambda: ticks.under_way == 1, 10, "a tick under way")
    for _ in range(5):
        ticks.ticker.wake()
        time.sleep(0.2)
    began = time.monotonic()
    ticks.ticker.stop()
    assert time.monotonic() - began < 5
    assert ticks.most_at_once == 1
    ticks.release.set()


def test_lateness_is_measured() -> None:
    ticks = Ticks(0.2)
    ticks.release.clear()
    ticks.ticker.start()
    wait_until(lambda: ticks.under_way == 1, 10, "a tick under way")
    time.sleep(1.0)
    ticks.release.set()
    wait_until(lambda: len(ticks.lateness) >= 2, 10, "the tick after it")
    ticks.ticker.stop()
    assert ticks.lateness[0] == 0.0
    assert ticks.lateness[1] > 0.5
