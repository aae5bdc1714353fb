"""The daemon as an installed service, in a container of its own with a real systemd and libvirt under its own unit."""

import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from autoscaler.codec import decode
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.transition import InstanceState
from tests.support.daemon import group_of
from tests.support.systemd_container import SystemdContainer

UNIT = "autoscaler.service"
POLICY = "/etc/autoscaler/policies/web.yaml"
CONFIG = "/etc/autoscaler/config.yaml"
POLKIT_RULE = "/etc/polkit-1/rules.d/50-autoscaler.rules"
IMAGES = "/var/lib/libvirt/images"


class Service:
    """Install, start, ask and watch the daemon of one container; `checkout` and `cache` are folders of the machine."""

    def __init__(self, checkout: Path, cache: Path, golden: Path, *, unified: bool = False) -> None:
        self.golden = golden.relative_to(cache)
        self.container = SystemdContainer({"/checkout": checkout, "/cache": cache}, unified=unified)
        # Where the machine itself has the service, the container begins without it.
        self.container.run("rm", "-rf", "/etc/autoscaler", "/var/lib/autoscaler", "/opt/autoscaler", POLKIT_RULE)

    def close(self) -> None:
        self.container.close()

    def make(self, target: str, folder: str = "/checkout") -> str:
        """Run `make install` or `make uninstall`; packages come from the cache, for there is no network inside."""
        # A umask under which nobody else could read what root installs.
        command = f"umask 077; make --no-print-directory -C {folder} {target} PREFIX=/opt/autoscaler"
        done = self.container.run(
            "sh", "-c", command, seconds=240, PIP_NO_INDEX="1", PIP_FIND_LINKS="/cache/wheels", PIP_NO_CACHE_DIR="1"
        )
        return done.stdout

    def make_pool(self) -> None:
        """Give libvirt its usual pool with the golden image."""
        self.container.run("mkdir", "-p", IMAGES)
        self.container.run("cp", f"/cache/{self.golden}", f"{IMAGES}/golden.qcow2")
        self.container.run("virsh", "pool-define-as", "default", "dir", "--target", IMAGES)
        self.container.run("virsh", "pool-start", "default")

    def write(self, path: str, text: str) -> None:
        """Write a file inside, readable by everybody."""
        self.container.run("sh", "-c", f"umask 022; cat > {shlex.quote(path)}", stdin=text)

    def write_policy(self, **changes: Any) -> None:
        """Write a policy that reacts within seconds; keyword arguments replace its top-level keys."""
        given = {
            "version": 1,
            "group": "web",
            "image": {"pool": "default", "volume": "golden.qcow2"},
            "machine": {"vcpus": 1, "memory": "192MiB", "network": "user"},
            "size": {"min": 1, "max": 2},
            "scaling": [{"type": "target_tracking", "metric": "guest.cpu", "target": "35%", "over": "5s"}],
            "behavior": {"scale_in": {"cooldown": "5s", "stabilization": "5s"}},
            "warm_up": "0s",
            "ready": {"agent": True, "timeout": "60s"},
            "drain": {"deadline": "10s"},
            **changes,
        }
        self.write(POLICY, yaml.safe_dump(given))

    def write_config(self, **changes: Any) -> None:
        """Write a configuration that looks every second."""
        self.write(CONFIG, yaml.safe_dump({"interval": "1s", **changes}))

    def systemctl(self, *arguments: str, check: bool = True, seconds: float = 120.0) -> tuple[int, str]:
        """Give the exit code, and what it said."""
        done = self.container.run("systemctl", *arguments, check=check, seconds=seconds)
        return done.returncode, done.stdout + done.stderr

    def start(self) -> None:
        """Start the service, which waits until it is ready."""
        self.systemctl("start", UNIT)

    def show(self, name: str) -> str:
        """Give one property of the unit."""
        return self.container.show(UNIT, name)

    def main_pid(self) -> int:
        return int(self.show("MainPID"))

    def journal(self) -> str:
        return self.container.journal(UNIT)

    def snapshot(self) -> Snapshot:
        return decode(json.loads(self.container.output("autoscaler", "status", "--json")), Snapshot)

    def until(self, holds: Callable[[Snapshot], object], seconds: float, what: str) -> Snapshot:
        """Poll the daemon's snapshot until something holds; fails with the unit's log when that takes too long."""
        end = time.monotonic() + seconds
        while True:
            snapshot = self.snapshot()
            if holds(snapshot):
                return snapshot
            assert time.monotonic() < end, (
                f"not within {seconds:g} s: {what}; last: {snapshot}\n{self.journal()[-4000:]}"
            )
            time.sleep(0.3)

    def until_ready(self, count: int, seconds: float = 90.0) -> set[str]:
        """Wait until exactly this many instances are ready and nothing else is there; give their names."""

        def settled(snapshot: Snapshot) -> bool:
            return [found.state for found in group_of(snapshot).instances] == [InstanceState.READY] * count

        snapshot = self.until(settled, seconds, f"{count} ready instances")
        return {found.instance for found in group_of(snapshot).instances}

    def burn(self, instance: str, share: float) -> None:
        """Let a guest burn a share of its vCPU."""
        arguments = {"path": "/bin/sh", "arg": ["-c", f"echo {share:.2f} > /run/burn"]}
        message = json.dumps({"execute": "guest-exec", "arguments": arguments})
        self.container.run("virsh", "qemu-agent-command", instance, message)

    def guests(self) -> dict[str, int]:
        """Name each running guest with the process id of its QEMU: another one would be another boot."""
        names = self.container.output("virsh", "list", "--name").split()
        return {name: int(self.container.output("cat", f"/run/libvirt/qemu/{name}.pid")) for name in names}

    def number_of_starts(self) -> int:
        """How often the daemon was started by systemd since the journal began."""
        return self.journal().count("daemon started")
