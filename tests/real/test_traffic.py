"""Instances behind a real HAProxy: served when they are ready, and spared before they go.

Guests, daemon, HAProxy and clients share the network namespace of the private libvirtd.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.core.decision import ReasonCode
from autoscaler.core.observation import SlotState
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.transition import InstanceState
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, free_port, group_of
from tests.support.haproxy import HAProxyProcess
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.steady_client import SteadyClient

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(900)]

READY = {"agent": True, "address": True, "http": {"port": 80, "path": "/", "status": 200}, "timeout": "10m"}
Make = Callable[..., DaemonProcess]


@pytest.fixture
def haproxy(tmp_path: Path, libvirtd: PrivateLibvirtd) -> Iterator[HAProxyProcess]:
    process = HAProxyProcess(tmp_path, free_port(), inside=libvirtd.inside_network)
    process.start()
    yield process
    process.close()


@pytest.fixture
def make_daemon(tmp_path: Path, libvirtd: PrivateLibvirtd, pool: Pool, network: str) -> Iterator[Make]:
    made: list[DaemonProcess] = []

    def make(traffic: dict[str, Any], **changes: Any) -> DaemonProcess:
        machine = {"vcpus": 1, "memory": "192MiB", "network": network, "accelerator": "tcg"}
        given = {"machine": machine, "ready": READY, "scaling": [], "traffic": traffic, **changes}
        daemon = DaemonProcess(tmp_path, libvirtd.uri, pool.name, **given)
        daemon.prefix = [*libvirtd.inside_network]
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.close()


def scale(daemon: DaemonProcess, count: int) -> None:
    daemon.ask("scale", group="web", count=count, for_seconds=3600.0)


def in_service(snapshot: Snapshot) -> int:
    """How many the balancer serves of those that are ready, by the last tick."""
    group = group_of(snapshot)
    view = group.traffic.view if group.traffic is not None else None
    ready = {i.address for i in group.instances if i.state is InstanceState.READY}
    return 0 if view is None else sum(slot.serves and slot.address in ready for slot in view.slots)


def until_served(daemon: DaemonProcess, count: int, seconds: float = 300.0) -> Snapshot:
    """Wait until so many are ready and served, and nobody else is there."""

    def settled(seen: Snapshot) -> bool:
        states = [instance.state for instance in group_of(seen).instances]
        return states == [InstanceState.READY] * count and in_service(seen) == count

    return daemon.until(settled, seconds, f"{count} instances ready and served")


def codes(snapshot: Snapshot) -> set[ReasonCode]:
    decision = group_of(snapshot).decision
    return set() if decision is None else {reason.code for reason in decision.reasons}


def test_no_request_fails_while_the_group_grows_and_shrinks(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(haproxy.section(drain={"deadline": "30s"})).start()
    until_served(daemon, 1)
    with SteadyClient("127.0.0.1", haproxy.port, inside=libvirtd.inside_network) as client:
        scale(daemon, 4)
        four = {i.instance: i.address for i in group_of(until_served(daemon, 4)).instances}
        assert len(set(four.values())) == 4
        shown = daemon.run("traffic", "web")
        assert shown.returncode == 0
        assert all(name in shown.stdout for name in four), shown.stdout
        assert "4 in service, of 4 slots" in shown.stdout
        scale(daemon, 1)
        until_served(daemon, 1)
    assert client.answers.failures == []
    assert client.answers.asked > 100
    assert len(client.answers.said) == 4, "every instance answered something"
    states = [slot.state for slot in haproxy.view().slots]
    assert sorted(states) == [SlotState.MAINT] * 3 + [SlotState.READY]
    data = json.loads(daemon.run("traffic", "web", "--json").stdout)
    assert [service["state"] for service in data["wanted"]] == ["ready"]
