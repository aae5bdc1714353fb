"""Every step of clone and removal, failing and interrupted, on the simulated world."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from autoscaler.core.action import Action, Clone, Collect, Failure, InFlight, Intent, IntentState, Remove, Start
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind, StoreError
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Image, Machine
from autoscaler.core.ports import VolumeRef
from autoscaler.executor import Executor, StoppingError, Time, Work, carry_out, settle
from autoscaler.simulate.host import Clock, SimulatedHost
from autoscaler.store import Journal, TickRecord
from tests.support.polling import wait_until

CLONE = Clone("web", "local", "web-1", Image("default", "golden.qcow2"), Machine())
REMOVE = Remove("web", "local", "web-1", "test", 5.0)
CLONE_CALLS = ("validate", "create_overlay", "image_digest", "define", "start")
REMOVE_CALLS = ("running", "request_shutdown", "destroy", "volumes_of", "undefine", "delete_volume")
START = Start("web", "local", "web-1")


class DeathError(BaseException):
    """The process ends here."""


class Interposed:
    """A host, or journal, whose one method raises instead of, or after, doing what it does; once."""

    def __init__(self, host: object, method: str, error: BaseException, *, after: bool) -> None:
        self._host, self._method, self._error, self._after = host, method, error, after

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._host, name)
        if name != self._method or self._error is None:
            return attribute

        def call(*arguments: Any) -> Any:
            error, self._error = self._error, None  # type: ignore[assignment]
            if self._after and error is not None:
                attribute(*arguments)
            if error is not None:
                raise error
            return attribute(*arguments)

        return call


class Busy(Interposed):
    """A host with a call that has not returned."""

    def busy_with(self, _instance: str) -> bool:
        return True


@dataclass
class Rig:
    """A host and a journal that outlive the process."""

    clock: Clock
    journal: Journal
    host: SimulatedHost

    def work(self, intent: Intent, host: Any = None) -> Work:
        return Work(intent, host or self.host, self.journal, Time(self.clock.now, self.clock.advance))

    def intend(self, action: Action) -> Intent:
        at = self.clock.now()
        record = TickRecord(Observation(at, 1.0), (), (), Memory(self.journal.controller, at))
        (intent,) = self.journal.commit_tick(record, (action,))
        return intent

    def settle(self) -> None:
        for flight in self.journal.in_flight():
            settle(flight, self.work(flight.intent))

    def left(self) -> tuple[bool | None, set[tuple[str, str]], tuple[VolumeRef, ...]]:
        """Whether the instance runs, the volumes beside the golden image, and the ledger."""
        return self.host.running("web-1"), self.host.volumes - self.host.images, self.journal.volumes()


NOTHING: tuple[None, set[tuple[str, str]], tuple[VolumeRef, ...]] = (None, set(), ())


@pytest.fixture
def rig() -> Rig:
    clock, journal = Clock(), Journal.in_memory()
    return Rig(clock, journal, SimulatedHost("local", journal.controller, clock))


def launched(rig: Rig) -> Rig:
    carry_out(rig.work(rig.intend(CLONE)))
    rig.clock.advance(10.0)
    assert rig.left()[0] is True
    return rig


def failing(kind: HypervisorErrorKind) -> Callable[[], BaseException]:
    return lambda: HypervisorError(kind, "as told")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CLONE_CALLS)
def test_a_failed_clone_is_undone(rig: Rig, call: str, after: bool) -> None:
    intent = rig.intend(CLONE)
    error = HypervisorError(HypervisorErrorKind.FAILED, "as told")
    carry_out(rig.work(intent, Interposed(rig.host, call, error, after=after)))
    assert rig.left() == NOTHING
    (outcome,) = rig.journal.outcomes()
    assert (outcome.state, outcome.failure and outcome.failure.message) == (IntentState.FAILED, "as told")


@pytest.mark.parametrize("kind", [HypervisorErrorKind.DEADLINE, HypervisorErrorKind.UNREACHABLE])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CLONE_CALLS)
def test_a_clone_of_unknown_outcome_is_settled(rig: Rig, call: str, after: bool, kind: HypervisorErrorKind) -> None:
    intent = rig.intend(CLONE)
    carry_out(rig.work(intent, Interposed(rig.host, call, HypervisorError(kind, "no answer"), after=after)))
    (flight,) = rig.journal.in_flight()
    assert flight.state is IntentState.UNKNOWN
    assert rig.journal.outcomes() == ()
    rig.settle()
    (outcome,) = rig.journal.outcomes()
    if call == "start" and after:
        assert outcome.state is IntentState.DONE
        assert rig.left()[0] is True
    else:
        assert outcome.state is IntentState.FAILED
        assert outcome.failure is not None
        assert outcome.failure.kind is kind, "so that launches back off"
        assert rig.left() == NOTHING


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CLONE_CALLS)
def test_a_clone_whose_process_dies_is_finished_or_undone(rig: Rig, call: str, after: bool) -> None:
    intent = rig.intend(CLONE)
    with pytest.raises(DeathError):
        carry_out(rig.work(intent, Interposed(rig.host, call, DeathError(), after=after)))
    rig.settle()
    (outcome,) = rig.journal.outcomes()
    if call == "start" and after:
        assert (outcome.state, rig.left()[0]) == (IntentState.DONE, True)
    else:
        assert outcome.failure is not None
        assert outcome.failure.kind is HypervisorErrorKind.INTERRUPTED
        assert rig.left() == NOTHING


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", REMOVE_CALLS)
def test_a_removal_whose_process_dies_is_finished(rig: Rig, call: str, after: bool) -> None:
    launched(rig)
    intent = rig.intend(REMOVE)
    with pytest.raises(DeathError):
        carry_out(rig.work(intent, Interposed(rig.host, call, DeathError(), after=after)))
    rig.settle()
    assert rig.left() == NOTHING
    assert rig.journal.in_flight() == ()


@pytest.mark.parametrize("call", ["destroy", "undefine", "delete_volume"])
def test_a_failed_removal_can_be_done_again(rig: Rig, call: str) -> None:
    launched(rig)
    error = HypervisorError(HypervisorErrorKind.BUSY, "as told")
    carry_out(rig.work(rig.intend(REMOVE), Interposed(rig.host, call, error, after=False)))
    assert [outcome.state for outcome in rig.journal.outcomes()][-1] is IntentState.FAILED
    carry_out(rig.work(rig.intend(REMOVE)))
    assert rig.left() == NOTHING


def test_an_undo_that_fails_is_tried_again(rig: Rig) -> None:
    intent = rig.intend(CLONE)
    rig.host.fault = lambda method: _raise_in(method, {"start", "undefine"})
    carry_out(rig.work(intent))
    assert [flight.state for flight in rig.journal.in_flight()] == [IntentState.UNKNOWN]
    rig.settle()
    assert [flight.state for flight in rig.journal.in_flight()] == [IntentState.UNKNOWN]
    rig.host.fault = lambda method: None
    rig.settle()
    assert rig.journal.in_flight() == ()
    assert rig.left() == NOTHING


def _raise_in(method: str, methods: set[str]) -> None:
    if method in methods:
        raise HypervisorError(HypervisorErrorKind.FAILED, f"{method} fails")


def test_a_foreign_volume_of_the_same_name_is_left_alone(rig: Rig) -> None:
    rig.host.volumes.add(("default", "web-1.qcow2"))
    carry_out(rig.work(rig.intend(CLONE)))
    (outcome,) = rig.journal.outcomes()
    assert outcome.state is IntentState.FAILED
    assert rig.left() == (None, {("default", "web-1.qcow2")}, ())


def test_a_left_over_that_something_stands_on_is_left_alone(rig: Rig) -> None:
    left = VolumeRef("local", "default", "golden.qcow2", "(images)-1")
    collect = Collect("(images)", "local", left.instance)
    launched(rig)
    rig.journal.add_volume(left, 0.0)
    assert carry_out(rig.work(rig.intend(collect)))
    (outcome,) = (each for each in rig.journal.outcomes() if each.intent.action == collect)
    assert outcome.failure is not None
    assert outcome.failure.kind is HypervisorErrorKind.BUSY
    assert "web-1.qcow2 stands on it" in outcome.failure.message
    assert ("default", "golden.qcow2") in rig.host.volumes
    carry_out(rig.work(rig.intend(REMOVE)))
    carry_out(rig.work(rig.intend(collect)))
    assert ("default", "golden.qcow2") not in rig.host.volumes
    assert rig.journal.volumes() == ()


def test_an_action_whose_journal_fails_is_settled_later(rig: Rig) -> None:
    """Workers in threads: the journal fails in the middle of a clone, and nothing ends but the attempt."""
    intent, bugs = rig.intend(CLONE), list[BaseException]()
    journal = Interposed(rig.journal, "end_step", StoreError("disk full, as told"), after=False)
    executor = Executor(
        {"local": rig.host},
        cast("Journal", journal),
        now=rig.clock.now,
        workers_per_host=1,
        on_end=lambda: None,
        on_bug=bugs.append,
    )
    executor.submit([intent])
    wait_until(lambda: not executor.active(), 10, "the attempt has ended")
    assert executor.stop(10)
    assert not bugs
    assert [flight.state for flight in rig.journal.in_flight()] == [IntentState.OPEN]
    rig.settle()
    assert rig.left() == NOTHING


def test_stopping_leaves_a_removal_for_the_next_start(rig: Rig) -> None:
    launched(rig)
    intent = rig.intend(REMOVE)

    def stop(_seconds: float) -> None:
        raise StoppingError

    carry_out(Work(intent, rig.host, rig.journal, Time(rig.clock.now, stop)))
    assert [flight.state for flight in rig.journal.in_flight()] == [IntentState.OPEN]
    assert rig.left()[0] is True
    rig.settle()
    assert rig.left() == NOTHING


@pytest.mark.parametrize(
    ("kind", "state"),
    [(HypervisorErrorKind.FAILED, IntentState.FAILED), (HypervisorErrorKind.DEADLINE, IntentState.UNKNOWN)],
)
def test_an_instance_that_cannot_be_started_is_left_as_it_is(
    rig: Rig, kind: HypervisorErrorKind, state: IntentState
) -> None:
    launched(rig)
    rig.host.reboot()
    before = rig.left()
    intent = rig.intend(START)
    carry_out(rig.work(intent, Interposed(rig.host, "start", HypervisorError(kind, "as told"), after=False)))
    assert rig.left() == before
    assert [step.name for step in rig.journal.steps(intent.id)] == ["start"]
    if state is IntentState.UNKNOWN:
        assert rig.journal.in_flight() == (InFlight(intent, IntentState.UNKNOWN, "start", Failure(kind, "as told")),)
        rig.settle()
    assert rig.journal.outcomes()[-1].state is IntentState.FAILED
    assert rig.left() == before


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_start_interrupted_by_death_is_settled_by_what_is_seen(rig: Rig, after: bool) -> None:
    launched(rig)
    rig.host.reboot()
    intent = rig.intend(START)
    with pytest.raises(DeathError):
        carry_out(rig.work(intent, Interposed(rig.host, "start", DeathError(), after=after)))
    rig.settle()
    outcome = rig.journal.outcomes()[-1]
    assert outcome.state is (IntentState.DONE if after else IntentState.FAILED)
    assert rig.left()[0] is after
    assert rig.journal.volumes() != ()


def test_what_a_call_may_yet_do_is_waited_for(rig: Rig) -> None:
    """A call that was given up and has not returned may take effect after an undo: it is not settled before."""
    intent = rig.intend(CLONE)
    error = HypervisorError(HypervisorErrorKind.DEADLINE, "no answer")
    carry_out(rig.work(intent, Interposed(rig.host, "create_overlay", error, after=False)))
    (flight,) = rig.journal.in_flight()
    assert settle(flight, rig.work(intent, Busy(rig.host, "none", error, after=False))) is False
    rig.host.create_overlay(CLONE, rig.work(intent).volume)  # it does, late
    assert len(rig.journal.in_flight()) == 1
    rig.settle()
    assert rig.left() == NOTHING
    assert rig.journal.in_flight() == ()


def test_guests_that_take_their_time_to_leave_hold_up_no_clone(rig: Rig) -> None:
    launched(rig)
    rig.host.guest = replace(rig.host.guest, shutdown_seconds=math.inf)
    bugs: list[BaseException] = []
    executor = Executor(
        {"local": rig.host},
        rig.journal,
        now=rig.clock.now,
        workers_per_host=1,
        on_end=lambda: None,
        on_bug=bugs.append,
    )
    executor.submit([rig.intend(replace(REMOVE, deadline_seconds=3600.0))])
    executor.submit([rig.intend(replace(CLONE, instance="web-2"))])
    wait_until(lambda: rig.host.running("web-2"), 10, "the clone, beside the removal that waits")
    assert rig.host.running("web-1")
    assert executor.stop(10)
    assert not bugs
