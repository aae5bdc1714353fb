"""What a host has to give, as libvirt's own test driver tells it; real pools and leases are in tests/real."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import libvirt
import pytest

from autoscaler.core.observation import HostLimits, PoolRoom
from autoscaler.core.policy import Image, Wanted
from autoscaler.hypervisor import capacity
from autoscaler.hypervisor.capacity import CapacityReader
from autoscaler.hypervisor.connection import start_event_loop

NODE = """\
<node>
  <cpu><nodes>1</nodes><sockets>2</sockets><cores>4</cores><threads>1</threads></cpu>
  <memory>8388608</memory>
  <domain type='test'>
    <name>theirs</name><uuid>6695eb01-f6a4-8304-79aa-97f2502e193f</uuid>
    <memory unit='MiB'>512</memory><vcpu current='2'>4</vcpu>
    <memoryBacking><hugepages/></memoryBacking>
    <os><type>hvm</type></os>
    <devices><interface type='bridge'><mac address='52:54:00:00:00:09'/><source bridge='br0'/></interface></devices>
  </domain>
  <pool type='dir'><name>default</name><target><path>/nowhere/at/all</path></target></pool>
</node>
"""
WANTED = Wanted(frozenset({Image("default", "golden.qcow2"), Image("absent", "golden.qcow2")}))


@pytest.fixture
def host(tmp_path: Path) -> Iterator[libvirt.virConnect]:
    start_event_loop()
    path = tmp_path / "node.xml"
    path.write_text(NODE)
    connection = libvirt.open(f"test://{path}")
    yield connection
    connection.close()


@pytest.fixture
def reader() -> CapacityReader:
    return CapacityReader("local", HostLimits(), local=False)


def add(host: libvirt.virConnect, name: str, capacity: int, allocation: int, backing: str | None = None) -> None:
    base = f"<backingStore><path>/nowhere/at/all/{backing}</path></backingStore>" if backing is not None else ""
    host.storagePoolLookupByName("default").createXML(
        f"<volume><name>{name}</name><capacity>{capacity}</capacity><allocation>{allocation}</allocation>{base}</volume>"
    )


def room(host: libvirt.virConnect, reader: CapacityReader) -> PoolRoom:
    return reader.read(host, WANTED).pools["default"]


def test_a_running_domain_of_others_is_a_tenant(host: libvirt.virConnect, reader: CapacityReader) -> None:
    (tenant,) = reader.read(host, Wanted()).tenants
    assert (tenant.name, tenant.memory_bytes, tenant.vcpus) == ("theirs", 512 * 1024**2, 2)
    assert (tenant.hugepages, tenant.macs) == (True, ("52:54:00:00:00:09",))
    host.lookupByName("theirs").destroy()
    assert reader.read(host, Wanted()).tenants == ()


def test_thin_volumes_can_grow_and_what_is_built_upon_cannot(host: libvirt.virConnect, reader: CapacityReader) -> None:
    add(host, "golden.qcow2", 1000, 400)
    add(host, "a.qcow2", 1000, 100, "golden.qcow2")
    add(host, "base.qcow2", 5000, 1000)
    add(host, "theirs.qcow2", 5000, 2000, "base.qcow2")
    add(host, "sparse.img", 700, 200)
    found = room(host, reader)
    assert found.growth_bytes == 900 + 3000 + 500
    assert found.overlays == ("a.qcow2", "theirs.qcow2")
    assert found.images == {"golden.qcow2": 1000}
    add(host, "web@1.qcow2", 9000, 400)
    with_versions = replace(WANTED, stored=frozenset({Image("default", "web@1.qcow2")}))
    again = CapacityReader("local", HostLimits(), local=False).read(host, with_versions).pools["default"]
    assert again.growth_bytes == found.growth_bytes, "a version that nobody is made of does not grow either"
    assert again.images == found.images


def test_a_pool_that_is_absent_or_not_active_is_left_to_the_clone_to_complain_about(
    host: libvirt.virConnect, reader: CapacityReader
) -> None:
    assert set(reader.read(host, WANTED).pools) == {"default"}
    host.storagePoolLookupByName("default").destroy()
    seen = reader.read(host, WANTED)
    assert (dict(seen.pools), dict(seen.unread)) == ({}, {})


def test_volumes_are_looked_at_a_few_at_a_time_and_not_guessed_meanwhile(
    host: libvirt.virConnect, reader: CapacityReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(host, "a.img", 1000, 100)
    monkeypatch.setattr(capacity, "_LISTING_SECONDS", -1.0)
    seen = reader.read(host, WANTED)
    assert seen.pools == {}
    assert seen.unread == {"pool_space default": "1 volumes of 1 are still to be looked at"}
    monkeypatch.undo()
    assert room(host, reader).growth_bytes == 900
    monkeypatch.setattr(capacity, "_VOLUME_SECONDS", -1.0)
    monkeypatch.setattr(capacity, "_LISTING_SECONDS", -1.0)
    assert room(host, reader).growth_bytes == 900, "what is old is better than nothing"


def test_what_libvirt_cannot_tell_is_not_zero(host: libvirt.virConnect, reader: CapacityReader) -> None:
    seen = reader.read(host, Wanted())
    assert seen.memory_total_bytes is None
    assert seen.cores is not None
    assert seen.cores > 0
