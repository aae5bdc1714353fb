"""The parts of the hypervisor room that need no libvirt daemon: XML, deadlines, errors, counters."""

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from xml.etree import ElementTree as ET

import libvirt
import pytest

from autoscaler.core.action import Clone
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.observation import Ownership
from autoscaler.core.policy import Image, Machine
from autoscaler.hypervisor import addresses, is_local
from autoscaler.hypervisor.accelerator import parse_capabilities
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.counters import counters, groups_of
from autoscaler.hypervisor.domain_xml import (
    Files,
    Platform,
    agent_connected,
    domain_uuid,
    domain_xml,
    mac_address,
    ownership_element,
    parse_ownership,
    to_text,
)
from autoscaler.hypervisor.errors import kind_of, translate
from autoscaler.hypervisor.volumes import overlay_xml

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
CONTROLLER = "6f9f3c1e-8a70-4b7c-9a3d-0d8f1a2b3c4d"
OWNERSHIP = Ownership(CONTROLLER, "web", "web-1", "0a1b2c", 1700000000.25, Image("default", "golden.qcow2"))
FILES = Files("/pool/web-1.qcow2", "/pool/web-1.console.log")
MIB = 1024 * 1024


def xml_of(network: str, domain_type: str, vcpus: int) -> str:
    machine = Machine(vcpus=vcpus, memory_bytes=192 * MIB, network=network)
    clone = Clone("web", "local", "web-1", Image("default", "golden.qcow2"), machine)
    platform = Platform(domain_type, "x86_64", "pc-i440fx-7.2", "/usr/bin/qemu-system-x86_64")
    return domain_xml(clone, domain_uuid(CONTROLLER, "web-1"), OWNERSHIP, platform, FILES) + "\n"


def test_huge_pages_are_taken_where_the_policy_says_so() -> None:
    machine = Machine(memory_bytes=192 * MIB, hugepages=True)
    clone = Clone("web", "local", "web-1", Image("default", "golden.qcow2"), machine)
    platform = Platform("qemu", "x86_64", "pc", "/usr/bin/qemu-system-x86_64")
    text = domain_xml(clone, domain_uuid(CONTROLLER, "web-1"), OWNERSHIP, platform, FILES)
    assert "<memoryBacking>" in text
    assert "<hugepages />" in text
    assert "hugepages" not in xml_of("default", "qemu", 1)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("domain-tcg-network.xml", ("default", "qemu", 1)), ("domain-kvm-user.xml", ("user", "kvm", 2))],
)
def test_domain_xml_is_as_recorded(name: str, arguments: tuple[str, str, int]) -> None:
    assert xml_of(*arguments) == (GOLDEN / name).read_text()


def test_a_seed_is_the_second_disk_and_nothing_else_changes() -> None:
    clone = Clone("web", "local", "web-1", Image("default", "golden.qcow2"), Machine())
    platform = Platform("qemu", "x86_64", "pc", "/usr/bin/qemu-system-x86_64")
    without, seeded = (
        ET.fromstring(domain_xml(clone, domain_uuid(CONTROLLER, "web-1"), OWNERSHIP, platform, files))
        for files in (FILES, replace(FILES, seed="/pool/web-1.seed.iso"))
    )
    devices, (disk, seed) = seeded.find("devices"), seeded.findall("devices/disk")
    assert devices is not None
    assert disk.find("readonly") is None
    assert seed.find("readonly") is not None
    found = {child.tag: child.attrib for child in seed}
    assert (found["source"], found["target"]) == ({"file": "/pool/web-1.seed.iso"}, {"dev": "vdb", "bus": "virtio"})
    assert found["driver"] == {"name": "qemu", "type": "raw"}
    devices.remove(seed)
    assert ET.canonicalize(ET.tostring(seeded), strip_text=True) == ET.canonicalize(
        ET.tostring(without), strip_text=True
    )


def test_overlay_names_its_backing_format() -> None:
    assert overlay_xml("web-1.qcow2", 64 * MIB, "/pool/a & b.qcow2") + "\n" == (GOLDEN / "overlay.xml").read_text()


def test_names_with_markup_stay_text() -> None:
    ownership = Ownership(CONTROLLER, "a'<b>\"&", "web-1", "", 0.1, Image('p"', "<v>&", "web", 3))
    assert parse_ownership(to_text(ownership_element(ownership))) == ownership


def test_an_element_of_an_earlier_release_tells_no_image() -> None:
    ownership = Ownership(CONTROLLER, "web", "web-1", "0a1b2c", 0.1)
    text = to_text(ownership_element(ownership))
    assert "image-volume" not in text
    assert parse_ownership(text) == ownership


@pytest.mark.parametrize("text", ["", "<a/>", "<a controller='x' group='g' instance='i' image-digest=''/>"])
def test_an_element_that_is_not_ours_has_no_owner(text: str) -> None:
    assert parse_ownership(text) is None


def test_uuid_and_mac_follow_from_controller_and_instance() -> None:
    first, second = domain_uuid(CONTROLLER, "web-1"), domain_uuid(CONTROLLER, "web-2")
    assert first == domain_uuid(CONTROLLER, "web-1") != second
    assert mac_address(first) != mac_address(second)
    assert mac_address("00000000-0000-0000-0000-000000abcdef") == "52:54:00:ab:cd:ef"


@pytest.mark.parametrize(("state", "connected"), [("connected", True), ("disconnected", False)])
def test_agent_channel_state_is_read(state: str, connected: bool) -> None:
    channel = f"<channel><target type='virtio' name='org.qemu.guest_agent.0' state='{state}'/></channel>"
    assert agent_connected(f"<domain><devices>{channel}</devices></domain>") is connected
    assert agent_connected("<domain><devices/></domain>") is None


def test_platform_is_read_from_capabilities() -> None:
    text = (
        "<domainCapabilities><path>/q</path><domain>kvm</domain><machine>m</machine><arch>a</arch></domainCapabilities>"
    )
    assert parse_capabilities(text) == Platform("kvm", "a", "m", "/q")


@pytest.mark.parametrize(
    ("uri", "local"),
    [
        ("qemu:///system", True),
        ("qemu:///session", True),
        ("qemu:///system?socket=/run/x", True),
        ("qemu+ssh://root@host/system", False),
        ("qemu+tls://[::1]/system", False),
    ],
)
def test_local_uris_name_no_host(uri: str, local: bool) -> None:
    assert is_local(uri) is local


def test_counters_sum_over_vcpus() -> None:
    stats = {"vcpu.current": 2, "vcpu.maximum": 4, "vcpu.0.time": 10**9, "vcpu.3.time": 2 * 10**9}
    found = counters("u", stats | {"vcpu.0.delay": 5 * 10**8, "vcpu.3.delay": 0}, 7.5)
    assert (found.vcpus, found.vcpu_time_seconds, found.vcpu_delay_seconds) == (2, 3.0, 0.5)
    assert found.read_at_seconds == 7.5


def test_what_was_not_given_is_missing_and_not_zero() -> None:
    dropped = counters("u", {"vcpu.current": 2, "vcpu.maximum": 2}, 0)
    assert (dropped.vcpu_time_seconds, dropped.vcpu_delay_seconds) == (None, None)
    partly = counters("u", {"vcpu.current": 2, "vcpu.maximum": 2, "vcpu.0.time": 5}, 0)
    assert partly.vcpu_time_seconds is None
    no_schedstat = counters("u", {"vcpu.current": 1, "vcpu.maximum": 1, "vcpu.0.time": 5, "vcpu.0.delay": 0}, 0)
    assert no_schedstat.vcpu_delay_seconds is None


def test_memory_is_the_guests_word_and_missing_until_it_spoke() -> None:
    stats = {"balloon.current": 192 * 1024, "balloon.usable": 100, "balloon.unused": 50, "balloon.last-update": 1700}
    found = counters("u", stats, 0)
    assert (found.balloon_bytes, found.memory_usable_bytes, found.memory_updated_at) == (192 * MIB, 102_400, 1700.0)
    silent = counters("u", stats | {"balloon.last-update": 0}, 0)
    assert (silent.balloon_bytes, silent.memory_usable_bytes, silent.memory_updated_at) == (192 * MIB, None, None)
    without = counters("u", {"balloon.current": 1, "balloon.unused": 50, "balloon.last-update": 1700}, 0)
    assert without.memory_usable_bytes is None, "free memory is not what the guest could give"


def test_disks_and_interfaces_are_summed_over_those_that_are_there() -> None:
    disk = {"rd.bytes": 10, "wr.bytes": 20, "rd.reqs": 1, "wr.reqs": 2}
    stats: dict[str, object] = {"block.count": 3, "block.0.path": "/a", "block.1.path": "/b", "block.2.name": "empty"}
    stats |= {f"block.{number}.{name}": value for number in (0, 1) for name, value in disk.items()}
    found = counters("u", stats, 0)
    assert (found.disk_read_bytes, found.disk_write_bytes) == (20, 40)
    assert (found.disk_read_ops, found.disk_write_ops) == (2, 4)
    del stats["block.1.rd.bytes"]
    partly = counters("u", stats, 0)
    assert (partly.disk_read_bytes, partly.disk_write_bytes) == (None, 40)
    nets = {"net.count": 2, "net.0.name": "vnet0", "net.0.rx.bytes": 7, "net.0.tx.bytes": 8}
    nets |= {"net.0.rx.pkts": 3, "net.0.tx.pkts": 4}
    found = counters("u", nets, 0)
    assert (found.net_rx_bytes, found.net_tx_bytes, found.net_rx_packets, found.net_tx_packets) == (7, 8, 3, 4)
    assert counters("u", {"net.count": 1}, 0).net_rx_bytes is None, "user-mode networking is counted nowhere"


@pytest.mark.parametrize(
    ("metrics", "groups"),
    [
        (set(), 0),
        ({"external.queue", "host.cpu"}, 0),
        ({"guest.cpu", "guest.steal"}, libvirt.VIR_DOMAIN_STATS_VCPU),
        ({"guest.memory"}, libvirt.VIR_DOMAIN_STATS_BALLOON),
        ({"guest.disk.read_bytes", "guest.disk"}, libvirt.VIR_DOMAIN_STATS_BLOCK),
        ({"guest.net.rx_bytes", "guest.cpu"}, libvirt.VIR_DOMAIN_STATS_INTERFACE | libvirt.VIR_DOMAIN_STATS_VCPU),
    ],
)
def test_only_the_statistics_that_some_metric_needs_are_asked_for(metrics: set[str], groups: int) -> None:
    assert groups_of(frozenset(metrics)) == groups


def error(code: int, domain: int = 0, message: str = "it says", int1: int = 0) -> libvirt.libvirtError:
    made = libvirt.libvirtError("")
    made.err = (code, domain, message, 2, None, None, None, int1, -1)
    made.args = (message,)
    return made


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (error(libvirt.VIR_ERR_NO_DOMAIN), HypervisorErrorKind.NOT_FOUND),
        (error(libvirt.VIR_ERR_STORAGE_VOL_EXIST), HypervisorErrorKind.EXISTS),
        (
            error(libvirt.VIR_ERR_OPERATION_FAILED, 20, "domain 'a' already exists with uuid b"),
            HypervisorErrorKind.EXISTS,
        ),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, 18, "cannot write", 28), HypervisorErrorKind.NO_SPACE),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, 18, "qemu-img: No space left on device"), HypervisorErrorKind.NO_SPACE),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "no socket", 2), HypervisorErrorKind.UNREACHABLE),
        (error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "no access", 13), HypervisorErrorKind.DENIED),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC, "keepalive"), HypervisorErrorKind.UNREACHABLE),
        (error(libvirt.VIR_ERR_INTERNAL_ERROR, 18, "pool has asynchronous jobs running."), HypervisorErrorKind.BUSY),
        (error(libvirt.VIR_ERR_OPERATION_DENIED), HypervisorErrorKind.DENIED),
        (error(libvirt.VIR_ERR_XML_ERROR), HypervisorErrorKind.INVALID),
        (error(libvirt.VIR_ERR_OPERATION_TIMEOUT), HypervisorErrorKind.BUSY),
        (error(libvirt.VIR_ERR_OPERATION_INVALID), HypervisorErrorKind.FAILED),
    ],
)
def test_errors_are_classified(raised: libvirt.libvirtError, kind: HypervisorErrorKind) -> None:
    assert kind_of(raised) is kind


def test_errors_say_where_what_and_what_next() -> None:
    raised = error(libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_FROM_RPC, "Failed to connect socket", 2)
    made = translate("local", "qemu:///system", "list its domains", raised)
    assert str(made) == (
        "host local could not list its domains: Failed to connect socket. "
        "Does libvirt run there? Check with: virsh -c qemu:///system list"
    )
    assert made.retryable
    assert not translate("local", "u", "w", error(libvirt.VIR_ERR_XML_ERROR)).retryable


def test_a_call_gives_its_result_or_its_error() -> None:
    calls = Calls("local")

    def fail() -> NoReturn:
        raise ValueError("from inside")

    assert calls.run("count", lambda: 3, 5) == 3
    with pytest.raises(ValueError, match="from inside"):
        calls.run("count", fail, 5)


def test_a_call_that_hangs_is_an_error_in_time_and_only_so_many_may() -> None:
    calls = Calls("local", limit=2)
    release = threading.Event()
    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(HypervisorError, match=r"host local did not start domain web-1 within 0\.05 s") as caught:
            calls.run("start domain web-1", release.wait, 0.05)
        assert caught.value.kind is HypervisorErrorKind.DEADLINE
        assert caught.value.retryable
    with pytest.raises(HypervisorError, match="2 earlier calls") as refused:
        calls.run("list its domains", lambda: 1, 5)
    assert refused.value.kind is HypervisorErrorKind.UNREACHABLE
    assert time.monotonic() - begun < 2
    release.set()
    end = time.monotonic() + 5
    while True:
        try:
            assert calls.run("list its domains", lambda: 1, 5) == 1
            break
        except HypervisorError:
            assert time.monotonic() < end, "the stuck calls returned and still count"


def test_a_stuck_call_does_not_keep_the_process_from_ending() -> None:
    script = """
import threading
from autoscaler.core.errors import HypervisorError
from autoscaler.hypervisor.calls import Calls
try:
    Calls("local").run("hang", threading.Event().wait, 0.05)
except HypervisorError as error:
    print(error.kind.value)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert ended.stdout == "deadline\n"


@pytest.mark.parametrize(
    ("known", "kept"),
    [
        ((), ()),
        (("192.168.122.7", "192.168.122.7"), ("192.168.122.7",)),
        (("fd00::7", "10.0.2.15", "2001:db8::1"), ("10.0.2.15", "fd00::7", "2001:db8::1")),
        (("127.0.0.1", "::1", "169.254.1.1", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::"), ()),
        (("224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1"), ()),
        (("::ffff:127.0.0.1", "::ffff:169.254.1.1"), ()),
        (("nonsense", "", "1.2.3", "10.0.0.1/24"), ()),
        (tuple(f"10.0.0.{n}" for n in range(1, 100)), tuple(f"10.0.0.{n}" for n in range(1, 17))),
    ],
)
def test_addresses_that_may_reach_a_guest(known: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert addresses.usable(known) == kept


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ('{"return": [{"name": "lo"}, {"ip-addresses": [{"ip-address": "10.0.2.15", "prefix": 24}]}]}', ["10.0.2.15"]),
        ('{"return": [{"ip-addresses": [{"prefix": 24}]}]}', []),
        ('{"return": [{"ip-addresses": 7}]}', []),
        ('{"return": ["x"]}', []),
        ('{"return": null}', []),
        ("[]", []),
        ("{", []),
    ],
)
def test_addresses_as_an_agent_tells_them(answer: str, told: list[str]) -> None:
    assert addresses.of_agent(answer) == told
