import pytest

from autoscaler.core.instances import Instance
from autoscaler.core.memory import InstanceMemory, LoadSample
from autoscaler.core.observation import Domain, DomainCounters, DomainState
from autoscaler.core.signals import Load, Measured, Missing, Warming, group_sample, member_loads
from autoscaler.core.snapshot import InstanceState


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
