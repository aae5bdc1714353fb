"""The ledger's arithmetic."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler.core.capacity import AVAILABLE, Expected, Key, Ledger, Resource, need_of, open_ledger, overhead_bytes
from autoscaler.core.observation import (
    AddressRoom,
    HostCapacity,
    HostLimits,
    HostSample,
    PoolRoom,
    Reserve,
    Tenant,
    Unknown,
)
from autoscaler.core.policy import Image, Machine

DOCUMENT = Path(__file__).parents[2] / "docs" / "capacity.md"
MIB = 1024**2
IMAGE = Image("default", "golden.qcow2")
MACHINE = Machine(vcpus=1, memory_bytes=1024 * MIB)

FOREIGN = Tenant("u0", "foreign", 2048 * MIB, 1024 * MIB, 2, overhead_bytes(2048 * MIB, 2), macs=("52:54:00:00:00:01",))
FIRST = Tenant("u1", "web-1", 1024 * MIB, 1024 * MIB, 1, overhead_bytes(1024 * MIB, 1), macs=("52:54:00:00:00:02",))
EXAMPLE = HostCapacity(
    "local",
    HostLimits(reserve_memory=Reserve(amount=1024 * MIB), vcpus_per_core=4),
    cores=4,
    memory_total_bytes=8192 * MIB,
    memory_available_bytes=6000 * MIB,
    tenants=(FOREIGN, FIRST),
    pools={
        "default": PoolRoom(
            40960 * MIB, 30720 * MIB, (10240 - 512) * MIB, ("web-1.qcow2",), {"golden.qcow2": 10240 * MIB}
        )
    },
    networks={"default": AddressRoom(8, 2, ("52:54:00:00:00:01", "52:54:00:00:00:02"))},
)
OURS = (Expected("web-1", IMAGE, MACHINE), Expected("web-2", IMAGE, MACHINE))
MEMORY, VCPUS, POOL = Key(Resource.MEMORY), Key(Resource.VCPUS), Key(Resource.POOL_SPACE, "default")
ADDRESSES = Key(Resource.ADDRESSES, "default")


def committed(ledger: Ledger, key: Key) -> int:
    account = ledger.account(key)
    assert account is not None
    return account.committed


def test_the_worked_example_is_computed_as_it_stands_in_the_document() -> None:
    text = DOCUMENT.read_text().split("## A worked example")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "]
    written = {row[0]: [int(cell) for cell in row[1:]] for row in rows if re.fullmatch(r"\d+", row[1])}
    keys = {
        "memory, MiB": (MEMORY, MIB),
        "memory available, MiB": (Key(Resource.MEMORY, AVAILABLE), MIB),
        "vCPUs": (VCPUS, 1),
        "pool, MiB": (POOL, MIB),
        "addresses": (ADDRESSES, 1),
    }
    ledger = open_ledger(EXAMPLE, None, OURS)
    need = need_of(MACHINE, IMAGE, EXAMPLE)
    computed = {}
    for name, (key, unit) in keys.items():
        account = ledger.account(key)
        assert account is not None
        figures = (account.total, account.reserved, account.committed, account.free, need[key])
        computed[name] = [*(figure // unit for figure in figures), account.free // need[key]]
    assert written == computed
    more, shortage = ledger.fits(need)
    assert shortage is not None
    assert (more, shortage.key) == (1, POOL)


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ((), OURS[1:]),
        ((replace(FIRST, uuid="u2", name="web-2"),), OURS[1:]),
        ((replace(FIRST, uuid="u2", name="web-2"),), ()),
    ],
    ids=["under way", "under way and running", "running"],
)
def test_an_instance_counts_once(seen: tuple[Tenant, ...], expected: tuple[Expected, ...]) -> None:
    ledger = open_ledger(replace(EXAMPLE, tenants=(FOREIGN, *seen)), None, expected)
    assert committed(ledger, MEMORY) == (2196 + 1162) * MIB
    assert committed(ledger, VCPUS) == 3


def test_an_overlay_and_a_lease_count_once() -> None:
    grown = replace(EXAMPLE.pools["default"], growth_bytes=9728 * MIB + 10240 * MIB, overlays=tuple(_overlays()))
    ledger = open_ledger(replace(EXAMPLE, pools={"default": grown}), None, OURS)
    assert committed(ledger, POOL) == committed(open_ledger(EXAMPLE, None, OURS), POOL)
    second = replace(FIRST, name="web-2", macs=("52:54:00:00:00:03",))
    without = replace(EXAMPLE, tenants=(FOREIGN, FIRST, second))
    leased = replace(without, networks={"default": AddressRoom(8, 3, (*_holders(), "52:54:00:00:00:03"))})
    assert committed(open_ledger(without, None, OURS), ADDRESSES) == 3
    assert committed(open_ledger(leased, None, OURS), ADDRESSES) == 3


def _overlays() -> list[str]:
    return ["web-1.qcow2", "web-2.qcow2"]


def _holders() -> tuple[str, ...]:
    return EXAMPLE.networks["default"].holders


def test_the_hosts_own_kernel_knows_its_memory_better() -> None:
    sample = HostSample("local", 4, 0.5, 1.0, 4096 * MIB, 2000 * MIB)
    account = open_ledger(EXAMPLE, sample).account(MEMORY)
    assert account is not None
    assert (account.total, account.used) == (4096 * MIB, 2096 * MIB)
    unread = open_ledger(EXAMPLE, Unknown("no /proc")).account(MEMORY)
    assert unread is not None
    assert unread.total == 8192 * MIB


def test_huge_pages_are_an_account_of_their_own() -> None:
    huge = replace(FOREIGN, hugepages=True)
    ledger = open_ledger(replace(EXAMPLE, tenants=(huge,), hugepages_bytes=3072 * MIB), None)
    memory, pages = ledger.account(MEMORY), ledger.account(Key(Resource.HUGEPAGES))
    assert memory is not None
    assert pages is not None
    assert (memory.total, memory.committed) == ((8192 - 3072) * MIB, 148 * MIB)
    assert (pages.total, pages.free) == (3072 * MIB, 1024 * MIB)
    wanted = replace(MACHINE, hugepages=True)
    assert ledger.shortage(need_of(wanted, IMAGE, EXAMPLE)) is None
    short = ledger.take(need_of(wanted, IMAGE, EXAMPLE)).shortage(need_of(wanted, IMAGE, EXAMPLE))
    assert short is not None
    assert (short.key.resource, short.need, short.have) == (Resource.HUGEPAGES, 1024 * MIB, 0)


@pytest.mark.parametrize(
    ("change", "scarce"),
    [
        ({"memory_total_bytes": 5600 * MIB}, "memory"),
        ({"memory_available_bytes": 3000 * MIB}, "memory available"),
        ({"limits": HostLimits(vcpus_per_core=1)}, "vcpus"),
        ({"limits": HostLimits(reserve_addresses=6)}, "addresses default"),
        ({"limits": HostLimits(reserve_pool_space=Reserve(share=0.1))}, "pool_space default"),
    ],
)
def test_the_scarce_resource_is_named(change: dict[str, object], scarce: str) -> None:
    capacity = replace(EXAMPLE, **change)  # type: ignore[arg-type]
    shortage = open_ledger(capacity, None, OURS).shortage(need_of(MACHINE, IMAGE, capacity))
    assert shortage is not None
    assert str(shortage.key) == scarce
    assert 0 <= shortage.have < shortage.need


def test_a_fact_that_could_not_be_read_is_neither_zero_nor_plenty() -> None:
    need = need_of(MACHINE, IMAGE, replace(EXAMPLE, pools={}))
    unread = replace(EXAMPLE, pools={}, unread={"pool_space default": "it hangs"})
    shortage = open_ledger(unread, None).shortage(need)
    assert shortage is not None
    assert (str(shortage.key), shortage.why) == ("pool_space default", "it hangs")
    untold = replace(EXAMPLE, tenants=(replace(FOREIGN, memory_bytes=None),))
    shortage = open_ledger(untold, None).shortage(need_of(MACHINE, IMAGE, untold))
    assert shortage is not None
    assert "domain foreign" in (shortage.why or "")


def test_a_network_without_addresses_to_give_is_not_limited() -> None:
    capacity = replace(EXAMPLE, networks={}, pools={})
    assert open_ledger(capacity, None).fits(need_of(MACHINE, IMAGE, capacity))[0] == 3


def test_pressure_stops_everything() -> None:
    sample = HostSample("local", 4, 0.5, 1.0, 8192 * MIB, 8192 * MIB, psi_memory_share=0.25)
    shortage = open_ledger(EXAMPLE, sample).shortage(need_of(MACHINE, IMAGE, EXAMPLE))
    assert shortage is not None
    assert (shortage.key.resource, shortage.have, shortage.need) == (Resource.PRESSURE, 0.25, 0.2)
