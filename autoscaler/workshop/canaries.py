"""Tries an image: two guests of it at once, made and removed by the executor's own steps, and asked what they are.

The journal is the workshop's own. Whatever is in it at the start was left by a run that was killed, and is removed.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoscaler.core.action import Action, Clone, Collect, IntentState, Remove
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Domain, DomainState, Observation
from autoscaler.core.policy import USER_NETWORK, Image, Machine
from autoscaler.core.ports import VolumeRef
from autoscaler.executor import Executor
from autoscaler.hypervisor import ImageStore, Inspection, LibvirtHypervisor, is_local
from autoscaler.images.canaries import QUESTION, Canary, Inside, read_answer
from autoscaler.store import Journal, TickRecord
from autoscaler.workshop.interrupts import held_back

GROUP = "autoscaler-canary"
COPY = "autoscaler-image-on-trial"
"""Names the volume that a file is copied to."""
COUNT = 2
_REASON = "canary"
_POLL_SECONDS = 0.25
_ADDRESS_SECONDS = 20.0
"""How long a guest may take to have an address once it is ready, and its SSH host keys."""
_ASK_SECONDS = 10.0
_ACTION_SECONDS = 180.0
_ON = frozenset({DomainState.RUNNING, DomainState.PAUSED})


@dataclass(frozen=True, slots=True)
class Trial:
    """How an image is tried, and where; the host is named by its libvirt URI."""

    host: str
    machine: Machine
    within_seconds: float


class Canaries:
    """The canaries of one journal; every method raises HypervisorError and StoreError."""

    def __init__(self, journal: Journal, host: str) -> None:
        """Open the host, and those on which earlier runs left something."""
        self._journal = journal
        hosts = {host, *(each.host for each in journal.volumes()), *_hosts_in_flight(journal)}
        self._hypervisors: Mapping[str, LibvirtHypervisor] = {
            each: LibvirtHypervisor(each, each, journal.controller, recall=journal.recall, remember=journal.remember)
            for each in sorted(hosts)
        }
        self._bug: BaseException | None = None
        self._ended = threading.Event()
        self._executor = Executor(
            self._hypervisors,
            journal,
            now=time.time,
            workers_per_host=COUNT,
            on_end=self._ended.set,
            on_bug=self._break,
        )

    def close(self) -> None:
        """Let the connections go."""
        for each in self._hypervisors.values():
            each.close()

    def run(self, source: Path | Image, pool: str, trial: Trial) -> tuple[Canary, ...]:
        """Start the canaries, wait until they are ready, ask them, and remove them whatever becomes of it.

        A file that is no volume of the host is copied into the pool for that time.
        """
        try:
            image = source if isinstance(source, Image) else self._brought(source, pool, trial.host)
            failures = self._launch(image, trial)
            if failures:
                return tuple(Canary(instance, failure) for instance, failure in failures.items())
            return self._watch(trial, time.monotonic())
        finally:
            with held_back():
                self.clear()

    def clear(self) -> tuple[str, ...]:
        """Remove all that this journal knows of, and name it. Raises HypervisorError where something stays."""
        self._wait()
        self._executor.settle(self._journal.in_flight())
        self._wait()
        left = self._left()
        failures = self._do([Remove(GROUP, host, instance, _REASON, 0.0) for host, instance in left])
        under = sorted({(each.host, each.instance) for each in self._journal.volumes()} - set(left))
        # What they stand on goes after them.
        failures |= self._do([Collect(GROUP, host, instance) for host, instance in under])
        if failures:
            raise HypervisorError(
                HypervisorErrorKind.FAILED,
                "what was made to try an image could not all be removed, and the next try does it again: "
                + "; ".join(f"{instance}: {why}" for instance, why in failures.items()),
            )
        return tuple(instance for _, instance in (*left, *under))

    def _brought(self, file: Path, pool: str, host: str) -> Image:
        """Give the volume that a file is, or make one of it, which is in the ledger from before it is there."""
        inspection = Inspection(host, host)
        try:
            found = inspection.image_at(file) if is_local(host) else None
        finally:
            inspection.close()
        return found or self._copied(file, VolumeRef(host, pool, f"{COPY}.qcow2", COPY))

    def _copied(self, file: Path, copy: VolumeRef) -> Image:
        self._journal.add_volume(copy, time.time())
        store = ImageStore(copy.host, copy.host)
        try:
            with file.open("rb") as content:
                store.upload(copy, content, file.stat().st_size, lambda _share: None)
        except BaseException as error:
            store.stop()
            with held_back():
                # Somebody else's volume of the same name is left alone.
                if not (isinstance(error, HypervisorError) and error.kind is HypervisorErrorKind.EXISTS):
                    # Waits until the transfer has let it go, as no step would.
                    store.delete(copy)
                self._journal.remove_volume(copy)
            raise
        finally:
            store.close()
        return Image(copy.pool, copy.name)

    def _launch(self, image: Image, trial: Trial) -> dict[str, str]:
        """Clone them all at once; gives the failures by instance."""
        stamp = f"{time.time_ns() // 1000 % 16**8:08x}"
        names = [f"{GROUP}-{stamp}-{number}" for number in range(1, COUNT + 1)]
        return self._do([Clone(GROUP, trial.host, name, image, trial.machine) for name in names])

    def _watch(self, trial: Trial, began: float) -> tuple[Canary, ...]:
        hypervisor = self._hypervisors[trial.host]
        hypervisor.watch_addresses(frozenset({GROUP}))
        seen = {name: Canary(name) for host, name in self._left() if host == trial.host}
        wants_addresses = trial.machine.network != USER_NETWORK
        end, settle = began + trial.within_seconds, None
        while time.monotonic() < (end if settle is None else settle):
            domains = self._ours(hypervisor)
            now = time.monotonic()
            seen = {name: _updated(each, domains.get(name), now - began) for name, each in seen.items()}
            if any(each.went_off for each in seen.values()):
                break
            if all(each.ready_seconds is not None for each in seen.values()):
                settle = settle or now + _ADDRESS_SECONDS
                seen = {name: _asked(hypervisor, each) for name, each in seen.items()}
                if all(_complete(each, wants_addresses=wants_addresses) for each in seen.values()):
                    break
            time.sleep(_POLL_SECONDS)
        return tuple(seen.values())

    def _left(self) -> list[tuple[str, str]]:
        """Name each canary, by host, of which there may be anything: a domain, an overlay, an action."""
        found = {(each.host, each.instance) for each in self._journal.volumes() if each.instance.startswith(GROUP)}
        found |= {(each.intent.action.host, each.intent.action.instance) for each in self._journal.in_flight()}
        for host, hypervisor in self._hypervisors.items():
            found |= {(host, instance) for instance in self._ours(hypervisor)}
        return sorted(found)

    def _ours(self, hypervisor: LibvirtHypervisor) -> dict[str, Domain]:
        owned = [(each.ownership, each) for each in hypervisor.inventory().domains if each.ownership is not None]
        return {owner.instance: each for owner, each in owned if owner.controller == self._journal.controller}

    def _do(self, actions: Sequence[Action]) -> dict[str, str]:
        """Commit actions, carry them out, and give what failed by instance."""
        if not actions:
            return {}
        at = time.time()
        observation = Observation(at, 1.0, outcomes=self._journal.outcomes())
        record = TickRecord(observation, (), (), Memory(self._journal.controller))
        intents = self._journal.commit_tick(record, actions)
        self._executor.submit(intents)
        self._wait()
        mine = {intent.id for intent in intents}
        failures = {
            each.intent.action.instance: each.failure.message
            for each in self._journal.outcomes()
            if each.intent.id in mine and each.state is IntentState.FAILED and each.failure is not None
        }
        for flight in self._journal.in_flight():
            if flight.intent.id in mine:
                why = "it did not end in time" if flight.failure is None else flight.failure.message
                failures[flight.intent.action.instance] = why
        return failures

    def _wait(self) -> None:
        """Wait until no worker has anything to do; whatever is still under way after long is left to the next run."""
        end = time.monotonic() + _ACTION_SECONDS
        while self._executor.active() and time.monotonic() < end:
            self._ended.wait(_POLL_SECONDS)
            self._ended.clear()
            if self._bug is not None:
                raise self._bug

    def _break(self, bug: BaseException) -> None:
        self._bug = bug
        self._ended.set()


def _hosts_in_flight(journal: Journal) -> set[str]:
    return {each.intent.action.host for each in journal.in_flight()}


def _updated(canary: Canary, domain: Domain | None, seconds: float) -> Canary:
    if domain is None or domain.state not in _ON:
        return canary if canary.ready_seconds is not None else replace(canary, went_off=True)
    ready = canary.ready_seconds
    if ready is None and domain.answers:
        ready = seconds
    return replace(canary, ready_seconds=ready, addresses=domain.addresses or canary.addresses)


def _asked(hypervisor: LibvirtHypervisor, canary: Canary) -> Canary:
    """Ask what it is inside, unless it told all of that before."""
    if _told_all(canary.inside):
        return canary
    try:
        run = hypervisor.run_in_guest(canary.instance, QUESTION, _ASK_SECONDS)
    except HypervisorError as error:
        return replace(canary, refused=str(error))
    if run.exit_code != 0:
        return replace(canary, refused=f"a command ended with {run.exit_code}")
    return replace(canary, inside=read_answer(run.output), refused=None)


def _told_all(inside: Inside | None) -> bool:
    return inside is not None and (bool(inside.host_keys) or not inside.has_sshd)


def _complete(canary: Canary, *, wants_addresses: bool) -> bool:
    addressed = bool(canary.addresses) or not wants_addresses
    return addressed and (_told_all(canary.inside) or canary.refused is not None)
