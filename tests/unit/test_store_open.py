"""Opening a state directory: whose it is, and what is refused with a way out."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from autoscaler.core.errors import StoreError
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Change, Observation
from autoscaler.store import LEDGER_LOST, Journal, TickRecord
from autoscaler.store.database import Database
from autoscaler.store.schema import MIGRATIONS, VERSION

FILE = "journal.sqlite3"


def tick(journal: Journal, at: float = 1.0) -> None:
    journal.commit_tick(TickRecord(Observation(at, 10.0), (), (), Memory(journal.controller, at)), ())


def filled(state_dir: Path) -> str:
    """Leave a journal of some pages behind, all of it in the file; gives the controller."""
    journal = Journal.open(state_dir)
    tick(journal)
    for number in range(200):
        journal.remember(f"key {number}", "value " * 20)
    journal.close()
    assert not (state_dir / f"{FILE}-wal").exists()
    return journal.controller


def test_a_new_directory_is_the_owners_alone(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    journal = Journal.open(state_dir)
    assert state_dir.stat().st_mode & 0o777 == 0o700
    assert (state_dir / "controller").read_text() == f"{journal.controller}\n"
    assert str(uuid.UUID(journal.controller)) == journal.controller
    assert journal.recall(LEDGER_LOST) is None
    journal.close()


def test_settings_of_the_connection(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    with journal._database.reading("look") as connection:
        found = {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum", "busy_timeout", "user_version")
        }
        tables = connection.execute("PRAGMA table_list").fetchall()
    journal.close()
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "auto_vacuum": 2,
        "busy_timeout": 5000,
        "user_version": VERSION,
    }
    assert all(strict for _, name, _, _, _, strict in tables if not name.startswith("sqlite_"))


def test_the_controller_stays_over_openings_and_a_lost_journal(tmp_path: Path) -> None:
    controller = filled(tmp_path)
    (tmp_path / FILE).unlink()
    journal = Journal.open(tmp_path)
    assert journal.controller == controller
    assert journal.recall(LEDGER_LOST) == "yes"
    journal.close()
    journal = Journal.open(tmp_path)
    assert journal.recall(LEDGER_LOST) == "yes", "it is known until somebody says that it is settled"
    journal.close()


def test_a_lost_controller_is_known_from_the_memory(tmp_path: Path) -> None:
    controller = filled(tmp_path)
    (tmp_path / "controller").unlink()
    journal = Journal.open(tmp_path)
    journal.close()
    assert journal.controller == controller
    assert (tmp_path / "controller").read_text() == f"{controller}\n"


def test_another_controllers_journal_is_refused(tmp_path: Path) -> None:
    controller = filled(tmp_path)
    other = str(uuid.uuid4())
    (tmp_path / "controller").write_text(other)
    with pytest.raises(StoreError, match=f"{controller}.*{other}"):
        Journal.open(tmp_path)


@pytest.mark.parametrize("text", ["", "not a uuid\n"])
def test_a_controller_file_without_a_uuid_is_refused(tmp_path: Path, text: str) -> None:
    filled(tmp_path)
    (tmp_path / "controller").write_text(text)
    with pytest.raises(StoreError, match="holds no UUID"):
        Journal.open(tmp_path)


def test_a_second_opener_is_refused_with_the_holders_pid(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from autoscaler.store import Journal\n"
        "journal = Journal.open(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=rf"{tmp_path}: another daemon .*\(pid {holder.pid}\)"):
            Journal.open(tmp_path)
        holder.kill()
    Journal.open(tmp_path).close()


def test_a_second_opener_in_one_process_is_refused_until_the_first_closes(tmp_path: Path) -> None:
    first = Journal.open(tmp_path)
    with pytest.raises(StoreError, match=f"pid {os.getpid()}"):
        Journal.open(tmp_path)
    first.remember("still", "there")
    first.close()
    first.close()
    Journal.open(tmp_path).close()


def test_a_refused_opening_gives_the_lock_back(tmp_path: Path) -> None:
    filled(tmp_path)
    kept = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(b"not a database, " * 1000)
    for _ in range(2):
        with pytest.raises(StoreError, match="is not a database"):
            Journal.open(tmp_path)
    (tmp_path / FILE).write_bytes(kept)
    Journal.open(tmp_path).close()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_truncated_journal_is_refused(tmp_path: Path, share: float) -> None:
    filled(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    os.truncate(tmp_path / FILE, int(size * share))
    with pytest.raises(StoreError, match=f"{FILE}: .*Move it aside .*guests keep running.*adopted by their metadata"):
        Journal.open(tmp_path)


def test_overwritten_pages_are_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    with (tmp_path / FILE).open("r+b") as file:
        # The last pages hold facts, which opening has no need to read.
        file.seek(size - 2 * 4096)
        file.write(b"\xff" * 2 * 4096)
    with pytest.raises(StoreError, match=r"the journal is corrupt.*Move it aside"):
        Journal.open(tmp_path)


def test_a_memory_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    controller = filled(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE memory SET body = ?", (f'{{"controller": "{controller}", "groups": 5}}',))
    connection.close()
    journal = Journal.open(tmp_path)
    with pytest.raises(StoreError, match=r"Memory.*cannot be read"):
        journal.load_memory()
    journal.close()


@pytest.mark.parametrize("opener", [Journal.open, Journal.open_readonly])
def test_a_newer_journal_is_refused(tmp_path: Path, opener: Callable[[Path], Journal]) -> None:
    filled(tmp_path)
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(StoreError, match=rf"older than the journal .*{VERSION}.*{VERSION + 1}.*Install the newer"):
        opener(tmp_path)


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"a/b: No such file.*state_dir"):
        Journal.open(tmp_path / "a" / "b")


def test_a_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StoreError, match="not a directory"):
        Journal.open(tmp_path / "state")


def test_an_unwritable_directory_is_refused() -> None:
    # Root may write anywhere: it becomes nobody, in a directory whose parents nobody may enter.
    program = (
        "import os, sys; from pathlib import Path; from autoscaler.store import Journal\n"
        "from autoscaler.core.errors import StoreError\n"
        "os.geteuid() == 0 and os.setuid(65534)\n"
        "try: Journal.open(Path(sys.argv[1]))\n"
        "except StoreError as error: print(error)"
    )
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", program, directory], capture_output=True, text=True, timeout=30, check=True
        )
    assert f"{directory}/lock: Permission denied" in done.stdout
    assert "daemon's user may write" in done.stdout


def test_reading_beside_the_daemon_and_without_it(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no journal"):
        Journal.open_readonly(tmp_path)
    daemon = Journal.open(tmp_path)
    reader = Journal.open_readonly(tmp_path)
    assert reader.controller == daemon.controller
    daemon.add_request(1.0, "me", "web", Change.PAUSE)
    assert len(reader.requests()) == 1, "readers see what was committed since they opened"
    with pytest.raises(StoreError, match="readonly"):
        reader.remember("key", "value")
    reader.close()
    daemon.close()
    reader = Journal.open_readonly(tmp_path)
    assert len(reader.requests()) == 1
    reader.close()


def test_in_memory_takes_or_makes_a_controller() -> None:
    given, made = Journal.in_memory("given"), Journal.in_memory()
    assert (given.controller, given.load_memory()) == ("given", Memory("given"))
    assert str(uuid.UUID(made.controller)) == made.controller
    given.close()
    made.close()


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.pending()


def test_a_journal_of_the_first_version_is_brought_up_to_date_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in MIGRATIONS[0]:
        connection.execute(statement)
    connection.execute("""INSERT INTO requests (at, "by", "group", change) VALUES (1.0, 'alice', 'web', 'pause')""")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    journal = Journal(Database(str(path), "old journal", facts={}), "controller")
    (request,) = journal.requests()
    assert (request.change, request.by, request.instance) == (Change.PAUSE, "alice", None)
    journal.close()
