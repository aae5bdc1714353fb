"""Carries actions out in workers, step by step, each step in the journal before it begins.

A step that fails undoes what was begun, in reverse. A call whose outcome is unknown (deadline exceeded, connection
lost) leaves the intent unknown: it counts against `max` and is settled by `settle` once a listing has succeeded. A
process that dies leaves open intents, which `settle` finishes or undoes at the next start. Every step can be repeated.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import structlog

from autoscaler.core.action import (
    Action,
    Clone,
    Collect,
    Drain,
    Failure,
    InFlight,
    Intent,
    IntentState,
    Remove,
    Start,
)
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind, StoreError
from autoscaler.core.observation import Ownership
from autoscaler.core.ports import Hypervisor, VolumeRef, overlay_name, seed_name
from autoscaler.hooks import Leaving, Runner, name_of, run_nothing
from autoscaler.images.cloud_init import CloudInitError, render
from autoscaler.images.seed import make_seed
from autoscaler.store import Journal

log = structlog.get_logger(__name__)

_OUTCOME_UNKNOWN = frozenset({HypervisorErrorKind.DEADLINE, HypervisorErrorKind.UNREACHABLE})
_POLL_SECONDS = 0.5


class StoppingError(Exception):
    """The daemon ends; the intent stays open and is settled at the next start."""


@dataclass(frozen=True, slots=True)
class Time:
    """The executor's clock: seconds since the epoch, and a pause that raises `StoppingError` when the daemon ends."""

    now: Callable[[], float]
    pause: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Work:
    """One action on its host."""

    intent: Intent
    hypervisor: Hypervisor
    journal: Journal
    time: Time
    run_hook: Runner = run_nothing

    @property
    def clone(self) -> Clone:
        """The action as a clone."""
        assert isinstance(self.intent.action, Clone)
        return self.intent.action

    @property
    def remove(self) -> Remove:
        """The action as a removal."""
        assert isinstance(self.intent.action, Remove)
        return self.intent.action

    @property
    def drain(self) -> Drain:
        """The action as a drain."""
        assert isinstance(self.intent.action, Drain)
        return self.intent.action

    @property
    def volume(self) -> VolumeRef:
        """The overlay a clone makes."""
        clone = self.clone
        return VolumeRef(clone.host, clone.image.pool, overlay_name(clone.instance), clone.instance)

    @property
    def seed(self) -> VolumeRef:
        """The volume that a clone's cloud-init reads."""
        clone = self.clone
        return VolumeRef(clone.host, clone.image.pool, seed_name(clone.instance), clone.instance)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an action; `undo` takes it back whether it was done, half done or not begun."""

    name: str
    do: Callable[[Work], None]
    undo: Callable[[Work], None] | None = None


def _validate(work: Work) -> None:
    work.hypervisor.validate(work.clone)


def _create_overlay(work: Work) -> None:
    with _in_ledger(work, work.volume):
        work.hypervisor.create_overlay(work.clone, work.volume)


def _create_seed(work: Work) -> None:
    clone = work.clone
    if clone.cloud_init is None:
        return
    try:
        content = make_seed(render(clone, work.hypervisor.identity(clone.instance)))
    except CloudInitError as error:
        raise HypervisorError(HypervisorErrorKind.INVALID, str(error)) from error
    with _in_ledger(work, work.seed):
        work.hypervisor.create_seed(work.seed, content)


@contextmanager
def _in_ledger(work: Work, volume: VolumeRef) -> Iterator[None]:
    """Write a volume into the ledger before it is made."""
    work.journal.add_volume(volume, work.time.now())
    try:
        yield
    except HypervisorError as error:
        if error.kind is HypervisorErrorKind.EXISTS:
            # Somebody else's volume of the same name: what is not in the ledger is not deleted.
            work.journal.remove_volume(volume)
        raise


def _volumes(work: Work) -> tuple[VolumeRef, ...]:
    """Give what the ledger says is the instance's, on this host."""
    action = work.intent.action
    return tuple(volume for volume in work.journal.volumes(action.instance) if volume.host == action.host)


def _refuse_used(work: Work) -> None:
    """Look again, right before anything is deleted: the domain may be back, or another made of it."""
    for volume in _volumes(work):
        user = work.hypervisor.user_of(volume)
        if user is not None:
            raise HypervisorError(
                HypervisorErrorKind.BUSY,
                f"volume {volume.name} in pool {volume.pool} on host {volume.host} is left over from "
                f"{volume.instance}, but domain {user} uses it, so it is left alone. Undefine that domain, "
                "or give it another disk",
            )
        standing = work.hypervisor.overlays_on(volume)
        if standing:
            raise HypervisorError(
                HypervisorErrorKind.BUSY,
                f"volume {volume.name} in pool {volume.pool} on host {volume.host} is left over, but {standing[0]} "
                "stands on it, so it is left alone. Delete that first",
            )


def _delete_volumes(work: Work) -> None:
    for volume in _volumes(work):
        work.hypervisor.delete_volume(volume)
        work.journal.remove_volume(volume)


def _define(work: Work) -> None:
    clone = work.clone
    digest = work.hypervisor.image_digest(clone)
    ownership = Ownership(work.journal.controller, clone.group, clone.instance, digest, work.intent.at, clone.image)
    work.hypervisor.define(clone, work.volume, ownership)


def _start(work: Work) -> None:
    work.hypervisor.start(work.intent.action.instance)


def _shut_down(work: Work) -> None:
    remove = work.remove
    if remove.deadline_seconds <= 0 or not work.hypervisor.running(remove.instance):
        return
    try:
        work.hypervisor.request_shutdown(remove.instance)
    except HypervisorError as error:
        if error.kind in _OUTCOME_UNKNOWN:
            raise
        log.warning("guest cannot be asked to shut down", instance=remove.instance, error=str(error))
        return
    # Counted in pauses: a wall clock that is set would stretch or cut a deadline read off it.
    for _ in range(ceil(remove.deadline_seconds / _POLL_SECONDS)):
        if not work.hypervisor.running(remove.instance):
            return
        work.time.pause(_POLL_SECONDS)
    if work.hypervisor.running(remove.instance):
        log.warning(
            "drain deadline exceeded, destroying", instance=remove.instance, deadline_seconds=remove.deadline_seconds
        )


def _destroy(work: Work) -> None:
    work.hypervisor.destroy(work.intent.action.instance)


def _run_hooks(work: Work) -> None:
    """Run the hooks one after another; the drain goes on whatever becomes of them."""
    drain = work.drain
    leaving = Leaving(drain, work.hypervisor, work.time.pause)
    for hook in drain.hooks:
        complaint = work.run_hook(hook, leaving)
        said = {"group": drain.group, "instance": drain.instance, "hook": name_of(hook)}
        if complaint is None:
            log.info("drain hook done", **said)
        else:
            log.warning("drain hook failed, the drain goes on", **said, why=complaint)


def _note_volumes(work: Work) -> None:
    """Put what the domain still refers to into a ledger that may have been lost."""
    for volume in work.hypervisor.volumes_of(work.remove.instance):
        work.journal.add_volume(volume, work.time.now())


def _undefine(work: Work) -> None:
    work.hypervisor.undefine(work.intent.action.instance)


CLONE_STEPS = (
    Step("validate", _validate),
    Step("overlay", _create_overlay, _delete_volumes),
    Step("seed", _create_seed, _delete_volumes),
    Step("define", _define, _undefine),
    Step("start", _start, _destroy),
)
REMOVE_STEPS = (
    Step("shutdown", _shut_down),
    Step("destroy", _destroy),
    Step("note_volumes", _note_volumes),
    # The domain goes last: as long as it is listed, a removal that failed is seen and done again.
    Step("delete_volumes", _delete_volumes),
    Step("undefine", _undefine),
)
# Nothing to undo: an instance that could not be started is as it was before.
START_STEPS = (Step("start", _start),)
# Nothing to undo: what is not deleted yet is left over as before, and found again.
COLLECT_STEPS = (Step("unused", _refuse_used), Step("delete_volumes", _delete_volumes))
# Nothing to undo: an instance that was drained is removed, or taken back by whoever hears of the transition.
DRAIN_STEPS = (Step("hooks", _run_hooks),)
STEPS: Mapping[type[Action], tuple[Step, ...]] = {
    Clone: CLONE_STEPS,
    Drain: DRAIN_STEPS,
    Remove: REMOVE_STEPS,
    Start: START_STEPS,
    Collect: COLLECT_STEPS,
}
"""Everything that is ever done to a host. What is not a step here changes nothing anywhere."""


def carry_out(work: Work) -> bool:
    """Do one action, write how it ended, and tell whether it has ended.

    Raises StoreError when the journal cannot be written.
    """
    steps = STEPS[type(work.intent.action)]
    begun: list[Step] = []
    try:
        for step in steps:
            begun.append(step)
            work.journal.begin_step(work.intent.id, step.name, work.time.now())
            step.do(work)
            work.journal.end_step(work.intent.id, step.name, work.time.now())
    except HypervisorError as error:
        return _fail(work, begun, Failure(error.kind, str(error)))
    except StoppingError:
        log.info("action left for the next start", instance=work.intent.action.instance, step=begun[-1].name)
        return False
    return _end(work, IntentState.DONE, None)


def settle(flight: InFlight, work: Work) -> bool:
    """Finish or undo an intent left open by a crash, or whose call had an unknown outcome, after a good listing.

    Tells whether it has ended. One whose call has still not returned is left: the call may yet take effect.
    """
    instance = work.intent.action.instance
    if work.hypervisor.busy_with(instance):
        return False
    if isinstance(flight.intent.action, Remove | Drain | Collect):
        # Hooks are run at least once, and so again where nobody knows how far they had come.
        return carry_out(work)
    try:
        running = work.hypervisor.running(instance)
    except HypervisorError as error:
        log.warning("action cannot be settled yet", instance=instance, error=str(error))
        return False
    if running:
        return _end(work, IntentState.DONE, None)
    return _undo(work, list(STEPS[type(work.intent.action)]), flight.failure or _INTERRUPTED)


_INTERRUPTED = Failure(HypervisorErrorKind.INTERRUPTED, "interrupted, what had been begun was undone")


def _fail(work: Work, begun: list[Step], failure: Failure) -> bool:
    action = work.intent.action
    log.error(
        "action failed",
        action=type(action).__name__.lower(),
        group=action.group,
        instance=action.instance,
        step=begun[-1].name,
        kind=failure.kind.value,
        error=failure.message,
    )
    if failure.kind in _OUTCOME_UNKNOWN:
        work.journal.mark_unknown(work.intent.id, work.time.now(), failure)
        return False
    return _undo(work, begun, failure)


def _undo(work: Work, begun: list[Step], failure: Failure) -> bool:
    try:
        for step in reversed(begun):
            if step.undo is not None:
                work.journal.begin_step(work.intent.id, f"undo {step.name}", work.time.now())
                step.undo(work)
                work.journal.end_step(work.intent.id, f"undo {step.name}", work.time.now())
    except HypervisorError as error:
        log.error("undo failed, tried again later", instance=work.intent.action.instance, error=str(error))  # noqa: TRY400 - an operator's error, not a bug
        work.journal.mark_unknown(work.intent.id, work.time.now(), failure)
        return False
    return _end(work, IntentState.FAILED, failure)


def _end(work: Work, state: IntentState, failure: Failure | None) -> bool:
    work.journal.end_intent(work.intent.id, state, work.time.now(), failure)
    action = work.intent.action
    if state is IntentState.DONE:
        log.info(
            "action done",
            action=type(action).__name__.lower(),
            group=action.group,
            instance=action.instance,
            seconds=round(work.time.now() - work.intent.at, 3),
        )
    return True


class Executor:
    """Workers per host, bounded, in daemon threads: a stuck one cannot keep the process from ending.

    Drains and removals have workers of their own: guests that take their time to leave hold up no clone.
    """

    def __init__(
        self,
        hypervisors: Mapping[str, Hypervisor],
        journal: Journal,
        *,
        now: Callable[[], float],
        workers_per_host: int,
        on_end: Callable[[], None],
        on_bug: Callable[[BaseException], None],
        run_hook: Runner = run_nothing,
    ) -> None:
        self._hypervisors = hypervisors
        self._journal = journal
        self._stopping = threading.Event()
        self._time = Time(now, self._pause)
        self._on_end = on_end
        self._on_bug = on_bug
        self._run_hook = run_hook
        self._queues: dict[tuple[str, bool], queue.SimpleQueue[Callable[[], bool]]] = {}
        self._active: set[int] = set()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        for line in ((host, removes) for host in hypervisors for removes in (False, True)):
            self._queues[line] = queue.SimpleQueue()
            for number in range(workers_per_host):
                name = f"{line[0]} {'remove' if line[1] else 'launch'} {number}"
                threading.Thread(target=self._run, args=(self._queues[line],), name=name, daemon=True).start()

    def submit(self, intents: Iterable[Intent]) -> None:
        """Hand new intents to the workers; returns at once."""
        for intent in intents:
            work = self._work(intent)
            self._enqueue(intent, lambda work=work: carry_out(work))  # type: ignore[misc]

    def settle(self, flights: Iterable[InFlight]) -> None:
        """Hand intents of unknown outcome, or left open by an earlier process, to the workers; returns at once."""
        for flight in flights:
            work = self._work(flight.intent)
            self._enqueue(flight.intent, lambda flight=flight, work=work: settle(flight, work))  # type: ignore[misc]

    def adopt(self) -> None:
        """Put the volumes of all our instances into a ledger that was lost; nothing is changed on a host.

        Raises HypervisorError when a host does not answer.
        """
        for hypervisor in self._hypervisors.values():
            for domain in hypervisor.inventory().domains:
                owner = domain.ownership
                if owner is not None and owner.controller == self._journal.controller:
                    for volume in hypervisor.volumes_of(owner.instance):
                        self._journal.add_volume(volume, self._time.now())

    def active(self) -> frozenset[int]:
        """Give the ids of the intents a worker has or will take."""
        with self._lock:
            return frozenset(self._active)

    def stop(self, deadline_seconds: float) -> bool:
        """Begin no more actions and wait for those under way; False when some were still running at the deadline."""
        self._stopping.set()
        with self._idle:
            return self._idle.wait_for(lambda: not self._active, deadline_seconds)

    def _work(self, intent: Intent) -> Work:
        return Work(intent, self._hypervisors[intent.action.host], self._journal, self._time, self._run_hook)

    def _enqueue(self, intent: Intent, job: Callable[[], bool]) -> None:
        with self._lock:
            if intent.id in self._active:
                return
            self._active.add(intent.id)

        def run() -> bool:
            try:
                return not self._stopping.is_set() and job()
            finally:
                with self._idle:
                    self._active.discard(intent.id)
                    self._idle.notify_all()

        self._queues[intent.action.host, isinstance(intent.action, Remove | Drain | Collect)].put(run)

    def _run(self, jobs: queue.SimpleQueue[Callable[[], bool]]) -> None:
        while True:
            job = jobs.get()
            try:
                # What has not ended is looked at again by the next regular tick, not at once and over and over.
                if job():
                    self._on_end()
            except StoreError as error:
                # Nothing acts that was not noted before. The intent stays open, and a later tick settles it.
                log.error("action left where it is: the journal cannot be written", error=str(error))  # noqa: TRY400
            except BaseException as error:  # noqa: BLE001 - a bug ends the daemon, from its main thread
                self._on_bug(error)
                return

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise StoppingError
