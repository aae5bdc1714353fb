"""Counters to rates to a group's load."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from operator import attrgetter

from autoscaler.core.instances import Instance
from autoscaler.core.memory import InstanceMemory, LoadSample
from autoscaler.core.metrics import METRICS, POOL_FREE, Source, Unit
from autoscaler.core.observation import (
    DomainCounters,
    DomainState,
    ExternalSample,
    HostInventory,
    HostSample,
    Observation,
    Unknown,
)
from autoscaler.core.policy import Signal
from autoscaler.core.transition import InstanceState
from autoscaler.core.windows import statistic

FULL = 1.0
"""The load of an instance with nothing left to give."""

STALE_SECONDS = 60.0
"""A figure that is older than this, and than two intervals, is missing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A load that was measured, in its metric's unit; `steal` is what its host withheld of the guest's time."""

    value: float
    steal: float | None = None


@dataclass(frozen=True, slots=True)
class Warming:
    """Ready, but too young for its load to mean anything."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Ready, and its load could not be told."""

    why: str


Load = Measured | Warming | Missing


@dataclass(frozen=True, slots=True)
class _Reading:
    """One domain's counters at the previous and the present sample."""

    before: DomainCounters | None
    now: DomainCounters
    at: float
    stale_seconds: float


def _vcpu_times(reading: _Reading) -> tuple[float, float, float] | Missing:
    """Give the seconds that passed over all vCPUs, those they ran, and those they wanted to run and could not."""
    before, now = reading.before, reading.now
    if before is None:
        return Missing("first sample")
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
    if time < 0 or delay < 0 or now.vcpus != before.vcpus:
        return Missing("counters started anew")
    if elapsed <= 0:
        return Missing("no time passed")
    return elapsed, time, delay


def _guest_cpu(reading: _Reading) -> Load:
    """Tell what share of its vCPUs the guest wanted: Σ Δtime / Σ (elapsed - Δdelay).

    Time a vCPU waited for a physical CPU is taken out of the divisor, so that busy guests on too few cores read 100 %.
    """
    times = _vcpu_times(reading)
    if isinstance(times, Missing):
        return times
    elapsed, time, delay = times
    if elapsed - delay <= 0:
        return Missing("no time on a physical CPU")
    return Measured(min(time / (elapsed - delay), FULL), delay / elapsed)


def _guest_steal(reading: _Reading) -> Load:
    times = _vcpu_times(reading)
    if isinstance(times, Missing):
        return times
    elapsed, _, delay = times
    return Measured(min(delay / elapsed, FULL))


def _guest_memory(reading: _Reading) -> Load:
    """Tell what share of its memory the guest could not give to a program without swapping."""
    now = reading.now
    if now.balloon_bytes is None or now.memory_usable_bytes is None or now.memory_updated_at is None:
        return Missing("the guest does not tell its memory")
    if now.balloon_bytes <= 0:
        return Missing("the guest has no memory")
    if reading.at - now.memory_updated_at > reading.stale_seconds:
        return Missing("the guest told its memory too long ago")
    return Measured(min(max(1 - now.memory_usable_bytes / now.balloon_bytes, 0.0), FULL))


def _rate(field: str) -> Callable[[_Reading], Load]:
    counter = attrgetter(field)

    def read(reading: _Reading) -> Load:
        if reading.before is None:
            return Missing("first sample")
        before, now = counter(reading.before), counter(reading.now)
        if before is None or now is None:
            return Missing("no such counter")
        elapsed = reading.now.read_at_seconds - reading.before.read_at_seconds
        if now < before:
            return Missing("counters started anew")
        if elapsed <= 0:
            return Missing("no time passed")
        return Measured((now - before) / elapsed)

    return read


_COUNTERS = {
    name: name.removeprefix("guest.").replace(".", "_")
    for name, metric in METRICS.items()
    if metric.unit in (Unit.BYTES_PER_SECOND, Unit.PER_SECOND)
}
_GUEST: Mapping[str, Callable[[_Reading], Load]] = {
    "guest.cpu": _guest_cpu,
    "guest.steal": _guest_steal,
    "guest.memory": _guest_memory,
    **{name: _rate(field) for name, field in _COUNTERS.items()},
}
_HOST: Mapping[str, Callable[[HostSample], float | int | None]] = {
    "host.cpu": attrgetter("cpu_busy_share"),
    "host.load": attrgetter("load_1m"),
    "host.memory_available": attrgetter("memory_available_bytes"),
    "host.psi_cpu": attrgetter("psi_cpu_share"),
    "host.psi_memory": attrgetter("psi_memory_share"),
    "host.psi_io": attrgetter("psi_io_share"),
}
_RATED = ("vcpu_time_seconds", *_COUNTERS.values())


def is_complete(counters: DomainCounters) -> bool:
    """Whether these counters can be the earlier end of a rate: a read that gave none is no end at all."""
    return any(getattr(counters, field) is not None for field in _RATED)


def member_loads(
    metric: str,
    instances: Sequence[Instance],
    memory: Mapping[str, InstanceMemory],
    counters: tuple[Mapping[str, DomainCounters], Mapping[str, DomainCounters]],
    warm: tuple[float, float],
    interval_seconds: float = 0.0,
) -> dict[str, Load]:
    """Give the load of each ready instance by its id.

    `counters` are the previous and the present ones by domain UUID; `warm` is now and the warm-up, in seconds.
    """
    before, now = counters
    at, warm_up_seconds = warm
    measure, stale = _GUEST[metric], stale_seconds(interval_seconds)
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
        else:
            loads[instance.id] = measure(_Reading(before.get(uuid), now[uuid], at, stale))
    return loads


def stale_seconds(interval_seconds: float) -> float:
    """From which age on a figure says nothing of the present."""
    return max(STALE_SECONDS, 2 * interval_seconds)


def group_sample(loads: Mapping[str, Load], across: str, at: float, *, full: float | None = FULL) -> LoadSample | None:
    """Make one sample of the members' loads; None where the group has no ready member to ask.

    `full` is the most a member can carry; None where that is not known, and the busiest member's load stands for it.
    """
    if not loads:
        return None
    members = [load for load in loads.values() if isinstance(load, Measured)]
    values = [load.value for load in members]
    steals = [load.steal for load in members if load.steal is not None]
    warming = sum(isinstance(load, Warming) for load in loads.values())
    missing = len(loads) - len(values) - warming
    unmeasured = warming + missing
    most = max(values, default=0.0) if full is None else full
    value = statistic(across, values) if values else None
    highest = statistic(across, values + [most] * unmeasured)
    if across in ("avg", "sum"):
        low, high = sum(values), sum(values) + unmeasured * most
    else:
        low = (value or 0.0) * len(values)
        high = highest * len(loads)
    return LoadSample(
        at,
        value,
        low,
        high,
        len(values),
        warming,
        missing,
        sum(steals) / len(steals) if steals else None,
        least=statistic(across, values + [0.0] * unmeasured) if values else None,
        most=highest,
        serving=len(values) + missing,
    )


@dataclass(frozen=True, slots=True)
class Members:
    """How many instances are ready: `serving` of them are warmed up."""

    serving: int
    ready: int


def outside_sample(signal: Signal, host: str, members: Members, observation: Observation) -> LoadSample | None:
    """Sample what is measured outside the instances; None where it would be per instance and none is ready."""
    at = observation.at
    value = (
        _host_value(signal, host, observation) if signal.kind.source is Source.HOST else _external(signal, observation)
    )
    serving, ready = (max(count, 1) for count in (members.serving or members.ready, members.ready))
    if signal.per_instance and not members.ready:
        return None
    if value is None:
        return LoadSample(at, None, 0.0, 0.0, 0, 0, 1, serving=members.serving)
    if not signal.per_instance:
        return LoadSample(
            at, value, value * serving, value * ready, 1, 0, 0, least=value, most=value, serving=members.serving
        )
    share = value / serving
    return LoadSample(at, share, value, value, 1, 0, 0, least=value / ready, most=share, serving=members.serving)


def _host_value(signal: Signal, host: str, observation: Observation) -> float | None:
    if signal.metric == POOL_FREE:
        inventory = observation.inventory.get(host)
        pool = inventory.pools.get(signal.pool or "") if isinstance(inventory, HostInventory) else None
        return None if pool is None else float(pool.available_bytes)
    sample = observation.hosts.get(host)
    value = None if sample is None or isinstance(sample, Unknown) else _HOST[signal.metric](sample)
    return None if value is None else float(value)


def why_unread(signal: Signal, host: str, observation: Observation) -> str | None:
    """Tell why a signal from outside the guests could not be read at this tick; None where it could, or is within."""
    match signal.kind.source:
        case Source.GUEST:
            return None
        case Source.HOST:
            if _host_value(signal, host, observation) is not None:
                return None
            if signal.metric == POOL_FREE:
                return f"host {host} has no active pool {signal.pool} whose room could be read"
            found = observation.hosts.get(
                host, Unknown(f"the kernel of host {host} is not read, only that of this one")
            )
            return found.why if isinstance(found, Unknown) else f"the kernel of host {host} does not give it"
    if _external(signal, observation) is not None:
        return None
    given = observation.external.get(signal.source)
    return given.why if isinstance(given, Unknown) else "nobody asked for it yet" if given is None else "it is too old"


def _external(signal: Signal, observation: Observation) -> float | None:
    sample = observation.external.get(signal.source)
    if not isinstance(sample, ExternalSample) or not isfinite(sample.value):
        return None
    fresh = observation.at - sample.at <= stale_seconds(observation.interval_seconds)
    return sample.value if fresh else None
