"""Host load from psutil and the kernel's pressure files."""

from pathlib import Path

import psutil

from autoscaler.core.observation import HostSample
from autoscaler.host.processes import Greediest

PRESSURE = Path("/proc/pressure")
_BUSY_SHARE = 0.8
"""From here on it is worth the time to look who takes it."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostLoad:
    """Samples this machine's load; keeps the previous CPU times, because a share needs two readings."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._before: tuple[float, float] | None = None
        self._greediest = Greediest()

    def sample(self) -> HostSample:
        """Read the host's load now. Raises OSError where /proc cannot be read."""
        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        busy = self._busy_share()
        return HostSample(
            host=self.host,
            cpu_count=psutil.cpu_count() or 1,
            cpu_busy_share=busy,
            load_1m=psutil.getloadavg()[0],
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            psi_cpu_share=pressure("cpu"),
            psi_memory_share=pressure("memory"),
            psi_io_share=pressure("io"),
            boot=boot_id(),
            swap_total_bytes=swap.total,
            swap_used_bytes=swap.used,
            top=self._greediest.look(busy is not None and busy >= _BUSY_SHARE),
        )

    def _busy_share(self) -> float | None:
        times = psutil.cpu_times()
        idle = times.idle + times.iowait
        # The kernel counts guest time within user and nice time as well.
        total = sum(times) - times.guest - times.guest_nice
        before, self._before = self._before, (idle, total)
        if before is None or total <= before[1]:
            return None
        return min(max(1.0 - (idle - before[0]) / (total - before[1]), 0.0), 1.0)


def boot_id() -> str | None:
    """Identify this running of the kernel; None where that cannot be read."""
    try:
        return BOOT_ID.read_text().strip() or None
    except OSError:
        return None


def pressure(resource: str) -> float | None:
    """Give `some avg10` of one resource as a fraction; None where the kernel keeps no pressure figures."""
    try:
        text = (PRESSURE / resource).read_text()
    except OSError:
        # Missing on older kernels; a kernel booted with psi=0 lists the files and refuses to read them.
        return None
    for line in text.splitlines():
        kind, *pairs = line.split()
        if kind == "some":
            return float(dict(pair.split("=", 1) for pair in pairs)["avg10"]) / 100.0
    return None
