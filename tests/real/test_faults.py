"""A real daemon on real guests, among everything that goes wrong around it; after each, the invariants hold."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from autoscaler.core.decision import ReasonCode
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.ports import VolumeRef
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.transition import InstanceState
from autoscaler.store import Journal
from tests.real.conftest import GOLDEN, HypervisorFactory, Pool
from tests.support.daemon import COMMAND, DaemonProcess, group_of, guest_exec
from tests.support.invariants import Before, check_always, look, until_settled
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.real, pytest.mark.timeout(240)]

MOST = 3
QUICK = {"ready": {"agent": False, "timeout": "1m"}, "scaling": [], "drain": {"deadline": "1s"}}
"""A group of fixed size, whose guests count as ready when they run."""
SIZE = {"min": 1, "max": MOST}


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name, size=SIZE, **QUICK)
    process.configure(orphans={"grace": "2s"})
    yield process
    process.close()


@pytest.fixture
def before(libvirt_uri: str, pool: Pool, daemon: DaemonProcess) -> Before:
    return look(libvirt_uri, pool.path)


def codes(snapshot: Snapshot) -> set[ReasonCode]:
    decision = group_of(snapshot).decision
    return set() if decision is None else {reason.code for reason in decision.reasons}


def scale(daemon: DaemonProcess, count: int) -> None:
    daemon.ask("scale", group="web", count=count, for_seconds=3000.0)


def steps(daemon: DaemonProcess) -> set[str | None]:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return {flight.step for flight in journal.in_flight()}
    finally:
        journal.close()


def controller(daemon: DaemonProcess) -> str:
    return daemon.snapshot().controller


def failures(daemon: DaemonProcess) -> list[str]:
    return [line["error"] for line in daemon.lines() if line["event"] == "action failed"]


# libvirt


@pytest.mark.slow
def test_libvirtd_frozen_for_half_a_minute(daemon: DaemonProcess, before: Before, libvirtd: PrivateLibvirtd) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    libvirtd.freeze()
    try:
        frozen = time.monotonic()
        scale(daemon, 2)
        daemon.until(lambda seen: ReasonCode.HELD_BY_UNKNOWN_INVENTORY in codes(seen), 40, "a held group")
        time.sleep(max(0.0, 30 - (time.monotonic() - frozen)))
    finally:
        libvirtd.thaw()
    assert first.instance in {instance.instance for instance in daemon.until_ready(2)}
    until_settled(before, daemon, MOST)


def test_libvirtd_killed_and_restarted_in_the_middle_of_clones(
    daemon: DaemonProcess, before: Before, libvirtd: PrivateLibvirtd
) -> None:
    daemon.start()
    daemon.until_ready(1)
    scale(daemon, 3)
    wait_until(lambda: steps(daemon) & {"overlay", "define", "start"}, 30, "a clone in the middle of a step")
    libvirtd.kill()
    libvirtd.restart()
    daemon.until_ready(3)
    until_settled(before, daemon, MOST)


# The pool


@pytest.fixture
def small_pool(libvirtd: PrivateLibvirtd, virt: libvirt.virConnect, golden_image: Path) -> Iterator[Path]:
    """A pool on a file system of its own, of 4 MiB more than the golden image; as seen from outside."""
    path = libvirtd.root / "small"
    path.mkdir(mode=0o711)
    size = golden_image.stat().st_size + 4 * 1024 * 1024
    libvirtd.command("mount", "-t", "tmpfs", "-o", f"size={size},mode=711", "tmpfs", str(path))
    seen = libvirtd.seen_inside(path)
    shutil.copyfile(golden_image, seen / GOLDEN)
    virt.storagePoolDefineXML(f"<pool type='dir'><name>small</name><target><path>{path}</path></target></pool>")
    virt.storagePoolLookupByName("small").create()
    yield seen
    _empty(virt)
    libvirtd.command("umount", "-l", str(path))


def _empty(virt: libvirt.virConnect) -> None:
    for domain in virt.listAllDomains():
        if domain.isActive():
            domain.destroy()
    virt.storagePoolLookupByName("small").destroy()


@pytest.mark.parametrize(
    "free_bytes",
    [pytest.param(0, id="before", marks=pytest.mark.slow), pytest.param(96 * 1024, id="during")],
)
def test_a_pool_that_is_full_before_a_clone_or_gets_full_during_it(
    tmp_path: Path, libvirt_uri: str, small_pool: Path, free_bytes: int
) -> None:
    daemon = DaemonProcess(tmp_path, libvirt_uri, "small", size=SIZE, **QUICK)
    before = look(libvirt_uri, small_pool)
    try:
        daemon.start()
        daemon.until_ready(1)
        ballast = small_pool / "ballast"
        _fill(ballast, free_bytes)
        scale(daemon, 3)
        daemon.until(lambda seen: ReasonCode.HELD_BY_LAUNCH_BACKOFF in codes(seen), 60, "a launch that backs off")
        assert any("Free space in the storage pool" in error for error in failures(daemon)), failures(daemon)
        check_always(before, controller(daemon), MOST)
        ballast.unlink()
        daemon.until_ready(3)
        until_settled(before, daemon, MOST)
    finally:
        daemon.close()


def test_a_seed_that_finds_no_room_is_taken_back(small_pool: Path, hypervisor: HypervisorFactory) -> None:
    host = hypervisor()
    seed, content = VolumeRef("local", "small", "web-1.seed.iso", "web-1"), b"x" * 1024 * 1024
    ballast = small_pool / "ballast"
    _fill(ballast, 256 * 1024)
    with pytest.raises(HypervisorError) as caught:
        host.create_seed(seed, content)
    assert caught.value.kind is HypervisorErrorKind.NO_SPACE, caught.value
    host.delete_volume(seed)
    ballast.unlink()
    host.create_seed(seed, content)
    assert (small_pool / seed.name).read_bytes() == content


def test_an_instance_that_a_full_pool_paused_is_replaced_once_there_is_room(
    tmp_path: Path, libvirt_uri: str, small_pool: Path, virt: libvirt.virConnect
) -> None:
    daemon = DaemonProcess(tmp_path, libvirt_uri, "small", size=SIZE, scaling=[], drain={"deadline": "1s"})
    before = look(libvirt_uri, small_pool)
    try:
        daemon.start()
        (first,) = daemon.until_ready(1)
        ballast = small_pool / "ballast"
        _fill(ballast, 0)
        guest_exec(libvirt_uri, first.instance, "dd if=/dev/urandom of=/dev/vda bs=64k count=64 seek=256 conv=fsync")
        wait_until(
            lambda: (
                virt.lookupByName(first.instance).state()
                == [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
            ),
            60,
            "QEMU pauses the guest",
        )
        daemon.until(lambda seen: InstanceState.UNHEALTHY in states(seen), 30, "it is seen to be paused by an error")
        assert "io_error" in reasons(daemon, first.instance)
        check_always(before, controller(daemon), MOST)
        ballast.unlink()
        replaced = daemon.until(
            lambda seen: states(seen) == [InstanceState.READY] and first.instance not in instances(seen),
            120,
            "another in its place",
        )
        assert len(instances(replaced)) == 1
        until_settled(before, daemon, MOST)
    finally:
        daemon.close()


def states(snapshot: Snapshot) -> list[InstanceState]:
    return [each.state for each in group_of(snapshot).instances]


def instances(snapshot: Snapshot) -> set[str]:
    return {each.instance for each in group_of(snapshot).instances}


def reasons(daemon: DaemonProcess, instance: str) -> list[str]:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        events = journal.events()
    finally:
        journal.close()
    return [str(event.detail["reason"]) for event in events if (event.kind, event.instance) == ("instance", instance)]


def _fill(ballast: Path, free_bytes: int) -> None:
    room = os.statvfs(ballast.parent)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize - free_bytes)


def test_a_golden_image_that_was_cut_off_is_refused(daemon: DaemonProcess, pool: Pool, libvirt_uri: str) -> None:
    whole = pool.golden.read_bytes()
    os.truncate(pool.golden, len(whole) // 2)
    before = look(libvirt_uri, pool.path)
    daemon.start()
    daemon.until(lambda seen: ReasonCode.HELD_BY_LAUNCH_BACKOFF in codes(seen), 30, "a launch that backs off")
    assert all("was cut off" in error for error in failures(daemon))
    assert check_always(before, controller(daemon), MOST) == set()
    until_settled(before, daemon, MOST)
    pool.golden.write_bytes(whole)
    daemon.until_ready(1)


# Guests


@pytest.mark.slow
def test_a_frozen_qemu_holds_neither_ticks_nor_the_group(
    daemon: DaemonProcess, before: Before, libvirtd: PrivateLibvirtd
) -> None:
    daemon.write_policy(size={"min": 1, "max": MOST})
    daemon.start()
    (first,) = daemon.until_ready(1)
    scale(daemon, 2)
    daemon.until_ready(2)
    pid = libvirtd.qemu_pid(first.instance)
    os.kill(pid, signal.SIGSTOP)
    try:
        daemon.ask("scale", group="web", count="auto")
        daemon.until_tick(8, 120)
        assert check_always(before, controller(daemon), MOST) >= {first.instance}
    finally:
        os.kill(pid, signal.SIGCONT)
    daemon.until_ready(1)
    until_settled(before, daemon, MOST)


def test_a_guest_that_is_never_ready_is_replaced_ever_more_slowly(daemon: DaemonProcess, before: Before) -> None:
    daemon.write_policy(**{**QUICK, "ready": {"agent": True, "timeout": "1s"}}, size=SIZE)
    daemon.start()
    known = controller(daemon)
    held = daemon.until(lambda seen: ReasonCode.HELD_BY_LAUNCH_BACKOFF in codes(seen), 60, "a launch that backs off")
    assert [i for i in group_of(held).instances if i.state is not InstanceState.STOPPING] == []
    seen = daemon.until(lambda seen: len(group_of(seen).instances) == 1, 30, "a trial")
    assert len(check_always(before, known, MOST)) <= 1, group_of(seen)
    daemon.write_policy(**QUICK, size=SIZE)
    assert daemon.run("reload").returncode == 0
    daemon.until_ready(1)
    until_settled(before, daemon, MOST)


@pytest.mark.slow
def test_a_guest_that_crashes_in_a_loop_is_replaced_ever_more_slowly(
    daemon: DaemonProcess, before: Before, libvirtd: PrivateLibvirtd
) -> None:
    daemon.write_policy(**{**QUICK, "ready": {"agent": True, "timeout": "1m"}}, size=SIZE)
    daemon.start()
    known = controller(daemon)
    for _ in range(2):
        seen = daemon.until(lambda seen: _booting(seen) is not None, 60, "a guest that boots")
        name = _booting(seen)
        assert name is not None
        os.kill(libvirtd.qemu_pid(name), signal.SIGKILL)
        daemon.until(lambda seen, name=name: _booting(seen) != name, 30, "its removal")  # type: ignore[misc]
        assert len(check_always(before, known, MOST)) <= 1
    daemon.until_ready(1)
    until_settled(before, daemon, MOST)
    replaced = [line for line in daemon.lines() if line["event"] == "action done" and line["action"] == "remove"]
    assert len(replaced) == 2


def _booting(snapshot: Snapshot) -> str | None:
    return next((i.instance for i in group_of(snapshot).instances if i.state is InstanceState.BOOTING), None)


# The daemon itself


def test_asked_to_stop_in_the_middle_of_a_removal(daemon: DaemonProcess, before: Before, libvirt_uri: str) -> None:
    daemon.write_policy(**{**QUICK, "drain": {"deadline": "15s"}}, size=SIZE)
    daemon.start()
    daemon.until_ready(1)
    scale(daemon, 2)
    daemon.until_ready(2)
    scale(daemon, 1)
    wait_until(lambda: steps(daemon) == {"shutdown"}, 30, "a removal that waits for its guest")
    assert daemon.stop() == 0
    assert steps(daemon) == {"shutdown"}
    daemon.start()
    daemon.until_ready(1)
    until_settled(before, daemon, MOST)


@pytest.mark.parametrize("offset", ["-1h", "+1h"], ids=["back", "forward"])
def test_the_clock_is_set_by_an_hour(daemon: DaemonProcess, before: Before, tmp_path: Path, offset: str) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0s")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    daemon.environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    daemon.start()
    (first,) = daemon.until_ready(1)
    clock.write_text(offset)
    daemon.until_tick(4, 30)
    assert [instance.instance for instance in daemon.until_ready(1)] == [first.instance]
    scale(daemon, 2)
    daemon.until_ready(2)
    scale(daemon, 1)
    daemon.until_ready(1)
    until_settled(before, daemon, MOST)


@pytest.fixture
def small_state(daemon: DaemonProcess) -> Iterator[Path]:
    """The daemon's state directory, on a file system of 2 MiB."""
    path = daemon.state_dir
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", path], check=True)
    yield path
    daemon.close()
    subprocess.run(["umount", path], check=True)


def test_a_full_state_directory_stops_all_action_and_no_guest(
    daemon: DaemonProcess, before: Before, small_state: Path
) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    ballast = small_state / "ballast"
    _fill(ballast, 0)
    wait_until(lambda: "tick not committed, nothing was done" in daemon.text(), 60, "a tick that cannot be committed")
    assert check_always(before, controller(daemon), MOST) == {first.instance}
    ballast.unlink()
    daemon.until_tick(2)
    scale(daemon, 2)
    daemon.until_ready(2)
    until_settled(before, daemon, MOST)


# What is left over


def test_what_an_operator_left_over_is_collected_after_the_grace_period(
    daemon: DaemonProcess, before: Before, libvirt_uri: str, virt: libvirt.virConnect
) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    _undefine(virt, first.instance)
    daemon.until(lambda seen: first.instance not in {i.instance for i in group_of(seen).instances}, 30, "it is missed")
    daemon.until_ready(1)
    until_settled(before, daemon, MOST)
    (collected,) = (line for line in daemon.lines() if line.get("action") == "collect")
    assert (collected["event"], collected["instance"]) == ("action done", first.instance)


def test_a_left_over_volume_that_another_domain_uses_is_left_alone(
    daemon: DaemonProcess, before: Before, pool: Pool, virt: libvirt.virConnect
) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    _undefine(virt, first.instance)
    disk = pool.path / f"{first.instance}.qcow2"
    virt.defineXML(
        "<domain type='qemu'><name>rescued</name><memory unit='MiB'>32</memory><os><type>hvm</type></os><devices>"
        f"<disk type='file'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda'/></disk>"
        "</devices></domain>"
    )
    wait_until(lambda: failures(daemon), 30, "a refusal")
    assert "domain rescued uses it" in failures(daemon)[0]
    assert disk.exists()
    virt.lookupByName("rescued").undefine()
    until_settled(before, daemon, MOST)


def test_a_lost_journal_adopts_and_collects_nothing_until_it_is_accepted(
    daemon: DaemonProcess, before: Before, pool: Pool, virt: libvirt.virConnect
) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    daemon.stop()
    for file in daemon.state_dir.glob("journal.sqlite3*"):
        file.unlink()
    daemon.start()
    assert [instance.instance for instance in daemon.until_ready(1)] == [first.instance], "adopted by its metadata"
    scale(daemon, 2)
    (new,) = {instance.instance for instance in daemon.until_ready(2)} - {first.instance}
    _undefine(virt, new)
    daemon.until(lambda seen: new not in {i.instance for i in group_of(seen).instances}, 30, "it is missed")
    daemon.until_tick(6)
    assert (pool.path / f"{new}.qcow2").exists()
    assert _accept(daemon) == 0
    wait_until(lambda: not (pool.path / f"{new}.qcow2").exists(), 30, "what is left over is collected")
    assert _accept(daemon) == 1
    daemon.until_ready(2)
    # The one that was adopted is in the ledger again, so that nothing of it can be lost either.
    until_settled(before, daemon, MOST)


def _accept(daemon: DaemonProcess) -> int:
    return subprocess.run([COMMAND, "ledger", "accept", "--config", daemon.config], check=False).returncode


def _undefine(virt: libvirt.virConnect, name: str) -> None:
    domain = virt.lookupByName(name)
    domain.undefine()
    domain.destroy()
