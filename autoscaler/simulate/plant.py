"""What a decision meets: instances that take their time to boot, may fail to, and saturate."""

import random
from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

_ROUNDING_SECONDS = 1e-6
SLOW_SHARE = 0.1
SLOW_FACTOR = 3.0
"""With slow boots, one in ten takes three times as long."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How the plant behaves. Delays in seconds, from asking for an instance until it is ready; one is drawn of them."""

    boot_delays: Sequence[float] = (180.0,)
    failures: float = 0.0
    """The share of launches that fail: noticed when they should have been ready, and then tried again."""
    slow_boots: bool = False
    capacity: int | None = None
    """How many instances the hosts have room for, booting ones among them."""
    seed: int = 1

    def lead_ticks(self, step_seconds: float) -> int:
        """How many steps ahead one must ask to have an instance in time, failures and slow boots aside."""
        return max(1, ceil((max(self.boot_delays) - _ROUNDING_SECONDS) / step_seconds))


class Plant:
    """Instances of one group; time is given to it, and never goes back."""

    def __init__(self, conditions: Conditions, initial: int) -> None:
        self._conditions = conditions
        self._random = random.Random(conditions.seed)  # noqa: S311 - a rehearsal must be repeatable
        self._ready_at = [float("-inf")] * initial
        self._launches: list[tuple[float, bool]] = []
        self.failed = 0
        """Launches that failed so far."""

    @property
    def ready(self) -> int:
        """Instances that serve."""
        return len(self._ready_at)

    @property
    def existing(self) -> int:
        """Instances that serve or boot: what occupies hosts."""
        return len(self._ready_at) + len(self._launches)

    def warming(self, at: float, warm_up_seconds: float) -> int:
        """How many became ready less than `warm_up_seconds` ago."""
        return len(self._ready_at) - bisect_right(self._ready_at, at - warm_up_seconds)

    def advance(self, at: float) -> None:
        """Let launches come to their end."""
        while self._launches and self._launches[0][0] <= at + _ROUNDING_SECONDS:
            _, fails = self._launches.pop(0)
            if fails:
                self.failed += 1
            else:
                self._ready_at.append(at)

    def aim(self, count: int, at: float) -> None:
        """Launch or remove at once: what is not ready goes first, then the newest, as the daemon's reconcile does."""
        room = self._conditions.capacity
        while self.existing < count and (room is None or self.existing < room):
            insort(self._launches, (at + self._delay(), self._draw(self._conditions.failures)))
        while self.existing > count:
            (self._launches or self._ready_at).pop()

    def _delay(self) -> float:
        delays = self._conditions.boot_delays
        delay = delays[0] if len(delays) == 1 else self._random.choice(delays)
        return delay * SLOW_FACTOR if self._conditions.slow_boots and self._draw(SLOW_SHARE) else delay

    def _draw(self, share: float) -> bool:
        return share > 0 and self._random.random() < share
