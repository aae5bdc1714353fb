"""Looks at what instances take of their hosts: libvirt's counters beside those of this machine's kernel."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from autoscaler.core.errors import HypervisorError
from autoscaler.core.observation import Unknown
from autoscaler.core.usage import Look, QemuProcess, Running
from autoscaler.host.qemu import qemu_processes
from autoscaler.hypervisor import Onlooker, is_local

_FAR = Unknown("processes can be read on this machine only, and its host is another")
_UNSEEN = Unknown(
    "none of the QEMU processes that can be seen from here is its own: it ended just now, this is a container without "
    "the host's processes, or /proc is mounted with hidepid"
)


class Top:
    """Looks at hosts, given as libvirt URIs by name; what the user's rights do not reach is Unknown."""

    def __init__(self, uris: Mapping[str, str]) -> None:
        self._local = {host: is_local(uri) for host, uri in uris.items()}
        self._onlookers = {host: Onlooker(host, uri) for host, uri in uris.items()}
        self._workers = ThreadPoolExecutor(max(len(uris), 1), thread_name_prefix="top")

    def look(self) -> tuple[Look, ...]:
        """Look at all hosts once, at the same time."""
        processes = qemu_processes() if any(self._local.values()) else {}
        return tuple(self._workers.map(lambda host: self._look(host, processes), self._onlookers))

    def close(self) -> None:
        """Let the connections go."""
        for onlooker in self._onlookers.values():
            onlooker.close()
        self._workers.shutdown()

    def _look(self, host: str, processes: Mapping[str, QemuProcess]) -> Look:
        try:
            running = self._onlookers[host].running()
        except HypervisorError as error:
            return Look(host, Unknown(str(error)))
        absent = _UNSEEN if self._local[host] else _FAR
        return Look(
            host,
            tuple(
                Running(host, uuid, owner, counters, processes.get(uuid, absent) if self._local[host] else absent)
                for uuid, owner, counters in running
            ),
        )
