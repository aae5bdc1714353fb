"""The whole daemon in a process of its own, on real guests and real load."""

import hashlib
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.core.decision import ReasonCode
from autoscaler.core.observation import Ownership
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.transition import InstanceState
from autoscaler.store import Journal
from tests.real.conftest import GOLDEN, Pool
from tests.support.daemon import DaemonProcess, burn, define_foreign, domains, group_of
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until
from tests.support.prometheus import Prometheus

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]


def files_of(instances: Iterable[str]) -> set[str]:
    """What lies in the pool of a group with these instances, and nothing else."""
    return {GOLDEN} | {f"{name}{end}" for name in instances for end in (".qcow2", ".console.log")}


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    yield process
    process.close()


def codes(snapshot: Snapshot) -> list[ReasonCode]:
    decision = group_of(snapshot).decision
    return [] if decision is None else [reason.code for reason in decision.reasons]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_scales_out_and_in_on_real_load(daemon: DaemonProcess, libvirt_uri: str, pool: Pool) -> None:
    """Real load, a restart and a lost sample in the middle; then Prometheus, explain and the replayed journal."""
    golden = sha256(pool.golden)
    daemon.start()
    with Prometheus(daemon.directory / "prometheus", daemon.port) as prometheus:
        (first,) = daemon.until_ready(1)
        burn(libvirt_uri, first.instance, 0.9)
        three = daemon.until_ready(3)
        assert pool.files() == files_of([instance.instance for instance in three])
        _linked_to_golden(pool, [instance.instance for instance in three])
        prometheus.until('autoscaler_group_instances{group="web",state="ready"}', 3.0)
        daemon.kill()
        daemon.start()
        assert {instance.instance for instance in daemon.until_ready(3)} == {i.instance for i in three}
        daemon.until_tick(8)
        burn(libvirt_uri, first.instance, 0.0)
        held = daemon.until(codes, 30, "a scale-in that is held")
        assert set(codes(held)) & {
            ReasonCode.HELD_BY_STABILIZATION,
            ReasonCode.HELD_BY_COOLDOWN,
            ReasonCode.HELD_BY_UNFILLED_WINDOW,
        }
        daemon.until_ready(1)
        prometheus.until('autoscaler_group_size_admitted{group="web"}', float(_journalled(daemon)))
        prometheus.until('up{job="autoscaler"}', 1.0)
        _removed_series_vanish(daemon, {instance.instance for instance in three})
    _explains(daemon)
    assert pool.files() == files_of([instance.instance for instance in daemon.group().instances])
    assert sha256(pool.golden) == golden
    assert daemon.stop() == 0
    assert set(domains(libvirt_uri).values()) == {True}, "guests run on"


def _journalled(daemon: DaemonProcess) -> int:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        decision = journal.decision_at("web")
        assert decision is not None
        return decision.admitted
    finally:
        journal.close()


def _linked_to_golden(pool: Pool, instances: list[str]) -> None:
    for instance in instances:
        command: list[str | Path] = ["qemu-img", "info", "--force-share", pool.path / f"{instance}.qcow2"]
        info = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert f"backing file: {pool.golden}" in info
        assert "backing file format: qcow2" in info


def _removed_series_vanish(daemon: DaemonProcess, instances: set[str]) -> None:
    left = {instance.instance for instance in daemon.group().instances}
    text = daemon.metrics()
    assert not [gone for gone in instances - left if gone in text]


def _explains(daemon: DaemonProcess) -> None:
    """Also when nothing was done."""
    shown = daemon.run("explain", "web")
    assert shown.returncode == 0
    assert "guest.cpu" in shown.stdout
    assert re.search(r"\bold\b|\bago\b", shown.stdout), shown.stdout
    assert "web stays at 1" in shown.stdout, shown.stdout


def test_killed_in_the_middle_of_a_clone(daemon: DaemonProcess, libvirt_uri: str, pool: Pool) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    daemon.ask("scale", group="web", count=3, for_seconds=600.0)
    wait_until(lambda: _open_steps(daemon) & {"define", "start"}, 30, "a clone in the middle of a step")
    daemon.kill()
    assert _open_steps(daemon), "the clones were done before the kill"
    daemon.start()
    ready = daemon.until_ready(3)
    assert first.instance in {instance.instance for instance in ready}
    names = {instance.instance for instance in ready}
    assert set(domains(libvirt_uri)) == names
    assert pool.files() == files_of(names)
    daemon.stop()
    journal = Journal.open_readonly(daemon.state_dir)
    assert {volume.instance for volume in journal.volumes()} == names
    assert journal.in_flight() == ()


def _open_steps(daemon: DaemonProcess) -> set[str | None]:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return {flight.step for flight in journal.in_flight()}
    finally:
        journal.close()


def test_libvirt_gone_in_mid_run_and_back(daemon: DaemonProcess, libvirtd: PrivateLibvirtd, libvirt_uri: str) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    libvirtd.kill()
    held = daemon.until(lambda seen: ReasonCode.HELD_BY_UNKNOWN_INVENTORY in codes(seen), 30, "a held group")
    assert not held.hosts[0].connected
    assert group_of(held).decision.admitted == 1  # type: ignore[union-attr]
    assert 'autoscaler_libvirt_connected{host="local"} 0.0' in daemon.metrics()
    libvirtd.restart()
    (after,) = daemon.until_ready(1)
    assert after.instance == first.instance
    assert daemon.text().count("host does not answer") == 1
    assert daemon.text().count("host answers") == 2


def test_ends_in_time_while_libvirt_hangs(daemon: DaemonProcess, libvirtd: PrivateLibvirtd, libvirt_uri: str) -> None:
    daemon.start()
    daemon.until_ready(1)
    libvirtd.freeze()
    try:
        time.sleep(2.5)  # so that a tick is inside a call that hangs
        began = time.monotonic()
        assert daemon.stop(30.0) == 0
        assert time.monotonic() - began < 25
    finally:
        libvirtd.thaw()
    assert list(domains(libvirt_uri).values()) == [True]


def test_no_libvirt_at_start(tmp_path: Path, libvirtd: PrivateLibvirtd, libvirt_uri: str, pool: Pool) -> None:
    libvirtd.stop()
    daemon = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    try:
        daemon.start()
        held = daemon.until(lambda seen: ReasonCode.HELD_BY_UNKNOWN_INVENTORY in codes(seen), 30, "a held group")
        assert held.hosts[0].why
        libvirtd.restart()
        daemon.until_ready(1)
    finally:
        daemon.close()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"volume": "absent.qcow2"}, "absent.qcow2"), ({"pool": "nowhere"}, "nowhere")],
    ids=["image", "pool"],
)
def test_a_missing_pool_or_image_is_named(
    tmp_path: Path, libvirt_uri: str, pool: Pool, wrong: dict[str, str], named: str
) -> None:
    image = {"pool": pool.name, "volume": GOLDEN, **wrong}
    daemon = DaemonProcess(tmp_path, libvirt_uri, pool.name, image=image)
    try:
        daemon.start()
        daemon.until(lambda seen: ReasonCode.HELD_BY_LAUNCH_BACKOFF in codes(seen), 20, "a launch that backs off")
        failed = [line for line in daemon.lines() if line["event"] == "action failed"]
        assert failed
        assert all(named in line["error"] for line in failed)
        assert 'autoscaler_action_failures_total{group="web",kind="not_found"} 1.0' in daemon.metrics()
        assert domains(libvirt_uri) == {}
        assert pool.files() == files_of([])
    finally:
        daemon.close()


def test_what_is_not_ours_is_never_touched(daemon: DaemonProcess, libvirt_uri: str) -> None:
    define_foreign(libvirt_uri, "web-foreign")
    theirs = Ownership("00000000-0000-0000-0000-000000000000", "web", "web-theirs", "", 1.0)
    define_foreign(libvirt_uri, "web-theirs", theirs)
    daemon.start()
    (ours,) = daemon.until_ready(1)
    daemon.ask("scale", group="web", count=2, for_seconds=600.0)
    daemon.until_ready(2)
    daemon.ask("scale", group="web", count=1, for_seconds=600.0)
    daemon.until_ready(1)
    left = domains(libvirt_uri)
    assert left == {"web-foreign": True, "web-theirs": True, ours.instance: True}


def test_an_instance_destroyed_by_hand_is_replaced(daemon: DaemonProcess, libvirtd: PrivateLibvirtd) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    libvirtd.command("virsh", "-c", "qemu:///system", "destroy", first.instance)
    daemon.until(
        lambda seen: (
            [i.instance for i in group_of(seen).instances if i.state is InstanceState.READY]
            not in ([], [first.instance])
        ),
        60,
        "a replacement",
    )
    daemon.until_ready(1)
    assert first.instance not in domains(libvirtd.uri)


def test_reload_keeps_the_old_policies_when_the_new_are_wrong(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.until_ready(1)
    path = daemon.write_policy(size={"min": 5, "max": 4})
    refused = daemon.run("reload")
    assert refused.returncode == 1
    assert re.search(rf"{re.escape(str(path))}:\d+:\d+: ", refused.stderr + refused.stdout)
    assert "autoscaler_policy_reload_success 0.0" in daemon.metrics()
    assert "reload refused" in daemon.text()
    assert group_of(daemon.until_tick(2)).size == group_of(daemon.snapshot()).size
    daemon.write_policy(size={"min": 2, "max": 4})
    assert daemon.run("reload").returncode == 0
    daemon.until_ready(2)
    assert "autoscaler_policy_reload_success 1.0" in daemon.metrics()
    daemon.write_policy(size={"min": 1, "max": 3})
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    daemon.until(lambda seen: (size := group_of(seen).size) is not None and size.max == 3, 20, "SIGHUP's reload")


def test_a_vanished_policy_leaves_its_instances(daemon: DaemonProcess, libvirt_uri: str) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    (daemon.policies / "web.yaml").unlink()
    daemon.write_policy(group="other", size={"min": 1, "max": 1})
    assert daemon.run("reload").returncode == 0
    daemon.until_ready(1, group="other")
    assert group_of(daemon.snapshot()).size is None
    assert domains(libvirt_uri)[first.instance] is True
    assert "unmanaged" in daemon.text()
    daemon.write_policy()
    assert daemon.run("reload").returncode == 0
    assert daemon.until_ready(1)[0].instance == first.instance


def test_operators_commands(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.until_ready(1)
    assert daemon.run("scale", "web", "9").returncode == 1
    assert daemon.run("scale", "nobody", "1").returncode == 1
    assert daemon.run("scale", "web", "2", "--for", "5m").returncode == 0
    daemon.until_ready(2)
    assert ReasonCode.HELD_BY_OPERATOR in codes(daemon.snapshot())
    assert daemon.run("pause", "web").returncode == 0
    daemon.until(lambda seen: group_of(seen).paused, 10, "a paused group")
    assert daemon.run("scale", "web", "auto").returncode == 0
    daemon.until_tick(15)
    assert len(daemon.group().instances) == 2
    assert daemon.run("resume", "web").returncode == 0
    daemon.until_ready(1)
    status = daemon.run("status")
    assert status.returncode == 0
    assert "web" in status.stdout
    daemon.stop()
    assert daemon.run("status").returncode == 3


def test_systemd_is_told(daemon: DaemonProcess, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(20)
        daemon.environment = {"NOTIFY_SOCKET": str(path)}
        daemon.start()
        said = _receive_until(listener, "READY=1")
        assert "WATCHDOG=1" in said
        _receive_until(listener, "WATCHDOG=1")
        assert daemon.run("reload").returncode == 0
        assert "RELOADING=1" in _receive_until(listener, "READY=1")
        daemon.stop()
        assert "STOPPING=1" in _receive_until(listener, "STOPPING=1")


def _receive_until(listener: socket.socket, wanted: str) -> list[str]:
    said: list[str] = []
    while wanted not in said:
        said += listener.recv(4096).decode().split("\n")
    return said


def refused(process: DaemonProcess) -> str:
    """Start a daemon that must refuse to run; gives what it said."""
    process.start(wait=False)
    assert process.process is not None
    assert process.process.wait(20) == 1
    assert "Traceback" not in process.text()
    return process.text()


def test_wrong_starts_are_refused(daemon: DaemonProcess, tmp_path: Path, libvirt_uri: str, pool: Pool) -> None:
    daemon.start()

    def other(name: str, **changes: Any) -> DaemonProcess:
        directory = tmp_path / name
        directory.mkdir()
        return DaemonProcess(directory, libvirt_uri, pool.name, **changes)

    same_state = other("same-state")
    same_state.config.write_text(
        same_state.config.read_text().replace(str(same_state.state_dir), str(daemon.state_dir))
    )
    assert str(daemon.state_dir) in refused(same_state)

    port_in_use = other("port")
    port_in_use.config.write_text(port_in_use.config.read_text().replace(f":{port_in_use.port}", f":{daemon.port}"))
    assert str(daemon.port) in refused(port_in_use)

    unwritable = other("unwritable")
    (unwritable.directory / "file").touch()
    unwritable.config.write_text(
        unwritable.config.read_text().replace(str(unwritable.state_dir), str(unwritable.directory / "file" / "state"))
    )
    assert str(unwritable.directory / "file") in refused(unwritable)

    wrong = other("wrong", size={"min": 3, "max": 2})
    assert re.search(r"web\.yaml:\d+:\d+: ", refused(wrong))

    twice = other("twice")
    (twice.policies / "second.yaml").write_text((twice.policies / "web.yaml").read_text())
    assert re.search(r"web\.yaml:\d+:\d+: .*second\.yaml|second\.yaml:\d+:\d+: .*web\.yaml", refused(twice))

    assert daemon.socket.exists()
    assert daemon.run("status").returncode == 0
