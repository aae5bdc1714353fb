"""Alerts on real faults: what happens to a real daemon makes the right ones pending, and nothing else does."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import Pool
from tests.real.test_traffic import READY, until_served
from tests.support.daemon import DaemonProcess, burn, group_of
from tests.support.haproxy import HAProxyProcess
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.prometheus import PrometheusWithRules

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.slow, pytest.mark.timeout(600)]

MACHINE = frozenset({"AutoscalerPoolNearlyFull", "AutoscalerPoolOvercommitted"})
"""Alerts about the disk of the machine that runs the tests."""
GUEST = {"vcpus": 1, "memory": "192MiB", "network": "default", "accelerator": "tcg"}


def policy(haproxy: HAProxyProcess, **changes: object) -> dict[str, object]:
    """Give the policy of a group of one behind HAProxy."""
    given = {"machine": GUEST, "ready": READY, "traffic": haproxy.section(), "size": {"min": 1, "max": 1}}
    return {**given, **changes}


@pytest.fixture
def daemon(
    tmp_path: Path, libvirtd: PrivateLibvirtd, pool: Pool, network: str, haproxy: HAProxyProcess
) -> Iterator[DaemonProcess]:
    assert network == GUEST["network"]
    process = DaemonProcess(tmp_path, libvirtd.uri, pool.name, **policy(haproxy))
    process.prefix = [*libvirtd.inside_network]
    yield process
    process.close()


@pytest.fixture
def prometheus(tmp_path: Path, libvirtd: PrivateLibvirtd, daemon: DaemonProcess) -> Iterator[PrometheusWithRules]:
    inside = libvirtd.inside_network
    with PrometheusWithRules(tmp_path / "prometheus", daemon.port, inside=inside) as started:
        yield started


def alerting(prometheus: PrometheusWithRules) -> set[str]:
    """Name the alerts that are pending or firing."""
    return {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]} - MACHINE


def test_each_fault_wakes_the_alert_that_is_about_it(
    daemon: DaemonProcess,
    prometheus: PrometheusWithRules,
    haproxy: HAProxyProcess,
    libvirtd: PrivateLibvirtd,
    pool: Pool,
) -> None:
    def until(*alerts: str) -> None:
        seen: list[set[str]] = []
        deadline = time.monotonic() + 60
        while not seen or seen[-1] != {*alerts}:
            assert time.monotonic() < deadline, f"not {alerts} but {seen[-1]}\n{daemon.text()[-3000:]}"
            time.sleep(0.2)
            seen.append(alerting(prometheus))

    def change(**changes: object) -> None:
        daemon.write_policy(**policy(haproxy, **changes))
        assert daemon.run("reload").returncode == 0

    daemon.start()
    (only,) = group_of(until_served(daemon, 1)).instances
    until()
    burn(libvirtd.uri, only.instance, 0.9)
    until("AutoscalerAtMaxStillLoaded")
    burn(libvirtd.uri, only.instance, 0.0)
    until()
    file = daemon.policies / "web.yaml"
    good = file.read_text()
    file.write_text(good + "szie: 3\n")
    assert daemon.run("reload").returncode == 1
    until("AutoscalerReloadFailed")
    change(size={"min": 2, "max": 2}, machine={**GUEST, "memory": "900GiB"})
    until("AutoscalerBelowMin", "AutoscalerNoRoom")
    change(size={"min": 2, "max": 2}, image={"pool": daemon.pool, "volume": "gone.qcow2"}, launch={"breaker": 1})
    until("AutoscalerBelowMin", "AutoscalerBreakerOpen")
    change()
    assert daemon.run("reset", "web").returncode == 0
    until()
    whole = pool.golden.stat().st_size
    with pool.golden.open("ab") as image:
        image.write(bytes(512))
    until("AutoscalerImageChanged")
    os.truncate(pool.golden, whole)
    until()
    haproxy.kill()
    until("AutoscalerBalancerUnreachable")
    haproxy.start()
    until()
    file.unlink()
    assert daemon.run("reload").returncode == 0
    until("AutoscalerGroupUnmanaged")
    file.write_text(good)
    assert daemon.run("reload").returncode == 0
    until()
    libvirtd.stop()
    until("AutoscalerLibvirtDown")
    libvirtd.restart()
    until()
    daemon.kill()
    until("AutoscalerDown")
    assert prometheus.at('ALERTS{alertstate="firing"}', time.time()) == [], "none has waited long enough to fire"
