"""The ledger of one host: what it has, what is committed already, and how often something still fits.

Amounts are whole bytes, processors or addresses. The arithmetic is written out in docs/capacity.md.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from autoscaler.core.observation import AddressRoom, HostCapacity, HostSample, PoolRoom, Tenant, Unknown
from autoscaler.core.policy import Image, Machine
from autoscaler.core.ports import overlay_name

_MIB = 1024**2
_OVERHEAD_BYTES = 128 * _MIB
_OVERHEAD_PER_VCPU_BYTES = 8 * _MIB
_PAGE_TABLE_DIVISOR = 512
"""A page table entry takes 8 bytes for each 4 KiB of the guest's memory."""


class Resource(StrEnum):
    """What a clone may lack."""

    MEMORY = "memory"
    VCPUS = "vcpus"
    HUGEPAGES = "hugepages"
    POOL_SPACE = "pool_space"
    ADDRESSES = "addresses"
    PRESSURE = "pressure"


RELEASED = frozenset({Resource.MEMORY, Resource.VCPUS, Resource.HUGEPAGES, Resource.POOL_SPACE})
"""What the removal of an instance gives back at once; a lease outlives its guest."""

AVAILABLE = "available"
"""The name of the account that holds what the host's memory is, beside what was promised of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """One resource of a host; `name` tells pools and networks apart."""

    resource: Resource
    name: str = ""

    def __str__(self) -> str:
        """Render as in `HostCapacity.unread`."""
        return f"{self.resource.value} {self.name}".rstrip()


Need = Mapping[Key, int]
"""What one instance takes."""


@dataclass(frozen=True, slots=True)
class Account:
    """One resource of one host."""

    key: Key
    total: int
    reserved: int
    committed: int
    """What is promised, whether it is used or not."""
    used: int | None = None
    """What is in use at present, by anything; None where that is not told."""

    @property
    def free(self) -> int:
        """What may still be promised; below zero where more is promised than there is."""
        return self.total - self.reserved - self.committed


@dataclass(frozen=True, slots=True)
class Shortage:
    """Why one more does not fit; `why` where that could not be told."""

    key: Key
    need: float
    have: float
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Ledger:
    """All accounts of one host; a resource without one is not limited."""

    host: str
    accounts: tuple[Account, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    """By the text of the key: why the resource could not be read."""
    memory_pressure: float | None = None
    pressure_limit: float = 1.0

    def account(self, key: Key) -> Account | None:
        """Find an account."""
        return next((account for account in self.accounts if account.key == key), None)

    def shortage(self, need: Need) -> Shortage | None:
        """Tell what stands in the way of one more; None where it fits."""
        if self.memory_pressure is not None and self.memory_pressure >= self.pressure_limit:
            return Shortage(Key(Resource.PRESSURE), self.pressure_limit, self.memory_pressure)
        for key, amount in need.items():
            if amount and str(key) in self.unread:
                return Shortage(key, amount, 0, self.unread[str(key)])
        for key, amount in need.items():
            account = self.account(key)
            if account is not None and 0 < amount > account.free:
                return Shortage(key, amount, max(account.free, 0))
        return None

    def take(self, need: Need, count: int = 1) -> "Ledger":
        """Commit what some more instances take."""
        accounts = tuple(replace(a, committed=a.committed + count * need.get(a.key, 0)) for a in self.accounts)
        return replace(self, accounts=accounts)

    def fits(self, need: Need) -> tuple[int | None, Shortage | None]:
        """Tell how many more fit, None for any number, and what stands in the way of the one after them."""
        first = self.shortage(need)
        if first is not None:
            return 0, first
        limits = [a.free // amount for a in self.accounts if (amount := need.get(a.key, 0)) > 0]
        if not limits:
            return None, None
        return min(limits), self.take(need, min(limits)).shortage(need)


@dataclass(frozen=True, slots=True)
class Expected:
    """An instance of ours that is there or will be: what it takes is committed, whatever of it can be seen yet."""

    instance: str
    image: Image
    machine: Machine


def overhead_bytes(memory_bytes: int, vcpus: int) -> int:
    """Estimate what QEMU takes beside the guest's memory: measured, see docs/capacity.md."""
    return _OVERHEAD_BYTES + _OVERHEAD_PER_VCPU_BYTES * vcpus + memory_bytes // _PAGE_TABLE_DIVISOR


def need_of(machine: Machine, image: Image, capacity: HostCapacity) -> Need:
    """Give what one instance takes of this host."""
    return {
        **_memory_need(machine),
        Key(Resource.VCPUS): machine.vcpus,
        Key(Resource.POOL_SPACE, image.pool): _growth(image, capacity),
        Key(Resource.ADDRESSES, machine.network): 1,
    }


def open_ledger(
    capacity: HostCapacity, sample: HostSample | Unknown | None, expected: Iterable[Expected] = ()
) -> Ledger:
    """Sum up a host: what all running domains take, and what our instances take that do not show yet."""
    ours = tuple(expected)
    known = sample if isinstance(sample, HostSample) else None
    tenants = {tenant.name: tenant for tenant in capacity.tenants}
    coming = [each for each in ours if each.instance not in tenants]
    if known is not None:
        # The host's own kernel tells more precisely than libvirt, which knows no "available".
        capacity = replace(
            capacity,
            memory_total_bytes=known.memory_total_bytes,
            memory_available_bytes=known.memory_available_bytes,
        )
    accounts = [*_memory(capacity, coming), *_vcpus(capacity, coming, known)]
    accounts += [_pool(name, room, capacity, ours) for name, room in sorted(capacity.pools.items())]
    accounts += [
        _addresses(name, room, capacity.limits.reserve_addresses, ours, tenants)
        for name, room in sorted(capacity.networks.items())
    ]
    return Ledger(
        capacity.host,
        tuple(accounts),
        {**_untold(capacity.tenants), **capacity.unread},
        known.psi_memory_share if known is not None else None,
        capacity.limits.memory_pressure,
    )


def _untold(tenants: Iterable[Tenant]) -> dict[str, str]:
    """Name what cannot be summed up, because libvirt does not tell it of some domain."""
    unread = {}
    for tenant in tenants:
        if tenant.memory_bytes is None:
            unread[str(Key(Resource.MEMORY))] = f"libvirt does not tell the memory of domain {tenant.name}"
        if tenant.vcpus is None:
            unread[str(Key(Resource.VCPUS))] = f"libvirt does not tell the vCPUs of domain {tenant.name}"
    return unread


def _memory_need(machine: Machine) -> dict[Key, int]:
    overhead = overhead_bytes(machine.memory_bytes, machine.vcpus)
    huge = machine.memory_bytes if machine.hugepages else 0
    ordinary = overhead + machine.memory_bytes - huge
    return {
        Key(Resource.MEMORY): ordinary,
        Key(Resource.MEMORY, AVAILABLE): ordinary,
        Key(Resource.HUGEPAGES): huge,
    }


def _memory(capacity: HostCapacity, coming: Iterable[Expected]) -> list[Account]:
    ordinary, huge = Key(Resource.MEMORY), Key(Resource.HUGEPAGES)
    needs = [_memory_need(each.machine) for each in coming]
    pending = sum(need[ordinary] for need in needs)
    taken = sum(t.overhead_bytes + (0 if t.hugepages else t.memory_bytes or 0) for t in capacity.tenants)
    taken_huge = sum(t.memory_bytes or 0 for t in capacity.tenants if t.hugepages)
    accounts = []
    if capacity.memory_total_bytes is not None:
        total = max(capacity.memory_total_bytes - capacity.hugepages_bytes, 0)
        reserved = capacity.limits.reserve_memory.of(total)
        available = capacity.memory_available_bytes
        used = None if available is None else max(total - available, 0)
        accounts.append(Account(ordinary, total, reserved, taken + pending, used))
        if available is not None:
            accounts.append(Account(Key(Resource.MEMORY, AVAILABLE), available, reserved, pending))
    pending_huge = sum(need[huge] for need in needs)
    accounts.append(Account(huge, capacity.hugepages_bytes, 0, taken_huge + pending_huge, taken_huge))
    return accounts


def _vcpus(capacity: HostCapacity, coming: Iterable[Expected], sample: HostSample | None) -> list[Account]:
    if capacity.cores is None:
        return []
    committed = sum(tenant.vcpus or 0 for tenant in capacity.tenants) + sum(each.machine.vcpus for each in coming)
    busy = sample.cpu_busy_share if sample is not None else None
    used = None if busy is None else round(busy * capacity.cores)
    total = math.floor(capacity.cores * capacity.limits.vcpus_per_core)
    return [Account(Key(Resource.VCPUS), total, 0, committed, used)]


def _growth(image: Image, capacity: HostCapacity) -> int:
    """Give what one overlay on the image may come to; 0 where that is not known, which cloning will complain about."""
    room = capacity.pools.get(image.pool)
    size = room.images.get(image.volume, 0) if room is not None else 1
    return math.ceil(size / capacity.limits.pool_space_overcommit)


def _pool(name: str, room: PoolRoom, capacity: HostCapacity, ours: Iterable[Expected]) -> Account:
    listed = frozenset(room.overlays)
    unlisted = [each for each in ours if each.image.pool == name and overlay_name(each.instance) not in listed]
    used = room.capacity_bytes - room.available_bytes
    growth = math.ceil(room.growth_bytes / capacity.limits.pool_space_overcommit)
    pending = sum(_growth(each.image, capacity) for each in unlisted)
    reserved = capacity.limits.reserve_pool_space.of(room.capacity_bytes)
    return Account(Key(Resource.POOL_SPACE, name), room.capacity_bytes, reserved, used + growth + pending, used)


def _addresses(
    name: str, room: AddressRoom, reserve: int, ours: Iterable[Expected], tenants: Mapping[str, Tenant]
) -> Account:
    holders = frozenset(room.holders)
    waiting = [
        each
        for each in ours
        if each.machine.network == name
        and not (each.instance in tenants and holders.intersection(tenants[each.instance].macs))
    ]
    return Account(Key(Resource.ADDRESSES, name), room.addresses, reserve, room.taken + len(waiting), room.taken)
