"""A real HAProxy is filled, emptied, killed and filled again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.core.observation import SlotState, TrafficView, Unknown
from autoscaler.core.policy import Traffic, TrafficKind
from autoscaler.core.traffic import Service, Wanted
from autoscaler.external.balancers import Balancers
from autoscaler.external.haproxy import BalancerError
from tests.support.daemon import free_port
from tests.support.haproxy import HAProxyProcess
from tests.support.private_libvirtd import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[HAProxyProcess]:
    with HAProxyProcess(tmp_path, free_port(), check="") as process:
        yield process


def wanted(haproxy: HAProxyProcess, at: float, *services: tuple[int, SlotState, float]) -> Wanted:
    listed = tuple(Service(f"web-{n}", "local", f"192.0.2.{n}", 80, state, share) for n, state, share in services)
    return Wanted("web", haproxy.traffic(), listed, at)


def told(view: object) -> dict[str, tuple[SlotState, int]]:
    assert isinstance(view, TrafficView), view
    return {slot.address: (slot.state, slot.weight) for slot in view.slots if slot.state is not SlotState.MAINT}


def test_it_has_what_is_wanted_again_after_it_was_killed(haproxy: HAProxyProcess) -> None:
    balancers = Balancers(now=lambda: 7.0, on_change=lambda: None)
    balancers.watch({"web": haproxy.traffic()})
    try:
        assert told(haproxy.view()) == {}
        balancers.want([wanted(haproxy, 1.0, (1, SlotState.READY, 0.1), (2, SlotState.READY, 1.0))])
        both = {"192.0.2.1": (SlotState.READY, 10), "192.0.2.2": (SlotState.READY, 100)}
        wait_until(lambda: told(haproxy.view()) == both, 10, "both are served")
        foreign = haproxy.client().ask("show servers state web")
        haproxy.kill()
        wait_until(lambda: isinstance(balancers.views()["web"], Unknown), 10, "that it is gone is seen")
        haproxy.start()
        wait_until(lambda: told(haproxy.view()) == both, 10, "both are served again")
        assert [line.split()[4:8] for line in foreign.splitlines() if " foreign " in line] == [
            line.split()[4:8]
            for line in haproxy.client().ask("show servers state web").splitlines()
            if " foreign " in line
        ]
        balancers.want([wanted(haproxy, 2.0, (1, SlotState.READY, 1.0), (2, SlotState.DRAIN, 1.0))])
        drained = {"192.0.2.1": (SlotState.READY, 100), "192.0.2.2": (SlotState.DRAIN, 100)}
        wait_until(lambda: told(haproxy.view()) == drained, 10, "one drains")
        balancers.want([wanted(haproxy, 3.0, (1, SlotState.READY, 1.0))])
        left = {"192.0.2.1": (SlotState.READY, 100)}
        wait_until(lambda: told(balancers.views()["web"]) == left, 10, "one is left")
        view = balancers.views()["web"]
        assert isinstance(view, TrafficView)
        assert (view.at, view.wanted_at, view.queue) == (7.0, 3.0, 0)
    finally:
        balancers.close()


def test_a_hand_that_changes_it_is_corrected(haproxy: HAProxyProcess) -> None:
    balancers = Balancers(now=lambda: 7.0, on_change=lambda: None)
    balancers.watch({"web": haproxy.traffic()})
    try:
        balancers.want([wanted(haproxy, 1.0, (1, SlotState.READY, 1.0))])
        served = {"192.0.2.1": (SlotState.READY, 100)}
        wait_until(lambda: told(haproxy.view()) == served, 10, "it is served")
        (name,) = [slot.name for slot in haproxy.view().slots if slot.state is SlotState.READY]
        haproxy.client().ask(f"set server web/{name} state maint")
        wait_until(lambda: told(haproxy.view()) == served, 10, "it is served again")
        balancers.forget(["web"])
        haproxy.client().ask(f"set server web/{name} state maint")
        wait_until(lambda: told(balancers.views()["web"]) == {}, 10, "it is left alone")
        assert told(haproxy.view()) == {}
    finally:
        balancers.close()


def test_a_backend_that_is_not_there_is_named(haproxy: HAProxyProcess) -> None:
    wrong = Traffic(TrafficKind.HAPROXY, socket=str(haproxy.socket), backend="shop", slots="web")
    balancers = Balancers(now=lambda: 7.0, on_change=lambda: None)
    balancers.watch({"web": wrong})
    try:
        wait_until(lambda: "web" in balancers.views(), 10, "it was looked at")
        view = balancers.views()["web"]
        assert isinstance(view, Unknown)
        assert "no servers of backend shop: Can't find backend." in view.why
    finally:
        balancers.close()
    with pytest.raises(BalancerError):
        haproxy.client().ask("show stat " + "x" * 100_000)
