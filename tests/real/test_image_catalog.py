"""The catalog of images on a real libvirt: what is stored, what is followed, what stays, and that no half does."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.snapshot import Snapshot
from autoscaler.store import Journal
from tests.real.conftest import GOLDEN, Pool
from tests.support.daemon import COMMAND, DaemonProcess, group_of
from tests.support.private_libvirtd import wait_until
from tests.unit.test_images_lint import HOSTILE, qemu_img

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name, size={"min": 0, "max": 3}, scaling=[])
    yield process
    process.close()


class Images:
    """The commands about images, of one daemon."""

    def __init__(self, daemon: DaemonProcess, pool: Pool) -> None:
        self.daemon = daemon
        self.pool = pool

    def command(self, command: str, *given: str | Path) -> list[str | Path]:
        more = ("--pool", self.pool.name) if command == "import" else ()
        return [COMMAND, "image", command, "--config", self.daemon.config, *more, *given]

    def run(self, command: str, *given: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(self.command(command, *given), capture_output=True, text=True, timeout=120, check=False)

    def done(self, command: str, *given: str | Path) -> str:
        ended = self.run(command, *given)
        assert ended.returncode == 0, (ended.stdout, ended.stderr)
        return ended.stdout

    def data(self, command: str, *given: str | Path) -> Any:
        return json.loads(self.done(command, "--json", *given))

    def stored(self) -> set[str]:
        """The volumes of images that lie in the pool."""
        return {name for name in self.pool.files() if "@" in name}


@pytest.fixture
def images(daemon: DaemonProcess, pool: Pool) -> Images:
    return Images(daemon, pool)


@pytest.fixture
def other(golden_image: Path, tmp_path: Path) -> Path:
    """The golden image with another content: a few bytes behind the disk's file system."""
    path = tmp_path / "other.qcow2"
    qemu_img("convert", "-O", "qcow2", golden_image, path)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 -64k 64k", path], check=False, capture_output=True)
    qemu_img("resize", path, "+1M")
    return path


def test_what_is_stored_is_followed_and_stays_while_something_stands_on_it(
    daemon: DaemonProcess, images: Images, pool: Pool, golden_image: Path, other: Path
) -> None:
    daemon.write_policy(image={"name": "web"}, size={"min": 1, "max": 3}, scaling=[])
    daemon.start()
    daemon.until(lambda s: ReasonCode.HELD_BY_UNKNOWN_IMAGE in codes(s), 30, "launches held without an image")
    assert "no image web is published for host local" in daemon.run("explain", "web").stdout

    first = images.data("import", golden_image, "--name", "web")
    assert (first["new"], first["version"]["version"]) == (True, 1)
    volume = pool.path / first["version"]["volume"]
    assert hashlib.sha256(volume.read_bytes()).hexdigest() == first["version"]["digest"]
    assert stat.S_IMODE(volume.stat().st_mode) == 0o444
    assert "backing" not in (described := qemu_info(volume)), described
    again = images.done("import", golden_image, "--name", "web")
    assert "has this content already: it is version 1" in again
    of_the_volume = images.done("import", GOLDEN, "--name", "web")
    assert "has this content already: it is version 1" in of_the_volume, "a copy is the same whatever it is made from"
    assert images.stored() == {volume.name}
    assert "qemu-img finds nothing wrong with it" in images.done("lint", "web")

    (instance,) = daemon.until_ready(1)
    assert backing(pool, instance.instance) == volume

    second = images.done("import", other, "--name", "web")
    assert "version 1 is still the one that is followed" in second
    assert images.done("publish", "web") == "version 2 of image web is followed from now on\n"
    planned = images.data("prune", "--keep", "0", "--dry-run")["versions"]
    assert [(plan["kept"], plan["uses"]["overlays"]) for plan in planned] == [
        (["stood_on"], [f"{instance.instance}.qcow2"]),
        (["published"], []),
    ]
    assert f"kept: stood on by {instance.instance}.qcow2" in images.done("prune", "--keep", "0")
    assert volume in pool.path.iterdir()

    daemon.write_policy(image={"name": "web"}, size={"min": 0, "max": 3}, scaling=[])
    daemon.ask("reload")
    daemon.ask("scale", group="web", count=0)
    daemon.until(lambda s: not group_of(s).instances, 60, "the group empty")
    assert len(images.stored()) == 2
    assert "removed" in images.done("prune", "--keep", "0")
    assert len(images.stored()) == 1
    assert volume.name not in images.stored()
    refused = images.run("rollback", "web")
    assert (refused.returncode, "no version of image web was published before" in refused.stderr) == (1, True)


@pytest.mark.parametrize(("make", "code"), HOSTILE, ids=[code for _, code in HOSTILE])
def test_a_hostile_image_is_refused_before_anything_is_uploaded(
    daemon: DaemonProcess, images: Images, pool: Pool, tmp_path: Path, make: Callable[[Path, Path], None], code: str
) -> None:
    good, bad = tmp_path / "good.qcow2", tmp_path / "bad.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", good, "16M")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 8M", good], check=True, capture_output=True)
    make(good, bad)
    daemon.start()
    ended = images.run("import", bad, "--name", "web", "--json")
    assert ended.returncode == 1
    assert {f["code"] for f in json.loads(ended.stdout)["findings"] if f["level"] == "error"} == {code}
    assert pool.files() == {GOLDEN}
    assert daemon.ask("images")["catalog"]["versions"] == []


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """An image that takes a while to upload."""
    path, raw = tmp_path / "large.qcow2", tmp_path / "large.raw"
    with raw.open("wb") as file:
        for _ in range(192):
            file.write(os.urandom(1024**2))
    qemu_img("convert", "-O", "qcow2", raw, path)
    raw.unlink()
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_import_leaves_no_half(
    daemon: DaemonProcess, images: Images, pool: Pool, large: Path, number: signal.Signals
) -> None:
    daemon.configure(orphans={"grace": "2s"})
    daemon.start()
    process = subprocess.Popen(images.command("import", large, "--name", "web"), stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: bool(images.stored()), 60, "the half of the import")
        process.send_signal(signal.SIGSTOP)
        assert daemon.ask("images")["catalog"]["versions"] == [], "the import was over before it could be interrupted"
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)
        code = process.wait(60)
    finally:
        process.kill()
        process.communicate()
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130)
    if number is not signal.SIGKILL:
        assert pool.files() == {GOLDEN}
    wait_until(lambda: pool.files() == {GOLDEN}, 60, "the half gone")
    wait_until(lambda: not ledger(daemon), 30, "the ledger empty")
    began = time.monotonic()
    assert images.data("import", large, "--name", "web")["version"]["version"] == 1
    print(f"the import that was left alone took {time.monotonic() - began:.1f} s")


def test_an_import_goes_on_over_a_restart_of_the_daemon_and_is_followed(
    daemon: DaemonProcess, images: Images, large: Path
) -> None:
    daemon.start()
    process = subprocess.Popen(images.command("import", large, "--name", "web"), stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: bool(images.stored()), 60, "the half of the import")
        process.send_signal(signal.SIGSTOP)
        daemon.kill()
        daemon.start()
        assert daemon.ask("images")["catalog"]["versions"] == []
        assert len(ledger(daemon)) == 1
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "stored as version 1 of image web" in said) == (0, True)
    assert ledger(daemon) == []


def ledger(daemon: DaemonProcess) -> list[str]:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return [volume.name for volume in journal.volumes()]
    finally:
        journal.close()


def codes(snapshot: Snapshot) -> list[ReasonCode]:
    decision = group_of(snapshot).decision
    return [] if decision is None else [reason.code for reason in decision.reasons]


def qemu_info(path: Path) -> str:
    return subprocess.run(
        ["qemu-img", "info", "--force-share", path], capture_output=True, text=True, check=True
    ).stdout


def backing(pool: Pool, instance: str) -> Path:
    described = subprocess.run(
        ["qemu-img", "info", "--force-share", "--output=json", pool.path / f"{instance}.qcow2"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return Path(json.loads(described)["full-backing-filename"])


def test_a_golden_image_that_changes_under_a_live_overlay_is_noticed(
    daemon: DaemonProcess, images: Images, pool: Pool
) -> None:
    daemon.write_policy(size={"min": 1, "max": 3}, scaling=[])
    daemon.start()
    (first,) = daemon.until_ready(1)
    content = pool.golden.read_bytes()

    pool.golden.touch()
    daemon.until_tick(4)
    daemon.ask("scale", group="web", count=2)
    daemon.until_ready(2)
    assert 'autoscaler_image_changed{group="web"} 0.0' in daemon.metrics(), "a mere touch is no change"

    pool.golden.write_bytes(content + b"\0" * 512)
    seen = daemon.until(lambda s: group_of(s).image_changed, 30, "the alarm")
    (alarm,) = (r for r in decision_of(seen).reasons if r.code is ReasonCode.IMAGE_CHANGED)
    assert first.instance in str(alarm.parameters["instances"])
    assert 'autoscaler_image_changed{group="web"} 1.0' in daemon.metrics()
    daemon.ask("scale", group="web", count=3)
    daemon.until(lambda s: ReasonCode.HELD_BY_CHANGED_IMAGE in codes(s), 30, "the clone held")
    assert f"golden image {pool.name}/{GOLDEN} on host local was changed" in daemon.run("explain", "web").stdout
    assert "image_changed" in {event["kind"] for event in daemon.ask("events")}
    (line,) = (line for line in daemon.lines() if line.get("event") == "golden image changed")
    assert (line["level"], line["group"]) == ("error", "web")
    assert len(daemon.group().instances) == 2

    daemon.kill()
    daemon.start()
    daemon.until(lambda s: ReasonCode.HELD_BY_CHANGED_IMAGE in codes(s), 30, "the clone held after a restart")
    assert len(daemon.group().instances) == 2

    pool.golden.write_bytes(content)
    daemon.until_ready(3)
    assert 'autoscaler_image_changed{group="web"} 0.0' in daemon.metrics()


def decision_of(snapshot: Snapshot) -> Decision:
    decision = group_of(snapshot).decision
    assert decision is not None
    return decision
