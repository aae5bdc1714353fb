"""A signal's window as the strategies see it.

Demand is what the group carries altogether: the sum of its instances' loads, or a figure times the instances it was
seen on. It stays the same when instances come and go, so a window that spans a change of the count misleads nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from autoscaler.core.decision import Input
from autoscaler.core.memory import LoadSample
from autoscaler.core.metrics import PROMETHEUS, Source, Unit
from autoscaler.core.policy import Signal, TargetTracking, ThresholdScaling
from autoscaler.core.windows import MAX_GAP_INTERVALS, fold, is_dense, is_full, weights


@dataclass(frozen=True, slots=True)
class Demand:
    """A window's demand, between what is certain and what is possible."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """A window's value by the instances that are ready now: as measured, at least, and at most."""

    value: float
    least: float
    most: float


@dataclass(frozen=True)
class Reading:
    """The samples of one signal, and when they are looked at. What is made of them is made once."""

    signal: Signal
    samples: Sequence[LoadSample]
    at: float
    interval_seconds: float

    @property
    def newest(self) -> LoadSample | None:
        """The newest sample, whatever it holds."""
        return self.samples[-1] if self.samples else None

    @property
    def window_seconds(self) -> float:
        """How long the window is."""
        if isinstance(self.signal, ThresholdScaling) and self.signal.samples is not None:
            return self.signal.samples * self.interval_seconds
        return self.signal.over_seconds

    @property
    def scales(self) -> bool:
        """Whether the figure falls as instances are added, in proportion."""
        return self._is_shared or self.signal.metric == PROMETHEUS

    @cached_property
    def demand(self) -> Demand | None:
        """One demand of the window, with what is unmeasured as carrying nothing, and all it can.

        None where the window holds nothing that can be told.
        """
        full = full_load(self.signal)
        seen = self._weighed if self.signal.kind.source is Source.GUEST else self._measured
        low = self._fold([(sample.low, weight) for sample, weight in seen])
        high = self._fold([(max(each.high, each.low + each.unmeasured * full), weight) for each, weight in seen])
        return None if low is None or high is None else Demand(low, high)

    @cached_property
    def figures(self) -> Figures | None:
        """One value of the window, as if all of it had been carried by the instances that are ready now."""
        newest = self.newest
        ready = newest.members if newest is not None and self._is_shared else 0
        seen = [(each, weight, each.members / ready if ready else 1.0) for each, weight in self._measured]
        value, least, most = (
            self._fold([(of(sample) * factor, weight) for sample, weight, factor in seen])
            for of in (_value, _least, _most)
        )
        if value is None or least is None or most is None:
            return None
        return Figures(value, least, most)

    @cached_property
    def value(self) -> float | None:
        """One value of what was measured in the window."""
        return self._fold([(_value(sample), weight) for sample, weight in self._measured])

    @cached_property
    def is_full(self) -> bool:
        """Whether the samples cover the window without a gap."""
        if isinstance(self.signal, ThresholdScaling) and self.signal.samples is not None:
            last = self.samples[-self.signal.samples :]
            return len(last) == self.signal.samples and is_dense(last, self.at, self.interval_seconds)
        return is_full(self.samples, self.at, self.signal.over_seconds, self.interval_seconds)

    @property
    def _is_shared(self) -> bool:
        return self.signal.kind.source is Source.GUEST and self.signal.across != "sum"

    @cached_property
    def _weighed(self) -> list[tuple[LoadSample, float]]:
        return weights(self.samples, self.at, self.signal.over_seconds, self.interval_seconds)

    @cached_property
    def _measured(self) -> list[tuple[LoadSample, float]]:
        return [(sample, weight) for sample, weight in self._weighed if sample.value is not None]

    def _fold(self, values: Sequence[tuple[float, float]]) -> float | None:
        return fold(values, self.signal.take)


def _value(sample: LoadSample) -> float:
    assert sample.value is not None
    return sample.value


def _least(sample: LoadSample) -> float:
    return _value(sample) if sample.least is None else sample.least


def _most(sample: LoadSample) -> float:
    return _value(sample) if sample.most is None else sample.most


def retention_seconds(signal: Signal, interval_seconds: float) -> float:
    """For how long a sample can be needed."""
    if isinstance(signal, ThresholdScaling) and signal.samples is not None:
        return signal.samples * MAX_GAP_INTERVALS * interval_seconds
    return signal.over_seconds


def full_load(signal: Signal) -> float:
    """Tell what an instance that could not be measured carries at least when scaling in: all it can, or its target."""
    if signal.kind.unit is Unit.SHARE:
        return 1.0
    return signal.target if isinstance(signal, TargetTracking) else 0.0


def describe_input(reading: Reading) -> Input:
    """Record what a strategy sees."""
    signal, newest = reading.signal, reading.newest
    measured = next((sample for sample in reversed(reading.samples) if sample.value is not None), None)
    demand = reading.demand
    return Input(
        metric=signal.metric,
        value=reading.value,
        latest=measured.value if measured else None,
        age_seconds=reading.at - measured.at if measured else None,
        target=signal.target if isinstance(signal, TargetTracking) else None,
        measured=newest.measured if newest else 0,
        warming=newest.warming if newest else 0,
        missing=newest.missing if newest else 0,
        window_seconds=reading.window_seconds,
        window_full=reading.is_full,
        across=signal.across,
        steal=measured.steal if measured else None,
        unit=signal.kind.unit,
        take=signal.take,
        source=signal.source,
        low=demand.low if demand else None,
        high=demand.high if demand else None,
    )
