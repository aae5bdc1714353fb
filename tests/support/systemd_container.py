"""A real systemd as process 1 of a container made of this machine's own files, which it cannot change.

The root is the machine's, under an overlay in memory: whatever is installed or broken inside is gone afterwards. It has
its own network (loopback only), devices (no /dev/kvm, which may hang), cgroups and libvirt state. systemd-nspawn does
most of it; what it cannot do where no systemd runs outside is done here: cgroups for the container to live in, and a
tmpfs for nspawn's own files.

Run as a program, this file is the container's keeper: it boots it, waits until its standard input ends (also when the
tests were killed), and takes everything away.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

HIDDEN = ("/var/lib/libvirt", "/etc/libvirt/qemu")
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "libvirt-guests.service",
    "man-db.timer",
    "postgresql.service",
    "prometheus.service",
    "systemd-timesyncd.service",
)
_CONTROLLERS_V1 = ("memory", "pids", "devices", "cpu", "cpuacct", "blkio", "freezer", "cpuset")
_BOOT_SECONDS = 60.0
_STOP_SECONDS = 30.0


class SystemdContainer:
    """One booted container; `binds` are folders of the machine that are seen inside, read-only, by their name there.

    With `unified` it has the one hierarchy of cgroups version 2, else what the machine has.
    """

    def __init__(self, binds: Mapping[str, Path], *, unified: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kas-systemd-", dir="/var/tmp"))
        options = {"folder": str(self._folder), "unified": unified, "binds": {k: str(v) for k, v in binds.items()}}
        self._keeper = subprocess.Popen(
            [sys.executable, __file__, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline()
        if not answer.startswith("ready "):
            self._keeper.communicate(timeout=2 * _STOP_SECONDS)
            raise AssertionError(f"the container did not boot: {self.console()}")
        self._keeper.stdout.close()
        self.leader = int(answer.split()[1])

    def console(self) -> str:
        """What process 1 said."""
        log = self._folder / "console.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def run(
        self, *argv: str, check: bool = True, seconds: float = 120.0, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside, as root."""
        done = subprocess.run(
            self.inside(*argv, **environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done

    def inside(self, *argv: str, **environment: str) -> list[str]:
        """Give the words that run a program inside, as root."""
        settings = [f"{name}={value}" for name, value in environment.items()]
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        return ["nsenter", "--all", "--target", str(self.leader), *clean, "LC_ALL=C.UTF-8", *settings, *argv]

    def output(self, *argv: str) -> str:
        """Give what a program inside prints."""
        return self.run(*argv).stdout.strip()

    def path(self, path: str) -> Path:
        """Give where a file inside is seen from outside."""
        return Path(f"/proc/{self.leader}/root") / path.lstrip("/")

    def journal(self, unit: str) -> str:
        """Give all that a unit logged."""
        return self.output("journalctl", "--no-pager", "--output", "cat", "--unit", unit)

    def show(self, unit: str, name: str) -> str:
        """Give one property of a unit."""
        return self.output("systemctl", "show", "--property", name, "--value", unit)

    def close(self) -> None:
        """Power it off and take everything away."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        assert self._keeper.wait(2 * _STOP_SECONDS) == 0, f"a container did not end cleanly, see {self._folder}"


# --- the keeper ------------------------------------------------------------------------------------------------------


def _keep(folder: Path, binds: Mapping[str, str], *, unified: bool) -> None:
    # mkdtemp takes underscores, which no machine name may have.
    name = folder.name.replace("_", "-")
    cgroups = [base / name for base in _own_cgroups()]
    nspawn = None
    try:
        for cgroup in cgroups:
            _make_cgroup(cgroup)
        nspawn = _boot(folder, name, binds, cgroups, unified=unified)
        print(f"ready {_leader(nspawn)}", flush=True)
        sys.stdin.read()
        _stop(nspawn)
    finally:
        if nspawn is not None and nspawn.poll() is None:
            nspawn.kill()
            nspawn.wait()
        for cgroup in cgroups:
            _remove_cgroup(cgroup)
    shutil.rmtree(folder)


def _own_cgroups() -> Iterator[Path]:
    """Give the folder of each hierarchy's cgroup in which this process is."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths[controllers] = path
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mountpoint = before.split()[3:5]
        kind, _, options = after.split()
        if kind == "cgroup2" and "" in paths:
            controllers = ""
        elif kind == "cgroup":
            controllers = next((key for key in paths if key and set(key.split(",")) <= set(options.split(","))), "?")
        else:
            continue
        if controllers in paths:
            yield Path(mountpoint) / os.path.relpath(paths.pop(controllers), root)


def _make_cgroup(cgroup: Path) -> None:
    cgroup.mkdir()
    for name in ("cpuset.cpus", "cpuset.mems"):
        if (cgroup / "cpuset.memory_migrate").exists():  # the old hierarchy's begins empty, and then takes nobody
            (cgroup / name).write_text((cgroup.parent / name).read_text())


def _remove_cgroup(cgroup: Path) -> None:
    end = time.monotonic() + 10
    while cgroup.exists():
        for folder in sorted((path for path in cgroup.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        with contextlib.suppress(OSError):
            cgroup.rmdir()
        if time.monotonic() > end:
            sys.exit(f"the cgroup {cgroup} does not become empty")
        time.sleep(0.05)


def _boot(
    folder: Path, name: str, binds: Mapping[str, str], cgroups: list[Path], *, unified: bool
) -> subprocess.Popen[bytes]:
    root = folder / "root"
    root.mkdir()
    writable = "; ".join(
        f"mount -o remount,bind,rw /sys/fs/cgroup/{controller} 2>/dev/null" for controller in _CONTROLLERS_V1
    )
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        f"--directory={root}",
        "--volatile=overlay",
        "--register=no",
        "--keep-unit",
        "--private-network",
        f"--machine={name}",
        f"--uuid={Path('/proc/sys/kernel/random/uuid').read_text().strip().replace('-', '')}",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        "--capability=all",
        "--system-call-filter=bpf add_key keyctl request_key",
        "--kill-signal=SIGRTMIN+3",
        *(f"--tmpfs={path}:mode=755" for path in HIDDEN),
        *(f"--bind-ro={there}:{here}" for here, there in binds.items()),
        *("/bin/sh", "-c", f'{writable}; exec /lib/systemd/systemd "$@"', "sh"),
        *(f"systemd.mask={unit}" for unit in MASKED),
    ]
    # nspawn wants a tmpfs for itself, and not what is mounted below the root.
    script = (
        'mkdir -p /run/systemd/nspawn && mount -t tmpfs tmpfs /run/systemd/nspawn && mount --bind / "$0" && exec "$@"'
    )
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(root), *nspawn]
    entering = "".join(f"echo $$ > '{cgroup}/cgroup.procs'\n" for cgroup in cgroups)
    with (folder / "console.log").open("wb") as log:
        return subprocess.Popen(
            ["sh", "-ec", f'{entering}exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **({"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if unified else {})},
        )


def _leader(nspawn: subprocess.Popen[bytes]) -> int:
    """Give process 1 of the container once it has booted."""
    end = time.monotonic() + _BOOT_SECONDS
    while time.monotonic() < end and nspawn.poll() is None:
        for pid in Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split():
            if _said(pid, "systemctl", "is-system-running") in {"running", "degraded"}:
                return int(pid)
        time.sleep(0.05)
    sys.exit("systemd did not come up")


def _said(pid: str, *argv: str) -> str:
    command = ["nsenter", "--all", "--target", pid, *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _stop(nspawn: subprocess.Popen[bytes]) -> None:
    leader = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text().split()
    for pid in leader:
        os.kill(int(pid), signal.SIGRTMIN + 3)
    with contextlib.suppress(subprocess.TimeoutExpired):
        nspawn.wait(_STOP_SECONDS / 2)
        return
    for pid in leader:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    nspawn.wait(_STOP_SECONDS / 2)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    _keep(Path(given["folder"]), given["binds"], unified=given["unified"])
