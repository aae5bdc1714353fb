"""From what a balancer has to what it should have."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.policy import Traffic, TrafficKind
from autoscaler.core.traffic import (
    Correction,
    Service,
    SetAddress,
    SetState,
    SetWeight,
    Wanted,
    corrections,
    slot_of,
    unplaced,
)

TRAFFIC = Traffic(TrafficKind.HAPROXY)
READY, DRAIN, MAINT = SlotState.READY, SlotState.DRAIN, SlotState.MAINT


def slot(number: int, address: str = "127.0.0.1", state: SlotState = MAINT, **more: object) -> Slot:
    plain = Slot(f"web{number}", address, 80, state, weight=100, initial_weight=100, sessions=0)
    return replace(plain, **more)  # type: ignore[arg-type]


def service(number: int, state: SlotState = READY, weight_share: float = 1.0) -> Service:
    return Service(f"web-{number}", "local", f"10.0.0.{number}", 80, state, weight_share)


def wanted(*services: Service, least: int = 0) -> Wanted:
    return Wanted("web", TRAFFIC, services, at=1.0, min_in_service=least)


def view(*slots: Slot) -> TrafficView:
    return TrafficView(1.0, 1.0, slots)


NOTHING: tuple[Correction, ...] = ()

CASES = {
    "an empty balancer is filled": (
        view(slot(1), slot(2)),
        wanted(service(1)),
        (SetAddress("web1", "10.0.0.1", 80), SetState("web1", READY)),
    ),
    "a warming one gets less": (
        view(slot(1)),
        wanted(service(1, weight_share=0.1)),
        (SetAddress("web1", "10.0.0.1", 80), SetWeight("web1", 10), SetState("web1", READY)),
    ),
    "what is right is left": (view(slot(1, "10.0.0.1", READY)), wanted(service(1)), NOTHING),
    "warmed up": (view(slot(1, "10.0.0.1", READY, weight=10)), wanted(service(1)), (SetWeight("web1", 100),)),
    "a small weight does not become none": (
        view(slot(1, "10.0.0.1", READY, weight=5, initial_weight=5)),
        wanted(service(1, weight_share=0.1)),
        (SetWeight("web1", 1),),
    ),
    "one drains": (
        view(slot(1, "10.0.0.1", READY), slot(2, "10.0.0.2", READY)),
        wanted(service(1), service(2, DRAIN)),
        (SetState("web2", DRAIN),),
    ),
    "what drains is left": (view(slot(1, "10.0.0.1", DRAIN, sessions=3)), wanted(service(1, DRAIN)), NOTHING),
    "what was never served does not need to drain": (view(slot(1)), wanted(service(1, DRAIN)), NOTHING),
    "taken back": (view(slot(1, "10.0.0.1", DRAIN)), wanted(service(1)), (SetState("web1", READY),)),
    "gone": (
        view(slot(1, "10.0.0.1", DRAIN), slot(2, "10.0.0.2", READY)),
        wanted(service(2)),
        (SetState("web1", MAINT),),
    ),
    "more first, then less": (
        view(slot(1, "10.0.0.1", READY), slot(2)),
        wanted(service(1, DRAIN), service(2)),
        (SetAddress("web2", "10.0.0.2", 80), SetState("web2", READY), SetState("web1", DRAIN)),
    ),
    "the last ones stay": (
        view(slot(1, "10.0.0.1", READY), slot(2)),
        wanted(service(1, DRAIN), service(2), least=1),
        (SetAddress("web2", "10.0.0.2", 80), SetState("web2", READY)),
    ),
    "of several that go, as many as can": (
        view(slot(1, "10.0.0.1", READY), slot(2, "10.0.0.2", READY), slot(3, "10.0.0.3", READY, healthy=False)),
        wanted(service(1, DRAIN), service(2, DRAIN), service(3, DRAIN), least=1),
        (SetState("web2", DRAIN), SetState("web3", DRAIN)),
    ),
    "one that answers does not go for one that does not": (
        view(slot(1, "10.0.0.1", READY, healthy=True), slot(2, "10.0.0.2", READY, healthy=False)),
        wanted(service(1, DRAIN), service(2), least=1),
        NOTHING,
    ),
    "who is gone is not kept for a number": (
        view(slot(1, "10.0.0.1", READY)),
        wanted(least=1),
        (SetState("web1", MAINT),),
    ),
    "no slot is free": (
        view(slot(1, "10.0.0.1", READY)),
        wanted(service(1), service(2)),
        NOTHING,
    ),
    "a slot that nobody is connected to is taken first": (
        view(slot(1, sessions=2), slot(2)),
        wanted(service(1)),
        (SetAddress("web2", "10.0.0.1", 80), SetState("web2", READY)),
    ),
    "one of somebody's that is in service is emptied before it is used": (
        view(slot(1, "10.9.9.9", READY)),
        wanted(service(1)),
        (SetState("web1", MAINT), SetAddress("web1", "10.0.0.1", 80), SetState("web1", READY)),
    ),
    "two that claim one address": (
        view(slot(1, "10.0.0.1", READY), slot(2, "10.0.0.1", READY), slot(3)),
        wanted(service(1), replace(service(2), address="10.0.0.1")),
        NOTHING,
    ),
    "an address that is there twice": (
        view(slot(1, "10.0.0.1"), slot(2, "10.0.0.1", READY)),
        wanted(service(1)),
        NOTHING,
    ),
}


@pytest.mark.parametrize(("has", "should", "expected"), CASES.values(), ids=CASES.keys())
def test_corrections(has: TrafficView, should: Wanted, expected: tuple[Correction, ...]) -> None:
    assert corrections(has, should) == expected


def test_who_finds_no_slot_is_named() -> None:
    assert unplaced(view(slot(1)), wanted(service(1), service(2), service(3, DRAIN))) == (service(2),)


def test_a_slot_in_maintenance_stands_for_nobody() -> None:
    assert slot_of(view(slot(1, "10.0.0.1")), "10.0.0.1", 80) is None
    assert slot_of(view(slot(1, "10.0.0.1", DRAIN)), "10.0.0.1", 80) == slot(1, "10.0.0.1", DRAIN)


def apply(has: TrafficView, correction: Correction) -> TrafficView:
    """What a balancer makes of a correction."""

    def changed(one: Slot) -> Slot:
        match correction:
            case SetAddress(address=address, port=port):
                assert one.state is MAINT, "an address changes where nobody is sent"
                return replace(one, address=address, port=port)
            case SetWeight(weight=weight):
                return replace(one, weight=weight)
            case SetState(state=state):
                return replace(one, state=state)

    return replace(has, slots=tuple(changed(s) if s.name == correction.slot else s for s in has.slots))


STATES = st.sampled_from(list(SlotState))
SLOTS = st.lists(
    st.tuples(st.integers(0, 6), STATES, st.sampled_from([10, 100]), st.sampled_from([None, True, False])),
    min_size=1,
    max_size=6,
).map(
    lambda rows: view(*(slot(n, f"10.0.0.{a}", s, weight=w, healthy=h) for n, (a, s, w, h) in enumerate(rows, start=1)))
)
SERVICES = st.dictionaries(
    st.integers(1, 8), st.tuples(st.sampled_from([READY, DRAIN]), st.sampled_from([0.1, 1.0])), max_size=6
).map(lambda each: tuple(service(n, state, share) for n, (state, share) in each.items()))


@given(SLOTS, SERVICES, st.integers(0, 3))
@example(
    view(slot(1, "10.0.0.6", DRAIN), slot(2, "10.0.0.6", READY)), (service(6, DRAIN, 0.1),), 1
)  # one instance in two slots
def test_one_pass_is_enough_and_leaves_enough(has: TrafficView, services: tuple[Service, ...], least: int) -> None:
    should = wanted(*services, least=least)
    alive = {s.address for s in has.slots if s.serves and any(s.address == x.address for x in services)}
    now = has
    for correction in corrections(has, should):
        now = apply(now, correction)
        serving = {s.address for s in now.slots if s.serves and any(s.address == x.address for x in services)}
        assert len(serving) >= min(least, len(alive))
    for each in services:
        placed = slot_of(now, each.address, each.port)
        if each.state is READY and each not in unplaced(has, should):
            assert placed is not None
            assert placed.state is READY
    again = corrections(now, should)
    # Those that were kept for the number's sake may go now that others are in service.
    assert all(isinstance(c, SetState) and c.state is not READY for c in again)
