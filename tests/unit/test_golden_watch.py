"""Golden images looked after: read when touched, once for each state, whatever host or journal does."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.core.catalog import Catalog
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import Domain, DomainState, GoldenState, HostInventory, Observation, Ownership
from autoscaler.core.policy import Image, Policy, Size
from autoscaler.core.ports import GoldenSeen
from autoscaler.golden_watch import GoldenWatch, Watched, watched_images
from autoscaler.images.flatten import content_digest
from autoscaler.store import Journal
from tests.support.private_libvirtd import wait_until
from tests.unit.test_core_catalog import published, stored

IMAGE = Image("default", "golden.qcow2")
KEY = "local default/golden.qcow2"


class Host:
    """A host with one image, whose stamp is its time of change."""

    def __init__(self, path: Path, *, local: bool = True) -> None:
        self.path = path
        self.local = local
        self.broken = False
        self.reads = 0

    def golden(self, image: Image) -> GoldenSeen | None:
        if self.broken:
            raise HypervisorError(HypervisorErrorKind.UNREACHABLE, "host local does not answer")
        if not self.path.exists():
            return None
        return GoldenSeen(str(self.path.stat().st_mtime_ns), str(self.path) if self.local else None)

    def read(self, path: Path) -> str:
        self.reads += 1
        return content_digest(path)


def watch_of(host: Host, journal: Journal, changes: list[str]) -> GoldenWatch:
    return GoldenWatch(
        {"local": host},  # type: ignore[dict-item]
        journal.images,
        10.0,
        on_change=lambda: changes.append("changed"),
        on_bug=lambda bug: changes.append(str(bug)),
        read=host.read,
    )


def touch(path: Path, seconds: int) -> str:
    os.utime(path, (seconds, seconds))
    return str(seconds * 10**9)


def test_each_state_is_read_once_and_kept_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "golden.qcow2"
    path.write_bytes(b"one")
    first = touch(path, 100)
    host, journal, changes = Host(path), Journal.in_memory(), list[str]()
    watch = watch_of(host, journal, changes)
    watch.watch((Watched("local", IMAGE, frozenset({first})),))
    watch.look()
    one = content_digest(path)
    assert watch.states() == {KEY: GoldenState(first, one, {first: one})}
    told = len(changes)
    watch.look()
    assert (host.reads, len(changes)) == (1, told), "nothing new, nothing read or told"

    second = touch(path, 200)
    watch.look()
    assert watch.states() == {KEY: GoldenState(second, one, {first: one})}
    path.write_bytes(b"two")
    third = touch(path, 300)
    watch.look()
    assert watch.states() == {KEY: GoldenState(third, content_digest(path), {first: one})}
    assert host.reads == 3

    restarted = watch_of(host, journal, changes)
    restarted.watch((Watched("local", IMAGE, frozenset({first}), "expected"),))
    restarted.look()
    assert restarted.states() == {KEY: GoldenState(third, content_digest(path), {first: one}, "expected")}
    assert host.reads == 3


def test_it_is_said_that_a_touched_image_is_not_read_yet(tmp_path: Path) -> None:
    path = tmp_path / "golden.qcow2"
    path.write_bytes(b"one")
    stamp = touch(path, 100)
    host, seen = Host(path), list[GoldenState]()
    watch = watch_of(host, Journal.in_memory(), [])
    watch._on_change = lambda: seen.append(watch.states()[KEY])
    watch.watch((Watched("local", IMAGE),))
    watch.look()
    assert [(state.stamp, state.unread) for state in seen] == [(stamp, True), (stamp, False)]


def test_what_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "golden.qcow2"
    path.write_bytes(b"one")
    touch(path, 100)
    host = Host(path)
    watch = watch_of(host, Journal.in_memory(), [])

    def written_meanwhile(read: Path) -> str:
        digest = content_digest(read)
        path.write_bytes(b"two")
        touch(path, 200)
        return digest

    watch._read = written_meanwhile
    watch.watch((Watched("local", IMAGE),))
    watch.look()
    assert watch.states()[KEY].unread
    watch._read = content_digest
    watch.look()
    assert watch.states()[KEY].content == content_digest(path)


def test_of_another_machine_only_stamps_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "golden.qcow2"
    path.write_bytes(b"one")
    stamp = touch(path, 100)
    host, journal = Host(path, local=False), Journal.in_memory()
    watch = watch_of(host, journal, [])
    watch.watch((Watched("local", IMAGE),))
    watch.look()
    assert watch.states() == {KEY: GoldenState(stamp, stamp)}
    journal.images.note_content("local", "default", "golden.qcow2", stamp, "as it was stored")
    watch.look()
    assert watch.states() == {KEY: GoldenState(stamp, "as it was stored")}
    assert host.reads == 0


def test_who_does_not_answer_leaves_what_was_known(tmp_path: Path) -> None:
    path = tmp_path / "golden.qcow2"
    path.write_bytes(b"one")
    stamp = touch(path, 100)
    host = Host(path)
    watch = watch_of(host, Journal.in_memory(), [])
    watch.watch((Watched("local", IMAGE),))
    watch.look()
    host.broken = True
    watch.look()
    assert watch.states()[KEY].stamp == stamp
    host.broken = False
    path.unlink()
    watch.look()
    assert watch.states()[KEY].stamp == stamp, "that it is gone, every clone of it tells"


def test_what_is_looked_after() -> None:
    owner = Ownership("me", "web", "web-1", "stamp", 5.0, Image("default", "old.qcow2", "web", 1))
    others = Ownership("them", "web", "web-2", "stamp", 5.0, Image("default", "theirs.qcow2"))
    domains = tuple(
        Domain("local", each.instance, each.instance, DomainState.RUNNING, each) for each in (owner, others)
    )
    seen = Observation(0.0, 10.0, inventory={"local": HostInventory("local", domains)})
    web = Policy("web", stored(2).image, Size(1, 2))
    lost = Policy("lost", Image("", "", "lost"), Size(1, 2))
    cloned = ((web, web.image), (lost, lost.image), (replace(web, group="web-b"), web.image), (web, stored(3).image))
    catalog = Catalog((stored(2), stored(3)), published(2))
    assert set(watched_images(cloned, seen, "me", catalog)) == {
        Watched("local", Image("default", "web@3.qcow2"), frozenset(), stored(3).digest),
        Watched("local", Image("default", "web@2.qcow2"), frozenset(), stored(2).digest),
        Watched("local", Image("default", "old.qcow2"), frozenset({"stamp"})),
    }


def test_a_sandbox_that_forbids_a_lower_priority_keeps_nobody_from_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.setpriority", forbidden)
    path = tmp_path / "golden.qcow2"
    path.write_bytes(b"one")
    changes = list[str]()
    watch = watch_of(Host(path), Journal.in_memory(), changes)
    watch.watch((Watched("local", IMAGE),))
    watch.start()
    wait_until(lambda: KEY in watch.states() and not watch.states()[KEY].unread, 10, "the image is read")
    watch.close()
    assert set(changes) == {"changed"}
