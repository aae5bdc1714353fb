"""Raw counters of all running domains, by one bulk call."""

from typing import Any

import libvirt

from autoscaler.core.observation import DomainCounters

_GROUPS = {
    "cpu": libvirt.VIR_DOMAIN_STATS_VCPU,
    "steal": libvirt.VIR_DOMAIN_STATS_VCPU,
    "memory": libvirt.VIR_DOMAIN_STATS_BALLOON,
    "disk": libvirt.VIR_DOMAIN_STATS_BLOCK,
    "net": libvirt.VIR_DOMAIN_STATS_INTERFACE,
}
"""The group of statistics each family of metrics is made of; every further group makes each call slower."""
_MEASURED_BY_HYPERVISOR = "guest"
# A busy domain would stall the call for all; without waiting it merely has fewer fields. The first call after a QEMU
# began to hang may still be stuck in it; those after that are not.
_FLAGS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_NANOSECONDS = 1e9
_KIB = 1024


def groups_of(metrics: frozenset[str]) -> int:
    """Give the groups of libvirt's statistics that these metrics need, 0 for none."""
    groups = 0
    for metric in metrics:
        source, family, *_ = (*metric.split("."), "")
        if source == _MEASURED_BY_HYPERVISOR:
            groups |= _GROUPS.get(family, 0)
    return groups


def read(connection: libvirt.virConnect, groups: int) -> list[tuple[str, dict[str, Any]]]:
    """Give each running domain's UUID and statistics."""
    return [(domain.UUIDString(), stats) for domain, stats in connection.getAllDomainStats(groups, _FLAGS)]


def counters(uuid: str, stats: dict[str, Any], read_at_seconds: float) -> DomainCounters:
    """Sum one domain's statistics over its vCPUs, disks and interfaces; what was not given for each of them is None."""
    vcpus = int(stats.get("vcpu.current", 0))
    time_seconds = _sum_seconds(stats, "time", vcpus)
    delay_seconds = _sum_seconds(stats, "delay", vcpus)
    if delay_seconds == 0 and time_seconds:
        # libvirt gives 0 where the kernel keeps no schedstat; a vCPU that ran has waited at least a little.
        delay_seconds = None
    # A guest that never told its memory has an update at 0, and its figures are not its own.
    updated_at = stats.get("balloon.last-update") or None
    return DomainCounters(
        uuid,
        read_at_seconds,
        vcpus,
        time_seconds,
        delay_seconds,
        balloon_bytes=_bytes(stats.get("balloon.current")),
        memory_usable_bytes=_bytes(stats.get("balloon.usable")) if updated_at is not None else None,
        memory_updated_at=None if updated_at is None else float(updated_at),
        disk_read_bytes=_sum(stats, "block", "path", "rd.bytes"),
        disk_write_bytes=_sum(stats, "block", "path", "wr.bytes"),
        disk_read_ops=_sum(stats, "block", "path", "rd.reqs"),
        disk_write_ops=_sum(stats, "block", "path", "wr.reqs"),
        net_rx_bytes=_sum(stats, "net", "name", "rx.bytes"),
        net_tx_bytes=_sum(stats, "net", "name", "tx.bytes"),
        net_rx_packets=_sum(stats, "net", "name", "rx.pkts"),
        net_tx_packets=_sum(stats, "net", "name", "tx.pkts"),
    )


def _bytes(kib: int | None) -> int | None:
    return None if kib is None else int(kib) * _KIB


def _sum(stats: dict[str, Any], kind: str, presence: str, name: str) -> int | None:
    """Sum a counter over what is there of a kind: an empty drive or user-mode networking has no `presence` key."""
    devices = [f"{kind}.{number}" for number in range(int(stats.get(f"{kind}.count", 0)))]
    values = [stats.get(f"{device}.{name}") for device in devices if f"{device}.{presence}" in stats]
    if not values or None in values:
        return None
    return sum(int(value) for value in values if value is not None)


def _sum_seconds(stats: dict[str, Any], name: str, vcpus: int) -> float | None:
    # vCPU numbers may have gaps after unplugging: "vcpu.maximum" bounds them, not "vcpu.current".
    numbers = range(int(stats.get("vcpu.maximum", vcpus)))
    values = [stats[key] for number in numbers if (key := f"vcpu.{number}.{name}") in stats]
    if not values or len(values) < vcpus:
        return None
    return float(sum(values)) / _NANOSECONDS
