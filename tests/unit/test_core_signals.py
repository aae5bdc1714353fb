from dataclasses import replace
from typing import Any

import pytest

from autoscaler.core.instances import Instance
from autoscaler.core.memory import InstanceMemory, LoadSample
from autoscaler.core.metrics import METRICS
from autoscaler.core.observation import (
    Domain,
    DomainCounters,
    DomainState,
    ExternalSample,
    HostInventory,
    HostSample,
    Observation,
    PoolSpace,
    Unknown,
)
from autoscaler.core.policy import Signal
from autoscaler.core.signals import (
    Load,
    Measured,
    Members,
    Missing,
    Warming,
    group_sample,
    is_complete,
    member_loads,
    outside_sample,
)
from autoscaler.core.transition import InstanceState


def counters(
    at: float, time: float | None, delay: float | None = 0.0, vcpus: int = 1, uuid: str = "u"
) -> DomainCounters:
    return DomainCounters(uuid, at, vcpus, time, delay)


def loads_of(metric: str, before: DomainCounters | None, now: DomainCounters, at: float = 10.0) -> Load:
    ready = instance("a", InstanceState.READY)
    known = ({} if before is None else {"uuid-a": before}, {"uuid-a": now})
    return member_loads(metric, [ready], {"a": InstanceMemory("local", 0.0, 0.0)}, known, (at, 0.0))["a"]


@pytest.mark.parametrize(
    ("before", "now", "load"),
    [
        (counters(0, 10), counters(10, 14), Measured(0.4, 0.0)),
        (counters(0, 10), counters(10, 10), Measured(0.0, 0.0)),
        (counters(0, 0, vcpus=4), counters(10, 20, vcpus=4), Measured(0.5, 0.0)),
        # Two cores' worth of time among eight vCPUs that all wanted to run: full, not a quarter.
        (counters(0, 0, 0, vcpus=8), counters(10, 20, 60, vcpus=8), Measured(1.0, 0.75)),
        (counters(0, 0, 0), counters(10, 2, 5), Measured(0.4, 0.5)),
        (counters(0, 0), counters(10, 10.3), Measured(1.0, 0.0)),
        (counters(0, None), counters(10, 4), Missing("no vcpu counters")),
        (counters(0, 0, None), counters(10, 4, 0.0), Missing("no vcpu counters")),
        (counters(0, 0), counters(10, 4, None), Missing("no vcpu counters")),
        (counters(0, 10), counters(10, 4), Missing("counters started anew")),
        (counters(0, 10, 5), counters(10, 14, 4), Missing("counters started anew")),
        (counters(0, 10), counters(10, 14, vcpus=2), Missing("counters started anew")),
        (counters(5, 10), counters(5, 10), Missing("no time passed")),
        (counters(0, 0, 0), counters(10, 0, 10), Missing("no time on a physical CPU")),
    ],
)
def test_guest_cpu(before: DomainCounters, now: DomainCounters, load: Load) -> None:
    assert loads_of("guest.cpu", before, now) == load


MEMORY = DomainCounters("u", 10.0, 1, None, None, balloon_bytes=400, memory_usable_bytes=100, memory_updated_at=5.0)


@pytest.mark.parametrize(
    ("changes", "at", "load"),
    [
        ({}, 10.0, Measured(0.75)),
        ({}, 65.0, Measured(0.75)),
        ({}, 66.0, Missing("the guest told its memory too long ago")),
        ({"memory_usable_bytes": 500}, 10.0, Measured(0.0)),  # a balloon that was just inflated
        ({"memory_usable_bytes": None}, 10.0, Missing("the guest does not tell its memory")),
        ({"memory_updated_at": None}, 10.0, Missing("the guest does not tell its memory")),
        ({"balloon_bytes": 0}, 10.0, Missing("the guest has no memory")),
    ],
)
def test_guest_memory(changes: dict[str, Any], at: float, load: Load) -> None:
    """A level needs no earlier sample."""
    assert loads_of("guest.memory", None, replace(MEMORY, **changes), at) == load


def test_guest_steal() -> None:
    assert loads_of("guest.steal", counters(0, 0, 0, vcpus=8), counters(10, 20, 60, vcpus=8)) == Measured(0.75)
    assert loads_of("guest.steal", counters(0, 0, None), counters(10, 4, 0.0)) == Missing("no vcpu counters")


@pytest.mark.parametrize(
    "metric", [name for name, kind in METRICS.items() if name[:10] in ("guest.disk", "guest.net.")]
)
def test_rates(metric: str) -> None:
    field = metric.removeprefix("guest.").replace(".", "_")

    def read(at: float, value: int | None) -> DomainCounters:
        changes: dict[str, Any] = {field: value}
        return replace(counters(at, None, None), **changes)

    assert is_complete(read(0, 5))
    assert not is_complete(read(0, None))
    assert loads_of(metric, read(0, 1000), read(10, 1500)) == Measured(50.0)
    assert loads_of(metric, read(0, 1000), read(10, 900)) == Missing("counters started anew")
    assert loads_of(metric, read(0, None), read(10, 900)) == Missing("no such counter")
    assert loads_of(metric, read(0, 1000), read(0, 1000)) == Missing("no time passed")
    assert loads_of(metric, None, read(0, 1000)) == Missing("first sample")


HOST = HostSample("local", 8, 0.25, 3.5, 64 << 30, 16 << 30, psi_cpu_share=0.1, psi_memory_share=None, psi_io_share=0.2)


def outside(signal: Signal, serving: int = 2, ready: int = 3, **observed: Any) -> LoadSample | None:
    observation = Observation(1000.0, 10.0, **observed)
    return outside_sample(signal, "local", Members(serving, ready), observation)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("host.cpu", 0.25),
        ("host.load", 3.5),
        ("host.memory_available", 16.0 * 2**30),
        ("host.psi_cpu", 0.1),
        ("host.psi_memory", None),
        ("host.psi_io", 0.2),
    ],
)
def test_host_metrics(metric: str, value: float | None) -> None:
    sample = outside(Signal(metric), hosts={"local": HOST})
    assert sample is not None
    assert (sample.value, sample.measured, sample.missing) == (value, int(value is not None), int(value is None))
    unread = outside(Signal(metric), hosts={"local": Unknown("gone")})
    assert unread is not None
    assert (unread.value, unread.missing, unread.serving) == (None, 1, 2)
    assert outside(Signal(metric), hosts={}) == unread


def test_free_space_of_a_pool() -> None:
    signal = Signal("host.pool_free", pool="fast")
    sample = outside(signal, inventory={"local": HostInventory("local", (), {"fast": PoolSpace(100, 40)})})
    assert sample is not None
    assert (sample.value, sample.low, sample.high) == (40.0, 80.0, 120.0)
    for inventory in (HostInventory("local", ()), Unknown("gone")):
        unread = outside(signal, inventory={"local": inventory})
        assert unread is not None
        assert unread.value is None


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (ExternalSample(30.0, 990.0), 30.0),
        (ExternalSample(30.0, 940.0), 30.0),
        (ExternalSample(30.0, 939.0), None),  # stale
        (ExternalSample(float("nan"), 990.0), None),
        (Unknown("refused"), None),
    ],
)
def test_external_figures(answer: ExternalSample | Unknown, value: float | None) -> None:
    signal = Signal("prometheus", query="sum(up)")
    sample = outside(signal, external={"prometheus sum(up)": answer})
    assert sample is not None
    assert sample.value == value
    shared = outside(replace(signal, per_instance=True), external={"prometheus sum(up)": answer})
    assert shared is not None
    if value is not None:
        # By those that serve; the one that warms up carries nothing when scaling out, its share when scaling in.
        assert (shared.value, shared.least, shared.most) == (15.0, 10.0, 15.0)
        assert (shared.low, shared.high) == (30.0, 30.0)


def test_what_is_per_instance_needs_one() -> None:
    known = {"prometheus up": ExternalSample(30.0, 990.0)}
    assert outside(Signal("prometheus", query="up", per_instance=True), 0, 0, external=known) is None
    sample = outside(Signal("prometheus", query="up"), 0, 0, external=known)
    assert sample is not None
    assert (sample.value, sample.low, sample.serving) == (30.0, 30.0, 0)


def instance(name: str, state: InstanceState, domain_state: DomainState = DomainState.RUNNING) -> Instance:
    domain = Domain("local", f"uuid-{name}", name, domain_state, None)
    return Instance(name, "local", state, 0.0, 0.0, domain)


def test_only_ready_instances_are_members() -> None:
    instances = [instance(state.value, state) for state in InstanceState]
    memory = {state.value: InstanceMemory("local", 0.0, 0.0) for state in InstanceState}
    before = {f"uuid-{i.id}": counters(0, 0, uuid=f"uuid-{i.id}") for i in instances}
    now = {uuid: counters(10, 5, uuid=uuid) for uuid in before}
    assert member_loads("guest.cpu", instances, memory, (before, now), (10.0, 0.0)) == {"ready": Measured(0.5, 0.0)}


def test_a_member_is_measured_warming_or_missing() -> None:
    ready = InstanceState.READY
    instances = [
        instance("old", ready),
        instance("young", ready),
        instance("paused", ready, DomainState.PAUSED),
        instance("new", ready),
        instance("unlisted", ready),
    ]
    memory = {i.id: InstanceMemory("local", 0.0, 0.0) for i in instances} | {
        "young": InstanceMemory("local", 0.0, 70.0)
    }
    before = {f"uuid-{name}": counters(0, 0) for name in ("old", "young", "paused", "unlisted")}
    now = {f"uuid-{name}": counters(10, 1) for name in ("old", "young", "paused", "new")}
    assert member_loads("guest.cpu", instances, memory, (before, now), (100.0, 60.0)) == {
        "old": Measured(0.1, 0.0),
        "young": Warming(),
        "paused": Missing("domain is paused"),
        "new": Missing("first sample"),
        "unlisted": Missing("not in the host's statistics"),
    }


@pytest.mark.parametrize(
    ("loads", "across", "sample"),
    [
        ([], "avg", None),
        ([Measured(0.4), Measured(0.8)], "avg", LoadSample(1.0, 0.6, 1.2, 1.2, 2, 0, 0)),
        ([Measured(0.4), Warming(), Missing("x")], "avg", LoadSample(1.0, 0.4, 0.4, 2.4, 1, 1, 1)),
        ([Missing("x")], "avg", LoadSample(1.0, None, 0.0, 1.0, 0, 0, 1)),
        ([Measured(0.4), Measured(0.8)], "max", LoadSample(1.0, 0.8, 1.6, 1.6, 2, 0, 0)),
        ([Measured(0.4), Missing("x")], "max", LoadSample(1.0, 0.4, 0.4, 2.0, 1, 0, 1)),
        ([Measured(0.4), Measured(0.8)], "min", LoadSample(1.0, 0.4, 0.8, 0.8, 2, 0, 0)),
        ([Measured(0.4), Measured(0.8), Warming()], "sum", LoadSample(1.0, 1.2, 1.2, 2.2, 2, 1, 0)),
        ([Measured(0.1), Measured(0.2), Measured(0.9)], "p50", LoadSample(1.0, 0.2, 0.6, 0.6, 3, 0, 0)),
        ([Measured(0.1), Measured(0.2), Measured(0.9)], "p95", LoadSample(1.0, 0.9, 2.7, 2.7, 3, 0, 0)),
    ],
)
def test_group_sample(loads: list[Load], across: str, sample: LoadSample | None) -> None:
    measured = group_sample({str(number): load for number, load in enumerate(loads)}, across, 1.0)
    if sample is None or measured is None:
        assert measured is sample
        return
    assert measured.value == pytest.approx(sample.value)
    assert (measured.low, measured.high) == pytest.approx((sample.low, sample.high))
    assert (measured.measured, measured.warming, measured.missing) == (sample.measured, sample.warming, sample.missing)


def test_least_and_most_of_what_is_unmeasured() -> None:
    loads: dict[str, Load] = {"a": Measured(0.4), "b": Measured(0.8), "c": Warming(), "d": Missing("x")}
    told = {across: group_sample(loads, across, 1.0) for across in ("avg", "max", "min", "sum", "p50")}
    bounds = {across: (sample.least, sample.most, sample.serving) for across, sample in told.items() if sample}
    assert bounds == {
        "avg": (pytest.approx(0.3), pytest.approx(0.8), 3),
        "max": (0.8, 1.0, 3),
        "min": (0.0, 0.4, 3),
        "sum": (pytest.approx(1.2), pytest.approx(3.2), 3),
        "p50": (0.0, 0.8, 3),
    }


def test_full_of_an_unbounded_metric_is_the_busiest_member() -> None:
    loads: dict[str, Load] = {"a": Measured(40.0), "b": Measured(80.0), "c": Missing("x")}
    sample = group_sample(loads, "avg", 1.0, full=None)
    assert sample is not None
    assert (sample.low, sample.high) == (120.0, 200.0)
