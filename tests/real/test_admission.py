"""The hosts' limits on real guests: what does not fit is refused, by name, and comes by itself when there is room."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import psutil
import pytest

from autoscaler.core.capacity import overhead_bytes
from autoscaler.core.decision import Reason, ReasonCode
from autoscaler.core.snapshot import Snapshot
from tests.real.conftest import GOLDEN, Pool
from tests.support.daemon import DaemonProcess, burn, domains, group_of
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

MIB = 1024**2
ONE = 192 * MIB + overhead_bytes(192 * MIB, 1)
TINY = """\
<network>
  <name>tiny</name>
  <forward mode='nat'/>
  <bridge name='virbr7' stp='off' delay='0'/>
  <ip address='192.168.177.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.177.2' end='192.168.177.3'/></dhcp>
  </ip>
</network>
"""
BURNER = """
import hashlib, sys, threading
open("/proc/self/comm", "w").write("burner")
for _ in range(int(sys.argv[1])):
    threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"burn", b"salt", 10**9)).start()
"""
_RANGE_SECTION = libvirt.VIR_NETWORK_SECTION_IP_DHCP_RANGE
_FIXED = {"scaling": [], "size": {"min": 1, "max": 4}}

Daemons = Callable[..., DaemonProcess]


@pytest.fixture
def daemon_of(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[Daemons]:
    """Makes a daemon whose host has these limits."""
    made: list[DaemonProcess] = []

    def make(policy: dict[str, object], **host: object) -> DaemonProcess:
        made.append(DaemonProcess(tmp_path, libvirt_uri, pool.name, **policy))
        made[-1].configure(hosts={"local": {"uri": libvirt_uri, **host}})
        return made[-1]

    yield make
    for each in made:
        each.close()


def reasons(snapshot: Snapshot, group: str = "web") -> dict[ReasonCode, Reason]:
    decision = group_of(snapshot, group).decision
    return {} if decision is None else {reason.code: reason for reason in decision.reasons}


def refused_at(daemon: DaemonProcess, code: ReasonCode, count: int) -> Reason:
    """Wait until a clone is refused with this many instances there, for good."""
    seen = daemon.until(lambda snapshot: code in reasons(snapshot), 60, f"{code}")
    daemon.until_ready(count)
    daemon.until_tick(3)
    seen = daemon.until(lambda snapshot: code in reasons(snapshot), 10, f"{code}")
    decision = group_of(seen).decision
    assert decision is not None
    assert (decision.desired, decision.admitted) == (count + 1, count)
    resource = code.value.removeprefix("refused_for_")
    assert f'autoscaler_admission_refused{{group="web",resource="{resource}"}} 1.0' in daemon.metrics()
    return reasons(seen)[code]


def test_a_clone_that_has_no_memory_waits_for_a_foreign_guest_to_end(
    daemon_of: Daemons, libvirt_uri: str, virt: libvirt.virConnect
) -> None:
    """The foreign guest uses next to nothing of what it may have: what is promised counts."""
    granted = 12 * 1024 * MIB
    reserve = psutil.virtual_memory().total - granted
    foreign = (granted - 3 * ONE) // MIB - overhead_bytes(granted, 1) // MIB
    xml = (
        f"<domain type='qemu'><name>others</name><memory unit='MiB'>{foreign}</memory>"
        "<os><type>hvm</type></os><devices><memballoon model='none'/></devices></domain>"
    )
    virt.createXML(xml)
    daemon = daemon_of(_FIXED, reserve={"memory": f"{reserve}B"}).start()
    daemon.until_ready(1)
    daemon.ask("scale", group="web", count=4, for_seconds=600.0)
    reason = refused_at(daemon, ReasonCode.REFUSED_FOR_MEMORY, 3)
    assert reason.parameters["need_bytes"] == ONE
    shown = daemon.run("capacity", "web", "--to", "4")
    assert (shown.returncode, "memory" in shown.stdout) == (1, True), shown.stdout
    assert "others" in domains(libvirt_uri), "what is not ours is never touched"
    virt.lookupByName("others").destroy()
    daemon.until_ready(4)
    assert daemon.run("capacity", "web", "--to", "4").returncode == 0


def test_a_clone_that_could_outgrow_the_pool_waits_for_space(
    daemon_of: Daemons, libvirtd: PrivateLibvirtd, virt: libvirt.virConnect, pool: Pool
) -> None:
    """The pool has room for the overlays as they are, but not for what they may come to."""
    disk = virt.storagePoolLookupByName(pool.name).storageVolLookupByName(GOLDEN).info()[1]
    size = pool.golden.stat().st_blocks * 512 + disk * 5 // 2
    mount = f"mv {pool.golden} {pool.path}.aside; mount -t tmpfs -o size={size},mode=0711 tmpfs {pool.path}"
    libvirtd.command("sh", "-c", mount)
    libvirtd.command("mv", f"{pool.path}.aside", str(pool.golden))
    virt.storagePoolLookupByName(pool.name).refresh()
    daemon = daemon_of(_FIXED)
    daemon.prefix = libvirtd.inside("--mount")
    try:
        daemon.start()
        daemon.until_ready(1)
        daemon.ask("scale", group="web", count=3, for_seconds=600.0)
        reason = refused_at(daemon, ReasonCode.REFUSED_FOR_POOL_SPACE, 2)
        assert (reason.parameters["name"], reason.parameters["need_bytes"]) == (pool.name, disk)
        libvirtd.command("mount", "-o", f"remount,size={size + disk}", str(pool.path))
        daemon.until_ready(3)
    finally:
        daemon.close()
        for domain in virt.listAllDomains():
            domain.destroy()
        libvirtd.command("umount", "--lazy", str(pool.path))


def test_a_clone_without_an_address_waits_for_a_wider_range(daemon_of: Daemons, virt: libvirt.virConnect) -> None:
    network = virt.networkCreateXML(TINY)
    try:
        machine = {"vcpus": 1, "memory": "192MiB", "network": "tiny", "accelerator": "tcg"}
        daemon = daemon_of({**_FIXED, "machine": machine}).start()
        daemon.until_ready(1)
        daemon.ask("scale", group="web", count=3, for_seconds=600.0)
        reason = refused_at(daemon, ReasonCode.REFUSED_FOR_ADDRESSES, 2)
        assert (reason.parameters["name"], reason.parameters["have"]) == ("tiny", 0)
        wider = "<range start='192.168.177.10' end='192.168.177.11'/>"
        network.update(libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST, _RANGE_SECTION, 0, wider, 0)
        daemon.until_ready(3)
    finally:
        network.destroy()


def test_an_urgent_group_takes_the_room_of_a_lesser_one(daemon_of: Daemons) -> None:
    """Three vCPUs: two of them are the lesser group's, which is not due to scale in and keeps its minimum."""
    slow = {"scale_in": {"cooldown": "10m", "stabilization": "10m"}}
    batch = {"group": "batch", "priority": 10, "behavior": slow}
    daemon = daemon_of({**batch, "size": {"min": 2, "max": 2}}, overcommit={"vcpus": 3 / (os.cpu_count() or 1)})
    daemon.start()
    daemon.until_ready(2, group="batch")
    daemon.write_policy(**batch, size={"min": 1, "max": 2})
    daemon.write_policy(group="shop", size={"min": 1, "max": 2}, scaling=[], priority=90)
    daemon.ask("reload")
    daemon.until_ready(1, group="shop")
    daemon.ask("scale", group="shop", count=2, for_seconds=600.0)
    seen = daemon.until(lambda seen: ReasonCode.TAKES_ROOM_FROM in reasons(seen, "shop"), 30, "room", poll_seconds=0.02)
    assert reasons(seen, "shop")[ReasonCode.REFUSED_FOR_VCPUS].parameters["refused"] == 1
    assert reasons(seen, "shop")[ReasonCode.TAKES_ROOM_FROM].parameters["group"] == "batch"
    assert reasons(seen, "batch")[ReasonCode.YIELDS_TO_GROUP].parameters["group"] == "shop"
    daemon.until_ready(2, group="shop")
    daemon.until_ready(1, group="batch")


@pytest.mark.serial
@pytest.mark.slow
def test_guests_on_a_host_that_others_burn_are_starved_and_not_busy(daemon_of: Daemons, libvirt_uri: str) -> None:
    daemon = daemon_of({"size": {"min": 1, "max": 3}, "starved": "hold"}).start()
    (first,) = daemon.until_ready(1)
    burner = subprocess.Popen([sys.executable, "-c", BURNER, str(6 * (os.cpu_count() or 1))])
    try:
        wait_until(lambda: psutil.cpu_percent(0.5) > 95, 20, "a host that has nothing left")
        burn(libvirt_uri, first.instance, 1.0)
        seen = daemon.until(lambda seen: ReasonCode.STARVED in reasons(seen), 60, "starved", poll_seconds=0.3)
        seen = daemon.until(_hungry, 60, "guests that want 90 % and are withheld 30 %", poll_seconds=0.3)
        assert seen.tick is not None
        until = seen.tick.number + 10
        while seen.tick is not None and seen.tick.number < until:
            decision = group_of(seen).decision
            assert decision is not None
            assert (decision.admitted, len(group_of(seen).instances)) == (1, 1), decision
            culprits = str(reasons(seen)[ReasonCode.STARVED].parameters["culprits"])
            assert f"burner (pid {burner.pid})" in culprits, culprits
            seen = daemon.until_tick(1)
    finally:
        burner.kill()
        burner.wait()
    ended = daemon.snapshot().tick
    assert ended is not None
    grown = daemon.until(lambda seen: len(group_of(seen).instances) > 1, 60, "a clone", poll_seconds=0.05)
    assert grown.tick is not None
    assert grown.tick.number <= ended.number + 3


def _hungry(snapshot: Snapshot) -> bool:
    decision = group_of(snapshot).decision
    assert decision is not None
    (seen,) = decision.inputs
    return seen.latest is not None and seen.latest >= 0.9 and seen.steal is not None and seen.steal >= 0.3
