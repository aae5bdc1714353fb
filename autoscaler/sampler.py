"""Assembles what one tick may know of hosts and guests. What fails to answer becomes `Unknown`, never empty."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoscaler.core.errors import HypervisorError
from autoscaler.core.observation import DomainCounters, HostInventory, HostSample, Observation, Unknown
from autoscaler.core.ports import Hypervisor


@dataclass(frozen=True, slots=True)
class Sampler:
    """Reads all hosts: hypervisors by host name, and the load of those hosts whose kernel can be read."""

    hypervisors: Mapping[str, Hypervisor]
    host_loads: Mapping[str, Callable[[], HostSample]]
    interval_seconds: float
    workers: int = 4

    def observe(self, at: float) -> Observation:
        """Read everything once. Never raises for a host that does not answer; what it lacks is said in its place."""
        inventory: dict[str, HostInventory | Unknown] = {}
        domains: dict[str, DomainCounters] = {}
        for host, hypervisor in self.hypervisors.items():
            inventory[host] = _inventory(hypervisor)
            if isinstance(inventory[host], HostInventory):
                domains |= _counters(hypervisor)
        hosts = {host: _load(read) for host, read in self.host_loads.items()}
        return Observation(at, self.interval_seconds, hosts, inventory, domains, workers=self.workers)


def _inventory(hypervisor: Hypervisor) -> HostInventory | Unknown:
    try:
        return hypervisor.inventory()
    except HypervisorError as error:
        return Unknown(str(error))


def _counters(hypervisor: Hypervisor) -> Mapping[str, DomainCounters]:
    try:
        return hypervisor.counters()
    except HypervisorError:
        # Every instance then lacks its counters, which the core takes as missing load.
        return {}


def _load(read: Callable[[], HostSample]) -> HostSample | Unknown:
    try:
        return read()
    except OSError as error:
        return Unknown(str(error))
