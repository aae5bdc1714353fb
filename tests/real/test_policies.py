"""Strategies other than target tracking, each on a real daemon with real guests: out, and in again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.core.decision import ReasonCode
from autoscaler.core.snapshot import Snapshot
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, burn, group_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    yield process
    process.close()


def wished(snapshot: Snapshot) -> set[ReasonCode]:
    decision = group_of(snapshot).decision
    return set() if decision is None else {wish.reason.code for wish in decision.recommendations}


def test_steps_scale_out_and_in(daemon: DaemonProcess, libvirt_uri: str) -> None:
    steps = [{"from": "60%", "to": "80%", "add": 1}, {"from": "80%", "add": "100%"}, {"to": "20%", "remove": 1}]
    daemon.write_policy(
        size={"min": 1, "max": 2}, scaling=[{"type": "step", "metric": "guest.cpu", "over": "5s", "steps": steps}]
    )
    daemon.start()
    (first,) = daemon.until_ready(1)
    burn(libvirt_uri, first.instance, 0.95)
    daemon.until_ready(2)
    daemon.until(lambda seen: wished(seen) == {ReasonCode.WITHIN_STEPS}, 30, "a load between the steps")
    burn(libvirt_uri, first.instance, 0.0)
    daemon.until_ready(1)
    assert daemon.stop() == 0


@pytest.mark.slow
def test_a_schedule_scales_out_and_in(daemon: DaemonProcess) -> None:
    """Every minute two instances are called for, and one again 40 s later; a restart in between changes nothing."""
    schedule = {"type": "schedule", "cron": "* * * * *", "timezone": "Europe/Berlin", "for": "40s", "desired": 2}
    behavior = {"scale_in": {"cooldown": "0s", "stabilization": "0s"}}
    daemon.write_policy(size={"min": 1, "max": 2}, scaling=[schedule], behavior=behavior)
    daemon.start()
    daemon.until(lambda seen: ReasonCode.SCHEDULE_DESIRES in wished(seen), 60, "an active span")
    daemon.kill()
    daemon.start()
    daemon.until_ready(2)
    daemon.until(lambda seen: ReasonCode.SCHEDULE_INACTIVE in wished(seen), 60, "the end of the span")
    daemon.until_ready(1)
    shown = daemon.run("explain", "web")
    assert shown.returncode == 0
    assert "'* * * * *'" in shown.stdout
    assert daemon.stop() == 0
