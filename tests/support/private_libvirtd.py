"""A libvirtd of the tests' own, which the machine's libvirt, networks, firewall and devices never notice.

It lives in a mount namespace with its own /run, /etc/libvirt and /var/lib/libvirt, and in a network namespace, so that
NAT networks, bridges and firewall rules end with it. /dev/kvm is hidden: a KVM that is advertised but hangs, or may
not be opened, would cost minutes. There is no process namespace, so the guests' QEMU processes are seen from outside.

Run as a program, this file is the keeper of the namespaces: it mounts, waits until its standard input ends (also when
the tests were killed), then ends every process in the network namespace and removes the directory.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import libvirt

PRIVATE = ("/run", "/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt")
QEMU_CONF = """\
security_driver = "none"
cgroup_controllers = []
namespaces = []
"""
LIBVIRTD_CONF = """\
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
"""


class PrivateLibvirtd:
    """One libvirtd with its virtlogd; `stop`, `kill`, `freeze` and `restart` are for tests of faults."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kas-", dir="/var/tmp"))
        self._lay_out()
        self._keeper = self._start_keeper()
        self._log_daemon = self._spawn("virtlogd")
        self._daemon = self._spawn("libvirtd")
        self._wait_for_answer()

    @property
    def uri(self) -> str:
        """Where it answers."""
        return f"qemu:///system?socket={self._seen_from_outside('/run')}/libvirt/libvirt-sock"

    def qemu_pid(self, domain: str) -> int:
        """The process id of a running domain's QEMU."""
        return int((self._seen_from_outside("/run") / "libvirt/qemu" / f"{domain}.pid").read_text())

    def running(self) -> bool:
        """Whether its libvirtd runs."""
        return self._daemon.poll() is None

    def stop(self) -> None:
        """End libvirtd as an operator would; guests run on."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End libvirtd at once; guests run on."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let libvirtd hang: its socket accepts and nothing answers."""
        self._daemon.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen libvirtd go on."""
        self._daemon.send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Start libvirtd anew, in the same namespaces and on the same directories; guests run on."""
        if self.running():
            self.stop()
        self._daemon = self._spawn("libvirtd")
        self._wait_for_answer()

    def close(self) -> None:
        """End libvirtd, virtlogd and everything they started, and remove the directory."""
        self.thaw()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        assert self._keeper.wait(20) == 0, f"a private libvirtd did not end cleanly, see {self.root}"
        for child in (self._daemon, self._log_daemon):
            child.wait(5)

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside the namespaces."""
        return subprocess.run([*self.inside(), *argv], capture_output=True, text=True, check=True)

    def seen_inside(self, path: Path) -> Path:
        """Where a path in its mount namespace is to be found from outside."""
        return Path(f"/proc/{self._keeper.pid}/root") / str(path).lstrip("/")

    def in_its_network(self) -> list[str]:
        """What to put before a command so that it reaches the guests behind this libvirtd's NAT networks."""
        return ["nsenter", "--target", str(self._keeper.pid), "--net"]

    @property
    def inside_network(self) -> list[str]:
        """What to put before a command that is to run in its network namespace only."""
        return ["nsenter", "--target", str(self._keeper.pid), "--net"]

    def _lay_out(self) -> None:
        self.root.chmod(0o711)
        for path in PRIVATE:
            self._seen_from_outside(path).mkdir(mode=0o755)
        # Where virt-install puts an installer's kernel, and virsh locks consoles.
        (self._seen_from_outside("/var/lib/libvirt") / "boot").mkdir(mode=0o711)
        (self._seen_from_outside("/run") / "lock").mkdir()
        etc = self._seen_from_outside("/etc/libvirt")
        (etc / "qemu.conf").write_text(QEMU_CONF)
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF)
        (etc / "virtlogd.conf").touch()

    def _seen_from_outside(self, path: str) -> Path:
        return self.root / path.strip("/").replace("/", "-")

    def _start_keeper(self) -> subprocess.Popen[str]:
        keeper = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", sys.executable, __file__, str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert keeper.stdout is not None
        ready = keeper.stdout.readline()
        keeper.stdout.close()
        assert ready == "ready\n", "the namespaces of a private libvirtd could not be made; this needs root"
        return keeper

    def inside(self, *namespaces: str) -> list[str | Path]:
        """Give the words before a command that runs it inside the namespaces, or only some of them."""
        return ["nsenter", "--target", str(self._keeper.pid), *(namespaces or ("--mount", "--net"))]

    def _spawn(self, program: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{program}.log").open("ab") as log:
            return subprocess.Popen(
                [*self.inside(), program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def _end(self, how: signal.Signals) -> None:
        self._daemon.send_signal(signal.SIGCONT)
        self._daemon.send_signal(how)
        self._daemon.wait(20)

    def _wait_for_answer(self) -> None:
        def answers() -> bool:
            assert self.running(), (self.root / "libvirtd.log").read_text()
            try:
                libvirt.open(self.uri).close()
            except libvirt.libvirtError:
                return False
            return True

        wait_until(answers, 30, "the private libvirtd answers")


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until the condition holds; fail naming it when it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def _keep(root: Path) -> None:
    for path in PRIVATE:
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", root / path.strip("/").replace("/", "-"), path], check=True)
    if Path("/dev/kvm").exists():
        # Not /dev/null: whatever QEMU's user may open counts as a usable KVM, and when QEMU then finds none in it,
        # libvirt asks QEMU for its capabilities anew in every call, half a minute per domain.
        hidden = root / "no-kvm"
        hidden.touch(mode=0)
        subprocess.run(["mount", "--bind", hidden, "/dev/kvm"], check=True)
    # The bridges of this network namespace show in a /sys of its own only.
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    print("ready", flush=True)
    sys.stdin.read()
    _end_all_others()
    shutil.rmtree(root)


def _end_all_others() -> None:
    # libvirtd first and then its children: a second look finds what was started in between.
    end = time.monotonic() + 10
    while others := _others():
        for pid in others:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if time.monotonic() > end:
            sys.exit(f"processes of the private libvirtd would not end: {others}")
        time.sleep(0.02)


def _others() -> list[int]:
    mine = Path("/proc/self/ns/net").readlink()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not zombie and (entry / "ns/net").readlink() == mine:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # Gone meanwhile, or nobody's child of ours: what libvirtd starts can be looked at.
            continue
    return found


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
