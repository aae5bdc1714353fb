"""Who takes this machine's CPU: its processes, QEMU's by the names of the guests they run."""

import re
import time
from itertools import pairwise

import psutil

from autoscaler.core.observation import Consumer

QEMU = re.compile(r"qemu-(system-|kvm)|^kvm$")
"""Names of its processes."""
_GUEST = re.compile(r"(?:^|,)guest=((?:[^,]|,,)+)|^([^,=]+)")


class Greediest:
    """Compares the CPU times of all processes with those of the look before.

    Reading them takes some 40 us each, so it is left alone while the machine is not busy; the first look after that
    only notes where they begin.
    """

    def __init__(self, told: int = 3, least_cores: float = 0.05) -> None:
        self._told = told
        self._least_cores = least_cores
        self._before: dict[tuple[int, float], float] = {}
        self._looked_at: float | None = None

    def look(self, busy: bool) -> tuple[Consumer, ...]:  # noqa: FBT001 - what there is to say
        """Name the greediest since the look before; empty where there was none, or nothing is to be told."""
        if not busy:
            self._before, self._looked_at = {}, None
            return ()
        at, times = time.monotonic(), {}
        names: dict[tuple[int, float], psutil.Process] = {}
        for process in psutil.process_iter(["cpu_times", "create_time"]):
            spent = process.info["cpu_times"]
            if spent is not None:
                key = (process.pid, process.info["create_time"] or 0.0)
                times[key], names[key] = spent.user + spent.system, process
        elapsed = at - self._looked_at if self._looked_at is not None else 0.0
        before, self._before, self._looked_at = self._before, times, at
        if elapsed <= 0:
            return ()
        # One that is new began to count at zero.
        cores = {key: (spent - before.get(key, 0.0)) / elapsed for key, spent in times.items()}
        greedy = sorted((key for key in cores if cores[key] >= self._least_cores), key=lambda key: -cores[key])[
            : self._told
        ]
        return tuple(_consumer(names[key], cores[key]) for key in greedy)


def _consumer(process: psutil.Process, cores: float) -> Consumer:
    try:
        name = process.name()
        guest = guest_name(process.cmdline()) if QEMU.search(name) else None
    except psutil.Error:
        # It ended just now.
        return Consumer("ended", process.pid, cores)
    return Consumer(guest or name, process.pid, cores, guest=guest is not None)


def guest_name(command: list[str]) -> str | None:
    """Find a guest's name in the command line of its QEMU, as libvirt writes it; None where there is none."""
    for option, value in pairwise(command):
        if option == "-name" and (match := _GUEST.search(value)):
            return (match[1] or match[2]).replace(",,", ",")
    return None
