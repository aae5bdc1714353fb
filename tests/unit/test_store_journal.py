"""What the journal keeps: ticks, intents, requests, the ledger, facts, events and decisions."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.codec import canonical
from autoscaler.core.action import Action, Clone, Failure, InFlight, Intent, IntentState, Outcome, Remove
from autoscaler.core.decision import Decision, Input, Reason, ReasonCode, Recommendation
from autoscaler.core.errors import HypervisorErrorKind, StoreError
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import Change, Observation
from autoscaler.core.policy import Behavior, DirectionLimits, Image, Machine, Policy, Ready, Size, TargetTracking
from autoscaler.core.ports import VolumeRef
from autoscaler.core.step import step
from autoscaler.core.transition import InstanceState, Transition, TransitionReason
from autoscaler.store import Journal, Pending, Step, TickRecord
from tests.support.plant import CONTROLLER, Plant

POLICY = Policy("web", Image("default", "golden.qcow2"), Size(1, 4))
BUSY = Failure(HypervisorErrorKind.BUSY, "storage pool is busy")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path)
    yield journal
    journal.close()


def clone(instance: str) -> Clone:
    return Clone("web", "local", instance, POLICY.image, Machine())


def decision(at: float, admitted: int = 1, load: float | None = 0.5, code: ReasonCode = ReasonCode.PAUSED) -> Decision:
    seen = Input("guest.cpu", load, load, 1.0, 0.6, 1, 0, 0, 60.0, window_full=True)
    wish = Recommendation("target_tracking", 1, Reason(ReasonCode.WITHIN_TARGET, {"load": load or 0.0}))
    return Decision("web", at, 1, (seen,), (wish,), 1, 1, admitted, (Reason(code, {"at": at, "count": 1}),))


def commit(
    journal: Journal,
    at: float,
    *actions: Action,
    decisions: tuple[Decision, ...] = (),
    policies: tuple[Policy, ...] = (POLICY,),
    admitted: int | None = None,
) -> tuple[Intent, ...]:
    pending = journal.pending()
    observation = Observation(at, 10.0, {}, {}, {}, pending.in_flight, pending.outcomes, pending.requests)
    memory = Memory(journal.controller, at, {"web": GroupMemory(admitted=admitted)})
    return journal.commit_tick(TickRecord(observation, policies, decisions, memory, 0.25), actions)


def test_memory_is_what_the_last_tick_left(journal: Journal, tmp_path: Path) -> None:
    assert journal.load_memory() == Memory(journal.controller)
    commit(journal, 1.0, admitted=1)
    commit(journal, 2.0, admitted=3)
    journal.close()
    again = Journal.open(tmp_path)
    assert again.load_memory() == Memory(again.controller, 2.0, {"web": GroupMemory(admitted=3)})
    again.close()


def test_an_intent_from_commit_to_consumption(journal: Journal) -> None:
    made, removed = commit(journal, 1.0, clone("web-1"), Remove("web", "local", "web-2", "scale_in", 60.0))
    assert journal.in_flight() == (InFlight(made, IntentState.OPEN), InFlight(removed, IntentState.OPEN))
    journal.begin_step(made.id, "overlay", 2.0)
    journal.end_step(made.id, "overlay", 3.0)
    journal.begin_step(made.id, "define", 4.0)
    assert journal.in_flight()[0] == InFlight(made, IntentState.OPEN, "define")
    assert journal.steps(made.id) == (Step("overlay", 2.0, 3.0), Step("define", 4.0, None))
    journal.end_intent(removed.id, IntentState.DONE, 5.0)
    journal.end_intent(made.id, IntentState.FAILED, 6.0, BUSY)
    assert journal.in_flight() == ()
    ended = (Outcome(removed, IntentState.DONE, 5.0), Outcome(made, IntentState.FAILED, 6.0, BUSY))
    assert journal.outcomes() == ended, "in the order in which they ended"
    commit(journal, 7.0)
    assert journal.outcomes() == ()


def test_what_ends_after_the_observation_waits_for_the_next_tick(journal: Journal) -> None:
    (intent,) = commit(journal, 1.0, clone("web-1"))
    journal.add_request(1.0, "me", "web", Change.PAUSE)
    seen = journal.pending()
    journal.end_intent(intent.id, IntentState.DONE, 2.0)
    late = journal.add_request(2.0, "me", "web", Change.RESUME)
    observation = Observation(3.0, 10.0, in_flight=seen.in_flight, outcomes=seen.outcomes, requests=seen.requests)
    journal.commit_tick(TickRecord(observation, (), (), Memory(journal.controller)), ())
    assert journal.outcomes() == (Outcome(intent, IntentState.DONE, 2.0),)
    assert journal.requests() == (late,)


def test_an_unknown_intent_stays_in_flight_until_it_is_settled(journal: Journal) -> None:
    (intent,) = commit(journal, 1.0, clone("web-1"))
    journal.begin_step(intent.id, "start", 2.0)
    journal.mark_unknown(intent.id, 3.0, Failure(HypervisorErrorKind.DEADLINE, "no answer"))
    commit(journal, 4.0)
    assert journal.in_flight() == (
        InFlight(intent, IntentState.UNKNOWN, "start", Failure(HypervisorErrorKind.DEADLINE, "no answer")),
    )
    assert journal.outcomes() == ()
    journal.end_intent(intent.id, IntentState.DONE, 5.0)
    assert journal.outcomes() == (Outcome(intent, IntentState.DONE, 5.0),)


def test_intents_survive_closing_and_ids_are_never_given_twice(journal: Journal, tmp_path: Path) -> None:
    (first,) = commit(journal, 1.0, clone("web-1"))
    journal.begin_step(first.id, "overlay", 2.0)
    journal.close()
    again = Journal.open(tmp_path)
    assert again.in_flight() == (InFlight(first, IntentState.OPEN, "overlay"),)
    again.end_intent(first.id, IntentState.DONE, 3.0)
    commit(again, 4.0)
    again.prune(4.0 + 91 * 86_400.0)
    (second,) = commit(again, 5.0, clone("web-2"))
    again.close()
    assert second.id > first.id


def test_an_intent_ends_once(journal: Journal) -> None:
    (intent,) = commit(journal, 1.0, clone("web-1"))
    with pytest.raises(ValueError, match="unknown"):
        journal.end_intent(intent.id, IntentState.UNKNOWN, 2.0)
    journal.end_intent(intent.id, IntentState.DONE, 2.0)
    with pytest.raises(StoreError, match=f"intent {intent.id} has already ended \\(done\\)"):
        journal.end_intent(intent.id, IntentState.FAILED, 3.0, BUSY)
    with pytest.raises(StoreError, match="has already ended"):
        journal.begin_step(intent.id, "start", 3.0)
    with pytest.raises(StoreError, match="intent 99 is not in it"):
        journal.mark_unknown(99, 3.0, BUSY)
    with pytest.raises(StoreError, match="no step 'start' under way"):
        journal.end_step(intent.id, "start", 3.0)
    assert journal.outcomes() == (Outcome(intent, IntentState.DONE, 2.0),)


def test_a_request_waits_for_the_tick_that_observes_it(journal: Journal) -> None:
    scale = journal.add_request(1.0, "root", "web", Change.SCALE, 3, 3600.0)
    pause = journal.add_request(2.0, "root", "web", Change.PAUSE)
    assert (scale.count, scale.for_seconds, pause.count, pause.for_seconds) == (3, 3600.0, None, None)
    assert journal.requests() == (scale, pause)
    commit(journal, 3.0)
    assert journal.requests() == ()


def test_a_request_about_an_instance_names_it(journal: Journal) -> None:
    made = journal.add_request(5.0, "alice", "web", Change.PROTECT, None, 60.0, "web-1")
    assert journal.requests() == (made,)
    assert made.instance == "web-1"


def test_the_ledger(journal: Journal) -> None:
    one, two = (VolumeRef("local", "default", f"web-{n}.qcow2", f"web-{n}") for n in (1, 2))
    journal.add_volume(two, 1.0)
    journal.add_volume(one, 2.0)
    journal.add_volume(one, 3.0)
    assert journal.volumes() == (one, two)
    assert journal.volumes("web-2") == (two,)
    journal.remove_volume(two)
    journal.remove_volume(two)
    assert journal.volumes() == (one,)


def test_facts(journal: Journal) -> None:
    assert journal.recall("accelerator/local") is None
    journal.remember("accelerator/local", "kvm")
    journal.remember("accelerator/local", "tcg")
    assert journal.recall("accelerator/local") == "tcg"


def test_events(journal: Journal) -> None:
    journal.add_event(1.0, "clone_failed", "web", "web-1", {"message": "no room", "tries": 2, "seconds": 1.5})
    journal.add_event(2.0, "reload", detail={"files": 1})
    journal.add_event(3.0, "clone_failed", "db")
    assert [event.at for event in journal.events()] == [1.0, 2.0, 3.0]
    assert [event.at for event in journal.events(limit=2)] == [2.0, 3.0], "the newest, in order"
    assert [event.at for event in journal.events(since=2.0)] == [2.0, 3.0]
    (event,) = journal.events(group="web")
    assert (event.kind, event.instance) == ("clone_failed", "web-1")
    assert event.detail == {"message": "no room", "tries": 2, "seconds": 1.5}


def test_transitions_of_a_tick_are_events_of_their_instances(journal: Journal) -> None:
    states = (InstanceState.READY, InstanceState.UNHEALTHY)
    ill = Transition("web", "web-1", "local", *states, 10.0, TransitionReason.AGENT_SILENT)
    new = Transition("web", "web-2", "local", None, InstanceState.REQUESTED, 10.0, TransitionReason.REQUESTED)
    seen = Observation(10.0, 10.0)
    journal.commit_tick(TickRecord(seen, (), (), Memory(journal.controller, 10.0), transitions=(ill, new)), ())
    first, second = journal.events(group="web")
    assert (first.at, first.kind, first.instance) == (10.0, "instance", "web-1")
    assert first.detail == {"host": "local", "before": "ready", "after": "unhealthy", "reason": "agent_silent"}
    assert (second.instance, second.detail["before"]) == ("web-2", "")


def test_decisions_are_kept_for_long_when_they_change(journal: Journal) -> None:
    commit(journal, 10.0, decisions=(decision(10.0, load=0.5),))
    commit(journal, 20.0, decisions=(decision(20.0, load=0.6),))
    commit(journal, 30.0, decisions=(decision(30.0, load=0.6, admitted=2),))
    commit(journal, 40.0, decisions=(decision(40.0, load=0.6, admitted=2, code=ReasonCode.SHADOW),))
    assert [each.at for each in journal.decisions("web")] == [10.0, 30.0, 40.0]
    assert journal.decisions("web", since=20.0, limit=1) == (
        decision(40.0, load=0.6, admitted=2, code=ReasonCode.SHADOW),
    )
    assert journal.decisions("db") == ()


def test_decision_at(journal: Journal) -> None:
    for at in (10.0, 20.0, 30.0):
        commit(journal, at, decisions=(decision(at),))
    commit(journal, 40.0)
    assert journal.decision_at("web", 25.0) == decision(20.0)
    assert journal.decision_at("web", 20.0) == decision(20.0)
    assert journal.decision_at("web", 9.0) is None
    assert journal.decision_at("db") is None
    assert journal.decision_at("web") == decision(10.0), "a tick without the group: the last change"
    journal.prune(30.0 + 86_400.0)
    assert journal.decision_at("web", 25.0) == decision(10.0), "raw ticks are gone: the last change"


def test_roll_ups(journal: Journal) -> None:
    for at, load, admitted in ((60.0, 0.5, 1), (70.0, 0.2, 2), (119.0, None, 2), (119.5, 0.8, 3), (120.0, 0.1, 3)):
        commit(journal, at, decisions=(decision(at, admitted, load),))
    first, second = journal.rollups("web", "guest.cpu")
    assert (first.minute, first.samples, first.min, first.max, first.admitted) == (60, 3, 0.2, 0.8, 3)
    assert first.avg == pytest.approx(0.5)
    assert (second.minute, second.samples, second.avg) == (120, 1, 0.1)
    assert journal.rollups("web", "guest.cpu", since=61.0) == (second,)


def test_policies_are_kept_once(journal: Journal) -> None:
    other = replace(POLICY, size=Size(2, 4))
    for at, policy in ((1.0, POLICY), (2.0, POLICY), (3.0, other), (4.0, POLICY)):
        commit(journal, at, policies=(policy,))
    assert [tick.policies for tick in journal.replay()] == [(POLICY,), (POLICY,), (other,), (POLICY,)]
    with journal._database.reading("count") as connection:
        assert connection.execute("SELECT count(*) FROM policies").fetchone() == (2,)


def test_checkpoints_at_each_opening_and_every_360th_tick(tmp_path: Path) -> None:
    for first in (0, 5):
        journal = Journal.open(tmp_path)
        for number in range(first, 5 if first == 0 else 370):
            commit(journal, float(number), admitted=number)
        journal.close()
    reader = Journal.open_readonly(tmp_path)
    found = {tick.observation.at: tick.memory_before for tick in reader.replay() if tick.memory_before is not None}
    reader.close()
    assert list(found) == [0.0, 5.0, 365.0]
    assert found[0.0] == Memory(journal.controller)
    assert found[365.0] == Memory(journal.controller, 364.0, {"web": GroupMemory(admitted=364)})


REPLAYED = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 4),
    scaling=(TargetTracking("guest.cpu", 0.35, over_seconds=10.0),),
    behavior=Behavior(0.1, DirectionLimits(0.0, 0.0), DirectionLimits(30.0, 20.0)),
    warm_up_seconds=0.0,
    ready=Ready(agent=True, timeout_seconds=40.0),
)


def test_replaying_the_journal_gives_the_same_decisions(tmp_path: Path) -> None:
    (tmp_path / "controller").write_text(CONTROLLER)
    plant = Plant(REPLAYED, interval_seconds=2.0)
    journal = Journal.open(tmp_path)
    for number in range(260):
        plant.demand = 0.9 if 20 <= number < 120 else 0.0
        plant.broken = {"counters"} if number in {60, 61, 150} else set()
        if number == 100:
            journal.close()
            journal = Journal.open(tmp_path)
            plant.memory = journal.load_memory()
        result = plant.tick()
        assert plant.observation is not None
        # The plant carries its actions out by itself: the journal is given no intents for them.
        journal.commit_tick(TickRecord(plant.observation, (REPLAYED,), result.decisions, result.memory), ())
        plant.clock.advance(2.0)
    memory: Memory | None = None
    checkpoints, admitted = 0, []
    for tick in journal.replay():
        if tick.memory_before is not None:
            assert memory is None or canonical(memory) == canonical(tick.memory_before)
            memory, checkpoints = tick.memory_before, checkpoints + 1
        assert memory is not None
        again = step(tick.policies, tick.observation, memory)
        assert canonical(again.decisions, tuple[Decision, ...]) == tick.decisions_json
        memory = again.memory
        admitted.append(again.decisions[0].admitted)
    journal.close()
    assert (len(admitted), checkpoints, max(admitted), admitted[-1]) == (260, 2, 3, 1)


def test_threads_share_one_journal(journal: Journal) -> None:
    """Workers walk intents to their end while the tick goes on observing: each intent is seen ended exactly once."""
    total, stop = 60, threading.Event()

    def work(intent: Intent) -> None:
        for name in ("overlay", "define", "start"):
            journal.begin_step(intent.id, name, 1.0)
            journal.end_step(intent.id, name, 2.0)
        journal.add_volume(VolumeRef("local", "default", f"{intent.id}", f"{intent.id}"), 2.0)
        journal.end_intent(intent.id, IntentState.DONE, 3.0)

    def look() -> None:
        while not stop.is_set():
            pending = journal.pending()
            flying = {flight.intent.id for flight in pending.in_flight}
            assert not flying & {outcome.intent.id for outcome in pending.outcomes}

    with ThreadPoolExecutor(6) as pool:
        looking = pool.submit(look)
        try:
            working = []
            for number in range(total // 3):
                intents = commit(journal, float(number), *(clone(f"web-{number}-{n}") for n in range(3)))
                working += [pool.submit(work, intent) for intent in intents]
            for each in working:
                each.result(timeout=30)
        finally:
            stop.set()
        looking.result(timeout=30)
    commit(journal, 100.0)
    assert journal.pending() == Pending((), (), (), journal.volumes())
    seen = [outcome.intent.id for tick in journal.replay() for outcome in tick.observation.outcomes]
    assert sorted(seen) == list(range(1, total + 1))
    assert len(journal.volumes()) == total
