"""What hosts grant: never more than they have, in whatever order groups come, and the urgent ones first."""

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from autoscaler.core.action import Clone, Remove
from autoscaler.core.admission import Admission, Asking, admit
from autoscaler.core.capacity import need_of
from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.instances import Instance
from autoscaler.core.memory import LoadSample
from autoscaler.core.observation import (
    AddressRoom,
    Consumer,
    HostCapacity,
    HostInventory,
    HostLimits,
    HostSample,
    Observation,
    PoolRoom,
    Reserve,
)
from autoscaler.core.policy import Image, Machine, Policy, Size, Starved, TargetTracking
from autoscaler.core.transition import InstanceState
from tests.support.plant import Plant

MIB = 1024**2
GIB = 1024**3
AT = 1000.0
IMAGE = Image("default", "golden.qcow2")
READY, STOPPING = InstanceState.READY, InstanceState.STOPPING

machines = st.builds(
    Machine, vcpus=st.integers(1, 4), memory_bytes=st.sampled_from([256 * MIB, GIB, 3 * GIB]), hugepages=st.booleans()
)
groups = st.tuples(
    machines,
    st.integers(0, 3),  # min
    st.integers(0, 5),  # live
    st.integers(0, 2),  # stopping
    st.integers(0, 6),  # more wanted
    st.sampled_from([10, 50, 90]),
    st.booleans(),
)
capacities = st.builds(
    lambda cores, memory, pool, addresses, huge, reserve: HostCapacity(
        "local",
        HostLimits(Reserve(share=reserve), Reserve(share=reserve), reserve_addresses=1, vcpus_per_core=2),
        cores=cores,
        memory_total_bytes=memory,
        memory_available_bytes=memory,
        hugepages_bytes=huge,
        pools={"default": PoolRoom(pool, pool, 0, (), {"golden.qcow2": GIB})},
        networks={"default": AddressRoom(addresses, 0)},
    ),
    st.integers(1, 16),
    st.integers(0, 32).map(lambda n: n * GIB),
    st.integers(0, 20).map(lambda n: n * GIB),
    st.integers(0, 20),
    st.integers(0, 4).map(lambda n: n * GIB),
    st.sampled_from([0.0, 0.1, 0.5]),
)


def asking(name: str, drawn: tuple[Machine, int, int, int, int, int, bool]) -> Asking:
    machine, low, live, stopping, more, priority, acts = drawn
    size = Size(low, max(low, 20))
    policy = Policy(name, IMAGE, size, machine=machine, priority=priority)
    instances = tuple(
        Instance(f"{name}-{n}", "local", READY if n < live else STOPPING, 0.0, float(n)) for n in range(live + stopping)
    )
    desired = max(low, live + more)
    return Asking(policy, decided(name, live, desired), instances, acts, desired - live)


def decided(name: str, current: int, desired: int) -> Decision:
    return Decision(name, AT, current, (), (), desired, desired, desired, ())


def seen(capacity: HostCapacity, sample: HostSample | None = None) -> Observation:
    hosts = {"local": sample} if sample is not None else {}
    return Observation(AT, 10.0, hosts, {"local": HostInventory("local", (), capacity=capacity)})


def granted(asked: Asking, admission: Admission) -> int:
    return max(0, admission.decisions[asked.group].admitted - asked.live)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(groups, max_size=5), capacities, st.randoms(use_true_random=False))
def test_no_clone_exceeds_a_limit_whatever_the_order(
    drawn: list[tuple[Machine, int, int, int, int, int, bool]], capacity: HostCapacity, order: random.Random
) -> None:
    asked = [asking(f"group-{n}", each) for n, each in enumerate(drawn)]
    before = admit([replace(each, acts=False) for each in asked], seen(capacity), {}).ledgers["local"]
    result = admit(asked, seen(capacity), {})
    acting = [each for each in asked if each.acts]
    for account in before.accounts:
        taken = sum(
            granted(each, result) * need_of(each.policy.machine, IMAGE, capacity).get(account.key, 0) for each in acting
        )
        assert taken <= max(account.free, 0)
        after = result.ledgers["local"].account(account.key)
        assert after is not None
        assert after.committed == account.committed + taken
    order.shuffle(asked)
    assert admit(asked, seen(capacity), {}) == result


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.lists(groups, min_size=1, max_size=5), capacities)
def test_priorities_starve_no_group_below_its_minimum(
    drawn: list[tuple[Machine, int, int, int, int, int, bool]], capacity: HostCapacity
) -> None:
    asked = [asking(f"group-{n}", each) for n, each in enumerate(drawn)]
    result = admit(asked, seen(capacity), {})
    for each in asked:
        decision, low = result.decisions[each.group], each.policy.size.min
        assert decision.admitted >= min(each.live, low), "drained below its minimum"
        if decision.admitted >= low or not each.acts:
            continue
        # It lacks something although nobody got anything beyond a minimum of the same.
        need = need_of(each.policy.machine, IMAGE, capacity)
        ledger = result.ledgers["local"]
        for other in asked:
            if other.acts and granted(other, result) and other.live + granted(other, result) > other.policy.size.min:
                ledger = ledger.take(need_of(other.policy.machine, IMAGE, capacity), -_beyond(other, result))
        assert ledger.shortage(need) is not None
    drained = [each.group for each in asked if result.decisions[each.group].admitted < each.live]
    assert len(drained) <= 1


def _beyond(each: Asking, result: Admission) -> int:
    return granted(each, result) - max(0, each.policy.size.min - each.live)


ROOM_FOR_THREE = HostCapacity("local", HostLimits(vcpus_per_core=1), cores=3)


def wanting(asked: Asking, current: int, desired: int) -> Asking:
    return replace(asked, decision=decided(asked.group, current, desired), lacking=max(0, desired - asked.live))


def group(name: str, priority: int, live: int, desired: int, low: int = 1) -> Asking:
    one = asking(name, (Machine(), low, live, 0, 0, priority, True))
    return wanting(one, live, desired)


def holding(capacity: HostCapacity, *asked: Asking, preempted: dict[str, float] | None = None) -> Admission:
    return admit(asked, seen(capacity), preempted or {})


def codes(admission: Admission, name: str) -> list[ReasonCode]:
    return [reason.code for reason in admission.decisions[name].reasons]


def test_a_lesser_group_gives_one_instance_a_minute_and_both_say_so() -> None:
    shop, batch = group("shop", 90, 1, 3), group("batch", 10, 2, 2)
    result = holding(ROOM_FOR_THREE, batch, shop)
    assert (result.decisions["shop"].admitted, result.decisions["batch"].admitted) == (1, 1)
    assert codes(result, "shop") == [ReasonCode.TAKES_ROOM_FROM, ReasonCode.REFUSED_FOR_VCPUS]
    assert codes(result, "batch") == [ReasonCode.YIELDS_TO_GROUP]
    assert result.preempted == {"local": AT}
    assert result.remembered == {"shop": 1, "batch": 1}
    again = holding(ROOM_FOR_THREE, shop, batch, preempted={"local": AT - 59.0})
    assert again.decisions["batch"].admitted == 2
    assert holding(ROOM_FOR_THREE, shop, batch, preempted={"local": AT - 60.0}).decisions["batch"].admitted == 1


def test_one_that_leaves_is_waited_for_and_nobody_takes_its_place() -> None:
    shop = group("shop", 90, 1, 2)
    leaving = asking("batch", (Machine(), 1, 1, 1, 0, 10, True))
    batch = wanting(leaving, 1, 2)
    freed = replace(ROOM_FOR_THREE, cores=2)
    result = holding(freed, shop, batch)
    assert (result.decisions["shop"].admitted, result.decisions["batch"].admitted) == (1, 1)
    assert ReasonCode.YIELDS_TO_GROUP in codes(result, "batch")
    assert result.preempted == {}


def test_neither_equals_nor_minimums_nor_held_groups_give_way() -> None:
    shop = group("shop", 90, 1, 2)
    for other in (
        group("batch", 90, 2, 2),
        group("batch", 10, 2, 2, low=2),
        replace(group("batch", 10, 2, 2), acts=False),
    ):
        result = holding(ROOM_FOR_THREE, shop, other)
        assert result.decisions["batch"].admitted == 2
        assert result.preempted == {}


def test_a_clone_that_can_never_fit_keeps_nobody_waiting() -> None:
    big = asking("shop", (Machine(vcpus=8), 0, 0, 0, 1, 90, True))
    result = holding(ROOM_FOR_THREE, big, group("batch", 10, 1, 3))
    assert (result.decisions["shop"].admitted, result.decisions["batch"].admitted) == (0, 3)


def test_a_replacement_that_waits_is_not_forgotten() -> None:
    lost = wanting(group("web", 50, 1, 4), 4, 4)
    result = holding(replace(ROOM_FOR_THREE, cores=1), lost)
    assert result.decisions["web"].admitted == 1
    assert result.remembered == {"web": 4}


def test_a_replacement_beside_what_it_replaces_needs_room_and_costs_no_instance() -> None:
    aged = replace(group("web", 50, 2, 2), lacking=1)
    fits = holding(ROOM_FOR_THREE, aged)
    assert (fits.decisions["web"].admitted, fits.clones["web"]) == (2, 1)
    full = holding(replace(ROOM_FOR_THREE, cores=2), aged)
    assert (full.decisions["web"].admitted, full.clones["web"]) == (2, 0)
    assert codes(full, "web") == [ReasonCode.REFUSED_FOR_VCPUS]


def test_what_is_protected_is_not_drained_for_others() -> None:
    batch = group("batch", 10, 2, 2)
    kept = replace(batch, instances=tuple(replace(i, protected=True) for i in batch.instances))
    result = holding(ROOM_FOR_THREE, group("shop", 90, 1, 2), kept)
    assert (result.decisions["batch"].admitted, result.preempted) == (2, {})


def test_shadow_groups_take_nothing() -> None:
    shadow = replace(group("aaa", 90, 0, 3), acts=False)
    result = holding(ROOM_FOR_THREE, shadow, group("web", 50, 1, 3))
    assert (result.decisions["web"].admitted, result.decisions["aaa"].admitted) == (3, 0)


STARVED_SAMPLE = HostSample("local", 2, 1.0, 9.0, 8 * GIB, 8 * GIB, top=(Consumer("yes", 7, 0.9),))


def starving(starved: Starved, current: int, desired: int) -> Admission:
    policy = Policy("web", IMAGE, Size(1, 9), starved=starved, scaling=(TargetTracking("guest.cpu", 0.5),))
    sample = LoadSample(AT, 1.0, 1.0, 1.0, 1, 0, 0, steal=0.5)
    one = group("web", 50, current, desired)
    asked = replace(one, policy=policy, samples={"avg guest.cpu": (sample,)})
    return admit([asked], seen(replace(ROOM_FOR_THREE, cores=64), STARVED_SAMPLE), {})


def test_starved_is_not_busy() -> None:
    held = starving(Starved.HOLD, 2, 4)
    assert held.decisions["web"].admitted == 2
    (reason,) = held.decisions["web"].reasons
    assert (reason.code, reason.parameters["culprits"]) == (ReasonCode.STARVED, "yes (pid 7) 0.9 cores")
    assert (reason.parameters["steal"], reason.parameters["wanted"]) == (0.5, 4)
    alarmed = starving(Starved.ALARM, 2, 4)
    assert (alarmed.decisions["web"].admitted, codes(alarmed, "web")) == (4, [ReasonCode.ACTS_THOUGH_STARVED])
    ignored = starving(Starved.IGNORE, 2, 4)
    assert (ignored.decisions["web"].admitted, codes(ignored, "web")) == (4, [])


def test_a_starved_group_still_gets_its_minimum() -> None:
    assert starving(Starved.HOLD, 0, 4).decisions["web"].admitted == 1


def scaling(name: str, low: int, high: int, priority: int = 50) -> Policy:
    return Policy(name, IMAGE, Size(low, high), priority=priority)


def test_freed_room_is_used_again_and_a_refusal_starts_no_cooldown() -> None:
    plant = Plant(scaling("web", 4, 4), interval_seconds=2.0)
    plant.host.cores, plant.host.limits = 3, HostLimits(vcpus_per_core=1)
    plant.host.add_foreign("others")
    result = plant.run(30.0)
    assert len(plant.owned()) == 2
    assert [reason.code for reason in result.decisions[0].reasons][-1] is ReasonCode.REFUSED_FOR_VCPUS
    assert (result.decisions[0].desired, result.decisions[0].admitted) == (4, 2)
    del plant.host._machines["others"]
    result = plant.run(10.0)
    assert len(plant.owned()) == 3
    plant.host.cores = 4
    assert len(plant.run(10.0).decisions[0].reasons) == 0
    assert len(plant.owned()) == 4


def test_a_clone_in_flight_counts_in_every_tick_of_its_life() -> None:
    plant = Plant(scaling("web", 5, 5), interval_seconds=1.0, action_seconds=3.5)
    plant.host.cores, plant.host.limits = 2, HostLimits(vcpus_per_core=1)
    cloned = 0
    for _ in range(20):
        cloned += sum(isinstance(action, Clone) for action in plant.tick().actions)
        plant.clock.advance(1.0)
    assert cloned == 2


def test_an_urgent_group_gets_room_tick_by_tick_and_keeps_it() -> None:
    plant = Plant(scaling("batch", 3, 3, priority=10), interval_seconds=5.0)
    plant.host.cores, plant.host.limits = 3, HostLimits(vcpus_per_core=1)
    plant.run(20.0)
    assert len(plant.owned("batch")) == 3
    held = TargetTracking("guest.cpu", 0.5)
    plant.policy = replace(plant.policy, size=Size(1, 3), scaling=(held,))
    plant.demand = 1.5
    plant.others = (scaling("shop", 2, 2, priority=90),)
    removed: list[float] = []
    for _ in range(60):
        removed += [plant.clock.at for action in plant.tick().actions if isinstance(action, Remove)]
        plant.clock.advance(5.0)
    assert (len(plant.owned("batch")), len(plant.owned("shop"))) == (1, 2)
    assert len(removed) == 2
    assert removed[1] - removed[0] >= 60.0


def test_a_host_that_does_not_tell_its_room_gets_no_clone() -> None:
    plant = Plant(scaling("web", 2, 2), interval_seconds=2.0)
    plant.broken = {"capacity"}
    result = plant.run(10.0)
    assert not plant.owned()
    assert result.decisions[0].reasons[-1].code is ReasonCode.REFUSED_FOR_UNREAD_CAPACITY
    plant.broken = set()
    plant.run(10.0)
    assert len(plant.owned()) == 2
