"""A refresh on real guests behind a real HAProxy: not one failed request, bad images come back, a kill in the middle.

Guests, daemon, HAProxy and clients share the network namespace of the private libvirtd.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest
import yaml

from autoscaler.core.memory import RefreshPhase, Setback
from autoscaler.core.snapshot import GroupStatus, Snapshot
from autoscaler.core.transition import InstanceState
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, group_of, guest_exec
from tests.support.haproxy import HAProxyProcess
from tests.support.image_versions import BROKEN, make_version, version_word
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.steady_client import SteadyClient

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(900)]

READY = {"agent": True, "address": True, "http": {"port": 80, "path": "/", "status": 200}, "timeout": "3m"}
QUICK = {"canary": 1, "canary_soak": "3s", "batch": 1, "pause": "1s"}
Make = Callable[..., DaemonProcess]


@pytest.fixture
def versions(pool: Pool, virt: libvirt.virConnect) -> Pool:
    """The pool, with v1, v2 and one that does not come up in it."""
    for name, word in {"v1": version_word("1"), "v2": version_word("2"), "bad": BROKEN}.items():
        make_version(pool.golden, pool.path / f"{name}.qcow2", word)
    virt.storagePoolLookupByName(pool.name).refresh()
    return pool


@pytest.fixture
def make_daemon(
    tmp_path: Path, libvirtd: PrivateLibvirtd, versions: Pool, network: str, haproxy: HAProxyProcess
) -> Iterator[Make]:
    made: list[DaemonProcess] = []

    def make(count: int, most: int, **refresh: Any) -> DaemonProcess:
        machine = {"vcpus": 1, "memory": "128MiB", "network": network, "accelerator": "tcg"}
        daemon = DaemonProcess(
            tmp_path,
            libvirtd.uri,
            versions.name,
            image={"pool": versions.name, "volume": "v1.qcow2"},
            machine=machine,
            ready=READY,
            scaling=[],
            size={"min": count, "max": most},
            traffic=haproxy.section(drain={"deadline": "10s"}),
            refresh={**QUICK, **refresh},
        )
        daemon.prefix = [*libvirtd.inside_network]
        made.append(daemon)
        daemon.start()
        until_whole(daemon, "v1", count)
        return daemon

    yield make
    for daemon in made:
        daemon.close()


def until_whole(daemon: DaemonProcess, image: str, count: int, seconds: float = 300.0) -> Snapshot:
    """Wait until so many are ready and served, all stand on an image, and nobody else is there."""

    def whole(seen: Snapshot) -> bool:
        group = group_of(seen)
        ready = [i for i in group.instances if i.state is InstanceState.READY and stands_on(i.image, image)]
        view = group.traffic.view if group.traffic is not None else None
        served = {slot.address for slot in view.slots if slot.serves} if view is not None else set()
        return len(group.instances) == len(ready) == count and {i.address for i in ready} <= served

    return daemon.until(whole, seconds, f"{count} instances of {image} ready and served")


def stands_on(image: Any, name: str) -> bool:
    return image is not None and image.volume == f"{name}.qcow2"


def bring_out(daemon: DaemonProcess, name: str) -> None:
    """Let the policy name another image, and refresh the group to it."""
    path = daemon.policies / "web.yaml"
    policy = yaml.safe_load(path.read_text())
    daemon.write_policy(**{**policy, "image": {**policy["image"], "volume": f"{name}.qcow2"}})
    assert daemon.run("reload").returncode == 0
    begun = daemon.run("refresh", "web")
    assert begun.returncode == 0, begun.stderr


def until_ended(daemon: DaemonProcess, seconds: float = 500.0) -> GroupStatus:
    def ended(seen: Snapshot) -> bool:
        refresh = group_of(seen).refresh
        return refresh is not None and not refresh.running

    return group_of(daemon.until(ended, seconds, "the refresh has ended"))


def phase(seen: Snapshot) -> RefreshPhase | None:
    refresh = group_of(seen).refresh
    return None if refresh is None else refresh.phase


def in_service(haproxy: HAProxyProcess) -> int:
    return sum(slot.serves for slot in haproxy.view().slots)


def test_a_refresh_behind_haproxy_fails_no_request(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(1, 2, canary_soak="1s", pause="0s")
    with SteadyClient("127.0.0.1", haproxy.port, inside=libvirtd.inside_network) as client:
        bring_out(daemon, "v2")
        group = until_ended(daemon)
        assert group.refresh is not None
        assert group.refresh.phase is RefreshPhase.DONE
        until_whole(daemon, "v2", 1)
    assert client.answers.failures == []
    assert sorted("version 2" in page for page in client.answers.said) == [False, True]
    assert "done" in daemon.run("refresh", "web", "--status").stdout


@pytest.mark.slow
def test_four_guests_with_three_in_service_and_no_room_fail_no_request(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(4, 4, min_in_service=3)
    least = 4
    with SteadyClient("127.0.0.1", haproxy.port, inside=libvirtd.inside_network) as client:
        bring_out(daemon, "v2")

        def watched(seen: Snapshot) -> bool:
            nonlocal least
            least = min(least, in_service(haproxy))
            assert len(group_of(seen).instances) <= 4
            return phase(seen) is RefreshPhase.DONE

        daemon.until(watched, 500, "the refresh is done")
        until_whole(daemon, "v2", 4)
    assert least == 3
    assert client.answers.failures == []
    assert client.answers.asked > 200
    assert sum("version 2" in page for page in client.answers.said) == 4


@pytest.mark.slow
def test_an_image_whose_agent_never_answers_is_rolled_back_and_nobody_notices(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(2, 3)
    policy = yaml.safe_load((daemon.policies / "web.yaml").read_text())
    daemon.write_policy(**{**policy, "ready": {**READY, "timeout": "20s"}})
    with SteadyClient("127.0.0.1", haproxy.port, inside=libvirtd.inside_network) as client:
        bring_out(daemon, "bad")
        group = until_ended(daemon)
        assert group.refresh is not None
        assert (group.refresh.phase, group.refresh.why) == (RefreshPhase.ROLLED_BACK, Setback.CANARY_NOT_READY)
        until_whole(daemon, "v1", 2)
    assert client.answers.failures == []
    assert all("version 1" in page for page in client.answers.said)
    shown = daemon.run("refresh", "web", "--status").stdout
    assert "did not become ready in time" in shown
    assert "new instances are made of" in daemon.run("explain", "web").stdout


@pytest.mark.slow
def test_a_canary_that_fails_its_probe_is_rolled_back(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(2, 3, canary_soak="5m")
    bring_out(daemon, "v2")
    seen = daemon.until(lambda seen: phase(seen) is RefreshPhase.SOAK, 200, "the canary is watched")
    (canary,) = [i.instance for i in group_of(seen).instances if stands_on(i.image, "v2")]
    guest_exec(libvirtd.uri, canary, "rm /www/index.html")
    group = until_ended(daemon)
    assert group.refresh is not None
    assert (group.refresh.phase, group.refresh.culprit) == (RefreshPhase.ROLLED_BACK, canary)
    assert group.refresh.why is Setback.CANARY_UNHEALTHY
    until_whole(daemon, "v1", 2)


@pytest.mark.slow
def test_a_daemon_killed_in_the_middle_finishes_what_it_began(
    make_daemon: Make, haproxy: HAProxyProcess, libvirtd: PrivateLibvirtd
) -> None:
    daemon = make_daemon(2, 3)
    with SteadyClient("127.0.0.1", haproxy.port, inside=libvirtd.inside_network) as client:
        bring_out(daemon, "v2")
        for moment in (RefreshPhase.CANARY, RefreshPhase.SOAK, RefreshPhase.BATCH):
            daemon.until(lambda seen, moment=moment: phase(seen) is moment, 200, moment.value)  # type: ignore[misc]
            daemon.kill()
            daemon.start()
        group = until_ended(daemon)
        assert group.refresh is not None
        assert group.refresh.phase is RefreshPhase.DONE
        until_whole(daemon, "v2", 2)
    assert client.answers.failures == []
