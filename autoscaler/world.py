"""The world as the controller meets it: observations in, actions out. Real and simulated hosts are met the same way."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from autoscaler.core.action import Action, InFlight, Intent
from autoscaler.core.leftovers import find_leftovers
from autoscaler.core.observation import HostInventory, Observation
from autoscaler.core.policy import Wanted
from autoscaler.core.ports import VolumeRef
from autoscaler.sampler import Sampler
from autoscaler.store import Journal, TickRecord


class Workers(Protocol):
    """Whoever carries actions out: the executor's threads, or the simulation in its own time."""

    def submit(self, intents: Iterable[Intent]) -> None:
        """Begin new intents."""
        ...

    def settle(self, flights: Iterable[InFlight]) -> None:
        """Finish or undo what was left open."""
        ...

    def active(self) -> frozenset[int]:
        """Give the ids of the intents that are being worked on."""
        ...


class World:
    """Sampler, journal and workers as one; `in_hand` gives volumes of the ledger that somebody else looks after."""

    def __init__(
        self,
        sampler: Sampler,
        journal: Journal,
        workers: Workers,
        leftover_grace_seconds: float = 600.0,
        in_hand: Callable[[], frozenset[VolumeRef]] = frozenset,
    ) -> None:
        self._in_hand = in_hand
        self._leftover_grace_seconds = leftover_grace_seconds
        self._sampler = sampler
        self._journal = journal
        self._workers = workers

    def observe(self, at: float, metrics: frozenset[str], wanted: Wanted | None = None) -> Observation:
        """Read everything one step may know: the counters that these metrics are made of, the room that is wanted.

        Raises StoreError when the journal cannot be read.

        The journal is read before the hosts: an action that ends in between is then seen twice, in flight and listed,
        and counted once; the other way round it would be seen nowhere and done again.
        """
        pending = self._journal.pending()
        seen = self._sampler.observe(at, metrics, wanted)
        seen = replace(seen, in_flight=pending.in_flight, outcomes=pending.outcomes, requests=pending.requests)
        return replace(
            seen,
            leftovers=find_leftovers(set(pending.ledger) - self._in_hand(), seen),
            leftover_grace_seconds=self._leftover_grace_seconds,
            ledger_lost=pending.ledger_lost,
        )

    def commit(self, record: TickRecord, actions: Sequence[Action]) -> tuple[Intent, ...]:
        """Commit a step's record with its actions as intents. Raises StoreError; nothing may be begun then."""
        return self._journal.commit_tick(record, actions)

    def begin(self, observation: Observation, intents: Sequence[Intent]) -> None:
        """Begin what was committed; returns without waiting for any of it.

        Intents that no worker has are settled, if their host could be listed after they had come to where they are.
        Raises StoreError when those cannot be read; the new ones are begun all the same.
        """
        active = self._workers.active()
        self._workers.submit(intents)
        readable = {host for host, inventory in observation.inventory.items() if isinstance(inventory, HostInventory)}
        before = {(flight.intent.id, flight.state) for flight in observation.in_flight}
        self._workers.settle(
            flight
            for flight in self._journal.in_flight()
            if (flight.intent.id, flight.state) in before
            and flight.intent.id not in active
            and flight.intent.action.host in readable
        )
