"""How long the journal keeps what, in small transactions, so that no tick waits long."""

from collections.abc import Mapping

from autoscaler.store.database import Database

_DAY = 86_400.0
CAP_BYTES = 1024**3
"""What the journal may hold; above it the oldest raw ticks go first."""

_BATCH = 200
_PAGES = 500

_RAW_DAYS = 1.0
_ROLLUP_DAYS = 8.0
_HISTORY_DAYS = 90.0

# Each deletes one batch of what is older than a time.
_EXPIRED: Mapping[str, float] = {
    "DELETE FROM ticks WHERE id IN (SELECT id FROM ticks WHERE at < ? LIMIT ?)": _RAW_DAYS,
    "DELETE FROM rollups WHERE rowid IN (SELECT rowid FROM rollups WHERE minute < ? LIMIT ?)": _ROLLUP_DAYS,
    "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions WHERE at < ? LIMIT ?)": _HISTORY_DAYS,
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE at < ? LIMIT ?)": _HISTORY_DAYS,
    "DELETE FROM requests WHERE id IN (SELECT id FROM requests WHERE consumed_at < ? LIMIT ?)": _HISTORY_DAYS,
    "DELETE FROM intents WHERE id IN (SELECT id FROM intents WHERE consumed_at < ? LIMIT ?)": _HISTORY_DAYS,
}

# Each deletes one batch of the oldest, in the order in which they can be spared.
_OLDEST = (
    "DELETE FROM ticks WHERE id IN (SELECT id FROM ticks ORDER BY at, id LIMIT ?)",
    "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY at, id LIMIT ?)",
    "DELETE FROM decisions WHERE id IN (SELECT id FROM decisions ORDER BY at, id LIMIT ?)",
    "DELETE FROM rollups WHERE rowid IN (SELECT rowid FROM rollups ORDER BY minute LIMIT ?)",
)


def prune(database: Database, at: float, cap_bytes: int) -> None:
    """Drop what is too old at `at`, then the oldest until the journal fits `cap_bytes`. Raises StoreError.

    Memory, the ledger, pending requests and intents that were not consumed stay whatever their age.
    """
    for statement, days in _EXPIRED.items():
        while _delete(database, statement, at - days * _DAY) == _BATCH:
            pass
    for statement in _OLDEST:
        while database.used_bytes() > cap_bytes and _delete(database, statement):
            pass
    with database.writing("prune") as connection:
        connection.execute("DELETE FROM policies WHERE NOT EXISTS (SELECT 1 FROM ticks WHERE policies = sha256)")
    while database.give_back(_PAGES):
        pass
    database.checkpoint()


def _delete(database: Database, statement: str, *before: float) -> int:
    with database.writing("prune") as connection:
        return connection.execute(statement, (*before, _BATCH)).rowcount
