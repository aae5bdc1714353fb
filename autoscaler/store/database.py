"""One connection to the journal's file, used by one thread at a time, and sqlite's errors in the operator's words."""

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from autoscaler.core.errors import StoreError
from autoscaler.store.schema import VERSION, migrate, version_of

BUSY_TIMEOUT_SECONDS = 5.0
_WAL_LIMIT_BYTES = 16 * 1024 * 1024

MOVE_ASIDE = (
    "Move it aside (with its -wal and -shm) and start again: guests keep running, and owned ones are adopted by their "
    "metadata; cooldowns and history are lost"
)
_REMEDIES: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "Free space on its file system",
    sqlite3.SQLITE_BUSY: "Another program keeps it locked: end that program",
    sqlite3.SQLITE_CORRUPT: MOVE_ASIDE,
    sqlite3.SQLITE_NOTADB: MOVE_ASIDE,
}
_OTHER_REMEDY = "Check its file system, and that the daemon's user may write there"
# These two mean wrong SQL or wrong data of ours: bugs, nothing the operator could act upon.
_BUGS = (sqlite3.ProgrammingError, sqlite3.IntegrityError)


class Database:
    """A connection whose every use is a transaction under one lock."""

    def __init__(self, target: str, name: str, *, facts: Mapping[str, str] | None) -> None:
        """Connect to `target` (a path or a URI), called `name` in messages; with `facts` for writing, else to read.

        Raises StoreError when the file is corrupt, of a newer program, or cannot be opened.
        """
        self.name = name
        self._lock = threading.Lock()
        self._closed = False
        with self._errors("open it"):
            self._connection = sqlite3.connect(
                target, uri=facts is None, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(facts)
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self, facts: Mapping[str, str] | None) -> None:
        self._refuse_other_version(writing=facts is not None)
        if facts is None:
            self._connection.execute("PRAGMA query_only = ON")
            return
        problem = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise StoreError(f"{self.name}: the journal is corrupt: {problem.splitlines()[-1]}. {MOVE_ASIDE}.")
        # Only an empty file takes this setting, and only before it becomes a WAL one.
        self._connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        migrate(self._connection, facts)

    def _refuse_other_version(self, *, writing: bool) -> None:
        version = version_of(self._connection)
        if version > VERSION:
            raise StoreError(
                f"{self.name}: this program is older than the journal (it knows version {VERSION}, the journal has "
                f"{version}). Install the newer program again, or move the journal aside (with its -wal and -shm)."
            )
        if version < VERSION and not writing:
            raise StoreError(
                f"{self.name}: the journal has version {version}, older than this program's {VERSION}. "
                "Start the daemon once; it brings the journal up to date."
            )

    def close(self) -> None:
        """Close the connection, once the transaction under way has ended; later uses raise StoreError."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextmanager
    def writing(self, what: str) -> Iterator[sqlite3.Connection]:
        """Run one write transaction, committed at the end of the block and undone by any exception.

        Raises StoreError with sqlite's message when it cannot `what`; nothing of it is in the journal then.
        """
        with self._transaction("BEGIN IMMEDIATE", what) as connection:
            yield connection

    @contextmanager
    def reading(self, what: str) -> Iterator[sqlite3.Connection]:
        """Read at one moment. Raises StoreError with sqlite's message when it cannot `what`."""
        with self._transaction("BEGIN", what) as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str, what: str) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors(what):
            if self._closed:
                raise StoreError(f"{self.name}: cannot {what}: the journal was closed. Start the daemon again.")
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Some failures, a full disk among them, may have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except _BUGS:
            raise
        except sqlite3.Error as error:
            # Extended codes keep the primary one in their low byte; errors of Python's own carry none.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            remedy = _REMEDIES.get(code, _OTHER_REMEDY)
            raise StoreError(f"{self.name}: cannot {what}: {error}. {remedy}.") from error

    def used_bytes(self) -> int:
        """Tell how much of the file holds something."""
        with self.reading("tell its size") as connection:
            pages, free, page_bytes = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        used: int = (pages - free) * page_bytes
        return used

    def give_back(self, pages: int) -> bool:
        """Return up to `pages` free pages to the file system; tell whether it is worth doing again."""
        with self.writing("give back free space") as connection:
            before = connection.execute("PRAGMA freelist_count").fetchone()[0]
            # The pragma frees as it is stepped through: it must be read to its end.
            connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            left = connection.execute("PRAGMA freelist_count").fetchone()[0]
        return bool(0 < left < before)

    def checkpoint(self) -> None:
        """Move what the write-ahead log holds into the file, as far as readers allow without being waited for."""
        with self._lock, self._errors("checkpoint"):
            if not self._closed:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
