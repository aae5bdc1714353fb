"""The guest that is booted to try an accelerator, under emulation, where its outcome is known."""

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace

import libvirt
import pytest

from autoscaler.core.policy import Accelerator, Image
from autoscaler.hypervisor.accelerator import AcceleratorChoice
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.connection import Connections
from tests.real.conftest import GOLDEN, Pool
from tests.real.test_hypervisor import clone_in
from tests.support.private_libvirtd import wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def memory() -> dict[str, str]:
    return {}


@pytest.fixture
def choice(libvirt_uri: str, controller: str, memory: dict[str, str]) -> Iterator[AcceleratorChoice]:
    connections = Connections("local", libvirt_uri, Calls("local"))
    yield AcceleratorChoice(
        connections,
        controller,
        recall=memory.get,
        remember=memory.__setitem__,
        read_seconds=10,
        write_seconds=60,
    )
    connections.close()


def test_a_guest_whose_kernel_comes_up_proves_it_and_what_an_earlier_probe_left_goes(
    choice: AcceleratorChoice, pool: Pool, virt: libvirt.virConnect
) -> None:
    (pool.path / choice._name).touch()
    virt.storagePoolLookupByName(pool.name).refresh()
    virt.createXML(
        f"<domain type='qemu'><name>{choice._name}</name><uuid>{choice._uuid}</uuid><memory unit='MiB'>64</memory>"
        "<os><type>hvm</type></os></domain>"
    )
    assert choice.boots("qemu", clone_in(pool), 40)
    assert virt.listAllDomains() == []
    assert pool.files() == {GOLDEN}


def test_a_guest_that_hangs_proves_nothing_and_is_removed(
    choice: AcceleratorChoice, pool: Pool, virt: libvirt.virConnect
) -> None:
    blank = pool.path / "blank.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", blank, "1M"], check=True)
    virt.storagePoolLookupByName(pool.name).refresh()
    clone = replace(clone_in(pool), image=Image(pool.name, blank.name))
    assert not choice.boots("qemu", clone, 2)
    assert virt.listAllDomains() == []
    assert pool.files() == {GOLDEN, blank.name}


def test_a_guest_that_is_given_up_is_not_waited_for(
    choice: AcceleratorChoice, pool: Pool, virt: libvirt.virConnect
) -> None:
    outcome: list[bool] = []
    probe = threading.Thread(target=lambda: outcome.append(choice.boots("qemu", clone_in(pool), 50)), daemon=True)
    probe.start()
    wait_until(lambda: [it for it in virt.listAllDomains() if it.isActive()], 20, "the probe's guest runs")
    virt.lookupByName(choice._name).suspend()
    probe.join(20)
    assert outcome == [False]


def test_auto_is_emulation_where_no_kvm_is_offered(
    choice: AcceleratorChoice, pool: Pool, memory: dict[str, str]
) -> None:
    memory["accelerator.local"] = "kvm"
    emulated = clone_in(pool)
    auto = replace(emulated, machine=replace(emulated.machine, accelerator=Accelerator.AUTO))
    platform = choice.platform(auto)
    assert platform.domain_type == "qemu"
    assert platform == choice.platform(emulated)
    assert platform.emulator.startswith("/")
    assert memory == {"accelerator.local": "kvm"}, "a KVM that is away for now is not forgotten"
