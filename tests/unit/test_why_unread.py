"""Why a figure from outside the guests is missing, as `explain` says it."""

import pytest

from autoscaler.core.observation import (
    ExternalSample,
    HostInventory,
    HostSample,
    Observation,
    PoolSpace,
    Unknown,
)
from autoscaler.core.policy import Signal
from autoscaler.core.signals import why_unread

SAMPLE = HostSample("local", 2, 0.5, 1.0, 8 << 30, 5 << 30)
POOLS = HostInventory("local", (), {"default": PoolSpace(100, 50)})
QUERY = Signal("prometheus", query="up")


@pytest.mark.parametrize(
    ("signal", "observation", "why"),
    [
        (Signal("guest.cpu"), Observation(1000.0, 10.0), None),
        (QUERY, Observation(1000.0, 10.0, external={"prometheus up": ExternalSample(0.0, 995.0)}), None),
        (QUERY, Observation(1000.0, 10.0, external={"prometheus up": Unknown("gives nothing")}), "gives nothing"),
        (QUERY, Observation(1000.0, 10.0, external={"prometheus up": ExternalSample(0.0, 1.0)}), "it is too old"),
        (QUERY, Observation(1000.0, 10.0), "nobody asked for it yet"),
        (Signal("host.cpu"), Observation(1000.0, 10.0, hosts={"local": SAMPLE}), None),
        (Signal("host.psi_io"), Observation(1000.0, 10.0, hosts={"local": SAMPLE}), "does not give it"),
        (Signal("host.cpu"), Observation(1000.0, 10.0, hosts={"local": Unknown("no /proc")}), "no /proc"),
        (Signal("host.cpu"), Observation(1000.0, 10.0), "the kernel of host local is not read"),
        (Signal("host.pool_free", pool="default"), Observation(1000.0, 10.0, inventory={"local": POOLS}), None),
        (Signal("host.pool_free", pool="x"), Observation(1000.0, 10.0, inventory={"local": POOLS}), "no active pool x"),
    ],
)
def test_why(signal: Signal, observation: Observation, why: str | None) -> None:
    found = why_unread(signal, "local", observation)
    assert found is None if why is None else found is not None and why in found
