"""Renders the newest snapshot for Prometheus."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from autoscaler.core.snapshot import Durations, Snapshot
from autoscaler.exporter.families import FAMILIES
from autoscaler.exporter.family import Family


class SnapshotCollector(Collector):
    """Exports what the last tick left and nothing else: what is gone from the snapshot is gone from the metrics."""

    def __init__(self, get_snapshot: Callable[[], Snapshot | None]) -> None:
        self._get_snapshot = get_snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its series; nothing before the first tick."""
        snapshot = self._get_snapshot()
        if snapshot is not None:
            for family in FAMILIES:
                yield _render(family, snapshot)


def make_registry(get_snapshot: Callable[[], Snapshot | None]) -> CollectorRegistry:
    """Make a registry that holds the daemon's metrics and nothing of the process or of libraries."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(get_snapshot))
    return registry


def _render(family: Family, snapshot: Snapshot) -> Metric:
    samples = [(labels, value) for labels, value in family.samples(snapshot) if value is not None]
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.meaning, labels=family.labels)
        for labels, value in samples:
            assert isinstance(value, Durations)
            histogram.add_metric(labels, _buckets(value), value.sum_seconds)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name, family.meaning, labels=family.labels)
    for labels, value in samples:
        assert not isinstance(value, Durations)
        metric.add_metric(labels, value)
    return metric


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    bounded = zip(durations.bounds, durations.buckets, strict=True)
    return [*((str(float(bound)), float(count)) for bound, count in bounded), ("+Inf", float(durations.count))]
