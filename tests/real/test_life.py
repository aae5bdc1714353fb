"""What operators and accidents do to real instances, and what the daemon makes of it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from autoscaler.core.snapshot import InstanceStatus, Snapshot
from autoscaler.core.transition import InstanceState, TransitionReason
from autoscaler.hypervisor.domain_xml import agent_connected
from autoscaler.store import Journal
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, domains, group_of
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    drain = {"deadline": "10s", "idle": "1%", "wait": "10m"}
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name, scaling=[], drain=drain)
    yield process
    process.close()


def path(daemon: DaemonProcess, instance: str) -> list[tuple[str, str]]:
    """Give the states an instance came into, each with the reason, as the journal has them."""
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        events = [event for event in journal.events() if event.instance == instance and event.kind == "instance"]
    finally:
        journal.close()
    return [(str(event.detail["after"]), str(event.detail["reason"])) for event in events]


def named(snapshot: Snapshot, instance: str) -> InstanceStatus | None:
    return next((each for each in group_of(snapshot).instances if each.instance == instance), None)


def done(daemon: DaemonProcess, *command: str) -> str:
    result = daemon.run(*command)
    assert result.returncode == 0, result.stderr
    return result.stdout


def two(daemon: DaemonProcess) -> tuple[str, str]:
    """Hold the group at two instances and name them, the older first."""
    daemon.start()
    (first,) = daemon.until_ready(1)
    done(daemon, "scale", "web", "2")
    names = {instance.instance for instance in daemon.until_ready(2)}
    (second,) = names - {first.instance}
    return first.instance, second


def test_protect_detach_attach_and_what_virsh_does(
    daemon: DaemonProcess, libvirt_uri: str, libvirtd: PrivateLibvirtd, virt: libvirt.virConnect
) -> None:
    daemon.write_policy(scaling=[])
    older, newer = two(daemon)
    assert "is not removed until" in done(daemon, "protect", newer, "--for", "2h")
    done(daemon, "scale", "web", "1")
    (left,) = daemon.until_ready(1)
    assert left.instance == newer, "the newest goes first, but for a protected one"
    assert path(daemon, older)[-2:] == [("stopping", "scale_in"), ("removed", "removed")]
    assert "protected until" in done(daemon, "status")

    done(daemon, "detach", newer)
    seen = daemon.until(
        lambda snapshot: (
            sorted(each.state for each in group_of(snapshot).instances) == [InstanceState.DETACHED, InstanceState.READY]
        ),
        120,
        "another in the place of the detached one",
    )
    detached = named(seen, newer)
    assert detached is not None
    assert detached.state is InstanceState.DETACHED
    (other,) = {each.instance for each in group_of(seen).instances} - {newer}
    done(daemon, "attach", newer)
    (left,) = daemon.until_ready(1)
    assert left.instance == newer, "back, and the operator holds the group at one"
    assert path(daemon, other)[-1] == ("removed", "removed")

    domain = virt.lookupByName(newer)
    domain.suspend()
    daemon.until(lambda s: (each := named(s, newer)) and each.detail == "paused_by_somebody", 20, "a paused one")
    assert f"{newer} was paused by somebody" in done(daemon, "explain", "web")
    daemon.until_tick(3)
    assert set(domains(libvirt_uri)) == {newer}, "left alone, and counted"
    domain.resume()
    daemon.until(lambda s: (each := named(s, newer)) and each.detail is None, 20, "a resumed one")

    done(daemon, "unprotect", newer)
    domain.destroy()
    daemon.until(lambda snapshot: named(snapshot, newer) is None, 60, "the stopped one removed")
    daemon.until_ready(1)
    told = path(daemon, newer)
    assert ("ready", TransitionReason.RESUMED_BY_SOMEBODY.value) in told
    assert told[-3:] == [
        ("failed", "stopped_by_somebody"),
        ("stopping", "stopped_by_somebody"),
        ("removed", "removed"),
    ]
    lines = [line for line in daemon.lines() if line.get("event") == "instance changed"]
    assert any(line["instance"] == newer and line["reason"] == "stopped_by_somebody" for line in lines)
    assert 'autoscaler_instance_transitions_total{group="web",to="removed"} 3.0' in daemon.metrics()

    (successor,) = daemon.until_ready(1)
    os.kill(libvirtd.qemu_pid(successor.instance), signal.SIGKILL)
    daemon.until(lambda snapshot: named(snapshot, successor.instance) is None, 60, "the crashed one removed")
    assert ("failed", "crashed") in path(daemon, successor.instance)
    daemon.until_ready(1)


def test_a_draining_one_is_taken_back_and_a_group_without_policy_is_deleted(
    daemon: DaemonProcess, libvirt_uri: str, pool: Pool
) -> None:
    older, newer = two(daemon)
    done(daemon, "scale", "web", "1")
    daemon.until(lambda s: (each := named(s, newer)) and each.state is InstanceState.DRAINING, 20, "a draining one")
    daemon.until_tick(2)
    done(daemon, "scale", "web", "2")
    assert {instance.instance for instance in daemon.until_ready(2)} == {older, newer}
    assert path(daemon, newer)[-2:] == [("draining", "scale_in"), ("ready", "taken_back")]

    refused = daemon.run("group", "delete", "web", "--yes")
    assert refused.returncode == 1
    assert "take its file out" in refused.stderr
    (daemon.policies / "web.yaml").unlink()
    done(daemon, "reload")
    daemon.until(lambda s: group_of(s).size is None, 20, "an unmanaged group")
    assert 'autoscaler_group_managed{group="web"} 0.0' in daemon.metrics()
    assert set(domains(libvirt_uri)) == {older, newer}, "a file that vanished removes nothing"
    done(daemon, "group", "delete", "web", "--yes")
    daemon.until(lambda s: not s.groups, 60, "no group")
    assert domains(libvirt_uri) == {}
    assert not pool.files() & {f"{older}.qcow2", f"{newer}.qcow2"}
    assert path(daemon, older)[-2:] == [("stopping", "group_deleted"), ("removed", "removed")]


@pytest.mark.slow
def test_a_renamed_one_is_ours_still(
    daemon: DaemonProcess, libvirt_uri: str, pool: Pool, virt: libvirt.virConnect
) -> None:
    daemon.write_policy(scaling=[], drain={"deadline": "1s"})
    daemon.start()
    (only,) = daemon.until_ready(1)
    # A running domain cannot be renamed, and one that the daemon sees off is replaced.
    daemon.stop()
    domain = virt.lookupByName(only.instance)
    domain.destroy()
    domain.rename("mine-now", 0)
    domain.create()
    daemon.start()
    (still,) = daemon.until_ready(1)
    daemon.until_tick(3)
    assert still.instance == only.instance
    assert domains(libvirt_uri) == {"mine-now": True}, "found by its UUID: counted, and nothing in its place"
    assert TransitionReason.RENAMED_BY_SOMEBODY.value in [reason for _, reason in path(daemon, only.instance)]

    wait_until(lambda: agent_connected(domain.XMLDesc()), 60, "a guest that can be asked to shut down")
    (daemon.policies / "web.yaml").unlink()
    done(daemon, "reload")
    daemon.until(lambda s: group_of(s).size is None, 20, "an unmanaged group")
    done(daemon, "group", "delete", "web", "--yes")
    daemon.until(lambda s: not s.groups, 60, "no group")
    assert domains(libvirt_uri) == {}
    assert pool.files() == {"golden.qcow2"}, "its overlay and its console's log go with it, by whatever name it went"
