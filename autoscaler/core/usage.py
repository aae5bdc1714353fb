"""What an instance takes of its host, between two looks at raw counters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoscaler.core.observation import DomainCounters, Ownership, Unknown


@dataclass(frozen=True, slots=True)
class VcpuThread:
    """A thread of a QEMU process that runs a vCPU, with the kernel's monotone counters of it."""

    vcpu: int | None
    """None where one thread runs all vCPUs in turn."""
    tid: int
    cpu_seconds: float
    delay_seconds: float | None
    """How long it wanted to run and could not; None where the kernel does not count that."""
    processor: int
    """The host's CPU that it ran on last."""


@dataclass(frozen=True, slots=True)
class QemuProcess:
    """The QEMU process of a guest, with the kernel's monotone counters of it."""

    pid: int
    read_at_seconds: float
    """A monotonic clock when this was read; only differences have a meaning."""
    cpu_seconds: float
    """Of all its threads, those that run vCPUs and others."""
    resident_bytes: int
    threads: tuple[VcpuThread, ...]
    """Those that run vCPUs, in the vCPUs' order."""


@dataclass(frozen=True, slots=True)
class Running:
    """One instance that is not off, as its libvirt and its host's kernel see it."""

    host: str
    uuid: str
    owner: Ownership
    counters: DomainCounters | None
    """None for one that is paused."""
    process: QemuProcess | Unknown


@dataclass(frozen=True, slots=True)
class Look:
    """The running instances of one host at one time; Unknown where the host could not be read."""

    host: str
    running: tuple[Running, ...] | Unknown


@dataclass(frozen=True, slots=True)
class VcpuUsage:
    """What one vCPU took since the look before; `cores` is the share of one processor that it ran."""

    vcpu: int | None
    tid: int
    processor: int
    cores: float | None
    steal_cores: float | None
    """The share of the time that it wanted to run and could not."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one instance takes of its host; rates are since the look before, and what could not be read is None."""

    host: str
    group: str
    instance: str
    uuid: str
    pid: int | None
    process_why: str | None
    """Why its QEMU process could not be read."""
    cores: float | None
    """How many processors' time its QEMU process took, with QEMU's own threads."""
    vcpus: int | None
    vcpu_cores: float | None
    """How many processors' time its vCPUs ran."""
    steal_cores: float | None
    """How many of its vCPUs, on average, wanted to run and could not."""
    resident_bytes: int | None
    """Of its QEMU process, in the host's memory."""
    guest_bytes: int | None
    """Memory the guest has."""
    guest_used_bytes: int | None
    """Of that, what the guest could not give to a program without swapping, as it last told."""
    disk_read_bytes_per_second: float | None
    disk_write_bytes_per_second: float | None
    net_rx_bytes_per_second: float | None
    net_tx_bytes_per_second: float | None
    threads: tuple[VcpuUsage, ...]


def usages(before: Sequence[Look], now: Sequence[Look]) -> tuple[Usage, ...]:
    """Give what each instance of the second look took since the first; one that is new has no rates yet."""
    known = {(each.host, each.uuid): each for each in _all(before)}
    return tuple(_usage(known.get((each.host, each.uuid)), each) for each in _all(now))


def _all(looks: Sequence[Look]) -> list[Running]:
    return [each for look in looks if not isinstance(look.running, Unknown) for each in look.running]


def _usage(before: Running | None, now: Running) -> Usage:
    process = None if isinstance(now.process, Unknown) else now.process
    earlier = None if before is None or isinstance(before.process, Unknown) else before.process
    if process is None or earlier is None or earlier.pid != process.pid:
        # Another process counts from zero again.
        earlier = None
    counters = now.counters
    rate = _Rates(None if before is None else before.counters, counters)
    return Usage(
        now.host,
        now.owner.group,
        now.owner.instance,
        now.uuid,
        pid=None if process is None else process.pid,
        process_why=now.process.why if isinstance(now.process, Unknown) else None,
        cores=None if process is None or earlier is None else _rate(earlier, process, lambda it: it.cpu_seconds),
        vcpus=None if counters is None else counters.vcpus,
        vcpu_cores=rate.of(lambda it: it.vcpu_time_seconds),
        steal_cores=rate.of(lambda it: it.vcpu_delay_seconds),
        resident_bytes=None if process is None else process.resident_bytes,
        guest_bytes=None if counters is None else counters.balloon_bytes,
        guest_used_bytes=_used(counters),
        disk_read_bytes_per_second=rate.of(lambda it: it.disk_read_bytes),
        disk_write_bytes_per_second=rate.of(lambda it: it.disk_write_bytes),
        net_rx_bytes_per_second=rate.of(lambda it: it.net_rx_bytes),
        net_tx_bytes_per_second=rate.of(lambda it: it.net_tx_bytes),
        threads=() if process is None else _threads(earlier, process),
    )


def _threads(before: QemuProcess | None, now: QemuProcess) -> tuple[VcpuUsage, ...]:
    known = {} if before is None else {thread.tid: thread for thread in before.threads}
    elapsed = 0.0 if before is None else now.read_at_seconds - before.read_at_seconds
    return tuple(_thread(known.get(thread.tid), thread, elapsed) for thread in now.threads)


def _thread(before: VcpuThread | None, now: VcpuThread, elapsed_seconds: float) -> VcpuUsage:
    cores = steal = None
    if before is not None:
        cores = _per_second(before.cpu_seconds, now.cpu_seconds, elapsed_seconds)
        steal = _per_second(before.delay_seconds, now.delay_seconds, elapsed_seconds)
    return VcpuUsage(now.vcpu, now.tid, now.processor, cores, steal)


def _used(counters: DomainCounters | None) -> int | None:
    if counters is None or counters.balloon_bytes is None or counters.memory_usable_bytes is None:
        return None
    return max(counters.balloon_bytes - counters.memory_usable_bytes, 0)


def _rate(before: QemuProcess, now: QemuProcess, counter: Callable[[QemuProcess], float]) -> float | None:
    return _per_second(counter(before), counter(now), now.read_at_seconds - before.read_at_seconds)


class _Rates:
    """Rates of libvirt's counters of one domain."""

    def __init__(self, before: DomainCounters | None, now: DomainCounters | None) -> None:
        self._before = before
        self._now = now

    def of(self, counter: Callable[[DomainCounters], float | None]) -> float | None:
        if self._before is None or self._now is None:
            return None
        elapsed = self._now.read_at_seconds - self._before.read_at_seconds
        return _per_second(counter(self._before), counter(self._now), elapsed)


def _per_second(before: float | None, now: float | None, elapsed_seconds: float) -> float | None:
    """None where there is nothing to compare, or the counter began anew."""
    if before is None or now is None or elapsed_seconds <= 0 or now < before:
        return None
    return (now - before) / elapsed_seconds
