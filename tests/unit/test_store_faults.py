"""The journal under crashes, full disks, locks and its own growth."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autoscaler.core.action import Clone, IntentState
from autoscaler.core.decision import Decision, Input
from autoscaler.core.errors import StoreError
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import Change, Observation, Unknown
from autoscaler.core.policy import Image, Machine, Policy, Size
from autoscaler.core.ports import VolumeRef
from autoscaler.store import Journal, TickRecord

DAY = 86_400.0
POLICY = Policy("web", Image("default", "golden.qcow2"), Size(1, 4))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal.open(tmp_path)
    yield journal
    journal.close()


def record(journal: Journal, at: float, why: str = "", decisions: tuple[Decision, ...] = ()) -> TickRecord:
    pending = journal.pending()
    seen = Observation(at, 10.0, {"local": Unknown(why)}, {}, {}, pending.in_flight, pending.outcomes, pending.requests)
    memory = Memory(journal.controller, at, {"web": GroupMemory(sequence=int(at))})
    return TickRecord(seen, (POLICY,), decisions, memory)


def clone(instance: str) -> Clone:
    return Clone("web", "local", instance, POLICY.image, Machine())


def decision(at: float, admitted: int) -> Decision:
    seen = Input("guest.cpu", 0.5, 0.5, 1.0, 0.6, 1, 0, 0, 60.0, window_full=True)
    return Decision("web", at, 1, (seen,), (), 1, 1, admitted, ())


def noise(size: int) -> str:
    """Text that does not compress well; the same on every run."""
    return random.Random(size).randbytes(size // 2).hex()


CRASHING = """
import sys
from pathlib import Path
from autoscaler.core.action import Clone, IntentState
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Image, Machine
from autoscaler.store import Journal, TickRecord

journal = Journal.open(Path(sys.argv[1]))
before = journal.load_memory().groups.get("web", GroupMemory()).sequence
for number in range(before + 1, 1_000_000):
    pending = journal.pending()
    seen = Observation(float(number), 1.0, {}, {}, {}, pending.in_flight, pending.outcomes, pending.requests)
    memory = Memory(journal.controller, float(number), {"web": GroupMemory(sequence=number)})
    clones = [Clone("web", "local", f"web-{number}-{n}", Image("p", "v"), Machine()) for n in range(2)]
    one, two = journal.commit_tick(TickRecord(seen, (), (), memory), clones)
    print(number, flush=True)
    journal.begin_step(one.id, "overlay", float(number))
    journal.end_intent(one.id, IntentState.DONE, float(number))
    journal.end_intent(two.id, IntentState.DONE, float(number))
"""


def test_killed_amid_commits_nothing_committed_is_lost_and_nothing_is_half_written(tmp_path: Path) -> None:
    """Each tick commits memory, a raw tick and two intents: after a kill they are all of the same tick."""
    for kill_after in (3, 17, 40):
        program = [sys.executable, "-c", CRASHING, str(tmp_path)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(kill_after)]
            writer.send_signal(signal.SIGKILL)
            said = int(([*lines, *writer.stdout.readlines()])[-1])
        journal = Journal.open(tmp_path)
        sequence = journal.load_memory().groups["web"].sequence
        ticks = [tick.observation.at for tick in journal.replay()]
        with journal._database.reading("count") as connection:
            intents = connection.execute("SELECT count(*), max(at) FROM intents").fetchone()
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        journal.close()
        assert sequence >= said, "what was said to be committed is there"
        assert ticks == [float(number) for number in range(1, sequence + 1)]
        assert intents == (2 * sequence, float(sequence))


def test_a_full_journal_fails_the_commit_whole_and_recovers(journal: Journal) -> None:
    journal.commit_tick(record(journal, 1.0), ())
    request = journal.add_request(1.0, "me", "web", Change.PAUSE)
    with journal._database.reading("look") as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    big = record(journal, 2.0, noise(400_000))
    with pytest.raises(
        StoreError, match=r"journal\.sqlite3: cannot commit a tick: database or disk is full.*Free space"
    ):
        journal.commit_tick(big, [clone("web-1")])
    assert journal.load_memory().at == 1.0
    assert journal.in_flight() == ()
    assert journal.requests() == (request,)
    assert len(list(journal.replay())) == 1
    with journal._database.reading("widen") as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    (intent,) = journal.commit_tick(big, [clone("web-1")])
    assert intent.id == 1
    assert journal.requests() == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB; a state directory of its own is mounted and unmounted for the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this machine does not let root mount: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_fails_the_commit_whole_and_recovers(small_disk: Path) -> None:
    journal = Journal.open(small_disk)
    journal.commit_tick(record(journal, 1.0), ())
    ballast = small_disk / "ballast"
    # It leaves room for some commits, so that one fails half-way.
    ballast.write_bytes(b"x" * 500_000)
    committed: list[float] = [1.0]

    def commit_many() -> None:
        for number in range(2, 100):
            journal.commit_tick(record(journal, float(number), noise(60_000)), [clone(f"web-{number}")])
            committed.append(float(number))

    with pytest.raises(StoreError, match=r"disk is full|disk I/O error"):
        commit_many()
    assert journal.load_memory().at == committed[-1]
    assert [tick.observation.at for tick in journal.replay()] == committed
    assert [flight.intent.at for flight in journal.in_flight()] == committed[1:]
    ballast.unlink()
    journal.commit_tick(record(journal, 200.0), [clone("web-1")])
    journal.close()
    journal = Journal.open(small_disk)
    assert journal.load_memory().at == 200.0
    assert len(journal.in_flight()) == len(committed)
    journal.close()


def test_a_locked_journal_fails_the_commit_and_recovers(journal: Journal, tmp_path: Path) -> None:
    with journal._database.reading("shorten the wait") as connection:
        connection.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "journal.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match=r"locked.*end that program"):
        journal.commit_tick(record(journal, 1.0), ())
    assert list(journal.replay()) == []
    other.execute("ROLLBACK")
    other.close()
    journal.commit_tick(record(journal, 1.0), ())


def test_a_failed_commit_does_not_use_up_the_checkpoint(journal: Journal) -> None:
    with journal._database.reading("look") as connection:
        connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(StoreError, match="full"):
        journal.commit_tick(record(journal, 1.0, noise(400_000)), ())
    with journal._database.reading("widen") as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    journal.commit_tick(record(journal, 2.0), ())
    assert [tick.memory_before for tick in journal.replay()] == [Memory(journal.controller)]


def test_a_bug_in_the_middle_leaves_nothing_and_is_no_store_error(journal: Journal) -> None:
    seen = record(journal, 1.0)
    (intent,) = journal.commit_tick(seen, [clone("web-1")])
    journal.end_intent(intent.id, IntentState.DONE, 2.0)
    ended = record(journal, 3.0)
    # A count that is no number: the table refuses it after the tick, its memory and what it consumed were written.
    wrong = TickRecord(ended.observation, (), (decision(3.0, "two"),), ended.memory)  # type: ignore[arg-type]  # the bug
    with pytest.raises(sqlite3.IntegrityError):
        journal.commit_tick(wrong, ())
    assert len(journal.outcomes()) == 1
    assert len(list(journal.replay())) == 1


def test_prune_by_age(journal: Journal) -> None:
    journal.add_event(0.0, "old")
    journal.add_request(0.0, "me", "web", Change.PAUSE)
    done, still_open = journal.commit_tick(
        record(journal, 0.0, decisions=(decision(0.0, 1),)), [clone("web-1"), clone("web-2")]
    )
    journal.begin_step(done.id, "overlay", 0.0)
    journal.end_intent(done.id, IntentState.DONE, 0.0)
    journal.commit_tick(record(journal, 1.0), ())
    journal.add_volume(VolumeRef("local", "default", "web-1.qcow2", "web-1"), 0.0)
    journal.remember("fact", "kept")
    waiting = journal.add_request(0.0, "me", "web", Change.RESUME)

    def left(at: float) -> dict[str, int]:
        journal.prune(at)
        with journal._database.reading("count") as connection:
            return {
                name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in ("ticks", "policies", "rollups", "decisions", "events", "requests", "intents", "steps")
            }

    full = {
        "ticks": 2,
        "policies": 1,
        "rollups": 1,
        "decisions": 1,
        "events": 1,
        "requests": 2,
        "intents": 2,
        "steps": 1,
    }
    assert left(DAY) == full
    assert left(1.5 + DAY) == full | {"ticks": 0, "policies": 0}
    assert left(1.5 + 8 * DAY) == full | {"ticks": 0, "policies": 0, "rollups": 0}
    gone = dict.fromkeys(full, 0) | {"requests": 1, "intents": 1}
    assert left(2.0 + 90 * DAY) == gone
    assert [flight.intent for flight in journal.in_flight()] == [still_open]
    assert journal.requests() == (waiting,)
    assert journal.load_memory().at == 1.0
    assert len(journal.volumes()) == 1
    assert journal.recall("fact") == "kept"


def test_the_cap_drops_the_oldest_ticks_and_gives_their_room_back(journal: Journal, tmp_path: Path) -> None:
    for number in range(450):
        journal.commit_tick(record(journal, float(number), noise(10_000), (decision(float(number), number),)), ())
    journal.prune(450.0)
    path = tmp_path / "journal.sqlite3"
    before = path.stat().st_size
    assert before > 2_000_000
    cap = before * 2 // 3
    journal.prune(450.0, cap)
    assert path.stat().st_size <= cap
    kept = [tick.observation.at for tick in journal.replay()]
    assert kept == [float(number) for number in range(200, 450)]
    assert len(journal.decisions("web")) == 450, "raw ticks go before anything else"


def test_commits_go_on_while_pruning(journal: Journal) -> None:
    """A prune takes many small transactions; what is committed meanwhile stays."""
    for number in range(500):
        journal.commit_tick(record(journal, float(number)), ())
    later = [DAY + 500.0 + number for number in range(20)]
    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(journal.prune, DAY + 499.5)
        for at in later:
            journal.commit_tick(record(journal, at), ())
        pruning.result(timeout=30)
    assert [tick.observation.at for tick in journal.replay()] == later


def test_prune_in_memory() -> None:
    journal = Journal.in_memory()
    for number in range(300):
        journal.commit_tick(record(journal, float(number)), ())
    journal.prune(DAY + 298.5)
    assert [tick.observation.at for tick in journal.replay()] == [299.0]
    journal.close()


def test_after_all_raw_ticks_went_the_next_one_is_a_checkpoint(journal: Journal) -> None:
    journal.commit_tick(record(journal, 1.0), ())
    journal.commit_tick(record(journal, 2.0), ())
    journal.prune(DAY + 3.0)
    journal.commit_tick(record(journal, 4.0), ())
    (tick,) = journal.replay()
    assert tick.memory_before == Memory(journal.controller, 2.0, {"web": GroupMemory(sequence=2)})
