"""The journal: what was seen, decided and begun, and what must not be forgotten.

One SQLite file with one writing connection. The tick commits before anything acts; a commit that fails leaves nothing.
"""

import sqlite3
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar, cast

import cattrs

from autoscaler.codec import canonical, parse
from autoscaler.core.action import Action, Failure, InFlight, Intent, IntentState, Outcome
from autoscaler.core.decision import Decision
from autoscaler.core.errors import StoreError
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Change, Observation, Request
from autoscaler.core.policy import Policy
from autoscaler.core.ports import VolumeRef
from autoscaler.store.database import MOVE_ASIDE, Database
from autoscaler.store.images import ImageTables
from autoscaler.store.lock import CONTROLLER, StateLock, make_directory, read_controller, write_controller
from autoscaler.store.records import Event, History, Pending, ReplayTick, Rollup, Step, TickRecord
from autoscaler.store.retention import CAP_BYTES, prune
from autoscaler.store.rollups import put_together, span_of
from autoscaler.store.ticks import (
    EncodedTick,
    compress,
    consume,
    insert_intent,
    insert_tick,
    note_change,
    note_transition,
    replace_memory,
    roll_up,
)

FILE = "journal.sqlite3"
LEDGER_LOST = "ledger_lost"
"""The fact that is recalled as "yes" when this journal was begun anew by a controller that already had one."""
_LOST, _ACCEPTED = "yes", "accepted"

CHECKPOINT_TICKS = 360
_ENDED = frozenset({IntentState.DONE, IntentState.FAILED})
_REPLAY_BATCH = 50
_LIMIT = 1000
_CHANGES = 200
"""The most changes a history tells."""

T = TypeVar("T")
_ACTION = cast("type[Action]", Action)

_PENDING_INTENTS = """
    SELECT intents.id, at, action, state, state_at, failure,
        (SELECT name FROM steps WHERE intent = intents.id ORDER BY steps.id DESC LIMIT 1)
    FROM intents WHERE consumed_at IS NULL ORDER BY intents.id
"""


class Journal:
    """The daemon's journal. Every method may be called from any thread; StoreError when it cannot do its work."""

    def __init__(self, database: Database, controller: str) -> None:
        """Lean on `open`, `open_readonly` or `in_memory` instead."""
        self.controller = controller
        """The controller's UUID, made once per state directory."""
        self.images = ImageTables(database)
        """The catalog of golden images."""
        self._database = database
        self._lock: StateLock | None = None
        # Where the next opening begins: the first tick after it is a checkpoint.
        self._ticks_before = self._last_tick()

    @classmethod
    def open(cls, state_dir: Path) -> "Journal":
        """Open the journal for the one daemon of this state directory, both made if they are not there.

        Raises StoreError when another daemon uses it, it cannot be written, or the journal is corrupt or newer.
        """
        make_directory(state_dir)
        with ExitStack() as undo:
            lock = StateLock(state_dir)
            undo.callback(lock.release)
            known = read_controller(state_dir)
            _refuse_emptied(state_dir / FILE, known)
            facts = {LEDGER_LOST: _LOST} if known is not None else {}
            database = Database(str(state_dir / FILE), str(state_dir / FILE), facts=facts)
            undo.callback(database.close)
            controller = _identify(database, known, state_dir)
            if known is None:
                write_controller(state_dir, controller)
            journal = cls(database, controller)
            journal._lock = lock
            undo.pop_all()
        return journal

    @classmethod
    def open_readonly(cls, state_dir: Path) -> "Journal":
        """Open the journal to look at, beside a daemon or without one; methods that write raise StoreError."""
        path = state_dir / FILE
        controller = read_controller(state_dir)
        if controller is None or not path.is_file():
            raise StoreError(f"{path}: there is no journal. Start the daemon once, or name its configuration.")
        return cls(Database(f"{path.absolute().as_uri()}?mode=ro", str(path), facts=None), controller)

    @classmethod
    def in_memory(cls, controller: str | None = None) -> "Journal":
        """Make a journal that is gone when it is closed, for simulations."""
        return cls(Database(":memory:", "journal in memory", facts={}), controller or str(uuid.uuid4()))

    def close(self) -> None:
        """Close the journal and give the state directory free; calling it twice is no error."""
        self._database.close()
        if self._lock is not None:
            self._lock.release()

    # What a tick reads.

    def load_memory(self) -> Memory:
        """Read what the last committed tick left; a fresh memory where there was none."""
        with self._database.reading("read the memory") as connection:
            text = _memory_text(connection)
        return Memory(controller=self.controller) if text is None else self._parse(text, Memory)

    def pending(self) -> Pending:
        """Read in-flight intents, new outcomes and requests at one moment."""
        with self._database.reading("read what is pending") as connection:
            intents = connection.execute(_PENDING_INTENTS).fetchall()
            requests = connection.execute(
                'SELECT id, at, "by", "group", change, count, for_seconds, instance FROM requests '
                "WHERE consumed_at IS NULL ORDER BY id"
            ).fetchall()
            ledger = _ledger(connection, None)
            lost = connection.execute("SELECT value FROM facts WHERE key = ?", (LEDGER_LOST,)).fetchone() == (_LOST,)
        in_flight, outcomes = [], []
        for id_, at, action, state_text, state_at, failure, step in intents:
            intent = Intent(id_, at, self._parse(action, _ACTION))
            state = IntentState(state_text)
            if state in _ENDED:
                outcomes.append((state_at, id_, Outcome(intent, state, state_at, self._failure(failure))))
            else:
                in_flight.append(InFlight(intent, state, step, self._failure(failure)))
        ordered = tuple(outcome for _, _, outcome in sorted(outcomes, key=lambda each: each[:2]))
        return Pending(tuple(in_flight), ordered, tuple(_request(row) for row in requests), ledger, lost)

    def in_flight(self) -> tuple[InFlight, ...]:
        """List the intents that have not ended, each with the last step it began."""
        return self.pending().in_flight

    def outcomes(self) -> tuple[Outcome, ...]:
        """List the intents that ended and no tick has observed yet, in the order they ended."""
        return self.pending().outcomes

    def requests(self) -> tuple[Request, ...]:
        """List the operators' requests that no tick has observed yet, oldest first."""
        return self.pending().requests

    # What a tick writes.

    def commit_tick(self, record: TickRecord, actions: Sequence[Action]) -> tuple[Intent, ...]:
        """Commit one tick whole: its inputs and results, an intent for each action, and what it observed as consumed.

        Returns the intents in the actions' order. Raises StoreError, with nothing committed: then nothing may be done,
        and the memory before this tick still holds.
        """
        tick = EncodedTick.of(record)
        with self._database.writing("commit a tick") as connection:
            insert_tick(connection, tick, self._checkpoint(connection))
            replace_memory(connection, tick)
            consume(connection, record.observation)
            for decision in record.decisions:
                note_change(connection, decision)
                roll_up(connection, decision)
            for transition in record.transitions:
                note_transition(connection, transition)
            return tuple(insert_intent(connection, tick.at, action) for action in actions)

    def _checkpoint(self, connection: sqlite3.Connection) -> bytes | None:
        last = _max_id(connection, "SELECT max(id) FROM ticks")
        checkpointed = _max_id(connection, "SELECT max(id) FROM ticks WHERE memory_before IS NOT NULL")
        if self._ticks_before < checkpointed and last + 1 - checkpointed < CHECKPOINT_TICKS:
            return None
        return compress(_memory_text(connection) or canonical(Memory(controller=self.controller)))

    def _last_tick(self) -> int:
        with self._database.reading("read the ticks") as connection:
            return _max_id(connection, "SELECT max(id) FROM ticks")

    # Operators.

    def add_request(
        self,
        at: float,
        by: str,
        group: str,
        change: Change,
        count: int | None = None,
        for_seconds: float | None = None,
        instance: str | None = None,
    ) -> Request:
        """Keep an operator's request until a tick has taken it."""
        with self._database.writing("keep a request") as connection:
            id_ = connection.execute(
                'INSERT INTO requests (at, "by", "group", change, count, for_seconds, instance) '
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (at, by, group, change.value, count, for_seconds, instance),
            ).lastrowid
        assert id_ is not None
        return Request(id_, at, by, group, change, count, for_seconds, instance)

    # The executor.

    def begin_step(self, intent_id: int, step: str, at: float) -> None:
        """Note that a step of an intent begins; to be called before it touches anything."""
        with self._database.writing("begin a step") as connection:
            self._require_pending(connection, intent_id)
            connection.execute("INSERT INTO steps (intent, name, begun_at) VALUES (?, ?, ?)", (intent_id, step, at))

    def end_step(self, intent_id: int, step: str, at: float) -> None:
        """Note that the step, begun last under this name, ended."""
        with self._database.writing("end a step") as connection:
            ended = connection.execute(
                "UPDATE steps SET ended_at = ? WHERE ended_at IS NULL AND id = "
                "(SELECT max(id) FROM steps WHERE intent = ? AND name = ?)",
                (at, intent_id, step),
            )
            if not ended.rowcount:
                raise StoreError(f"{self._database.name}: intent {intent_id} has no step {step!r} under way.")

    def steps(self, intent_id: int) -> tuple[Step, ...]:
        """List the steps of an intent in the order they began."""
        with self._database.reading("read the steps") as connection:
            rows = connection.execute(
                "SELECT name, begun_at, ended_at FROM steps WHERE intent = ? ORDER BY id", (intent_id,)
            ).fetchall()
        return tuple(Step(*row) for row in rows)

    def end_intent(self, intent_id: int, state: IntentState, at: float, failure: Failure | None = None) -> None:
        """Note how an intent ended; the next tick observes it. `state` is DONE or FAILED."""
        if state not in _ENDED:
            raise ValueError(f"an intent does not end as {state}")
        self._set_state(intent_id, state, at, failure)

    def mark_unknown(self, intent_id: int, at: float, failure: Failure) -> None:
        """Note that nobody knows what became of an intent; it stays in flight until `end_intent`."""
        self._set_state(intent_id, IntentState.UNKNOWN, at, failure)

    def _set_state(self, intent_id: int, state: IntentState, at: float, failure: Failure | None) -> None:
        text = None if failure is None else canonical(failure)
        with self._database.writing("note an intent's state") as connection:
            self._require_pending(connection, intent_id)
            connection.execute(
                "UPDATE intents SET state = ?, state_at = ?, failure = ? WHERE id = ?",
                (state.value, at, text, intent_id),
            )

    def _require_pending(self, connection: sqlite3.Connection, intent_id: int) -> None:
        row = connection.execute("SELECT state FROM intents WHERE id = ?", (intent_id,)).fetchone()
        if row is None or IntentState(row[0]) in _ENDED:
            what = "is not in it" if row is None else f"has already ended ({row[0]})"
            raise StoreError(f"{self._database.name}: intent {intent_id} {what}.")

    # The ledger.

    def add_volume(self, volume: VolumeRef, at: float) -> None:
        """Write into the ledger that this volume is ours; to be called before it is made."""
        with self._database.writing("write the ledger") as connection:
            connection.execute(
                "INSERT INTO volumes (host, pool, name, instance, at) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (host, pool, name) DO UPDATE SET instance = excluded.instance, at = excluded.at",
                (volume.host, volume.pool, volume.name, volume.instance, at),
            )

    def remove_volume(self, volume: VolumeRef) -> None:
        """Strike the volume from the ledger, after it was deleted; one that is not there is no error."""
        with self._database.writing("write the ledger") as connection:
            connection.execute(
                "DELETE FROM volumes WHERE host = ? AND pool = ? AND name = ?", (volume.host, volume.pool, volume.name)
            )

    def volumes(self, instance: str | None = None) -> tuple[VolumeRef, ...]:
        """List the ledger, of one instance or whole."""
        with self._database.reading("read the ledger") as connection:
            return _ledger(connection, instance)

    def accept_ledger(self) -> bool:
        """Take the ledger as it is for whole, after it was lost; tells whether it had been."""
        with self._database.writing("accept the ledger") as connection:
            accepted = connection.execute(
                "UPDATE facts SET value = ? WHERE key = ? AND value = ?", (_ACCEPTED, LEDGER_LOST, _LOST)
            )
            return bool(accepted.rowcount)

    # Facts and events.

    def remember(self, key: str, value: str) -> None:
        """Keep a fact, in place of an earlier one of the same key."""
        with self._database.writing("keep a fact") as connection:
            connection.execute(
                "INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def recall(self, key: str) -> str | None:
        """Read a fact; None where none was kept."""
        with self._database.reading("read a fact") as connection:
            row = connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def add_event(
        self,
        at: float,
        kind: str,
        group: str | None = None,
        instance: str | None = None,
        detail: Mapping[str, str | int | float] | None = None,
    ) -> None:
        """Keep an event for 90 days."""
        text = canonical(detail or {}, Mapping[str, str | int | float])
        with self._database.writing("keep an event") as connection:
            connection.execute(
                'INSERT INTO events (at, kind, "group", instance, detail) VALUES (?, ?, ?, ?, ?)',
                (at, kind, group, instance, text),
            )

    def events(
        self, since: float | None = None, group: str | None = None, limit: int = _LIMIT, after: int = 0
    ) -> tuple[Event, ...]:
        """List the newest `limit` events, oldest of them first; `after` is an id that theirs are greater than."""
        with self._database.reading("read the events") as connection:
            rows = connection.execute(
                'SELECT id, at, kind, "group", instance, detail FROM events '
                'WHERE (?1 IS NULL OR at >= ?1) AND (?2 IS NULL OR "group" = ?2) AND id > ?4 '
                "ORDER BY at DESC, id DESC LIMIT ?3",
                (since, group, limit, after),
            ).fetchall()
        return tuple(
            Event(id_, at, kind, of_group, instance, self._parse(detail, dict[str, str | int | float]))
            for id_, at, kind, of_group, instance, detail in reversed(rows)
        )

    # What was decided.

    def decision_at(self, group: str, at: float | None = None) -> Decision | None:
        """Read the group's latest decision, or the one in force at `at`; beyond 24 h the last that was a change."""
        with self._database.reading("read a decision") as connection:
            if at is None:
                tick = connection.execute("SELECT decisions FROM ticks ORDER BY id DESC LIMIT 1").fetchone()
            else:
                tick = connection.execute(
                    "SELECT decisions FROM ticks WHERE at <= ? ORDER BY at DESC, id DESC LIMIT 1", (at,)
                ).fetchone()
            change = connection.execute(
                'SELECT body FROM decisions WHERE "group" = ?1 AND (?2 IS NULL OR at <= ?2) '
                "ORDER BY at DESC, id DESC LIMIT 1",
                (group, at),
            ).fetchone()
        decisions = () if tick is None else self._parse(self._expand(tick[0]), tuple[Decision, ...])
        found = next((decision for decision in decisions if decision.group == group), None)
        if found is not None or change is None:
            return found
        return self._parse(change[0], Decision)

    def decisions(self, group: str, since: float | None = None, limit: int = _LIMIT) -> tuple[Decision, ...]:
        """List the newest `limit` decisions of a group that differed from the one before, oldest of them first."""
        with self._database.reading("read the decisions") as connection:
            rows = connection.execute(
                'SELECT body FROM decisions WHERE "group" = ?1 AND (?2 IS NULL OR at >= ?2) '
                "ORDER BY at DESC, id DESC LIMIT ?3",
                (group, since, limit),
            ).fetchall()
        return tuple(self._parse(row[0], Decision) for row in reversed(rows))

    def rollups(self, group: str, metric: str, since: float | None = None) -> tuple[Rollup, ...]:
        """List a group's load minute by minute, oldest first."""
        with self._database.reading("read the roll-ups") as connection:
            rows = connection.execute(
                "SELECT minute, samples, avg, min, max, admitted FROM rollups "
                'WHERE "group" = ?1 AND metric = ?2 AND (?3 IS NULL OR minute >= ?3) ORDER BY minute',
                (group, metric, since),
            ).fetchall()
        return tuple(Rollup(*row) for row in rows)

    def history(self, group: str, since: float, until: float) -> History:
        """Tell what became of a group; its loads over at most `MAX_SPANS` equal spans of whole minutes."""
        with self._database.reading("read the roll-ups") as connection:
            metrics = connection.execute(
                'SELECT DISTINCT metric FROM rollups WHERE "group" = ? AND minute >= ? ORDER BY metric', (group, since)
            ).fetchall()
        span_seconds = span_of(since, until)
        loads = {metric: put_together(self.rollups(group, metric, since), span_seconds) for (metric,) in metrics}
        return History(group, since, until, self.decisions(group, since, _CHANGES), loads, span_seconds)

    def replay(self) -> Iterator[ReplayTick]:
        """Yield every raw tick in the order they were committed; a replay can begin at one with `memory_before`."""
        last = 0
        while True:
            with self._database.reading("read the ticks") as connection:
                rows = connection.execute(
                    "SELECT id, body, observation, decisions, memory_before "
                    "FROM ticks JOIN policies ON ticks.policies = sha256 WHERE id > ? ORDER BY id LIMIT ?",
                    (last, _REPLAY_BATCH),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            yield from (self._replay_tick(*row) for row in rows)

    def _replay_tick(
        self, id_: int, policies: str, observation: bytes, decisions: bytes, memory_before: bytes | None
    ) -> ReplayTick:
        return ReplayTick(
            id=id_,
            policies=self._parse(policies, tuple[Policy, ...]),
            observation=self._parse(self._expand(observation), Observation),
            memory_before=None if memory_before is None else self._parse(self._expand(memory_before), Memory),
            decisions_json=self._expand(decisions),
        )

    # Upkeep.

    def prune(self, at: float, cap_bytes: int = CAP_BYTES) -> None:
        """Drop raw ticks older than 24 h at `at`, roll-ups 8 days, the rest 90 days; then the oldest above the cap."""
        prune(self._database, at, cap_bytes)

    def _parse(self, text: str, as_type: type[T]) -> T:
        try:
            return parse(text, as_type)
        except (cattrs.BaseValidationError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(f"{as_type}") from error

    def _expand(self, blob: bytes) -> str:
        try:
            return zlib.decompress(blob).decode()
        except (zlib.error, ValueError) as error:
            raise self._unreadable("compressed data") from error

    def _failure(self, text: str | None) -> Failure | None:
        return None if text is None else self._parse(text, Failure)

    def _unreadable(self, what: str) -> StoreError:
        return StoreError(f"{self._database.name}: the journal holds {what} that cannot be read. {MOVE_ASIDE}.")


def _refuse_emptied(path: Path, controller: str | None) -> None:
    # SQLite takes an empty file for a new one. An empty one beside a controller, which is written last, was truncated.
    if controller is not None and path.is_file() and path.stat().st_size == 0:
        raise StoreError(f"{path}: the journal is empty: it was truncated. {MOVE_ASIDE}.")


def _identify(database: Database, known: str | None, state_dir: Path) -> str:
    """Tell the controller by its file; if that was lost, by the memory; else make one."""
    with database.reading("read the controller") as connection:
        row = connection.execute("SELECT body ->> '$.controller' FROM memory").fetchone()
    remembered = None if row is None else str(row[0])
    if known is not None and remembered is not None and known != remembered:
        raise StoreError(
            f"{database.name}: this journal is of controller {remembered}, but {state_dir / CONTROLLER} says {known}. "
            "Put back the one that was there before; guests carry the controller they belong to in their metadata."
        )
    return known or remembered or str(uuid.uuid4())


def _ledger(connection: sqlite3.Connection, instance: str | None) -> tuple[VolumeRef, ...]:
    rows = connection.execute(
        "SELECT host, pool, name, instance FROM volumes WHERE ?1 IS NULL OR instance = ?1 ORDER BY host, pool, name",
        (instance,),
    ).fetchall()
    return tuple(VolumeRef(*row) for row in rows)


def _memory_text(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT body FROM memory").fetchone()
    return None if row is None else str(row[0])


def _max_id(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0] or 0)


def _request(row: tuple[int, float, str, str, str, int | None, float | None, str | None]) -> Request:
    id_, at, by, group, change, count, for_seconds, instance = row
    return Request(id_, at, by, group, Change(change), count, for_seconds, instance)
