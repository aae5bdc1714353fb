"""Instances that went off with their host, on a real libvirt that was stopped and started over dead guests.

A reboot is played: the daemon is killed, the guests lose their power or are saved, libvirtd ends and starts, and the
daemon is shown another boot id.
"""

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from autoscaler.core.action import Start
from autoscaler.store import Journal
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, domains, guest_exec
from tests.support.private_libvirtd import PrivateLibvirtd

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    process.configure(workers=1)
    process.fake_boot("first")
    process.start()
    yield process
    process.close()


def grow(daemon: DaemonProcess, count: int) -> list[str]:
    """Launch instances one after another; gives their names, oldest first."""
    names: list[str] = []
    for size in range(1, count + 1):
        daemon.ask("scale", group="web", count=size, for_seconds=3600.0)
        names += {instance.instance for instance in daemon.until_ready(size)} - set(names)
    return names


def switch_off(libvirtd: PrivateLibvirtd, names: list[str], saved: list[str]) -> None:
    for name in names:
        libvirtd.command("virsh", "-c", "qemu:///system", "managedsave" if name in saved else "destroy", name)
    libvirtd.restart()


def test_a_rebooted_hosts_instances_are_brought_back_and_none_is_cloned(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, libvirt_uri: str, pool: Pool
) -> None:
    names = grow(daemon, 3)
    guest_exec(libvirt_uri, names[1], "echo here > /run/before")
    files = pool.files()
    daemon.kill()
    switch_off(libvirtd, names, saved=[names[1]])
    assert domains(libvirt_uri) == dict.fromkeys(names, False)
    began = len(daemon.lines())
    daemon.fake_boot("second")
    daemon.start()
    back = daemon.until_ready(3)
    assert {instance.instance for instance in back} == set(names)
    assert pool.files() == files
    assert domains(libvirt_uri) == dict.fromkeys(names, True)
    done = [(line["action"], line["instance"]) for line in daemon.lines()[began:] if line["event"] == "action done"]
    assert done == [("start", name) for name in names], "oldest first, and nothing else"
    assert _most_starts_at_once(daemon) == 1
    _went_on_from_its_save(daemon, libvirt_uri, names[1])


def _most_starts_at_once(daemon: DaemonProcess) -> int:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return max(
            sum(isinstance(flight.intent.action, Start) for flight in tick.observation.in_flight)
            for tick in journal.replay()
        )
    finally:
        journal.close()


def _went_on_from_its_save(daemon: DaemonProcess, uri: str, name: str) -> None:
    """Power it off from inside if, and only if, what it had in memory is still there."""
    guest_exec(uri, name, "test -e /run/before && poweroff -f")
    daemon.until(lambda _: not domains(uri).get(name, False), 20, "the guest that kept its memory ends")


def test_off_by_hand_without_a_reboot_is_replaced(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, libvirt_uri: str
) -> None:
    (name,) = grow(daemon, 1)
    daemon.kill()
    switch_off(libvirtd, [name], saved=[])
    daemon.start()
    daemon.until(lambda _: name not in domains(libvirt_uri), 40, "the instance is removed")
    assert daemon.until_ready(1)[0].instance != name


@pytest.mark.slow
def test_one_whose_disk_is_lost_is_replaced_in_the_end(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, libvirt_uri: str, pool: Pool
) -> None:
    names = grow(daemon, 2)
    daemon.kill()
    switch_off(libvirtd, names, saved=[])
    (pool.path / f"{names[0]}.qcow2").unlink()
    daemon.fake_boot("second")
    daemon.start()
    daemon.until(lambda _: names[0] not in domains(libvirt_uri), 150, "it is given up and removed")
    ready = {instance.instance for instance in daemon.until_ready(2)}
    assert names[1] in ready
    failed = [line for line in daemon.lines() if line["event"] == "action failed"]
    assert [(line["action"], line["instance"]) for line in failed] == [("start", names[0])] * 3


def test_a_connection_lists_what_is_saved(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, virt: libvirt.virConnect
) -> None:
    """Put to sleep by hand, without a reboot, an instance comes back as well: nothing of it is lost."""
    (name,) = grow(daemon, 1)
    libvirtd.command("virsh", "-c", "qemu:///system", "managedsave", name)
    daemon.until(lambda _: bool(virt.lookupByName(name).isActive()), 30, "it is brought back")
    assert daemon.until_ready(1)[0].instance == name
