"""The guest that is booted to try an accelerator, under emulation, where its outcome is known."""

from collections.abc import Iterator

import libvirt
import pytest

from autoscaler.core.policy import Accelerator
from autoscaler.hypervisor.accelerator import POWER_OFF, AcceleratorChoice
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.connection import Connections
from tests.real.conftest import GOLDEN, Pool

pytestmark = pytest.mark.real

HANG = bytes([0xFA, 0xF4, 0xEB, 0xFD])
"""cli; hlt; and again."""
REBOOT = POWER_OFF[POWER_OFF.index(0xB0) :]
"""Without the power-off: only the fallback."""


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


@pytest.mark.parametrize(("code", "works"), [(POWER_OFF, True), (REBOOT, True), (HANG, False)])
def test_the_probe_tells_a_guest_that_boots_from_one_that_hangs(
    choice: AcceleratorChoice, pool: Pool, virt: libvirt.virConnect, code: bytes, works: bool
) -> None:
    assert choice.boots("qemu", pool.name, code, 10 if works else 3) is works
    assert virt.listAllDomains() == []
    assert pool.files() == {GOLDEN}


def test_what_an_earlier_probe_left_is_cleared(choice: AcceleratorChoice, pool: Pool, virt: libvirt.virConnect) -> None:
    (pool.path / choice._name).touch()
    virt.storagePoolLookupByName(pool.name).refresh()
    virt.defineXML(
        f"<domain type='qemu'><name>{choice._name}</name><uuid>{choice._uuid}</uuid><memory unit='MiB'>64</memory>"
        "<os><type>hvm</type></os></domain>"
    ).create()
    assert choice.boots("qemu", pool.name)
    assert virt.listAllDomains() == []
    assert pool.files() == {GOLDEN}


def test_auto_is_emulation_where_no_kvm_is_offered(
    choice: AcceleratorChoice, pool: Pool, memory: dict[str, str]
) -> None:
    memory["accelerator.local"] = "kvm"
    platform = choice.platform(Accelerator.AUTO, pool.name)
    assert platform.domain_type == "qemu"
    assert platform == choice.platform(Accelerator.TCG, pool.name)
    assert platform.emulator.startswith("/")
    assert memory == {"accelerator.local": "kvm"}, "a KVM that is away for now is not forgotten"
