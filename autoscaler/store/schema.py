"""The journal's tables, and how an older journal becomes a present one: by `user_version`, one transaction each."""

import sqlite3
from collections.abc import Mapping

_VERSION_1 = (
    """CREATE TABLE facts (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID""",
    """CREATE TABLE memory (id INTEGER PRIMARY KEY CHECK (id = 1), body TEXT NOT NULL) STRICT""",
    """CREATE TABLE policies (sha256 TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL) STRICT""",
    # The blobs come last, so that reading the small columns does not walk through them.
    """CREATE TABLE ticks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        duration_seconds REAL NOT NULL,
        policies TEXT NOT NULL REFERENCES policies (sha256),
        observation BLOB NOT NULL,
        decisions BLOB NOT NULL,
        memory_before BLOB
    ) STRICT""",
    """CREATE INDEX ticks_at ON ticks (at)""",
    """CREATE INDEX ticks_policies ON ticks (policies)""",
    """CREATE INDEX ticks_checkpoints ON ticks (id) WHERE memory_before IS NOT NULL""",
    # Ids are never given out twice: a log line that names one always means the same action.
    """CREATE TABLE intents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        action TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('open', 'unknown', 'done', 'failed')),
        state_at REAL NOT NULL,
        failure TEXT,
        consumed_at REAL,
        CHECK (consumed_at IS NULL OR state IN ('done', 'failed'))
    ) STRICT""",
    """CREATE INDEX intents_pending ON intents (id) WHERE consumed_at IS NULL""",
    """CREATE INDEX intents_consumed ON intents (consumed_at) WHERE consumed_at IS NOT NULL""",
    """CREATE TABLE steps (
        id INTEGER PRIMARY KEY,
        intent INTEGER NOT NULL REFERENCES intents (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        begun_at REAL NOT NULL,
        ended_at REAL
    ) STRICT""",
    """CREATE INDEX steps_intent ON steps (intent)""",
    """CREATE TABLE requests (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        "by" TEXT NOT NULL,
        "group" TEXT NOT NULL,
        change TEXT NOT NULL,
        count INTEGER,
        for_seconds REAL,
        consumed_at REAL
    ) STRICT""",
    """CREATE INDEX requests_pending ON requests (id) WHERE consumed_at IS NULL""",
    """CREATE TABLE volumes (
        host TEXT NOT NULL,
        pool TEXT NOT NULL,
        name TEXT NOT NULL,
        instance TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (host, pool, name)
    ) STRICT""",
    """CREATE INDEX volumes_instance ON volumes (instance)""",
    """CREATE TABLE decisions (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        "group" TEXT NOT NULL,
        recommended INTEGER NOT NULL,
        desired INTEGER NOT NULL,
        admitted INTEGER NOT NULL,
        result TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT""",
    """CREATE INDEX decisions_group ON decisions ("group")""",
    """CREATE INDEX decisions_group_at ON decisions ("group", at)""",
    """CREATE INDEX decisions_at ON decisions (at)""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        "group" TEXT,
        instance TEXT,
        detail TEXT NOT NULL
    ) STRICT""",
    """CREATE INDEX events_at ON events (at)""",
    """CREATE TABLE rollups (
        "group" TEXT NOT NULL,
        metric TEXT NOT NULL,
        minute INTEGER NOT NULL,
        samples INTEGER NOT NULL,
        avg REAL NOT NULL,
        min REAL NOT NULL,
        max REAL NOT NULL,
        admitted INTEGER NOT NULL,
        PRIMARY KEY ("group", metric, minute)
    ) STRICT""",
    """CREATE INDEX rollups_minute ON rollups (minute)""",
)

_VERSION_2 = ("""ALTER TABLE requests ADD COLUMN instance TEXT""",)

_VERSION_3 = (
    # What was given out as a version is never given out again, whatever becomes of the image.
    """CREATE TABLE image_names (
        name TEXT NOT NULL PRIMARY KEY,
        versions INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE images (
        name TEXT NOT NULL REFERENCES image_names (name),
        version INTEGER NOT NULL CHECK (version > 0),
        host TEXT NOT NULL,
        pool TEXT NOT NULL,
        volume TEXT NOT NULL,
        digest TEXT NOT NULL,
        file_bytes INTEGER NOT NULL,
        disk_bytes INTEGER NOT NULL,
        source TEXT NOT NULL,
        at REAL NOT NULL,
        "by" TEXT NOT NULL,
        PRIMARY KEY (name, version, host),
        UNIQUE (host, pool, volume)
    ) STRICT""",
    """CREATE TABLE publications (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL REFERENCES image_names (name),
        version INTEGER NOT NULL,
        at REAL NOT NULL,
        "by" TEXT NOT NULL,
        withdrawn_at REAL
    ) STRICT""",
    # What was read of an image's content while its volume had this stamp.
    """CREATE TABLE contents (
        id INTEGER PRIMARY KEY,
        host TEXT NOT NULL,
        pool TEXT NOT NULL,
        volume TEXT NOT NULL,
        stamp TEXT NOT NULL,
        digest TEXT NOT NULL,
        UNIQUE (host, pool, volume, stamp)
    ) STRICT""",
)

MIGRATIONS = (_VERSION_1, _VERSION_2, _VERSION_3)
"""The statements that lead from `user_version` n to n + 1."""

VERSION = len(MIGRATIONS)


def version_of(connection: sqlite3.Connection) -> int:
    """Read the journal's `user_version`; 0 is a new file."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(connection: sqlite3.Connection, facts: Mapping[str, str]) -> None:
    """Bring the journal to the present version; a new one is given `facts` in the transaction that makes it.

    Raises sqlite3.Error, with the journal left at the last version it reached.
    """
    for version in range(version_of(connection), VERSION):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[version]:
                connection.execute(statement)
            if version == 0:
                connection.executemany("INSERT INTO facts (key, value) VALUES (?, ?)", facts.items())
            connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
