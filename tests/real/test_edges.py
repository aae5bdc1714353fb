"""Instances as the network and their guests show them: addresses, probes, hooks and webhooks, on real guests."""

import ipaddress
import time

import pytest

from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.observation import Domain
from autoscaler.core.ports import GuestRun
from autoscaler.hypervisor import LibvirtHypervisor
from tests.real.conftest import HypervisorFactory, Pool
from tests.real.test_hypervisor import clone_in, define, refusal
from tests.support.daemon import guest_exec
from tests.support.private_libvirtd import wait_until

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
