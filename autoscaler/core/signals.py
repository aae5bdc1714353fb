"""Counters to rates to a group's load."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from autoscaler.core.instances import Instance
from autoscaler.core.memory import InstanceMemory, LoadSample
from autoscaler.core.observation import DomainCounters, DomainState
from autoscaler.core.policy import Across
from autoscaler.core.transition import InstanceState

FULL = 1.0
"""The load of an instance with nothing left to give."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A load that was measured, a fraction of the instance's capacity; `steal` is what its host withheld of it."""

    value: float
    steal: float = 0.0


@dataclass(frozen=True, slots=True)
class Warming:
    """Ready, but too young for its load to mean anything."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Ready, and its load could not be told."""

    why: str


Load = Measured | Warming | Missing


def guest_cpu(before: DomainCounters, now: DomainCounters) -> Load:
    """Tell what share of its vCPUs the guest wanted: Σ Δtime / Σ (elapsed - Δdelay).

    Time a vCPU waited for a physical CPU is taken out of the divisor, so that busy guests on too few cores read 100 %.
    """
    if (
        before.vcpu_time_seconds is None
        or now.vcpu_time_seconds is None
        or before.vcpu_delay_seconds is None
        or now.vcpu_delay_seconds is None
    ):
        return Missing("no vcpu counters")
    time = now.vcpu_time_seconds - before.vcpu_time_seconds
    delay = now.vcpu_delay_seconds - before.vcpu_delay_seconds
    elapsed = (now.read_at_seconds - before.read_at_seconds) * now.vcpus
    available = elapsed - delay
    if time < 0 or delay < 0 or now.vcpus != before.vcpus:
        return Missing("counters started anew")
    if available <= 0:
        return Missing("no time on a physical CPU")
    return Measured(min(time / available, FULL), delay / elapsed)


METRICS: Mapping[str, Callable[[DomainCounters, DomainCounters], Load]] = {"guest.cpu": guest_cpu}


def is_complete(counters: DomainCounters) -> bool:
    """Whether these counters can be the earlier end of a rate."""
    return counters.vcpu_time_seconds is not None and counters.vcpu_delay_seconds is not None


def member_loads(
    metric: str,
    instances: Sequence[Instance],
    memory: Mapping[str, InstanceMemory],
    counters: tuple[Mapping[str, DomainCounters], Mapping[str, DomainCounters]],
    warm: tuple[float, float],
) -> dict[str, Load]:
    """Give the load of each ready instance by its id.

    `counters` are the previous and the present ones by domain UUID; `warm` is now and the warm-up, in seconds.
    """
    before, now = counters
    at, warm_up_seconds = warm
    loads: dict[str, Load] = {}
    for instance in instances:
        if instance.state is not InstanceState.READY or instance.domain is None:
            continue
        ready_at = memory[instance.id].ready_at
        if ready_at is not None and at - ready_at < warm_up_seconds:
            loads[instance.id] = Warming()
            continue
        uuid = instance.domain.uuid
        if instance.domain.state is not DomainState.RUNNING:
            loads[instance.id] = Missing(f"domain is {instance.domain.state.value}")
        elif uuid not in now:
            loads[instance.id] = Missing("not in the host's statistics")
        elif uuid not in before:
            loads[instance.id] = Missing("first sample")
        else:
            loads[instance.id] = METRICS[metric](before[uuid], now[uuid])
    return loads


def group_sample(loads: Mapping[str, Load], across: Across, at: float) -> LoadSample | None:
    """Sum up the members' loads; None where the group has no ready member to ask."""
    if not loads:
        return None
    members = [load for load in loads.values() if isinstance(load, Measured)]
    values = [load.value for load in members]
    steal = sum(load.steal for load in members) / len(members) if members else None
    warming = sum(isinstance(load, Warming) for load in loads.values())
    missing = sum(isinstance(load, Missing) for load in loads.values())
    unmeasured = warming + missing
    match across:
        case Across.AVG:
            value = sum(values) / len(values) if values else None
            low = sum(values)
            high = low + unmeasured * FULL
        case Across.MAX:
            value = max(values, default=None)
            low = (value or 0.0) * len(values)
            high = FULL * len(loads) if unmeasured else low
    return LoadSample(at, value, low, high, len(values), warming, missing, steal)
