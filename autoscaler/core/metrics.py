"""The metrics a policy can scale by: what each is measured in and where it comes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What a metric's values are, and so how its targets are written."""

    SHARE = "share"
    """A fraction of one, written `60%`."""
    BYTES = "bytes"
    """Written `20MiB`."""
    BYTES_PER_SECOND = "bytes_per_second"
    """Written `20MiB`, meant per second."""
    PER_SECOND = "per_second"
    """Operations or packets, a plain number, meant per second."""
    NUMBER = "number"
    """Whatever the source counts, a plain number."""


class Source(StrEnum):
    """Where a metric is measured."""

    GUEST = "guest"
    """In or on each instance: without an instance there is nothing to measure."""
    HOST = "host"
    """On the group's host."""
    EXTERNAL = "external"
    """By something else, asked over the network."""
    BALANCER = "balancer"
    """By the group's load balancer: without an instance that it serves there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; `falls` marks those that fall as load rises, which no target can be kept for."""

    unit: Unit
    source: Source
    falls: bool = False


PROMETHEUS = "prometheus"
POOL_FREE = "host.pool_free"

METRICS: Mapping[str, Metric] = {
    "guest.cpu": Metric(Unit.SHARE, Source.GUEST),
    "guest.steal": Metric(Unit.SHARE, Source.GUEST),
    "guest.memory": Metric(Unit.SHARE, Source.GUEST),
    "guest.disk.read_bytes": Metric(Unit.BYTES_PER_SECOND, Source.GUEST),
    "guest.disk.write_bytes": Metric(Unit.BYTES_PER_SECOND, Source.GUEST),
    "guest.disk.read_ops": Metric(Unit.PER_SECOND, Source.GUEST),
    "guest.disk.write_ops": Metric(Unit.PER_SECOND, Source.GUEST),
    "guest.net.rx_bytes": Metric(Unit.BYTES_PER_SECOND, Source.GUEST),
    "guest.net.tx_bytes": Metric(Unit.BYTES_PER_SECOND, Source.GUEST),
    "guest.net.rx_packets": Metric(Unit.PER_SECOND, Source.GUEST),
    "guest.net.tx_packets": Metric(Unit.PER_SECOND, Source.GUEST),
    "host.cpu": Metric(Unit.SHARE, Source.HOST),
    "host.load": Metric(Unit.NUMBER, Source.HOST),
    "host.memory_available": Metric(Unit.BYTES, Source.HOST, falls=True),
    "host.psi_cpu": Metric(Unit.SHARE, Source.HOST),
    "host.psi_memory": Metric(Unit.SHARE, Source.HOST),
    "host.psi_io": Metric(Unit.SHARE, Source.HOST),
    POOL_FREE: Metric(Unit.BYTES, Source.HOST, falls=True),
    PROMETHEUS: Metric(Unit.NUMBER, Source.EXTERNAL),
    "haproxy.sessions_per_server": Metric(Unit.NUMBER, Source.BALANCER),
    "haproxy.queue": Metric(Unit.NUMBER, Source.BALANCER),
    "haproxy.response_time": Metric(Unit.NUMBER, Source.BALANCER),
}
"""Every metric by its name in policies."""
