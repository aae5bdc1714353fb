"""How one tick becomes rows."""

import hashlib
import sqlite3
import zlib
from dataclasses import dataclass

from autoscaler.codec import canonical
from autoscaler.core.action import Action, Intent, IntentState
from autoscaler.core.decision import Decision
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Policy
from autoscaler.core.transition import Transition
from autoscaler.store.records import TickRecord

INSTANCE_EVENT = "instance"
"""The kind of the events that tell the transitions of instances."""

_MINUTE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class EncodedTick:
    """A tick as text and compressed text, made before the database is locked."""

    at: float
    duration_seconds: float
    policies: str
    revision: str
    """SHA-256 of the policies' canonical JSON, under which they are kept once."""
    observation: bytes
    decisions: bytes
    memory: str

    @classmethod
    def of(cls, record: TickRecord) -> "EncodedTick":
        """Encode a tick."""
        policies = canonical(record.policies, tuple[Policy, ...])
        return cls(
            at=float(record.observation.at),
            duration_seconds=record.duration_seconds,
            policies=policies,
            revision=hashlib.sha256(policies.encode()).hexdigest(),
            observation=compress(canonical(record.observation)),
            decisions=compress(canonical(record.decisions, tuple[Decision, ...])),
            memory=canonical(record.memory),
        )


def compress(text: str) -> bytes:
    """Compress text for a blob."""
    return zlib.compress(text.encode())


def insert_tick(connection: sqlite3.Connection, tick: EncodedTick, memory_before: bytes | None) -> None:
    """Write the raw tick, and its policies when they are new."""
    connection.execute(
        "INSERT INTO policies (sha256, body) VALUES (?, ?) ON CONFLICT DO NOTHING", (tick.revision, tick.policies)
    )
    connection.execute(
        "INSERT INTO ticks (at, duration_seconds, policies, observation, decisions, memory_before) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (tick.at, tick.duration_seconds, tick.revision, tick.observation, tick.decisions, memory_before),
    )


def replace_memory(connection: sqlite3.Connection, tick: EncodedTick) -> None:
    """Put the tick's memory in the place of the one before."""
    connection.execute(
        "INSERT INTO memory (id, body) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
        (tick.memory,),
    )


def consume(connection: sqlite3.Connection, observation: Observation) -> None:
    """Mark what the tick observed, so that no later one observes it again."""
    at = observation.at
    connection.executemany(
        "UPDATE intents SET consumed_at = ? WHERE id = ?", [(at, outcome.intent.id) for outcome in observation.outcomes]
    )
    connection.executemany(
        "UPDATE requests SET consumed_at = ? WHERE id = ?", [(at, request.id) for request in observation.requests]
    )


def insert_intent(connection: sqlite3.Connection, at: float, action: Action) -> Intent:
    """Write an action down as an open intent."""
    id_ = connection.execute(
        "INSERT INTO intents (at, action, state, state_at) VALUES (?, ?, ?, ?)",
        (at, canonical(action, Action), IntentState.OPEN.value, at),
    ).lastrowid
    assert id_ is not None
    return Intent(id_, at, action)


def note_change(connection: sqlite3.Connection, decision: Decision) -> None:
    """Keep the decision for long if its counts or reason codes are not those of the group's row before."""
    result = _result(decision)
    before = connection.execute(
        'SELECT result FROM decisions WHERE "group" = ? ORDER BY id DESC LIMIT 1', (decision.group,)
    ).fetchone()
    if before is not None and before[0] == result:
        return
    connection.execute(
        'INSERT INTO decisions (at, "group", recommended, desired, admitted, result, body) '
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            decision.at,
            decision.group,
            decision.recommended,
            decision.desired,
            decision.admitted,
            result,
            canonical(decision),
        ),
    )


def note_transition(connection: sqlite3.Connection, transition: Transition) -> None:
    """Keep what happened to an instance as an event."""
    detail: dict[str, str | int | float] = {
        "host": transition.host,
        "before": transition.before.value if transition.before is not None else "",
        "after": transition.after.value,
        "reason": transition.reason.value,
    }
    connection.execute(
        'INSERT INTO events (at, kind, "group", instance, detail) VALUES (?, ?, ?, ?, ?)',
        (float(transition.at), INSTANCE_EVENT, transition.group, transition.instance, canonical(detail)),
    )


def _result(decision: Decision) -> str:
    # The reasons' parameters are left out: they follow the load and differ at every tick.
    counts = (decision.current, decision.recommended, decision.desired, decision.admitted)
    wishes = [(wish.strategy, wish.count, wish.reason.code) for wish in decision.recommendations]
    return canonical((*counts, wishes, [reason.code for reason in decision.reasons]))


def roll_up(connection: sqlite3.Connection, decision: Decision) -> None:
    """Add each measured load of the group to its minute."""
    minute = int(decision.at // _MINUTE_SECONDS * _MINUTE_SECONDS)
    connection.executemany(
        'INSERT INTO rollups ("group", metric, minute, samples, avg, min, max, admitted) '
        "VALUES (?1, ?2, ?3, 1, ?4, ?4, ?4, ?5) "
        'ON CONFLICT ("group", metric, minute) DO UPDATE SET samples = samples + 1, '
        "avg = avg + (excluded.avg - avg) / (samples + 1), "
        "min = min(min, excluded.min), max = max(max, excluded.max), admitted = excluded.admitted",
        [(decision.group, name, minute, value, decision.admitted) for name, value in _loads(decision).items()],
    )


def _loads(decision: Decision) -> dict[str, float]:
    """Name each figure by its metric, its query or pool, and how instances became one; of several windows the first."""
    loads: dict[str, float] = {}
    for each in decision.inputs:
        name = each.source or each.metric
        if each.value is not None:
            loads.setdefault(name if each.across == "avg" else f"{name} ({each.across})", each.value)
    return loads
