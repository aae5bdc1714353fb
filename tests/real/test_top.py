"""`autoscaler top` on real guests: the processes, threads and figures of /proc and of `virsh domstats`."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import libvirt
import pytest

from autoscaler.core.action import Clone
from autoscaler.core.observation import DomainCounters
from autoscaler.core.policy import Accelerator, Image, Machine
from autoscaler.core.usage import QemuProcess
from autoscaler.hypervisor import LibvirtHypervisor
from autoscaler.top import Top
from tests.real.conftest import GOLDEN, HypervisorFactory, Pool
from tests.real.test_hypervisor import INSTANCE, agent, answers, define
from tests.support.daemon import COMMAND
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = pytest.mark.real

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
NOBODY = 65534
ASK_TWICE = """
import contextlib, io, os, sys
from autoscaler.cli import main
def ask():
    with contextlib.suppress(SystemExit):
        main(["--config", sys.argv[1], "top", "--once", "--json", "--interval", "1s"])
# What is loaded later is loaded by this: the other user may not be able to read the program's files.
with contextlib.redirect_stdout(io.StringIO()):
    ask()
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
ask()
"""


@pytest.fixture
def guest(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect, network: str
) -> libvirt.virDomain:
    """A guest of two vCPUs, the second of which is pinned to the host's CPU 0, that computes, reads and sends."""
    host: LibvirtHypervisor = hypervisor()
    machine = Machine(vcpus=2, memory_bytes=192 * 1024 * 1024, network=network, accelerator=Accelerator.TCG)
    define(host, Clone("web", "local", INSTANCE, Image(pool.name, GOLDEN), machine), controller)
    host.start(INSTANCE)
    wait_until(lambda: answers(host), 60, "the guest's agent answers")
    domain = virt.lookupByName(INSTANCE)
    cpus = os.cpu_count() or 1
    domain.pinVcpu(1, (True, *(False,) * (cpus - 1)))
    work = "while :; do dd if=/dev/vda of=/dev/null bs=64k count=4 2>/dev/null; done"
    talk = "while :; do wget -q -O /dev/null http://192.168.122.1:9/ 2>/dev/null; sleep 0.1; done"
    wait_until(lambda: virt.networkLookupByName(network).DHCPLeases(), 30, "the guest has an address")
    agent(domain, "guest-exec", path="/bin/sh", arg=["-c", f"{work} & {work} & {talk}"])
    return domain


def domstats(uri: str) -> dict[str, float]:
    asked = ["virsh", "-c", uri, "domstats", "--vcpu", "--balloon", "--block", "--interface", INSTANCE]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    pairs = (line.strip().split("=", 1) for line in told.splitlines() if "=" in line)
    return {name: float(value) for name, value in pairs if value.replace(".", "").isdigit()}


def ticks_of(stat: Path) -> float:
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_SECONDS


def resident_bytes(proc: Path) -> int:
    return int((proc / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def looked(top: Top) -> tuple[DomainCounters, QemuProcess]:
    (look,) = top.look()
    assert isinstance(look.running, tuple), look.running
    (running,) = look.running
    assert running.counters is not None
    assert isinstance(running.process, QemuProcess), running.process
    return running.counters, running.process


@pytest.fixture
def top(libvirtd: PrivateLibvirtd) -> Any:
    made = Top({"local": libvirtd.uri})
    yield made
    made.close()


def test_top_has_the_processes_threads_and_figures_of_proc_and_virsh(
    guest: libvirt.virDomain, libvirtd: PrivateLibvirtd, top: Top, tmp_path: Path
) -> None:
    pid = libvirtd.qemu_pid(INSTANCE)
    proc = Path(f"/proc/{pid}")
    named = {(task / "comm").read_text().strip(): int(task.name) for task in (proc / "task").iterdir()}
    wait_until(lambda: domstats(libvirtd.uri).get("balloon.usable"), 30, "the guest tells its memory")

    wait_until(lambda: _agrees(libvirtd, top, proc), 30, "figures that stand between two readings of their source")
    _, process = looked(top)
    assert process.pid == pid
    assert {f"CPU {it.vcpu}/TCG": it.tid for it in process.threads} == {
        name: tid for name, tid in named.items() if name.startswith("CPU ")
    }
    assert process.threads[1].processor == 0

    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"hosts": {"local": {"uri": libvirtd.uri}}}))
    command = [str(COMMAND), "--config", str(config), "top", "--once", "--group", "web"]
    before, began = domstats(libvirtd.uri), time.monotonic()
    told = subprocess.run([*command, "--json", "--interval", "3s"], capture_output=True, text=True, check=True)
    after, most_seconds = domstats(libvirtd.uri), time.monotonic() - began
    (usage,) = json.loads(told.stdout)["instances"]
    spent = {name: after[name] - before[name] for name in after if name in before}
    # It looked twice, three seconds apart, within these two readings of virsh.
    for shown, total in (
        (usage["vcpu_cores"] * 3, (spent["vcpu.0.time"] + spent["vcpu.1.time"]) / 1e9),
        (usage["disk_read_bytes_per_second"] * 3, spent["block.0.rd.bytes"]),
        (usage["net_rx_bytes_per_second"] * 3, spent["net.0.rx.bytes"]),
        (usage["net_tx_bytes_per_second"] * 3, spent["net.0.tx.bytes"]),
    ):
        assert 0 < shown <= total * 1.02 + 2 * TICK_SECONDS
        assert shown >= total * 3 / most_seconds * 0.5
    assert sum(thread["cores"] for thread in usage["threads"]) == pytest.approx(usage["vcpu_cores"], abs=0.1)
    assert usage["cores"] >= usage["vcpu_cores"] - 0.1
    human = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{INSTANCE} " in human
    assert all(f" {number} " in human for number in (pid, *(tid for name, tid in named.items() if "CPU" in name)))


def _agrees(libvirtd: PrivateLibvirtd, top: Top, proc: Path) -> bool:
    """Whether each figure is one that its source had, read right before and right after."""
    before, ticks_before, resident_before = domstats(libvirtd.uri), ticks_of(proc / "stat"), resident_bytes(proc)
    counters, process = looked(top)
    resident = resident_before, resident_bytes(proc)
    after, ticks_after = domstats(libvirtd.uri), ticks_of(proc / "stat")
    assert counters.vcpu_time_seconds is not None
    assert counters.disk_read_bytes is not None
    between = [
        (
            before["vcpu.0.time"] + before["vcpu.1.time"],
            counters.vcpu_time_seconds * 1e9,
            after["vcpu.0.time"] + after["vcpu.1.time"],
        ),
        (
            before["vcpu.0.delay"] + before["vcpu.1.delay"],
            (counters.vcpu_delay_seconds or 0) * 1e9,
            after["vcpu.0.delay"] + after["vcpu.1.delay"],
        ),
        (before["block.0.rd.bytes"], counters.disk_read_bytes, after["block.0.rd.bytes"]),
        (before["net.0.rx.bytes"], counters.net_rx_bytes or -1, after["net.0.rx.bytes"]),
        (before["net.0.tx.bytes"], counters.net_tx_bytes or -1, after["net.0.tx.bytes"]),
        (0.99 * min(resident), process.resident_bytes, 1.01 * max(resident)),
        (ticks_before, process.cpu_seconds, ticks_after),
    ]
    for number, thread in enumerate(process.threads):
        least, most = before[f"vcpu.{number}.time"] / 1e9, after[f"vcpu.{number}.time"] / 1e9
        between.append((least, thread.cpu_seconds, most))
    assert all(
        least - 0.011 <= value <= most + 0.011 or value == pytest.approx(least) for least, value, most in between
    ), between
    exact = (before["balloon.current"], before["balloon.usable"])
    if exact != (after["balloon.current"], after["balloon.usable"]):
        return False
    return exact == ((counters.balloon_bytes or 0) / 1024, (counters.memory_usable_bytes or 0) / 1024)


def test_a_user_without_rights_sees_the_same_and_what_cannot_be_seen_is_told(
    guest: libvirt.virDomain, libvirtd: PrivateLibvirtd, pool: Pool
) -> None:
    config = pool.path / "config.yaml"
    _sees_the_same(config, libvirtd)
    _is_told(config, libvirtd)


def _sees_the_same(config: Path, libvirtd: PrivateLibvirtd) -> None:
    read_only = libvirtd.uri.replace("libvirt-sock", "libvirt-sock-ro")
    config.write_text(json.dumps({"hosts": {"local": {"uri": read_only}}}))
    asked = [sys.executable, "-c", ASK_TWICE, str(config)]
    told = subprocess.run(asked, capture_output=True, text=True, check=True, env={**os.environ, "HOME": "/nonexistent"})
    (usage,) = json.loads(told.stdout)["instances"]
    assert (usage["pid"], usage["process_why"]) == (libvirtd.qemu_pid(INSTANCE), None)
    assert [thread["vcpu"] for thread in usage["threads"]] == [0, 1]
    assert all(thread["cores"] is not None and thread["steal_cores"] is not None for thread in usage["threads"])
    assert [name for name, value in usage.items() if value is None] == ["process_why"]


def _is_told(config: Path, libvirtd: PrivateLibvirtd) -> None:
    """Of a container without the host's processes: libvirt's figures, and why the others are not there."""
    config.write_text(json.dumps({"hosts": {"local": {"uri": libvirtd.uri}}}))
    asked = ["unshare", "--pid", "--fork", "--mount-proc", str(COMMAND), "--config", str(config), "top", "--once"]
    told = subprocess.run([*asked, "--json"], capture_output=True, text=True, check=True)
    (usage,) = json.loads(told.stdout)["instances"]
    assert (usage["pid"], usage["cores"], usage["resident_bytes"], usage["threads"]) == (None, None, None, [])
    assert "this is a container without the host's processes" in usage["process_why"]
    assert usage["vcpu_cores"] > 0
    assert usage["guest_bytes"] == 192 * 1024 * 1024
    human = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert "no process could be read: none of the QEMU processes that can be seen from here is its own" in human
