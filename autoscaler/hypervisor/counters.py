"""Raw counters of all running domains, by one bulk call."""

from typing import Any

import libvirt

from autoscaler.core.observation import DomainCounters

_GROUPS = {"guest.cpu": libvirt.VIR_DOMAIN_STATS_VCPU}
"""The groups of statistics each metric is made of; every further group makes each call slower."""
# A busy domain would stall the call for all; without waiting it merely has fewer fields. The first call after a QEMU
# began to hang may still be stuck in it; those after that are not.
_FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_NANOSECONDS = 1e9


def groups_of(metrics: frozenset[str]) -> int:
    """Give the groups of libvirt's statistics that these metrics need, 0 for none."""
    groups = 0
    for metric in metrics:
        groups |= _GROUPS.get(metric, 0)
    return groups


def read(connection: libvirt.virConnect, groups: int) -> list[tuple[str, dict[str, Any]]]:
    """Give each running domain's UUID and statistics."""
    return [(domain.UUIDString(), stats) for domain, stats in connection.getAllDomainStats(groups, _FLAGS)]


def counters(uuid: str, stats: dict[str, Any], read_at_seconds: float) -> DomainCounters:
    """Sum one domain's statistics over its vCPUs; what was not given for each of them is None."""
    vcpus = int(stats.get("vcpu.current", 0))
    time_seconds = _sum_seconds(stats, "time", vcpus)
    delay_seconds = _sum_seconds(stats, "delay", vcpus)
    if delay_seconds == 0 and time_seconds:
        # libvirt gives 0 where the kernel keeps no schedstat; a vCPU that ran has waited at least a little.
        delay_seconds = None
    return DomainCounters(uuid, read_at_seconds, vcpus, time_seconds, delay_seconds)


def _sum_seconds(stats: dict[str, Any], name: str, vcpus: int) -> float | None:
    # vCPU numbers may have gaps after unplugging: "vcpu.maximum" bounds them, not "vcpu.current".
    numbers = range(int(stats.get("vcpu.maximum", vcpus)))
    values = [stats[key] for number in numbers if (key := f"vcpu.{number}.{name}") in stats]
    if not values or len(values) < vcpus:
        return None
    return float(sum(values)) / _NANOSECONDS
