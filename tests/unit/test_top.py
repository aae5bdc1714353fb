"""What an instance takes between two looks, how it is shown, and what is told of what cannot be read."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.cli.show_top import SORTS, in_order, top_picture
from autoscaler.core.observation import DomainCounters, Ownership, Unknown
from autoscaler.core.usage import Look, QemuProcess, Running, Usage, VcpuThread, usages
from autoscaler.host.qemu import qemu_processes
from tests.support.commands import golden, shown
from tests.unit.conftest import Run

UUID = "6f0d3c1e-0000-4000-8000-000000000001"
MIB = 2**20


def counters(at: float, vcpu: float | None, delay: float | None = 0.5, **given: int | None) -> DomainCounters:
    known = {"balloon_bytes": 192 * MIB, "memory_usable_bytes": 100 * MIB, **given}
    return DomainCounters(UUID, at, 2, vcpu, delay, **known)


def process(at: float, cpu: float, *threads: tuple[float, float | None], pid: int = 4000) -> QemuProcess:
    each = (VcpuThread(n, pid + 7 + n, cpu, delay, n) for n, (cpu, delay) in enumerate(threads))
    return QemuProcess(pid, at, cpu, 210 * MIB, tuple(each))


def running(
    counted: DomainCounters | None, of: QemuProcess | Unknown, name: str = "web-1", group: str = "web"
) -> Running:
    owner = Ownership("11111111-2222-3333-4444-555555555555", group, name, "", 0.0)
    return Running("local", f"{UUID}{name}", owner, counted, of)


BEFORE = running(
    counters(100.0, 10.0, disk_read_bytes=0, disk_write_bytes=MIB, net_rx_bytes=None, net_tx_bytes=500),
    process(100.0, 12.0, (6.0, 0.25), (4.0, None)),
)
NOW = running(
    counters(102.0, 12.0, 1.5, disk_read_bytes=4096, disk_write_bytes=5 * MIB, net_rx_bytes=None, net_tx_bytes=500),
    process(102.5, 15.0, (7.25, 0.5), (4.75, 1.0)),
)


def used(before: Running | None, now: Running) -> Usage:
    (usage,) = usages(() if before is None else (Look("local", (before,)),), (Look("local", (now,)),))
    return usage


def test_rates_are_differences_over_the_time_between_each_ones_readings() -> None:
    usage = used(BEFORE, NOW)
    assert (usage.pid, usage.cores, usage.vcpu_cores, usage.steal_cores) == (4000, 1.2, 1.0, 0.5)
    assert (usage.disk_read_bytes_per_second, usage.disk_write_bytes_per_second) == (2048.0, 2.0 * MIB)
    assert (usage.net_rx_bytes_per_second, usage.net_tx_bytes_per_second) == (None, 0.0)
    assert (usage.resident_bytes, usage.guest_bytes, usage.guest_used_bytes) == (210 * MIB, 192 * MIB, 92 * MIB)
    assert [(it.vcpu, it.tid, it.processor, it.cores, it.steal_cores) for it in usage.threads] == [
        (0, 4007, 0, 0.5, 0.1),
        (1, 4008, 1, 0.3, None),
    ]


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param(None, NOW, id="it is new"),
        pytest.param(NOW, BEFORE, id="time did not go on"),
        pytest.param(replace(BEFORE, counters=None, process=Unknown("gone")), NOW, id="it could not be read before"),
        pytest.param(BEFORE, replace(NOW, counters=None, process=Unknown("gone")), id="it cannot be read now"),
        pytest.param(
            BEFORE,
            running(counters(102.0, 0.1, 0.0), process(102.5, 0.2, (0.1, 0.0), pid=5000)),
            id="it was started anew",
        ),
    ],
)
def test_what_cannot_be_told_is_none_and_never_zero(before: Running | None, now: Running) -> None:
    usage = used(before, now)
    assert (usage.cores, usage.vcpu_cores, usage.steal_cores) == (None, None, None)
    assert usage.disk_write_bytes_per_second is None
    assert all(thread.cores is None and thread.steal_cores is None for thread in usage.threads)


def test_memory_that_the_guest_never_told_is_none() -> None:
    assert used(None, running(counters(1.0, 1.0, memory_usable_bytes=None), Unknown("far"))).guest_used_bytes is None


FAR = Unknown("processes can be read on this machine only, and its host is another")
BUSY = running(
    counters(
        102.0, 11.98, 0.52, disk_read_bytes=4096, disk_write_bytes=5 * MIB, net_rx_bytes=7, net_tx_bytes=120 * MIB
    ),
    process(102.0, 14.2, (7.98, 0.25), (4.0, 0.3)),
)
PAUSED = running(None, process(102.0, 1.0, (0.5, 0.0)), "web-2")
QUIET = running(counters(102.0, 10.0, None), FAR, "db-1", "db")
LOOKS = (
    (
        Look("local", (BEFORE, PAUSED)),
        Look("far", Unknown("no answer")),
        Look("remote", (replace(QUIET, host="remote"),)),
    ),
    (
        Look("local", (BUSY, PAUSED)),
        Look("far", Unknown("host far could not tell what its instances take: refused")),
        Look("remote", (replace(QUIET, host="remote"),)),
    ),
)


@pytest.mark.parametrize(("name", "width"), [("top", 80), ("top_narrow", 60)])
def test_top_reads_as_in_the_golden_file(name: str, width: int) -> None:
    text = shown(top_picture(LOOKS[1], in_order(usages(*LOOKS), "cpu"), width, 2.0), width)
    assert max(map(len, text.splitlines())) <= width
    golden(f"cli_{name}.txt", text)


@pytest.mark.parametrize("sort", SORTS)
def test_the_greediest_comes_first_and_what_is_not_known_last(sort: str) -> None:
    ordered = in_order(usages(*LOOKS), sort)
    amounts = [SORTS[sort](usage) for usage in ordered]
    known = [amount for amount in amounts if amount is not None]
    assert known == sorted(known, reverse=True)
    assert amounts[len(known) :] == [None] * (len(amounts) - len(known))
    if sort == "name":
        assert [usage.instance for usage in ordered] == ["db-1", "web-1", "web-2"]


class Hosts:
    """Looks like `autoscaler.top.Top`: one look after the other, the last of them again and again."""

    def __init__(self, *looks: tuple[Look, ...]) -> None:
        self._looks = list(looks)
        self.closed = False

    def look(self) -> tuple[Look, ...]:
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def look_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hosts]:
    def look_at(*looks: tuple[Look, ...]) -> Hosts:
        hosts = Hosts(*looks)
        monkeypatch.setattr("autoscaler.top.Top", lambda _: hosts)
        monkeypatch.setattr(time, "sleep", lambda _: None)
        return hosts

    return look_at


@pytest.mark.parametrize(
    ("looks", "words", "said"),
    [
        (LOOKS[0], "--group wbe", "error: no instance of group wbe runs; did you mean 'web'?\n"),
        (LOOKS[0], "--group x", "error: no instance of group x runs; groups with instances that run: db, web\n"),
        ((Look("a", ()),), "--group x", "error: no instance of group x runs; groups with instances that run: none\n"),
        ((Look("a", Unknown("a is down")), Look("b", Unknown("b too"))), "", "error: a is down\nb too\n"),
    ],
)
def test_what_cannot_be_looked_at_is_told(
    run: Run, look_at: Callable[..., Hosts], looks: tuple[Look, ...], words: str, said: str
) -> None:
    hosts = look_at(looks)
    result = run("top", *words.split())
    assert (result.exit_code, result.stdout, result.stderr, hosts.closed) == (1, "", said, True)


def test_one_group_of_all_and_no_instance_at_all(run: Run, look_at: Callable[..., Hosts]) -> None:
    look_at(*LOOKS)
    told = json.loads(run("top", "--group", "db", "--json").stdout)
    assert [usage["instance"] for usage in told["instances"]] == ["db-1"]
    assert [host["host"] for host in told["hosts"]] == ["local", "far", "remote"]
    assert told["hosts"][1]["why"] == "host far could not tell what its instances take: refused"
    look_at((Look("local", ()),))
    assert "host local: no instance runs\n" in run("top").stdout


def test_on_a_terminal_it_goes_on_until_ctrl_c(
    run: Run, look_at: Callable[..., Hosts], monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = look_at(*LOOKS)
    shown_at: list[int] = []

    def show_live(_console: object, pictures: Iterable[object]) -> None:
        for number, _ in enumerate(pictures):
            shown_at.append(number)
            if number == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("autoscaler.cli.top.is_live", lambda _: True)
    monkeypatch.setattr("autoscaler.cli.top.show_live", show_live)
    assert run("top").exit_code == 130
    assert shown_at == [0, 1, 2, 3]
    assert hosts.closed


GUEST = """
import sys, threading, time
from pathlib import Path
def vcpu(name, work):
    Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
    ready.wait()
    while work:
        pass
    time.sleep(60)
ready = threading.Barrier(4)
for name, work in (("CPU 1/TCG", True), ("CPU 0/TCG", False), ("IO mon_iothread", False)):
    threading.Thread(target=vcpu, args=(name, work), daemon=True).start()
ready.wait()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def pretended(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process with the name, the arguments and the threads that QEMU has for a guest of two vCPUs."""
    command = [str(tmp_path / "qemu-system-x86_64"), "-c", GUEST, "-name", "guest=web-1", "-uuid", UUID]
    Path(command[0]).symlink_to(sys.executable)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.kill()


def test_a_guests_process_is_found_by_its_uuid_and_its_threads_by_their_names(
    pretended: subprocess.Popen[str],
) -> None:
    first = qemu_processes()[UUID]
    end = time.monotonic() + 20
    while (now := qemu_processes()[UUID]).threads[1].cpu_seconds < first.threads[1].cpu_seconds + 0.1:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert now.pid == pretended.pid
    assert [thread.vcpu for thread in now.threads] == [0, 1]
    for thread in now.threads:
        told = Path(f"/proc/{now.pid}/task/{thread.tid}/comm").read_text()
        assert told == f"CPU {thread.vcpu}/TCG\n"
        assert thread.processor in range(os.cpu_count() or 1)
    assert now.cpu_seconds >= now.threads[1].cpu_seconds
    assert now.resident_bytes > MIB


def test_a_process_that_ended_is_not_there(pretended: subprocess.Popen[str]) -> None:
    assert UUID in qemu_processes()
    pretended.kill()
    pretended.wait(10)
    assert UUID not in qemu_processes()
