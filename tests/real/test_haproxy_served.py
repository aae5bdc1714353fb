"""A real HAProxy and a client that never retries, before instances of a simulated host that are servers on loopback."""

import http.server
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoscaler.core.observation import Change, DomainState, HostInventory, SlotState
from autoscaler.core.policy import Drain, Image, Policy, Size
from autoscaler.core.status import Finished, group_statuses, wanted_traffic
from autoscaler.core.transition import InstanceState
from autoscaler.external.balancers import Balancers
from tests.support.daemon import free_port
from tests.support.haproxy import HAProxyProcess
from tests.support.plant import Plant
from tests.support.steady_client import SteadyClient

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(getattr(self.server, "answer_seconds", 0.0))
        # One whose power was taken away answers nobody, also not whom it has begun to serve.
        if getattr(self.server, "off", False):
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        pass


class Street:
    """Ticks a group before a real HAProxy: each instance that booted is a server on an address of its own."""

    def __init__(self, policy: Policy, haproxy: HAProxyProcess) -> None:
        self.port = policy.traffic.port if policy.traffic is not None else 0
        self.plant = Plant(policy, interval_seconds=1.0)
        self.servers: dict[str, http.server.ThreadingHTTPServer] = {}
        self.haproxy = haproxy
        self.answer_seconds = 0.15
        self.balancers = Balancers(now=lambda: self.plant.clock.at, on_change=lambda: None)
        assert policy.traffic is not None
        self.balancers.watch({"web": policy.traffic})
        self.plant.host.watch_addresses(frozenset({"web"}))
        observe = self.plant.observe

        def observed() -> Any:
            seen = replace(observe(), traffic=dict(self.balancers.views()))
            self.plant.observation = seen
            return seen

        self.plant.observe = observed  # type: ignore[method-assign]

    def tick(self) -> tuple[list[InstanceState], int]:
        """Tick once; gives the states of the instances, and how many HAProxy has in service."""
        result = self.plant.tick()
        seen = self.plant.observation
        assert seen is not None
        finished = Finished((self.plant.policy,), seen, result, ())
        self.balancers.want(wanted for wanted in wanted_traffic(finished).values() if wanted is not None)
        inventory = seen.inventory["local"]
        assert isinstance(inventory, HostInventory)
        running = {a for d in inventory.domains if d.state is DomainState.RUNNING for a in d.addresses}
        for address in running - self.servers.keys():
            self._switch_on(address)
        self.plant.clock.advance(1.0)
        self._switch_off(self.servers.keys() - running)
        time.sleep(0.2)
        (group,) = group_statuses(finished)
        serving = sum(slot.state is SlotState.READY for slot in self.haproxy.view().slots)
        return [instance.state for instance in group.instances], serving

    def until(self, count: int) -> None:
        """Tick until so many are ready and served, and nobody else is there."""
        deadline = time.monotonic() + 60
        seen = None
        while seen != ([InstanceState.READY] * count, count):
            assert time.monotonic() < deadline, seen
            seen = self.tick()

    def close(self) -> None:
        self.balancers.close()
        self._switch_off(self.servers.keys())

    def _switch_on(self, address: str) -> None:
        server = http.server.ThreadingHTTPServer((address, self.port), _Handler)
        server.answer_seconds = self.answer_seconds  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.servers[address] = server

    def _switch_off(self, addresses: Iterable[str]) -> None:
        for address in tuple(addresses):
            server = self.servers.pop(address)
            server.off = True  # type: ignore[attr-defined]
            server.shutdown()
            server.server_close()


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxyProcess]:
    with HAProxyProcess(tmp_path, free_port()) as process:
        yield process


@pytest.fixture
def street(haproxy: HAProxyProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Street]:
    def loopback(machine: Any) -> str:
        return f"127.18.{int(machine.domain.uuid[:2], 16)}.{int(machine.domain.uuid[2:4], 16)}"

    monkeypatch.setattr("autoscaler.simulate.host._address", loopback)
    traffic = replace(haproxy.traffic(), port=free_port(), drain_seconds=20.0)
    drain = Drain(deadline_seconds=1.0)
    image = Image("default", "golden.qcow2")
    made = Street(Policy("web", image, Size(1, 4), warm_up_seconds=0.0, drain=drain, traffic=traffic), haproxy)
    yield made
    made.close()


def test_no_request_fails_while_the_group_grows_and_shrinks(street: Street) -> None:
    street.until(1)
    with SteadyClient("127.0.0.1", street.haproxy.port, threads=4) as client:
        for count in (4, 1, 3, 1):
            street.plant.ask(Change.SCALE, count)
            street.until(count)
            for _ in range(5):
                street.tick()
    assert client.answers.failures == []
    assert client.answers.asked > 30


def test_what_outlasts_the_deadline_is_cut(street: Street) -> None:
    policy = street.plant.policy
    assert policy.traffic is not None
    street.plant.policy = replace(policy, traffic=replace(policy.traffic, drain_seconds=1.0))
    street.balancers.watch({"web": street.plant.policy.traffic} if street.plant.policy.traffic is not None else {})
    street.answer_seconds = 10.0
    street.plant.ask(Change.SCALE, 3)
    street.until(3)
    with SteadyClient("127.0.0.1", street.haproxy.port, threads=4) as client:
        serving = [SlotState.READY] * 3
        while [slot.state for slot in street.haproxy.view().slots if slot.sessions] != serving:
            street.tick()
        street.plant.ask(Change.SCALE, 1)
        street.until(1)
    assert client.answers.failures, "a client that notices is what the tests above rest on"


def test_requests_fail_by_haproxys_own_absence_only(street: Street) -> None:
    street.until(1)
    with SteadyClient("127.0.0.1", street.haproxy.port, threads=2) as client:
        street.plant.ask(Change.SCALE, 3)
        killed_at = time.time()
        street.haproxy.kill()
        time.sleep(0.5)
        street.haproxy.start()
        street.until(3)
        back_at = time.time()
        street.plant.ask(Change.SCALE, 1)
        street.until(1)
    own = [failure for failure in client.answers.failures if not killed_at <= failure[0] <= back_at]
    assert own == []
    assert len(client.answers.failures) < client.answers.asked
