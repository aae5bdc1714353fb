"""Instances behind a real HAProxy: served when they are ready, and spared before they go.

Guests, daemon, HAProxy and clients share the network namespace of the private libvirtd.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.core.decision import ReasonCode
from autoscaler.core.observation import SlotState
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.transition import InstanceState
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, group_of, guest_exec
from tests.support.haproxy import HAProxyProcess
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until
from tests.support.prometheus import DiscoveringPrometheus
from tests.support.steady_client import SteadyClient

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(900)]

READY = {"agent": True, "address": True, "http": {"port": 80, "path": "/", "status": 200}, "timeout": "10m"}
Make = Callable[..., DaemonProcess]


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


def slow_request(libvirtd: PrivateLibvirtd, port: int, seconds: int) -> "subprocess.Popen[str]":
    """Ask for an answer that takes a while; the process ends with 0 when it came."""
    url = f"http://127.0.0.1:{port}/cgi-bin/slow?{seconds}"
    script = (
        "import sys, urllib.request\n"
        "said = urllib.request.urlopen(sys.argv[1], timeout=300).read()\n"
        "sys.exit(said.strip() != b'slow')"
    )
    return subprocess.Popen(
        [*libvirtd.inside_network, sys.executable, "-c", script, url], stderr=subprocess.DEVNULL, text=True
    )


SLOW = """\
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/new <<'END'
#!/bin/sh
sleep "$QUERY_STRING"
echo 'Content-Type: text/plain'
echo
echo slow
END
chmod 755 /www/cgi-bin/new
mv /www/cgi-bin/new /www/cgi-bin/slow
"""


def make_slow(uri: str, instance: str) -> None:
    """Let a guest answer /cgi-bin/slow?SECONDS after so many seconds."""
    guest_exec(uri, instance, SLOW)


def sessions_by_address(haproxy: HAProxyProcess) -> dict[str, int]:
    return {slot.address: slot.sessions or 0 for slot in haproxy.view().slots if slot.state is not SlotState.MAINT}


@pytest.mark.slow
def test_slow_sessions_are_waited_for_to_their_deadline_and_prometheus_discovers_who_serves(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    section = haproxy.section(drain={"deadline": "60s"})
    daemon = make_daemon(section, size={"min": 2, "max": 3}).start()
    two = group_of(until_served(daemon, 2)).instances
    addresses = {i.address for i in two}
    with DiscoveringPrometheus(tmp_path / "prometheus", daemon.port, inside=libvirtd.inside_network) as prometheus:
        wait_until(lambda: prometheus.targets() == addresses, 40, "Prometheus finds both")
        for instance in two:
            make_slow(libvirtd.uri, instance.instance)
        daemon.write_policy(**{**changes(daemon), "size": {"min": 1, "max": 3}})
        assert daemon.run("reload").returncode == 0
        wait_until(lambda: all(answers_slowly(libvirtd, a) for a in addresses if a), 40, "both answer slowly")
        requests = [slow_request(libvirtd, haproxy.port, 15) for _ in range(2)]
        wait_until(lambda: set(sessions_by_address(haproxy).values()) == {1}, 20, "a session on each")
        scale(daemon, 1)
        daemon.until(lambda seen: ReasonCode.WAITS_FOR_SESSIONS in codes(seen), 20, "a session is waited for")
        assert [request.wait(120) for request in requests] == [0, 0], "the sessions were let end"
        (left,) = group_of(until_served(daemon, 1)).instances
        wait_until(lambda: prometheus.targets() == {left.address}, 40, "Prometheus drops the one that went")
    daemon.write_policy(**{**changes(daemon), "traffic": haproxy.section(drain={"deadline": "6s"})})
    assert daemon.run("reload").returncode == 0
    scale(daemon, 2)
    both = group_of(until_served(daemon, 2)).instances
    (new,) = [i for i in both if i.instance != left.instance]
    make_slow(libvirtd.uri, new.instance)
    wait_until(lambda: answers_slowly(libvirtd, new.address or ""), 40, "the new one answers slowly")
    requests = [slow_request(libvirtd, haproxy.port, 120) for _ in range(2)]
    wait_until(lambda: set(sessions_by_address(haproxy).values()) == {1}, 20, "a session on each")
    scale(daemon, 1)
    seen = daemon.until(lambda seen: state_of(seen, new.instance) is InstanceState.DRAINING, 20, "it drains")
    drained_at = seen.at
    seen = daemon.until(lambda seen: state_of(seen, new.instance) is InstanceState.STOPPING, 40, "it is cut")
    assert seen.at - drained_at >= 6.0
    wait_until(lambda: '"sessions_cut"' in daemon.text(), 10, "that sessions are cut is told")
    until_served(daemon, 1)
    for request in requests:
        request.kill()
        request.wait(10)


def state_of(snapshot: Snapshot, instance: str) -> InstanceState | None:
    return next((i.state for i in group_of(snapshot).instances if i.instance == instance), None)


def changes(daemon: DaemonProcess) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((daemon.policies / "web.yaml").read_text())
    return data


def answers_slowly(libvirtd: PrivateLibvirtd, address: str) -> bool:
    command = ["wget", "-q", "-O", "-", "-T", "10", "-t", "1", f"http://{address}/cgi-bin/slow?0"]
    asked = subprocess.run([*libvirtd.inside_network, *command], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "slow"


@pytest.mark.slow
def test_haproxy_killed_in_a_scale_out_is_filled_again_and_too_few_slots_are_refused(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(haproxy.section(drain={"deadline": "10s"}), size={"min": 1, "max": 2}).start()
    until_served(daemon, 1)
    with SteadyClient("127.0.0.1", haproxy.port, threads=1, inside=libvirtd.inside_network) as client:
        scale(daemon, 2)
        killed_at = time.time()
        haproxy.kill()
        daemon.until(lambda seen: ReasonCode.BALANCER_UNKNOWN in codes(seen), 20, "that it is gone is told")
        assert "cannot be told whom to serve" in daemon.run("traffic", "web").stdout
        haproxy.configure(slots=2)
        haproxy.start()
        until_served(daemon, 2)
        back_at = time.time()
        # Its socket alone is gone: what it has it keeps, and who wants to leave waits.
        away = haproxy.socket.with_name("away")
        haproxy.socket.rename(away)
        daemon.until(lambda seen: ReasonCode.BALANCER_UNKNOWN in codes(seen), 20, "that it is gone is told")
        scale(daemon, 1)
        seen = daemon.until_tick(5)
        assert len(group_of(seen).instances) == 2
        away.rename(haproxy.socket)
        until_served(daemon, 1)
        policy = changes(daemon)
        daemon.write_policy(**{**policy, "size": {"min": 1, "max": 4}})
        refused = daemon.run("reload")
        assert refused.returncode == 1
        assert "2 slots (web1, web2) for a group of up to 4" in refused.stderr
        assert "server-template web 4" in refused.stderr
        daemon.write_policy(**policy)
        assert daemon.run("reload").returncode == 0
    own = [failure for failure in client.answers.failures if not killed_at <= failure[0] <= back_at]
    assert own == [], "requests failed but by HAProxy's own absence"
    assert client.answers.asked > 50


@pytest.mark.slow
def test_a_group_follows_its_sessions(make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd) -> None:
    strategy = {
        "type": "target_tracking",
        "metric": "haproxy.sessions_per_server",
        "target": 2,
        "over": "5s",
    }
    section = haproxy.section(drain={"deadline": "10s"})
    daemon = make_daemon(section, size={"min": 1, "max": 2}, scaling=[strategy]).start()
    (first,) = group_of(until_served(daemon, 1)).instances
    make_slow(libvirtd.uri, first.instance)
    wait_until(lambda: answers_slowly(libvirtd, first.address or ""), 40, "it answers slowly")
    inside = libvirtd.inside_network
    with SteadyClient("127.0.0.1", haproxy.port, threads=4, path="/cgi-bin/slow?2", inside=inside):
        until_served(daemon, 2)
        assert "haproxy.sessions_per_server" in daemon.run("explain", "web").stdout
    until_served(daemon, 1)
