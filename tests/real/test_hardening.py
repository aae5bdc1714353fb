"""The real daemon among those who mean ill, or only ask too much: its ticks, its memory, its log, its secrets."""

import contextlib
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import libvirt
import psutil
import pytest

from autoscaler.codec import canonical
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Policy
from autoscaler.store import Journal
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess
from tests.support.private_libvirtd import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

MIB = 1024 * 1024
ATTACK_SECONDS = 25.0


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    yield process
    process.close()


class Attack:
    """What comes in over loopback, all at once, until `stop`."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self._daemon = daemon
        self._address = ("127.0.0.1", daemon.port)
        self._stopping = threading.Event()
        self.counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._repeat, args=(wave,))
            for wave in (
                self._silence,
                self._silence_on_the_socket,
                self._long_header,
                self._big_body,
                self._scrapes,
                self._no_reader,
            )
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, wave: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            wave()
            self._stopping.wait(0.5)

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] = self.counts.get(what, 0) + 1

    def _silence(self) -> None:
        """Hold 100 connections that send nothing, until all were closed from the other side."""
        with contextlib.ExitStack() as open_ones:
            silent = [open_ones.enter_context(socket.create_connection(self._address, 10)) for _ in range(100)]
            for connection in silent:
                connection.settimeout(20)
                with contextlib.suppress(ConnectionError):
                    while connection.recv(4096):
                        pass
                self._count("silent connections closed")

    def _silence_on_the_socket(self) -> None:
        with contextlib.ExitStack() as open_ones:
            for _ in range(100):
                connection = open_ones.enter_context(socket.socket(socket.AF_UNIX))
                connection.connect(str(self._daemon.socket))
            self._stopping.wait(3.0)

    def _long_header(self) -> None:
        self._send(b"GET /metrics HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * MIB)
        self._count("long headers")

    def _big_body(self) -> None:
        self._send(b"POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (10 * MIB) + b"x" * (10 * MIB))
        self._count("big bodies")

    def _send(self, content: bytes) -> None:
        with socket.create_connection(self._address, 10) as connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            connection.sendall(content)
            while connection.recv(65536):
                pass

    def _no_reader(self) -> None:
        """Ask over and over and read nothing, on a few connections, until all were cut off."""
        with contextlib.ExitStack() as open_ones:
            deaf = [open_ones.enter_context(socket.socket()) for _ in range(5)]
            for connection in deaf:
                # Small before it connects, or the kernel holds megabytes of answers for it.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.connect(self._address)
                connection.settimeout(0.01)
            while deaf and not self._stopping.is_set():
                deaf = [connection for connection in deaf if self._ask_on(connection)]
                self._stopping.wait(0.1)

    def _ask_on(self, connection: socket.socket) -> bool:
        try:
            connection.send(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        except TimeoutError:
            return True
        except OSError:
            self._count("deaf connections cut off")
            return False
        return True

    def _scrapes(self) -> None:
        with ThreadPoolExecutor(200) as crowd:
            for outcome in crowd.map(lambda _: self._scrape(), range(200)):
                self._count(outcome)

    def _scrape(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._daemon.port}/metrics", timeout=20) as reply:
                return "scraped" if b"autoscaler_group_size_admitted" in reply.read() else "scraped nonsense"
        except urllib.error.HTTPError as error:
            return f"refused with {error.code}"
        except OSError:
            return "cut off"


def lateness(daemon: DaemonProcess, since: float) -> list[float]:
    """How much later than the interval each tick began, by the journal, sorted."""
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        begun = [tick.observation.at for tick in journal.replay() if tick.observation.at >= since]
    finally:
        journal.close()
    return sorted(max(later - earlier - 1.0, 0.0) for earlier, later in pairwise(begun))


@pytest.mark.serial
@pytest.mark.slow
def test_ticks_are_on_time_and_memory_is_flat_under_attack(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.until_ready(1)
    assert daemon.process is not None
    process = psutil.Process(daemon.process.pid)
    began = time.time()
    with Attack(daemon) as attack:
        time.sleep(ATTACK_SECONDS / 3)  # what is allocated once, threads' stacks and buffers, is there after this
        warm = process.memory_info().rss
        time.sleep(ATTACK_SECONDS)
        highest = process.memory_info().rss
    late = lateness(daemon, began)
    print(f"{attack.counts}; late by {late[-3:]}; {warm / MIB:.1f} then {highest / MIB:.1f} MiB")
    assert len(late) >= ATTACK_SECONDS * 0.8
    assert late[math.ceil(0.99 * len(late)) - 1] <= 0.25
    assert highest - warm < 8 * MIB
    assert attack.counts.get("scraped nonsense", 0) == 0
    assert attack.counts.get("scraped", 0) > 1000
    for what in ("silent connections closed", "long headers", "big bodies", "deaf connections cut off"):
        assert attack.counts.get(what, 0) > 0, what
    wait_until(lambda: "autoscaler_group_size_admitted" in _metrics(daemon), 15, "metrics are served as before")
    wait_until(lambda: process.num_fds() < 60, 15, "no connection is left behind")
    assert daemon.run("status").returncode == 0
    assert "Traceback" not in daemon.text()


def _metrics(daemon: DaemonProcess) -> str:
    try:
        return daemon.metrics()
    except urllib.error.HTTPError:
        return ""


def test_it_listens_on_loopback_only(daemon: DaemonProcess) -> None:
    daemon.start()
    assert daemon.process is not None
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(daemon.process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]


@pytest.mark.slow
def test_a_quiet_tick_logs_nothing_and_a_change_one_line(daemon: DaemonProcess) -> None:
    daemon.start()
    daemon.until_ready(1)
    daemon.until_tick(8)
    quiet = len(daemon.lines())
    daemon.until_tick(30, 90)
    assert daemon.lines()[quiet:] == []
    daemon.ask("scale", group="web", count=2, for_seconds=600.0)
    daemon.until_ready(2)
    daemon.until_tick(3)
    changes = [line["after"] for line in daemon.lines()[quiet:] if line["event"] == "instance changed"]
    assert (changes[0], changes[-1], len(changes)) == ("requested", "ready", len(set(changes)))
    events = [line["event"] for line in daemon.lines()[quiet:] if line["event"] != "instance changed"]
    assert sorted(events) == ["action done", "control_change", "group scaled"]
    (audit,) = (line for line in daemon.lines()[quiet:] if line["event"] == "control_change")
    assert audit["by"].startswith("root (uid 0, pid ")
    assert (audit["command"], audit["group"], audit["count"]) == ("scale", "web", 2)
    assert (audit["result"], audit["timestamp"][-1]) == ("accepted", "Z")
    assert list(audit)[:3] == ["timestamp", "level", "event"]


SECRET = "hunter2"


def test_planted_secrets_are_found_nowhere(daemon: DaemonProcess, libvirt_uri: str, pool: Pool) -> None:
    daemon.environment = {"AUTOSCALER_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "LIBVIRT_PASSWORD": SECRET}
    policy = daemon.policies / "web.yaml"
    good = policy.read_text()
    policy.write_text(f"# the load balancer's password is {SECRET}\n{good}")
    outputs = [_refused(daemon, f"webhook_token: {SECRET}\n"), _refused(daemon, _hosts(SECRET))]
    daemon.start()
    (instance,) = daemon.until_ready(1)
    policy.write_text(f"{good}\nwebhook: {{url: https://lb.example/, token: {SECRET}}}\n")
    outputs += _said(daemon, "reload") + _said(daemon, "validate", str(policy)) + _said(daemon, "status")
    outputs += [daemon.metrics(), _get(daemon, "/api/v1/status"), _get(daemon, "/healthz")]
    outputs += _said(daemon, "scale", "web", "99") + _said(daemon, "explain", "web") + _said(daemon, "explain", "none")
    outputs += [canonical(daemon.explain()), *_xml(libvirt_uri, pool)]
    assert instance.instance in outputs[-1] + outputs[-2]
    daemon.stop()
    outputs += [daemon.text(), *_journal(daemon)]
    assert "webhook" in daemon.text(), "the refused reload is logged, with the key and not with what it holds"
    assert [output for output in outputs if SECRET in output] == []
    raw = b"".join(path.read_bytes() for path in daemon.state_dir.iterdir())
    assert SECRET.encode() not in raw


def _hosts(password: str) -> str:
    return f"hosts: {{local: {{uri: 'qemu+ssh://bob:{password}@kvm7/system'}}}}\n"


def _refused(daemon: DaemonProcess, text: str) -> str:
    good = daemon.config.read_text()
    key = text.partition(":")[0]
    without = "".join(f"{line}\n" for line in good.splitlines() if not line.startswith((key, " ")))
    daemon.config.write_text(without + text)
    daemon.start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(20) == 1
    daemon.config.write_text(good)
    said = daemon.text()
    daemon.log.unlink()
    assert key in said
    return said


def _said(daemon: DaemonProcess, *arguments: str) -> list[str]:
    done = daemon.run(*arguments)
    return [done.stdout, done.stderr]


def _get(daemon: DaemonProcess, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon.port}{path}", timeout=10) as reply:
        return str(reply.read().decode())


def _xml(uri: str, pool: Pool) -> list[str]:
    connection = libvirt.open(uri)
    try:
        volumes = [volume.XMLDesc() for volume in connection.storagePoolLookupByName(pool.name).listAllVolumes()]
        return ["".join(volumes), *(domain.XMLDesc() for domain in connection.listAllDomains())]
    finally:
        connection.close()


def _journal(daemon: DaemonProcess) -> list[str]:
    """Everything in it that is compressed, as text; the rest is read raw."""
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return [_tick_text(tick) for tick in journal.replay()]
    finally:
        journal.close()


def _tick_text(tick: Any) -> str:
    policies: tuple[Policy, ...] = tick.policies
    observation: Observation = tick.observation
    return canonical(observation) + canonical(policies, tuple[Policy, ...]) + str(tick.decisions_json)
