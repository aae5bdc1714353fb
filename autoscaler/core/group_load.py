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
from autoscaler.core.policy import Policy
from autoscaler.core.reading import retention_seconds
from autoscaler.core.signals import Load, Measured, Warming, group_sample
from autoscaler.core.windows import trim


@dataclass(frozen=True, slots=True)
class EvenLoad:
    """A load spread evenly: `measured` instances at `load` (a fraction of one's capacity) each, and some warming up."""

    load: float
    measured: int
    warming: int = 0

    def members(self) -> dict[str, Load]:
        """Give each instance's load, as it would have been measured."""
        loads: dict[str, Load] = dict.fromkeys(_MEASURED[: self.measured], Measured(self.load, 0.0))
        return loads | dict.fromkeys(_WARMING[: self.warming], Warming())


_MEASURED, _WARMING = (tuple(f"{what}-{number}" for number in range(1000)) for what in ("measured", "warming"))


def decide_on_load(
    policy: Policy, group: GroupMemory, load: EvenLoad, observation: Observation
) -> tuple[Decision, GroupMemory]:
    """Decide how many instances the group should have; `group.admitted` is the count it has."""
    samples = _take_in(policy, group.samples, load, observation)
    current = group.admitted if group.admitted is not None else policy.size.min
    return decide_count(policy, replace(group, samples=samples), current, observation)


def _take_in(
    policy: Policy, before: Mapping[str, tuple[LoadSample, ...]], load: EvenLoad, observation: Observation
) -> dict[str, tuple[LoadSample, ...]]:
    at, loads = observation.at, load.members()
    samples: dict[str, tuple[LoadSample, ...]] = {}
    for signal in policy.signals:
        if signal.series not in samples:
            sample = group_sample(loads, signal.across, at)
            kept = before.get(signal.series, ())
            alike = (other for other in policy.signals if other.series == signal.series)
            window = max(retention_seconds(other, observation.interval_seconds) for other in alike)
            samples[signal.series] = trim(kept if sample is None else (*kept, sample), at, window)
    return samples
