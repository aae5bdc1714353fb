"""Clones that are told who they are: the seed on a real host, and two at once that cloud-init makes its own."""

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import libvirt
import pytest
import yaml

from autoscaler.core.action import Clone
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import Ownership
from autoscaler.core.policy import Accelerator, CloudInit, Image, Machine
from autoscaler.core.ports import Hypervisor, VolumeRef, overlay_name, seed_name
from autoscaler.hypervisor.domain_xml import domain_uuid
from autoscaler.images.seed import make_seed
from autoscaler.policy.load import load_file, show
from autoscaler.store import Journal
from tests.real.conftest import CACHE, GOLDEN, HypervisorFactory, Pool
from tests.support import cloud_image
from tests.support.daemon import DaemonProcess, domains, group_of
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.seeds import read_seed

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

HIDDEN = "correct-horse-battery"
CLOUD = "cloud.qcow2"


# --- on the host ----------------------------------------------------------------------------------------------------


def clone_in(pool: Pool, instance: str) -> Clone:
    machine = Machine(vcpus=1, memory_bytes=192 * 1024 * 1024, network="user", accelerator=Accelerator.TCG)
    return Clone("web", "local", instance, Image(pool.name, GOLDEN), machine, CloudInit())


def define(host: Hypervisor, pool: Pool, controller: str, instance: str) -> tuple[VolumeRef, VolumeRef]:
    clone = clone_in(pool, instance)
    overlay, seed = (VolumeRef("local", pool.name, name(instance), instance) for name in (overlay_name, seed_name))
    host.validate(clone)
    host.create_overlay(clone, overlay)
    host.create_seed(seed, make_seed({"meta-data": f"instance-id: {instance}\n", "user-data": "x" * 300_000}))
    host.define(clone, overlay, Ownership(controller, "web", instance, "", 1700000000.25))
    return overlay, seed


def test_a_seed_is_a_volume_of_its_instance(hypervisor: HypervisorFactory, controller: str, pool: Pool) -> None:
    host = hypervisor()
    overlay, seed = define(host, pool, controller, "web-1")
    path = pool.path / "web-1.seed.iso"
    assert read_seed(path.read_bytes()) == (
        "cidata",
        {"meta-data": "instance-id: web-1\n", "user-data": "x" * 300_000},
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(host.volumes_of("web-1")) == {overlay, seed}, "told when the ledger is lost"
    assert host.user_of(seed) == "web-1"
    with pytest.raises(HypervisorError) as caught:
        host.create_seed(seed, b"another")
    assert caught.value.kind is HypervisorErrorKind.EXISTS
    host.undefine("web-1")
    host.delete_volume(seed)
    assert pool.files() == {GOLDEN, "web-1.qcow2", "web-1.console.log"}, "the seed alone"
    host.delete_volume(seed)
    host.delete_volume(overlay)
    assert pool.files() == {GOLDEN}


def test_strange_files_in_the_pool_hold_no_seed_up(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect
) -> None:
    """After an upload libvirt looks at the whole pool again, and must not lose what it knew of it."""
    (pool.path / "dangling").symlink_to("/nowhere")
    (pool.path / "loop").symlink_to("loop")
    os.mkfifo(pool.path / "fifo")
    (pool.path / "garbage.qcow2").write_bytes(b"QFI\xfb" + b"\xff" * 4096)
    (pool.path / "empty.qcow2").touch()
    (pool.path / "closed").touch(mode=0)
    host = hypervisor()
    for number in range(3):
        define(host, pool, controller, f"web-{number}")
    known = {volume.name() for volume in virt.storagePoolLookupByName(pool.name).listAllVolumes()}
    assert {GOLDEN, *(f"web-{number}{end}" for number in range(3) for end in (".qcow2", ".seed.iso"))} <= known


def test_while_seeds_are_made_every_other_volume_is_found(hypervisor: HypervisorFactory, pool: Pool) -> None:
    """libvirt looks at the whole pool again after each upload, in a thread of its own."""
    for number in range(300):
        (pool.path / f"file-{number}").write_bytes(b"x")
    host, other = hypervisor(), hypervisor()

    def make() -> None:
        for number in range(30):
            instance = f"web-{number}"
            host.create_seed(VolumeRef("local", pool.name, seed_name(instance), instance), b"x" * 70_000)

    looks = 0
    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(make)
        while not made.done():
            other.image_digest(clone_in(pool, "web-1"))
            looks += 1
        made.result()
    assert looks > 30


def test_a_taken_mac_address_is_refused_with_its_holder(
    hypervisor: HypervisorFactory, controller: str, pool: Pool, virt: libvirt.virConnect
) -> None:
    host = hypervisor()
    mac = host.identity("web-1").mac
    assert host.identity("web-1").uuid == domain_uuid(controller, "web-1")
    virt.defineXML(
        "<domain type='qemu'><name>neighbour</name><memory unit='MiB'>32</memory><os><type>hvm</type></os>"
        f"<devices><interface type='user'><mac address='{mac.upper()}'/></interface></devices></domain>"
    )
    with pytest.raises(HypervisorError, match=f"MAC address {mac}.* is taken by domain neighbour on host local"):
        host.validate(clone_in(pool, "web-1"))
    host.validate(clone_in(pool, "web-2"))


# --- by the daemon --------------------------------------------------------------------------------------------------


SECRET = {"password": "../password"}
USER_DATA = """\
#cloud-config
write_files:
- path: /etc/told
  content: '@{instance} @{group} @{host} @{uuid} @{mac}'
- path: /etc/password
  permissions: '0600'
  content: '@{secret:password}'
runcmd:
- [touch, /etc/done]
"""
NETWORK_CONFIG = """\
version: 2
ethernets:
  lan0: {match: {macaddress: '@{mac}'}, set-name: lan0, dhcp4: true}
"""


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    process.configure(orphans={"grace": "1s"}, log={"level": "debug"})
    (process.policies / "user-data").write_text(USER_DATA)
    (process.policies / "network-config").write_text(NETWORK_CONFIG)
    tell_secret(process)
    yield process
    process.close()


def tell_secret(daemon: DaemonProcess) -> None:
    path = daemon.policies / SECRET["password"]
    path.write_text(f"{HIDDEN}\n")
    path.chmod(0o400)


def write_policy(daemon: DaemonProcess, **changes: Any) -> None:
    daemon.write_policy(**{"scaling": [], "drain": {"deadline": "2s"}, **changes})


def done(daemon: DaemonProcess, *command: str) -> str:
    result = daemon.run(*command)
    assert result.returncode == 0, result.stderr
    return result.stdout


def delete_group(daemon: DaemonProcess) -> None:
    (daemon.policies / "web.yaml").unlink()
    done(daemon, "reload")
    daemon.until(lambda s: group_of(s).size is None, 20, "an unmanaged group")
    done(daemon, "group", "delete", "web", "--yes")
    daemon.until(lambda s: not s.groups, 60, "no group")


def everything_said(daemon: DaemonProcess, virt: libvirt.virConnect, libvirtd: PrivateLibvirtd) -> str:
    """Give all that anybody but the instance is told of it, and all that is kept."""
    texts = [daemon.text(), daemon.metrics(), str(daemon.snapshot())]
    for command in (["status"], ["events"], ["explain", "web"], ["history", "web"], ["doctor"]):
        texts += [daemon.run(*command).stdout, daemon.run(*command, "--json").stdout]
    texts.append(show(load_file(daemon.policies / "web.yaml")))
    texts += [
        domain.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE | libvirt.VIR_DOMAIN_XML_INACTIVE)
        for domain in virt.listAllDomains()
    ]
    of_libvirt = [libvirtd.seen_inside(Path(name)) for name in ("/etc/libvirt", "/run/libvirt", "/var/log/libvirt")]
    for folder in (daemon.state_dir, *of_libvirt):
        texts += [path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()]
    return "\n".join(texts)


def inside(host: Hypervisor, instance: str, script: str, seconds: float = 30.0) -> str:
    """Run a script in a guest and give what it printed."""
    ran = host.run_in_guest(instance, ("/bin/sh", "-c", script), seconds)
    assert ran.exit_code == 0, f"{script}: {ran}"
    return ran.output


def ledger(daemon: DaemonProcess) -> tuple[str, set[str]]:
    """Give the controller's id, and the names of the volumes that are its."""
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return journal.controller, {volume.name for volume in journal.volumes()}
    finally:
        journal.close()


def test_a_seed_comes_and_goes_with_its_instance_and_alone_holds_the_secret(
    daemon: DaemonProcess,
    libvirtd: PrivateLibvirtd,
    virt: libvirt.virConnect,
    pool: Pool,
    hypervisor: HypervisorFactory,
) -> None:
    write_policy(daemon, size={"min": 1, "max": 2}, cloud_init={"user_data": "user-data", "secrets": SECRET})
    daemon.start()
    (first,) = daemon.until_ready(1)
    controller, volumes = ledger(daemon)
    assert volumes == {f"{first.instance}.qcow2", f"{first.instance}.seed.iso"}
    host = hypervisor(controller=controller)
    identity = host.identity(first.instance)
    label, files = read_seed((pool.path / f"{first.instance}.seed.iso").read_bytes())
    assert label == "cidata"
    assert yaml.safe_load(files["meta-data"]) == {"instance-id": first.instance, "local-hostname": first.instance}
    written = {file["path"]: file["content"] for file in yaml.safe_load(files["user-data"])["write_files"]}
    assert written == {
        "/etc/told": f"{first.instance} web local {identity.uuid} {identity.mac}",
        "/etc/password": HIDDEN,
    }
    assert stat.S_IMODE((pool.path / f"{first.instance}.seed.iso").stat().st_mode) == 0o600
    seen = inside(host, first.instance, "cat /sys/block/vdb/ro; dd if=/dev/vdb bs=1 skip=32808 count=6 2> /dev/null")
    assert seen.split() == ["1", "cidata"], "read-only, and readable for QEMU"

    domain = virt.lookupByName(first.instance)
    domain.undefine()
    domain.destroy()
    daemon.until(lambda s: not any(first.instance in name for name in pool.files()), 60, "what was left, collected")
    (second,) = daemon.until_ready(1)

    (daemon.policies / SECRET["password"]).unlink()
    done(daemon, "scale", "web", "2")
    daemon.until(lambda s: "action failed" in daemon.text(), 30, "a clone without its secret")
    assert "the secret cannot be read: No such file or directory" in daemon.text()
    assert {name for name in pool.files() if second.instance not in name} == {GOLDEN}, "undone"
    said = everything_said(daemon, virt, libvirtd)
    assert "@{secret:password}" in said
    assert HIDDEN not in said

    delete_group(daemon)
    assert pool.files() == {GOLDEN}
    assert ledger(daemon)[1] == set()


# --- in the guest ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cloud_in_pool(pool: Pool, virt: libvirt.virConnect) -> str:
    """An image that cloud-init runs in, built once per checkout."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "cloud.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        image = cloud_image.build(CACHE)
    shutil.copyfile(image, pool.path / CLOUD)
    virt.storagePoolLookupByName(pool.name).refresh()
    return CLOUD


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_clones_at_once_are_made_their_own_by_cloud_init(
    daemon: DaemonProcess,
    cloud_in_pool: str,
    pool: Pool,
    network: str,
    hypervisor: HypervisorFactory,
) -> None:
    write_policy(
        daemon,
        image={"pool": pool.name, "volume": cloud_in_pool},
        machine={"vcpus": 1, "memory": "512MiB", "network": network, "accelerator": "tcg"},
        size={"min": 2, "max": 2},
        ready={"agent": True, "timeout": "10m"},
        cloud_init={"user_data": "user-data", "network_config": "network-config", "secrets": SECRET},
    )
    daemon.start()
    names = [instance.instance for instance in daemon.until_ready(2, 400)]
    host = hypervisor(controller=ledger(daemon)[0])
    shown: dict[str, list[str]] = {}
    for name in names:
        assert "status: done" in inside(host, name, "cloud-init status --wait", 200)
        identity = host.identity(name)
        hostname, machine_id = inside(host, name, "hostname; cat /etc/machine-id").split()
        assert hostname == name
        assert machine_id == identity.uuid.replace("-", ""), "made of the DMI UUID"
        assert inside(host, name, "cloud-init query instance_id").strip() == name
        told = inside(
            host, name, "cat /etc/told; echo; cat /etc/password; echo; stat -c %a /etc/password; ls /etc/done"
        )
        assert told.split("\n")[:4] == [f"{name} web local {identity.uuid} {identity.mac}", HIDDEN, "600", "/etc/done"]
        host_key = inside(host, name, "cat /etc/ssh/ssh_host_ed25519_key.pub").split()[1]
        address = inside(host, name, "ip -4 -br address show dev lan0").split()[2]
        shown[name] = [hostname, machine_id, host_key, address]
    print(json.dumps(shown, indent=1))
    assert all(one != other for one, other in zip(*shown.values(), strict=True)), shown
    assert {f"{name}.seed.iso" for name in names} < pool.files()

    delete_group(daemon)
    assert domains(daemon.uri) == {}
    assert pool.files() == {GOLDEN, CLOUD}
    assert ledger(daemon)[1] == set()
