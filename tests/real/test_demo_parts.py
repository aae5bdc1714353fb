"""The demo's parts: the golden image, what burns the load, and a machine that is left as it was found."""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from deploy.demo import golden, leftovers, processes
from deploy.demo.load import share
from deploy.demo.run import free_port
from tests.support.polling import wait_until

pytestmark = pytest.mark.real

CHECKOUT = golden.CHECKOUT


class Guest:
    """A guest on an overlay of the golden image, in a QEMU of its own."""

    def __init__(self, folder: Path) -> None:
        self._agent = folder / "agent"
        self._monitor = folder / "monitor"
        self._port = free_port(0)
        self._connection: socket.socket | None = None
        self._unread = b""
        self._asked = 0
        overlay = folder / "overlay.qcow2"
        image = golden.build(golden.CACHE)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "qcow2", overlay], check=True)
        arguments = f"""
            -accel tcg -m 192 -display none -nodefaults -uuid 0badcafe-0000-4000-8000-000000000001
            -drive file={overlay},if=virtio -monitor unix:{self._monitor},server,nowait
            -netdev user,id=net,hostfwd=tcp:127.0.0.1:{self._port}-:80 -device virtio-net-pci,netdev=net,romfile=
            -device virtio-serial -chardev socket,path={self._agent},server=on,wait=off,id=agent
            -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0
        """
        self.process = subprocess.Popen(["qemu-system-x86_64", *arguments.split()])

    def ask(self, command: str, **arguments: object) -> Any:
        """Ask the agent; None when it does not answer within five seconds."""
        self._asked += 1
        request = {"execute": command, "arguments": arguments}
        sync = {"execute": "guest-sync", "arguments": {"id": self._asked}}
        try:
            agent = self._connect()
            agent.sendall(b"".join(json.dumps(part).encode() + b"\n" for part in (sync, request)))
            # Answers to what was asked before, and was given up, come first.
            while self._read_answer(agent) != self._asked:
                pass
            return self._read_answer(agent)
        except OSError:
            return None

    def _connect(self) -> socket.socket:
        """Connect once: the agent's answers go to whoever is connected when they come."""
        if self._connection is None:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(5)
            try:
                connection.connect(str(self._agent))
            except OSError:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _read_answer(self, agent: socket.socket) -> Any:
        while b"\n" not in self._unread:
            part = agent.recv(65536)
            if not part:
                raise ConnectionError("the guest's QEMU ended")
            self._unread += part
        line, _, self._unread = self._unread.partition(b"\n")
        return json.loads(line).get("return")

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self.process.kill()
        self.process.wait(10)

    def shell(self, script: str) -> str:
        """Run a script in the guest and return what it printed."""
        pid = self.ask("guest-exec", path="/bin/sh", arg=["-c", script], **{"capture-output": True})["pid"]
        status: Any = None

        def exited() -> bool:
            nonlocal status
            status = self.ask("guest-exec-status", pid=pid)
            return status is not None and status["exited"]

        wait_until(exited, 60, f"the guest ran {script}")
        return base64.b64decode(status.get("out-data", "")).decode()

    def page(self) -> str | None:
        """Fetch what it serves; None while it serves nothing."""
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/", timeout=2) as answer:
            return str(answer.read().decode())
        return None

    def press_power_button(self) -> None:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self._monitor))
            monitor.sendall(b"system_powerdown\n")
            # A monitor whose other end is gone drops what it has not read: wait for the prompt after the command.
            said = b""
            while said.count(b"(qemu)") < 2:
                said += monitor.recv(1024)

    def is_off(self) -> bool:
        return self.process.poll() is not None

    def ran_and_waited(self) -> tuple[float, float]:
        """Seconds that the vCPU's thread, the busiest, ran, and wanted to run and could not."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        ran, waited, _ = max([int(n) for n in (task / "schedstat").read_text().split()] for task in tasks)
        return ran / 1e9, waited / 1e9


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Guest]:
    """A guest whose agent answers."""
    started = Guest(tmp_path)
    try:
        wait_until(lambda: started.ask("guest-ping") is not None, 40, "the guest's agent answers")
        yield started
    finally:
        started.close()


def test_the_golden_image_is_built_once(tmp_path: Path) -> None:
    image = golden.build(tmp_path)
    built_at = image.stat().st_mtime_ns
    assert golden.build(tmp_path) == image
    assert image.stat().st_mtime_ns == built_at
    assert not list(tmp_path.glob("building-*"))
    with image.open("rb") as file:
        assert file.read(4) == b"QFI\xfb"


def test_the_golden_images_name_tells_its_ingredients(tmp_path: Path) -> None:
    known = golden.gather(golden.CACHE)
    other = tmp_path / known.busybox.name
    other.write_bytes(known.busybox.read_bytes() + b"newer")
    newer = golden.Ingredients(known.kernel, known.kernel_version, known.modules_root, other, known.agent)
    assert newer.key() != known.key()


def test_the_guest_serves_and_ends_when_its_agent_is_told(guest: Guest) -> None:
    assert guest.shell("hostname") == "demo-0badcafe\n"
    wait_until(lambda: guest.page() is not None, 20, "the guest serves its page")
    assert "demo-0badcafe" in (guest.page() or "")
    guest.ask("guest-shutdown")
    wait_until(guest.is_off, 20, "guest-shutdown turned it off")


def test_the_guest_ends_when_its_power_button_is_pressed(guest: Guest) -> None:
    # The agent may answer before somebody listens to the button.
    listening = "ls -l /proc/[0-9]*/fd 2> /dev/null | grep -c /dev/input/event"
    wait_until(lambda: int(guest.shell(listening)) > 0, 20, "the guest listens for its power button")
    guest.press_power_button()
    wait_until(guest.is_off, 20, "the power button turned it off")


@pytest.mark.serial
@pytest.mark.parametrize("wanted", [0.225, 0.45, 0.9])
def test_the_guest_burns_what_it_is_told(guest: Guest, wanted: float) -> None:
    guest.shell(f"echo {wanted} > /run/burn")
    time.sleep(1)  # the shell's own start is not what is measured
    (ran, waited), began = guest.ran_and_waited(), time.monotonic()
    time.sleep(5)
    (ran_after, waited_after), elapsed = guest.ran_and_waited(), time.monotonic() - began
    ran, waited = ran_after - ran, waited_after - waited
    # It burns work: what the host does not grant it, it still wants, and is the busier for it.
    assert ran / elapsed < wanted + 0.05
    assert ran / (elapsed - waited) > wanted - 0.05


@pytest.mark.parametrize(
    ("total", "count", "each"), [(0.9, 1, 0.9), (0.9, 2, 0.45), (0.9, 3, 0.3), (0.9, 0, 0), (2, 1, 1), (0, 3, 0)]
)
def test_the_load_is_shared(total: float, count: int, each: float) -> None:
    assert share(total, count) == each


@contextmanager
def ended(part: str) -> Iterator[None]:
    try:
        yield
    finally:
        processes.end(part, 0.1)


def test_a_process_is_found_by_its_mark_and_ended(tmp_path: Path) -> None:
    with ended("test-gentle"):
        pid = processes.start("test-gentle", ["sh", "-c", "echo begun; exec sleep 60"], tmp_path / "log")
        wait_until(lambda: (tmp_path / "log").read_text() == "begun\n", 10, "it wrote to its log")
        assert processes.find("test-gentle") == [pid]
        assert processes.find("test") == []
    assert not processes.is_running(pid)
    assert processes.find("test-gentle") == []


def test_a_process_that_will_not_end_is_killed(tmp_path: Path) -> None:
    with ended("test-stubborn"):
        script = "trap '' TERM; echo deaf; while :; do sleep 0.1; done"
        pid = processes.start("test-stubborn", ["sh", "-c", script], tmp_path / "log")
        wait_until(lambda: "deaf" in (tmp_path / "log").read_text(), 10, "it ignores SIGTERM")
    assert not processes.is_running(pid)


def test_what_differs_is_told() -> None:
    before = {"pools": {"default": True}, "firewall": {"iptables-save": ["filter -A INPUT -j X"]}, "volumes": ["a"]}
    after = {
        "pools": {"default": False, "demo": True},
        "firewall": {"iptables-save": ["filter -A INPUT -j X"] * 2},
        "volumes": [],
    }
    assert leftovers.differences(before, before) == []
    assert leftovers.differences(before, after) == [
        "firewall: changed: iptables-save: filter -A INPUT -j X: 1 -> 2",
        "pools: new: demo",
        "pools: changed: default: True -> False",
        "volumes: gone: a",
    ]


# --- in namespaces of their own, where a system's libvirt can be started and nothing outside notices ------------------

APART = """
    set -e
    for path in /run /etc/libvirt /var/lib /var/cache/libvirt /var/log/libvirt; do
        mkdir -p "$1$path" "$path"
        mount --bind "$1$path" "$path"
    done
    mount -t sysfs sysfs /sys
    ip link set lo up
    mkdir -p /etc/libvirt/qemu/networks/autostart /var/lib/libvirt/images
    shift
    exec "$@"
"""


@pytest.fixture
def apart() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a Python script in a mount and a network namespace, with libvirt's folders empty."""
    started: list[subprocess.Popen[str]] = []
    root = Path(tempfile.mkdtemp(prefix="kas-demo-", dir="/var/tmp"))
    root.chmod(0o755)
    enter_apart = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", APART, "sh", str(root)]
    keeper = subprocess.Popen(
        [*enter_apart, "sh", "-c", "echo ready; exec sleep 600"], stdout=subprocess.PIPE, text=True
    )
    assert keeper.stdout is not None
    assert keeper.stdout.readline() == "ready\n", "the namespaces could not be made; this needs root"

    def start(script: str) -> subprocess.Popen[str]:
        enter = ["nsenter", "--target", str(keeper.pid), "--mount", "--net"]
        child = subprocess.Popen(
            [*enter, sys.executable, "-c", textwrap.dedent(script)],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(child)
        return child

    try:
        yield start
    finally:
        end_all_in(Path(f"/proc/{keeper.pid}/ns/net").readlink())
        for process in [*started, keeper]:
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()
        shutil.rmtree(root)


def end_all_in(namespace: Path) -> None:
    """Kill whatever lives in a network namespace."""

    def others() -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/net").readlink() == namespace:
                    found.append(int(entry.name))
        return found

    def none_left() -> bool:
        for pid in others():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not others()

    wait_until(none_left, 10, "everything in the test's namespace has ended")


Apart = Callable[[str], subprocess.Popen[str]]


def output_of(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=50)
    assert process.returncode == 0, out
    return out


def test_the_demo_leaves_the_machine_as_it_was(apart: Apart) -> None:
    script = """
        from deploy.demo import footprint, leftovers, libvirt_env
        before = leftovers.snapshot()
        with footprint.lock(), libvirt_env.environment() as environment:
            during = leftovers.snapshot()
        after = leftovers.snapshot()
        print(leftovers.differences(before, after))
        for kind in ("pools", "networks", "firewall", "sysctls", "interfaces", "processes"):
            assert any(line.startswith(kind) for line in leftovers.differences(before, during)), kind
        assert footprint.load() is None
    """
    assert output_of(apart(script)) == "[]\n"


def test_what_a_killed_demo_left_is_cleared(apart: Apart) -> None:
    before = json.loads(
        output_of(apart("import json; from deploy.demo import leftovers as l; print(json.dumps(l.snapshot()))"))
    )
    killed = apart("""
        import time
        from deploy.demo import libvirt_env
        with libvirt_env.environment():
            print("made", flush=True)
            time.sleep(600)
    """)
    assert killed.stdout is not None
    assert killed.stdout.readline() == "made\n"
    killed.kill()
    killed.wait(10)
    look = """
        import json
        from deploy.demo import footprint, leftovers, libvirt_env
        left = footprint.load()
        assert left is not None and left.made == ["pool", "network"], left
        libvirt_env.clear(left)
        print(json.dumps(leftovers.snapshot()))
    """
    assert leftovers.differences(before, json.loads(output_of(apart(look)))) == []


def test_a_pool_that_was_there_before_is_left_alone(apart: Apart) -> None:
    script = """
        from pathlib import Path
        from deploy.demo import footprint, libvirt_env
        found = Path("/var/lib/libvirt/images/autoscaler-demo/somebodys.qcow2")
        found.parent.mkdir(parents=True)
        found.touch()
        try:
            with libvirt_env.environment():
                raise AssertionError("it took somebody's pool for its own")
        except footprint.DemoError as error:
            print(error)
        assert found.exists()
        assert footprint.load() is None
    """
    assert "not made by this demo" in output_of(apart(script))


def test_firewall_rules_of_others_stay(apart: Apart) -> None:
    script = """
        import subprocess
        from pathlib import Path
        from deploy.demo import firewall
        def run(line): subprocess.run(line.split(), check=True)
        before = firewall.read()
        run("iptables -N LIBVIRT_INP")
        run("iptables -I INPUT -j LIBVIRT_INP")
        run("iptables -A LIBVIRT_INP -p udp -j ACCEPT")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        firewall.put_back(before)
        assert len(firewall.read().rules["iptables-save"]) == 3, "a chain that is in use was removed"
        run("iptables -D LIBVIRT_INP -p udp -j ACCEPT")
        run("iptables -A INPUT -p tcp -j ACCEPT")
        firewall.put_back(before)
        after = firewall.read()
        assert after.rules["iptables-save"] == ["filter -A INPUT -p tcp -j ACCEPT"], after
        assert after.sysctls == before.sysctls
    """
    output_of(apart(script))


def test_a_second_demo_is_kept_out(apart: Apart) -> None:
    script = """
        from deploy.demo import footprint
        with footprint.lock():
            try:
                footprint.lock()
            except footprint.DemoError as error:
                print(error)
        footprint.lock().close()
    """
    assert "running already" in output_of(apart(script))
