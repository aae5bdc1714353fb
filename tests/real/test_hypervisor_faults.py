"""libvirtd gone, back, and frozen; a QEMU that hangs: an error in bounded time, and recovery by itself."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from tests.real.conftest import HypervisorFactory, Pool
from tests.real.test_hypervisor import INSTANCE, clone_in, define, listed
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

CPU = frozenset({"guest.cpu"})
pytestmark = pytest.mark.real


def succeeds(call: Callable[[], object]) -> bool:
    try:
        call()
    except HypervisorError:
        return False
    return True


def failure(call: Callable[[], object]) -> tuple[HypervisorErrorKind, float]:
    begun = time.monotonic()
    with pytest.raises(HypervisorError) as caught:
        call()
    assert caught.value.retryable
    return caught.value.kind, time.monotonic() - begun


def test_libvirtd_is_killed_and_comes_back(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, libvirtd: PrivateLibvirtd
) -> None:
    woken: list[float] = []
    host = hypervisor(on_change=lambda: woken.append(time.monotonic()))
    define(host, clone_in(pool), controller)
    host.start(INSTANCE)
    before = listed(host)
    assert before is not None

    libvirtd.kill()

    def counters() -> object:
        return host.counters(CPU)

    for call in (host.inventory, counters, lambda: host.running(INSTANCE), lambda: host.destroy(INSTANCE)):
        kind, seconds = failure(call)
        assert kind is HypervisorErrorKind.UNREACHABLE
        assert seconds < 5

    libvirtd.restart()
    wait_until(lambda: succeeds(host.inventory), 15, "the host is listed again")
    wait_until(lambda: succeeds(lambda: host.running(INSTANCE)), 15, "actions work again")
    after = listed(host)
    assert after is not None
    assert (after.uuid, after.state) == (before.uuid, before.state), "the guest ran on"
    assert before.uuid in host.counters(CPU)
    woken.clear()
    host.destroy(INSTANCE)
    wait_until(lambda: woken, 5, "events arrive over the new connection")


def test_frozen_libvirtd_is_an_error_in_time_and_stuck_calls_are_bounded(
    hypervisor: HypervisorFactory, libvirtd: PrivateLibvirtd
) -> None:
    host = hypervisor(read_seconds=0.2)
    host.inventory()
    libvirtd.freeze()
    try:
        assert failure(host.inventory)[0] is HypervisorErrorKind.DEADLINE
        outcomes = [failure(host.inventory) for _ in range(20)]
    finally:
        libvirtd.thaw()
    assert outcomes[-1][0] is HypervisorErrorKind.UNREACHABLE, "no more threads for a host that hangs"
    assert max(seconds for _, seconds in outcomes) < 2
    wait_until(lambda: succeeds(host.inventory), 15, "the host is listed again")


@pytest.mark.slow
def test_keepalive_frees_the_calls_a_frozen_libvirtd_holds(
    hypervisor: HypervisorFactory, libvirtd: PrivateLibvirtd
) -> None:
    host = hypervisor(read_seconds=40.0)
    host.inventory()
    libvirtd.freeze()
    try:
        kind, seconds = failure(host.inventory)
    finally:
        libvirtd.thaw()
    assert kind is HypervisorErrorKind.UNREACHABLE
    assert seconds < 30


def test_a_hung_qemu_costs_one_reading_of_the_counters_and_no_listing(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, libvirtd: PrivateLibvirtd
) -> None:
    host = hypervisor(read_seconds=1.0)
    define(host, clone_in(pool), controller)
    host.start(INSTANCE)
    seen = listed(host)
    assert seen is not None
    os.kill(libvirtd.qemu_pid(INSTANCE), signal.SIGSTOP)
    try:
        assert succeeds(lambda: host.counters(CPU)) or succeeds(lambda: host.counters(CPU))
        begun = time.monotonic()
        for _ in range(5):
            assert seen.uuid in host.counters(CPU)
            assert seen.uuid in {domain.uuid for domain in host.inventory().domains}
        assert time.monotonic() - begun < 2
    finally:
        os.kill(libvirtd.qemu_pid(INSTANCE), signal.SIGCONT)
