"""Instances as the network and their guests show them: addresses, probes, hooks and webhooks, on real guests."""

import ipaddress
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.observation import Domain, Observation
from autoscaler.core.ports import GuestRun
from autoscaler.core.snapshot import InstanceStatus, Snapshot
from autoscaler.core.transition import InstanceState, TransitionReason
from autoscaler.external.webhooks import sign
from autoscaler.hypervisor import LibvirtHypervisor
from autoscaler.hypervisor.domain_xml import domain_uuid
from autoscaler.store import Journal
from tests.real.conftest import HypervisorFactory, Pool
from tests.real.test_hypervisor import clone_in, define, refusal
from tests.support import sink as sink_program
from tests.support.daemon import DaemonProcess, group_of, guest_exec
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


def listed(host: LibvirtHypervisor, instance: str) -> Domain:
    return next(domain for domain in host.inventory().domains if domain.name == instance)


def test_addresses_and_commands_in_guests(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, network: str, libvirt_uri: str
) -> None:
    """One guest behind NAT, known by its lease, and one with user-mode networking, which only its agent tells of."""
    host = hypervisor()
    for instance, its_network in (("web-1", network), ("web-2", "user")):
        define(host, clone_in(pool, network=its_network, instance=instance), controller)
        host.start(instance)
    wait_until(lambda: listed(host, "web-1").answers, 40, "the agent answers")
    assert listed(host, "web-1").addresses == (), "nobody asked for them"

    host.watch_addresses(frozenset({"db"}))
    host.inventory()
    assert host.addresses("web-1") == ()
    host.watch_addresses(frozenset({"web"}))
    wait_until(lambda: listed(host, "web-1").addresses, 20, "the lease tells its address")
    (address,) = listed(host, "web-1").addresses
    assert ipaddress.ip_address(address) in ipaddress.ip_network("192.168.122.0/24")
    assert host.addresses("web-1") == (address,)
    wait_until(lambda: "10.0.2.15" in listed(host, "web-2").addresses, 20, "the agent tells its address")

    run = host.run_in_guest("web-2", ("/bin/sh", "-c", "echo out; echo err >&2; exit 3"), 10.0)
    assert run == GuestRun(3, "out\nerr\n")
    assert host.run_in_guest("web-2", ("/bin/sleep", "30"), 0.5) == GuestRun(None)
    assert "nowhere" in refusal(HypervisorErrorKind.FAILED, host.run_in_guest, "web-2", ("/nowhere",), 5.0)
    refusal(HypervisorErrorKind.NOT_FOUND, host.run_in_guest, "web-9", ("/bin/true",), 5.0)

    # An agent that hangs is no reason to wait, nor to forget what it told.
    guest_exec(libvirt_uri, "web-2", "kill -STOP $(pidof qemu-ga)")
    wait_until(lambda: listed(host, "web-2").answers is False, 40, "the agent no longer answers")
    began = time.monotonic()
    assert "10.0.2.15" in listed(host, "web-2").addresses
    assert time.monotonic() - began < 2
    refusal(HypervisorErrorKind.BUSY, host.run_in_guest, "web-2", ("/bin/true",), 5.0)
    assert listed(host, "web-1").addresses == (address,)


@pytest.fixture
def daemon(tmp_path: Path, libvirtd: PrivateLibvirtd, pool: Pool, network: str) -> Iterator[DaemonProcess]:
    """A daemon that sees the guests' network, as one on their host does."""
    process = DaemonProcess(
        tmp_path,
        libvirtd.uri,
        pool.name,
        machine={"vcpus": 1, "memory": "192MiB", "network": network, "accelerator": "tcg"},
        ready={"agent": True, "http": {"port": 80, "path": "/go"}, "timeout": "4m"},
        health={"probe_failures": 2},
        drain={"deadline": "10s", "hooks": [{"type": "agent", "run": WHO_AM_I}, {"type": "command", "run": ["env"]}]},
    )
    process.prefix = [*libvirtd.in_its_network()]
    yield process
    process.close()


WHO_AM_I = ["/bin/sh", "-c", "cat /sys/class/dmi/id/product_uuid; exit 3"]


def only(snapshot: Snapshot) -> InstanceStatus | None:
    instances = group_of(snapshot).instances
    return instances[0] if len(instances) == 1 else None


def last_seen(daemon: DaemonProcess) -> Observation:
    """What the last journalled tick observed."""
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return list(journal.replay())[-1].observation
    finally:
        journal.close()


@dataclass
class Sink:
    """A receiver of webhooks beside the daemon."""

    port: int
    file: Path

    def told(self) -> list[dict[str, Any]]:
        """Everything it was told, each signed as it should be."""
        lines = [json.loads(line) for line in self.file.read_text().splitlines()] if self.file.exists() else []
        for line in lines:
            assert line["signature"] == sign(b"s3cret", line["body"].encode())
        return [json.loads(line["body"]) for line in lines]

    def events(self, instance: str) -> list[str]:
        return [told["event"] for told in self.told() if told["instance"] == instance]


@pytest.fixture
def sink(tmp_path: Path, libvirtd: PrivateLibvirtd) -> Iterator[Sink]:
    file = tmp_path / "told"
    argv = [*libvirtd.in_its_network(), sys.executable, sink_program.__file__, str(file)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        yield Sink(int(process.stdout.readline()), file)
        process.kill()


def test_ready_well_and_leaving_as_guests_show_it(daemon: DaemonProcess, sink: Sink, tmp_path: Path) -> None:
    """A gate on HTTP, hooks at a scale-in, a probe that fails, and webhooks of it all."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o400)
    daemon.configure(webhooks=[{"url": f"http://127.0.0.1:{sink.port}/", "secret_file": str(secret)}])
    daemon.start()

    def refuses() -> bool:
        return [probe.detail for probe in last_seen(daemon).probes.values()] == ["HTTP status 404, not 200"]

    wait_until(refuses, 60, "its HTTP answers, and wrongly")
    first = only(daemon.until_tick(2))
    assert first is not None
    assert first.state is InstanceState.BOOTING, "its agent answers, but that is not all that was asked for"
    guest_exec(daemon.uri, first.instance, "touch /www/go")
    daemon.until_ready(1, 30)

    assert daemon.run("scale", "web", "2").returncode == 0
    two = daemon.until(lambda snapshot: len(group_of(snapshot).instances) == 2, 30, "a second instance")
    (second,) = {instance.instance for instance in group_of(two).instances} - {first.instance}
    wait_until(lambda: second in last_seen(daemon).probes, 60, "the second's HTTP answers")
    guest_exec(daemon.uri, second, "touch /www/go")
    daemon.until_ready(2, 30)
    assert daemon.run("scale", "web", "1").returncode == 0
    daemon.until_ready(1, 60)
    uuid = domain_uuid(daemon.snapshot().controller, second)
    hooks = {line["hook"]: line.get("why") for line in daemon.lines() if "hook" in line and line["instance"] == second}
    assert hooks == {"agent /bin/sh": f"ended with 3: {uuid}", "command env": None}

    guest_exec(daemon.uri, first.instance, "rm /www/go")
    sick = daemon.until(lambda snapshot: state_of(snapshot, first.instance) is InstanceState.UNHEALTHY, 60, "unhealthy")
    assert {i.reason for i in group_of(sick).instances if i.instance == first.instance} == {
        TransitionReason.PROBE_FAILED
    }
    wait_until(lambda: "probe_failed" in sink.events(first.instance), 10, "the last of it was told")
    assert sink.events(first.instance)[-2:] == ["became_ready", "probe_failed"]
    assert {"became_ready", "scale_in", "removed"} <= set(sink.events(second))
    assert daemon.stop() == 0


def state_of(snapshot: Snapshot, instance: str) -> InstanceState | None:
    return next((i.state for i in group_of(snapshot).instances if i.instance == instance), None)
