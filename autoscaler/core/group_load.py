"""Deciding for a group whose load is given as a whole, by the code that decides for measured instances.

A rehearsal knows what its instances carry and needs no hosts, domains or counters to be made up for it. From the
group's sample on, all of it is the daemon's own: windows, strategies, behaviour's limits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoscaler.core.count import decide_count
from autoscaler.core.decision import Decision
from autoscaler.core.memory import GroupMemory, LoadSample
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Across, Policy
from autoscaler.core.signals import FULL
from autoscaler.core.windows import trim


@dataclass(frozen=True, slots=True)
class EvenLoad:
    """A load spread evenly: `measured` instances at `load` (a fraction of one's capacity) each, and some warming up."""

    load: float
    measured: int
    warming: int = 0

    def sample(self, across: Across, at: float) -> LoadSample | None:
        """Give what `signals.group_sample` gives for as many equal loads; None without a ready instance."""
        if not self.measured and not self.warming:
            return None
        low = self.load * self.measured
        high = low + self.warming * FULL
        if across is Across.MAX and self.warming:
            high = (self.measured + self.warming) * FULL
        value = self.load if self.measured else None
        steal = 0.0 if self.measured else None
        return LoadSample(at, value, low, high, self.measured, self.warming, 0, steal)


def decide_on_load(
    policy: Policy, group: GroupMemory, load: EvenLoad, at: float, interval_seconds: float
) -> tuple[Decision, GroupMemory]:
    """Decide how many instances the group should have; `group.admitted` is the count it has."""
    samples = _take_in(policy, group.samples, load, at)
    current = group.admitted if group.admitted is not None else policy.size.min
    return decide_count(policy, replace(group, samples=samples), current, Observation(at, interval_seconds))


def _take_in(
    policy: Policy, before: Mapping[str, tuple[LoadSample, ...]], load: EvenLoad, at: float
) -> dict[str, tuple[LoadSample, ...]]:
    windows: dict[str, float] = {}
    across: dict[str, Across] = {}
    for strategy in policy.scaling:
        windows[strategy.series] = max(strategy.over_seconds, windows.get(strategy.series, 0.0))
        across[strategy.series] = strategy.across
    samples: dict[str, tuple[LoadSample, ...]] = {}
    for series, window in windows.items():
        sample = load.sample(across[series], at)
        kept = before.get(series, ())
        samples[series] = trim(kept if sample is None else (*kept, sample), at, window)
    return samples
