"""One host's libvirt behind the port: every step, its idempotence, and what must not be touched."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu
import pytest

from autoscaler.core.action import Clone
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import Domain, DomainState, Ownership
from autoscaler.core.policy import Accelerator, Image, Machine
from autoscaler.core.ports import Hypervisor, VolumeRef
from autoscaler.hypervisor import LibvirtHypervisor
from autoscaler.hypervisor.domain_xml import OWNERSHIP_NAMESPACE, domain_uuid
from tests.real.conftest import GOLDEN, NETWORK, HypervisorFactory, Pool
from tests.support.private_libvirtd import wait_until

pytestmark = pytest.mark.real

INSTANCE = "web-1"


def clone_in(pool: Pool, *, network: str = "user", instance: str = INSTANCE) -> Clone:
    machine = Machine(vcpus=1, memory_bytes=192 * 1024 * 1024, network=network, accelerator=Accelerator.TCG)
    return Clone("web", "local", instance, Image(pool.name, GOLDEN), machine)


def volume_of(clone: Clone) -> VolumeRef:
    return VolumeRef(clone.host, clone.image.pool, f"{clone.instance}.qcow2", clone.instance)


def define(hypervisor: Hypervisor, clone: Clone, controller: str) -> VolumeRef:
    volume = volume_of(clone)
    hypervisor.validate(clone)
    hypervisor.create_overlay(clone, volume)
    digest = hypervisor.image_digest(clone)
    hypervisor.define(clone, volume, Ownership(controller, clone.group, clone.instance, digest, 1700000000.25))
    return volume


def listed(hypervisor: Hypervisor, instance: str = INSTANCE) -> Domain | None:
    return next((domain for domain in hypervisor.inventory().domains if domain.name == instance), None)


def answers(hypervisor: Hypervisor) -> bool:
    domain = listed(hypervisor)
    return domain is not None and domain.answers is True


def agent(domain: libvirt.virDomain, command: str, **arguments: Any) -> Any:
    request = json.dumps({"execute": command, "arguments": arguments} if arguments else {"execute": command})
    return json.loads(libvirt_qemu.qemuAgentCommand(domain, request, 10, 0))["return"]


def refusal(kind: HypervisorErrorKind, call: Any, *arguments: Any) -> str:
    with pytest.raises(HypervisorError) as caught:
        call(*arguments)
    assert caught.value.kind is kind, caught.value
    return str(caught.value)


def test_an_instance_from_golden_image_to_nothing_left(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, network: str, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    clone = clone_in(pool, network=network)
    volume = define(host, clone, controller)

    assert host.running(INSTANCE) is False
    defined = listed(host)
    assert defined is not None
    assert defined.state is DomainState.SHUTOFF
    assert defined.uuid == domain_uuid(controller, INSTANCE)
    assert defined.ownership == Ownership(controller, "web", INSTANCE, host.image_digest(clone), 1700000000.25)
    assert _backing_file(pool, volume) == str(pool.golden)

    host.start(INSTANCE)
    assert host.running(INSTANCE) is True
    host.start(INSTANCE)
    wait_until(lambda: answers(host), 40, "the guest's agent answers")
    domain = virt.lookupByUUIDString(defined.uuid)
    wait_until(lambda: virt.networkLookupByName(NETWORK).DHCPLeases(), 20, "the guest has an address")

    agent(domain, "guest-exec", path="/bin/sh", arg=["-c", "while :; do :; done"])
    _assert_rate_near_one(host, defined.uuid)
    wait_until(lambda: (pool.path / f"{INSTANCE}.console.log").stat().st_size > 0, 10, "the console is logged")

    host.request_shutdown(INSTANCE)
    wait_until(lambda: host.running(INSTANCE) is False, 30, "the guest has shut down")
    assert host.counters(frozenset({"guest.cpu"})) == {}
    host.undefine(INSTANCE)
    assert host.running(INSTANCE) is None
    host.delete_volume(volume)
    assert host.inventory().domains == ()
    assert pool.files() == {GOLDEN}


_WITHOUT_PING = """
sed -i 's/qemu-ga -m/qemu-ga --blacklist=guest-ping -m/' /etc/inittab
kill -HUP 1
killall qemu-ga
"""


def test_an_agent_that_may_not_be_pinged_has_answered(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    define(host, clone_in(pool), controller)
    host.start(INSTANCE)
    wait_until(lambda: answers(host), 40, "the guest's agent answers")
    domain = virt.lookupByName(INSTANCE)
    agent(domain, "guest-exec", path="/bin/sh", arg=["-c", _WITHOUT_PING])

    def refuses() -> bool:
        try:
            agent(domain, "guest-ping")
        except libvirt.libvirtError as error:
            return "has been disabled" in str(error)
        return False

    wait_until(refuses, 40, "the guest's agent refuses to be pinged")
    asked_anew = hypervisor()
    wait_until(lambda: answers(asked_anew), 10, "the refusal is taken for an answer")


def _backing_file(pool: Pool, volume: VolumeRef) -> str:
    info = subprocess.run(
        ["qemu-img", "info", "--output=json", pool.path / volume.name], capture_output=True, check=True
    )
    found = json.loads(info.stdout)
    assert found["backing-filename-format"] == "qcow2"
    return str(found["backing-filename"])


def _assert_rate_near_one(host: Hypervisor, uuid: str) -> None:
    """A busy loop on one vCPU wants all of it: time run over time not waited for."""
    before = host.counters(frozenset({"guest.cpu"}))[uuid]
    time.sleep(3)
    after = host.counters(frozenset({"guest.cpu"}))[uuid]
    assert before.vcpu_time_seconds is not None
    assert after.vcpu_time_seconds is not None
    elapsed = after.read_at_seconds - before.read_at_seconds
    waited = (after.vcpu_delay_seconds or 0) - (before.vcpu_delay_seconds or 0)
    assert after.vcpus == 1
    assert (after.vcpu_time_seconds - before.vcpu_time_seconds) / (elapsed - waited) == pytest.approx(1.0, abs=0.25)


def test_every_removal_can_be_repeated(hypervisor: HypervisorFactory, controller: str, pool: Pool) -> None:
    host = hypervisor()
    volume = define(host, clone_in(pool), controller)
    host.start(INSTANCE)
    for _ in range(2):
        host.destroy(INSTANCE)
        host.request_shutdown(INSTANCE)
    for _ in range(2):
        host.undefine(INSTANCE)
    for _ in range(2):
        host.delete_volume(volume)
    host.destroy(INSTANCE)
    host.request_shutdown(INSTANCE)
    assert host.running(INSTANCE) is None
    assert "no domain web-1 of this controller" in refusal(HypervisorErrorKind.NOT_FOUND, host.start, INSTANCE)
    assert pool.files() == {GOLDEN}


def test_undefine_takes_a_managed_save_along(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    define(host, clone_in(pool), controller)
    host.start(INSTANCE)
    virt.lookupByName(INSTANCE).managedSave()
    assert host.running(INSTANCE) is False
    host.undefine(INSTANCE)
    assert host.inventory().domains == ()


def test_rotated_console_logs_go_too(hypervisor: HypervisorFactory, pool: Pool, virt: libvirt.virConnect) -> None:
    host = hypervisor()
    clone = clone_in(pool)
    host.create_overlay(clone, volume_of(clone))
    (pool.path / f"{INSTANCE}.console.log.0").write_text("older")
    (pool.path / "web-10.console.log.0").write_text("another instance's")
    virt.storagePoolLookupByName(pool.name).refresh()
    host.delete_volume(volume_of(clone))
    assert pool.files() == {GOLDEN, "web-10.console.log.0"}


def test_a_file_that_libvirt_cannot_read_stops_no_pool(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect
) -> None:
    """As somebody's upload that has just begun: a pool made to look again would refuse it and stop."""
    host = hypervisor()
    volume = define(host, clone_in(pool), controller)
    (pool.path / "upload.qcow2").write_bytes(pool.golden.read_bytes()[:50])
    host.undefine(INSTANCE)
    host.delete_volume(volume)
    absent = replace(clone_in(pool), image=Image(pool.name, "absent.qcow2"))
    refusal(HypervisorErrorKind.NOT_FOUND, host.validate, absent)
    assert virt.storagePoolLookupByName(pool.name).isActive()


def test_an_image_that_keeps_its_data_elsewhere_is_refused(
    hypervisor: HypervisorFactory, pool: Pool, virt: libvirt.virConnect, tmp_path: Path
) -> None:
    option = f"data_file={tmp_path / 'elsewhere.raw'},data_file_raw=on"
    wrong = pool.path / "wrong.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", option, wrong, "64M"], check=True)
    virt.storagePoolLookupByName(pool.name).refresh()
    clone = replace(clone_in(pool), image=Image(pool.name, wrong.name))
    assert "another file" in refusal(HypervisorErrorKind.INVALID, hypervisor().validate, clone)


def test_making_twice_is_refused(hypervisor: HypervisorFactory, controller: str, pool: Pool) -> None:
    host = hypervisor()
    clone = clone_in(pool)
    volume = define(host, clone, controller)
    ownership = Ownership(controller, "web", INSTANCE, "", 0.0)
    assert "already" in refusal(HypervisorErrorKind.EXISTS, host.validate, clone)
    assert "already" in refusal(HypervisorErrorKind.EXISTS, host.define, clone, volume, ownership)
    assert "web-1.qcow2" in refusal(HypervisorErrorKind.EXISTS, host.create_overlay, clone, volume)


@pytest.mark.parametrize("mark", ["none", "other controller"])
def test_a_domain_that_is_not_ours_is_never_touched(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect, mark: str
) -> None:
    metadata = (
        f"<metadata><a:instance xmlns:a='{OWNERSHIP_NAMESPACE}' controller='11111111-1111-4111-8111-111111111111' "
        f"group='web' instance='{INSTANCE}' image-digest='' created-at='1.0'/></metadata>"
    )
    foreign = virt.defineXML(
        f"<domain type='qemu'><name>{INSTANCE}</name><memory unit='MiB'>64</memory>"
        f"{metadata if mark == 'other controller' else ''}<os><type>hvm</type></os></domain>"
    )
    foreign.create()
    before = foreign.XMLDesc()
    host = hypervisor()
    clone = clone_in(pool)
    message = refusal(HypervisorErrorKind.EXISTS, host.validate, clone)
    assert "is not this controller's and is left alone" in message
    assert "virsh domrename" in message
    volume = volume_of(clone)
    host.create_overlay(clone, volume)
    ownership = Ownership(controller, "web", INSTANCE, "", 0.0)
    refusal(HypervisorErrorKind.EXISTS, host.define, clone, volume, ownership)
    refusal(HypervisorErrorKind.NOT_FOUND, host.start, INSTANCE)
    host.request_shutdown(INSTANCE)
    host.destroy(INSTANCE)
    host.undefine(INSTANCE)
    assert host.running(INSTANCE) is None
    assert foreign.isActive()
    assert foreign.XMLDesc() == before
    seen = listed(host)
    assert seen is not None
    assert seen.ownership is None, "an element with a UUID that was not made for it proves nothing"
    assert seen.answers is None


def test_what_is_missing_is_named(
    hypervisor: HypervisorFactory, pool: Pool, network: str, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    clone = clone_in(pool)

    def refused(kind: HypervisorErrorKind, wrong: Clone) -> str:
        return refusal(kind, host.validate, wrong)

    no_pool = replace(clone, image=Image("nowhere", GOLDEN))
    assert "has no storage pool nowhere" in refused(HypervisorErrorKind.NOT_FOUND, no_pool)
    no_image = replace(clone, image=Image(pool.name, "absent.qcow2"))
    assert "has no golden image absent.qcow2 in" in refused(HypervisorErrorKind.NOT_FOUND, no_image)
    no_network = replace(clone, machine=replace(clone.machine, network="absent"))
    assert "has no network absent" in refused(HypervisorErrorKind.NOT_FOUND, no_network)
    kvm = replace(clone, machine=replace(clone.machine, accelerator=Accelerator.KVM))
    assert "cannot run guests of type kvm" in refused(HypervisorErrorKind.INVALID, kvm)
    virt.networkLookupByName(network).destroy()
    stopped_network = replace(clone, machine=replace(clone.machine, network=network))
    assert f"virsh net-start {network}" in refused(HypervisorErrorKind.INVALID, stopped_network)
    virt.storagePoolLookupByName(pool.name).destroy()
    assert f"virsh pool-start {pool.name}" in refused(HypervisorErrorKind.INVALID, clone)


def test_only_a_self_contained_qcow2_is_golden(
    hypervisor: HypervisorFactory, pool: Pool, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    _image("create", "-f", "raw", pool.path / "raw.img", "1M")
    _image("create", "-f", "qcow2", "-b", pool.golden, "-F", "qcow2", pool.path / "overlay.qcow2")
    virt.storagePoolLookupByName(pool.name).refresh()

    def refused(volume: str) -> str:
        wrong = replace(clone_in(pool), image=Image(pool.name, volume))
        return refusal(HypervisorErrorKind.INVALID, host.validate, wrong)

    assert "is raw, not qcow2" in refused("raw.img")
    assert "is itself an overlay" in refused("overlay.qcow2")


def _image(*arguments: object) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True)


def test_the_digest_follows_the_golden_image(
    hypervisor: HypervisorFactory, pool: Pool, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    clone = clone_in(pool)
    first = host.image_digest(clone)
    assert host.image_digest(clone) == first
    _image("resize", pool.golden, "+1M")
    virt.storagePoolLookupByName(pool.name).refresh()
    assert host.image_digest(clone) != first


def test_a_full_pool_is_named(hypervisor: HypervisorFactory, pool: Pool, libvirtd: Any) -> None:
    host = hypervisor()
    clone = clone_in(pool)
    # A tmpfs that the golden image fills to the last page, where libvirtd looks; outside nothing changes.
    size = pool.golden.stat().st_size
    libvirtd.command("sh", "-c", f"mv {pool.golden} {pool.path}.aside; mount -t tmpfs -o size={size} tmpfs {pool.path}")
    libvirtd.command("sh", "-c", f"cp {pool.path}.aside {pool.golden}; cat /dev/zero >{pool.path}/filler || true")
    try:
        message = refusal(HypervisorErrorKind.NO_SPACE, host.create_overlay, clone, volume_of(clone))
        assert pool.name in message
        assert "Free space" in message
        host.delete_volume(volume_of(clone))
    finally:
        libvirtd.command("umount", str(pool.path))


def test_a_failed_call_does_not_look_like_an_empty_host(hypervisor: HypervisorFactory, libvirtd: Any) -> None:
    host: LibvirtHypervisor = hypervisor(uri="qemu:///system?socket=/nonexistent/socket")
    message = refusal(HypervisorErrorKind.UNREACHABLE, host.inventory)
    assert "Does libvirt run there?" in message
    refusal(HypervisorErrorKind.UNREACHABLE, host.counters, frozenset({"guest.cpu"}))


def test_events_wake_whoever_listens(hypervisor: HypervisorFactory, controller: str, pool: Pool) -> None:
    woken: list[float] = []
    host = hypervisor(on_change=lambda: woken.append(time.monotonic()))
    host.inventory()
    assert woken == []
    define(host, clone_in(pool), controller)
    wait_until(lambda: woken, 5, "an event arrived")


def test_the_room_of_pools_that_are_watched_is_told(hypervisor: HypervisorFactory, pool: Pool) -> None:
    host = hypervisor()
    assert host.inventory().pools == {}
    host.watch_pools(frozenset({pool.name, "absent"}))
    told = host.inventory().pools
    disk = os.statvfs(pool.path)
    assert set(told) == {pool.name}
    assert told[pool.name].capacity_bytes == disk.f_blocks * disk.f_frsize
    assert told[pool.name].available_bytes == pytest.approx(disk.f_bavail * disk.f_frsize, abs=1 << 30)
