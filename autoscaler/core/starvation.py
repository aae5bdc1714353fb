"""Whether a group's guests want CPU that their host does not have: then another instance would not help."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoscaler.core.behavior import STARVED_STEAL
from autoscaler.core.memory import LoadSample
from autoscaler.core.observation import Consumer, HostSample, Observation
from autoscaler.core.policy import Policy

_CROWDED_PRESSURE = 0.9
_CROWDED_STEAL = 0.1
"""Where the kernel says that something waited for a CPU nearly all the time, so much withheld time is enough."""
_SAMPLES = 2
"""One tick in which the host breathes is no end of it; two are."""


@dataclass(frozen=True, slots=True)
class Starvation:
    """The share of their time that the guests' host withheld from them, and who took it."""

    steal: float
    culprits: tuple[Consumer, ...] = ()

    def describe_culprits(self) -> str:
        """Name them, with the processors each took."""
        named = (f"{'guest ' if c.guest else ''}{c.name} (pid {c.pid}) {c.cores:.1f} cores" for c in self.culprits)
        return ", ".join(named) or "not known"


def starvation(
    policy: Policy, samples: Mapping[str, Sequence[LoadSample]], observation: Observation
) -> Starvation | None:
    """Tell whether the guests are starved; None where they are not, or where that cannot be told."""
    steals = [steal for series in samples.values() if (steal := _steal(series, observation)) is not None]
    if not steals:
        return None
    steal = max(steals)
    sample = observation.hosts.get(policy.host)
    known = sample if isinstance(sample, HostSample) else None
    crowded = known is not None and known.psi_cpu_share is not None and known.psi_cpu_share >= _CROWDED_PRESSURE
    if steal < (_CROWDED_STEAL if crowded else STARVED_STEAL):
        return None
    return Starvation(steal, known.top if known is not None else ())


def _steal(series: Sequence[LoadSample], observation: Observation) -> float | None:
    latest = [sample.steal for sample in series[-_SAMPLES:] if sample.steal is not None]
    fresh = series and observation.at - series[-1].at <= 2 * observation.interval_seconds
    if not latest or not fresh:
        return None
    return max(latest)
