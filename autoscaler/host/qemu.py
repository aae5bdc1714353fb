"""This machine's QEMU processes and the threads that run their vCPUs, by the UUIDs of the guests."""

import os
import re
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import psutil

from autoscaler.core.usage import QemuProcess, VcpuThread
from autoscaler.host.processes import QEMU

_PROC = Path("/proc")
_VCPU = re.compile(r"\((?:CPU (\d+)|ALL CPUs)/")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_NANOSECONDS = 1e9


def qemu_processes() -> Mapping[str, QemuProcess]:
    """Find the QEMU processes that may be looked at, by the UUID of their guest.

    What is read of them is open to every user, unless /proc is mounted with hidepid.
    """
    found = {}
    for process in psutil.process_iter(["name", "cmdline"]):
        if QEMU.search(process.info["name"] or ""):
            uuid = _uuid(process.info["cmdline"] or [])
            try:
                if uuid is not None:
                    found[uuid] = _read(process)
            except (psutil.Error, FileNotFoundError, ProcessLookupError):
                # It ended just now.
                continue
    return found


def _uuid(command: list[str]) -> str | None:
    """Find a guest's UUID in the command line of its QEMU, as libvirt writes it."""
    return next((value for option, value in pairwise(command) if option == "-uuid"), None)


def _read(process: psutil.Process) -> QemuProcess:
    with process.oneshot():
        spent, memory = process.cpu_times(), process.memory_info()
    at = time.monotonic()
    tasks = (_PROC / str(process.pid) / "task").iterdir()
    threads = [thread for task in tasks if (thread := _vcpu_thread(task)) is not None]
    threads.sort(key=lambda thread: (thread.vcpu or 0, thread.tid))
    return QemuProcess(process.pid, at, spent.user + spent.system, memory.rss, tuple(threads))


def _vcpu_thread(task: Path) -> VcpuThread | None:
    """Read a thread; None for one that runs no vCPU: QEMU names those that do, when libvirt starts it."""
    stat = (task / "stat").read_text(errors="replace")
    named = _VCPU.search(stat)
    if named is None:
        return None
    # The name may hold anything; what follows it are numbers, from the third field on.
    fields = stat.rpartition(")")[2].split()
    user, system, processor = int(fields[11]), int(fields[12]), int(fields[36])
    return VcpuThread(
        vcpu=None if named[1] is None else int(named[1]),
        tid=int(task.name),
        cpu_seconds=(user + system) / _TICKS_PER_SECOND,
        delay_seconds=_delay_seconds(task),
        processor=processor,
    )


def _delay_seconds(task: Path) -> float | None:
    try:
        ran, waited, *_ = map(int, (task / "schedstat").read_text().split())
    except FileNotFoundError:
        return None
    # Where the kernel keeps no schedstat it gives zeros.
    return waited / _NANOSECONDS if ran else None
