"""A real daemon in a process of its own, with its configuration, policies and state in one directory."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import yaml

from autoscaler.codec import decode
from autoscaler.control.client import request
from autoscaler.core.decision import Decision
from autoscaler.core.errors import DaemonUnreachableError
from autoscaler.core.observation import Ownership
from autoscaler.core.snapshot import GroupStatus, InstanceStatus, Snapshot
from autoscaler.core.transition import InstanceState
from autoscaler.hypervisor.domain_xml import ownership_element, to_text

COMMAND = Path(sys.executable).with_name("autoscaler")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class DaemonProcess:
    """Start, ask, kill and start again; `close` ends it and says what it logged when a test failed."""

    def __init__(self, directory: Path, uri: str, pool: str, **changes: Any) -> None:
        self.directory = directory
        self.uri = uri
        self.pool = pool
        self.port = free_port()
        self.config = directory / "config.yaml"
        self.state_dir = directory / "state"
        self.socket = directory / "control.sock"
        self.log = directory / "daemon.log"
        self.policies = directory / "policies"
        self.policies.mkdir(exist_ok=True)
        self.write_policy(**changes)
        self.config.write_text(
            yaml.safe_dump(
                {
                    "hosts": {"local": {"uri": uri}},
                    "policies_dir": str(self.policies),
                    "state_dir": str(self.state_dir),
                    "control_socket": str(self.socket),
                    "listen": f"127.0.0.1:{self.port}",
                    "interval": "1s",
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}
        self.prefix: list[str | Path] = []
        self.command: list[str | Path] = [COMMAND]

    def configure(self, **changes: Any) -> None:
        """Replace top-level keys of its configuration."""
        self.config.write_text(yaml.safe_dump({**yaml.safe_load(self.config.read_text()), **changes}))

    def fake_boot(self, boot: str) -> None:
        """Let the daemon see this boot id: a file bound over the kernel's, in a mount namespace of its own."""
        path = self.directory / "boot_id"
        path.write_text(f"{boot}\n")
        bind = f'mount --bind {path} /proc/sys/kernel/random/boot_id && exec "$@"'
        self.prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh"]

    def write_policy(self, **changes: Any) -> Path:
        """Write a policy that reacts within seconds; keyword arguments replace its top-level keys."""
        given = {
            "version": 1,
            "group": "web",
            "image": {"pool": self.pool, "volume": "golden.qcow2"},
            "machine": {"vcpus": 1, "memory": "192MiB", "network": "user", "accelerator": "tcg"},
            "size": {"min": 1, "max": 4},
            "scaling": [{"type": "target_tracking", "metric": "guest.cpu", "target": "35%", "over": "5s"}],
            "behavior": {"scale_in": {"cooldown": "5s", "stabilization": "5s"}},
            "warm_up": "0s",
            "ready": {"agent": True, "timeout": "2m"},
            "drain": {"deadline": "10s"},
            # The tests' own machine is crowded, and that is not what most of them are about.
            "starved": "ignore",
            **changes,
        }
        path = self.policies / f"{given['group']}.yaml"
        path.write_text(yaml.safe_dump(given))
        return path

    def start(self, *, wait: bool = True) -> "DaemonProcess":
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self.command, "run", "--config", self.config],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        if wait:
            self.until(lambda snapshot: snapshot.tick is not None, 30, "a first tick")
        return self

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def stop(self, seconds: float = 30.0) -> int:
        return self.signal(signal.SIGTERM, seconds)

    def signal(self, number: signal.Signals, seconds: float = 30.0) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def lines(self) -> list[dict[str, Any]]:
        """Give the lines of its log."""
        return [json.loads(line) for line in self.text().splitlines()]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the CLI against this daemon."""
        group, *rest = arguments
        return subprocess.run(
            [COMMAND, group, "--config", self.config, *rest], capture_output=True, text=True, timeout=60, check=False
        )

    def ask(self, command: str, **given: Any) -> Any:
        return request(self.socket, command, **given)

    def snapshot(self) -> Snapshot:
        return decode(self.ask("status"), Snapshot)

    def group(self, name: str = "web") -> GroupStatus:
        return group_of(self.snapshot(), name)

    def explain(self, name: str = "web") -> Decision:
        return decode(self.ask("explain", group=name), Decision)

    def until(
        self, holds: Callable[[Snapshot], object], seconds: float, what: str, poll_seconds: float = 0.1
    ) -> Snapshot:
        """Poll the daemon's snapshot until something holds; fails with its log when that takes too long or it ended."""
        deadline = time.monotonic() + seconds
        last: Snapshot | None = None
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}:\n{self.text()}"
            try:
                last = self.snapshot()
                if holds(last):
                    return last
            except DaemonUnreachableError:
                last = None
            time.sleep(poll_seconds)
        raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {last}\n{self.text()[-6000:]}")

    def until_ready(self, count: int, seconds: float = 120.0, group: str = "web") -> tuple[InstanceStatus, ...]:
        """Wait until exactly this many instances are ready, and nothing else is there."""

        def settled(snapshot: Snapshot) -> bool:
            # A group that was just added shows after the next tick.
            named = [status for status in snapshot.groups if status.group == group]
            states = [instance.state for status in named for instance in status.instances]
            return bool(named) and states == [InstanceState.READY] * count

        return group_of(self.until(settled, seconds, f"{count} ready instances of {group}"), group).instances

    def until_tick(self, more: int = 1, seconds: float = 30.0) -> Snapshot:
        """Wait for some more finished ticks."""
        number = _number(self.snapshot())
        return self.until(lambda snapshot: _number(snapshot) >= number + more, seconds, f"{more} more ticks")

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as reply:
            return str(reply.read().decode())


def _number(snapshot: Snapshot) -> int:
    return snapshot.tick.number if snapshot.tick is not None else 0


def group_of(snapshot: Snapshot, name: str = "web") -> GroupStatus:
    for status in snapshot.groups:
        if status.group == name:
            return status
    raise AssertionError(f"no group {name} in {snapshot.groups}")


def burn(uri: str, instance: str, share: float) -> None:
    """Let a guest burn a share of its vCPU."""
    guest_exec(uri, instance, f"echo {share:.2f} > /run/burn")


def guest_exec(uri: str, instance: str, script: str) -> None:
    """Run a shell script inside a guest, through its agent; returns when it has begun."""
    arguments = {"path": "/bin/sh", "arg": ["-c", script]}
    connection = libvirt.open(uri)
    try:
        domain = connection.lookupByName(instance)
        message = json.dumps({"execute": "guest-exec", "arguments": arguments})
        libvirt_qemu.qemuAgentCommand(domain, message, 10, 0)
    finally:
        connection.close()


def domains(uri: str) -> dict[str, bool]:
    """Name every domain, with whether it is active."""
    connection = libvirt.open(uri)
    try:
        return {domain.name(): bool(domain.isActive()) for domain in connection.listAllDomains()}
    finally:
        connection.close()


def define_foreign(uri: str, name: str, ownership: Ownership | None = None) -> None:
    """Start a small domain that is not the daemon's; `ownership` gives it another controller's element."""
    root = ET.fromstring(
        f"<domain type='qemu'><name>{name}</name><metadata/><memory unit='MiB'>32</memory>"
        "<os><type>hvm</type></os></domain>"
    )
    if ownership is not None:
        metadata = root.find("metadata")
        assert metadata is not None
        metadata.append(ownership_element(ownership))
    connection = libvirt.open(uri)
    try:
        connection.defineXML(to_text(root)).create()
    finally:
        connection.close()
