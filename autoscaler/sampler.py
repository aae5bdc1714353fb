"""Assembles what one tick may know of hosts and guests. What fails to answer becomes `Unknown`, never empty."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from autoscaler.core.capacity import Resource
from autoscaler.core.errors import HypervisorError
from autoscaler.core.observation import (
    DomainCounters,
    ExternalSample,
    GoldenState,
    HostCapacity,
    HostInventory,
    HostSample,
    Observation,
    Probe,
    TrafficView,
    Unknown,
)
from autoscaler.core.policy import Wanted
from autoscaler.core.ports import Sight

log = structlog.get_logger(__name__)


class Sampler:
    """Reads all hosts: hypervisors by host name, and the load of those hosts whose kernel can be read.

    `external` gives the newest figures that were asked for over the network, `probes` what is known of instances that
    are asked over it, `traffic` what load balancers had when they were last looked at, `golden` what is known of golden
    images: all at once.
    """

    def __init__(
        self,
        hypervisors: Mapping[str, Sight],
        host_loads: Mapping[str, Callable[[], HostSample]],
        interval_seconds: float,
        workers: int = 4,
        external: Callable[[], Mapping[str, ExternalSample | Unknown]] = dict,
        probes: Callable[[], Mapping[str, Probe]] = dict,
        traffic: Callable[[], Mapping[str, TrafficView | Unknown]] = dict,
        golden: Callable[[], Mapping[str, GoldenState] | None] = lambda: None,
    ) -> None:
        self._hypervisors = hypervisors
        self._host_loads = host_loads
        self._interval_seconds = interval_seconds
        self._workers = workers
        self._external = external
        self._probes = probes
        self._traffic = traffic
        self._golden = golden
        self._complaints: dict[str, str] = {}

    def observe(self, at: float, metrics: frozenset[str], wanted: Wanted | None = None) -> Observation:
        """Read everything once: of the counters what these metrics are made of, and what the hosts have to give.

        Without `wanted`, what the hosts have to give is not asked for.

        Never raises for a host that does not answer; what it lacks is said in its place.
        """
        inventory: dict[str, HostInventory | Unknown] = {}
        domains: dict[str, DomainCounters] = {}
        for host, hypervisor in self._hypervisors.items():
            listed = _inventory(hypervisor)
            if isinstance(listed, HostInventory):
                domains |= self._counters(host, hypervisor, metrics)
                if wanted is not None:
                    listed = replace(listed, capacity=_capacity(host, hypervisor, wanted))
            inventory[host] = listed
        hosts = {host: _load(read) for host, read in self._host_loads.items()}
        return Observation(
            at,
            self._interval_seconds,
            hosts,
            inventory,
            domains,
            workers=self._workers,
            external=self._external(),
            probes=self._probes(),
            traffic=self._traffic(),
            golden=self._golden(),
        )

    def _counters(self, host: str, hypervisor: Sight, metrics: frozenset[str]) -> Mapping[str, DomainCounters]:
        try:
            counters = hypervisor.counters(metrics)
        except HypervisorError as error:
            # Every instance then lacks its counters, which the core takes as missing load.
            if self._complaints.get(host) != str(error):
                log.warning("no statistics, so the load is missing", host=host, error=str(error))
            self._complaints[host] = str(error)
            return {}
        self._complaints.pop(host, None)
        return counters


def _inventory(hypervisor: Sight) -> HostInventory | Unknown:
    try:
        return hypervisor.inventory()
    except HypervisorError as error:
        return Unknown(str(error))


def _capacity(host: str, hypervisor: Sight, wanted: Wanted) -> HostCapacity:
    """Read what a host has to give; where it does not tell, nothing is cloned there."""
    try:
        return hypervisor.capacity(wanted)
    except HypervisorError as error:
        return HostCapacity(host, unread={Resource.MEMORY.value: str(error), Resource.VCPUS.value: str(error)})


def _load(read: Callable[[], HostSample]) -> HostSample | Unknown:
    try:
        return read()
    except OSError as error:
        return Unknown(str(error))
