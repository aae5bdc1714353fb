"""What the hosts have to give, what is promised of it, and what still fits: the ledgers of admission."""

from collections.abc import Callable, Iterator

from autoscaler.core.capacity import AVAILABLE, Account, Key, Resource
from autoscaler.core.snapshot import HostRoom, Snapshot
from autoscaler.exporter.family import Family, Sample, Samples


def _account(key: Key, read: Callable[[Account], float | None]) -> Samples:
    return lambda snapshot: (
        ((room.ledger.host,), read(account))
        for room in snapshot.room
        for account in room.ledger.accounts
        if account.key == key
    )


def _named(resource: Resource, read: Callable[[Account], float | None]) -> Samples:
    return lambda snapshot: (
        ((room.ledger.host, account.key.name), read(account))
        for room in snapshot.room
        for account in room.ledger.accounts
        if account.key.resource is resource
    )


def _growth(snapshot: Snapshot) -> Iterator[Sample]:
    for room in snapshot.room:
        yield from (((room.ledger.host, pool), growth) for pool, growth in room.growth_bytes.items())


def _fitting(snapshot: Snapshot) -> Iterator[Sample]:
    for room in snapshot.room:
        for group in room.groups:
            more, _ = room.ledger.fits({portion.key: portion.amount for portion in group.need})
            yield (group.group, room.ledger.host), more


def _room(read: Callable[[HostRoom], float | None]) -> Samples:
    return lambda snapshot: (((room.ledger.host,), read(room)) for room in snapshot.room)


_MEMORY, _PRESENT, _VCPUS = Key(Resource.MEMORY), Key(Resource.MEMORY, AVAILABLE), Key(Resource.VCPUS)

ROOM: tuple[Family, ...] = (
    Family(
        "autoscaler_group_fitting", "gauge", ("group", "host"),
        "How many more instances of the group its host could carry; no sample where nothing limits them.",
        _fitting,
        unit="instances",
    ),
    Family(
        "autoscaler_host_memory_committed_bytes", "gauge", ("host",),
        "Memory that all running guests may take, with QEMU's own, and instances on their way.",
        _account(_MEMORY, lambda account: account.committed),
    ),
    Family(
        "autoscaler_host_memory_reserved_bytes", "gauge", ("host",),
        "Memory that the configuration keeps from guests.",
        _account(_MEMORY, lambda account: account.reserved),
    ),
    Family(
        "autoscaler_host_memory_pending_bytes", "gauge", ("host",),
        "Memory that instances on their way will take and do not show yet.",
        _account(_PRESENT, lambda account: account.committed),
    ),
    Family(
        "autoscaler_host_swap_used_bytes", "gauge", ("host",),
        "Swap space in use.",
        _room(lambda room: room.swap_used_bytes),
    ),
    Family(
        "autoscaler_host_vcpus_limit", "gauge", ("host",),
        "vCPUs that all guests of the host may have together.",
        _account(_VCPUS, lambda account: account.total),
        unit="vCPUs",
    ),
    Family(
        "autoscaler_host_vcpus_committed", "gauge", ("host",),
        "vCPUs of all running guests and of instances on their way.",
        _account(_VCPUS, lambda account: account.committed),
        unit="vCPUs",
    ),
    Family(
        "autoscaler_pool_capacity_bytes", "gauge", ("host", "pool"),
        "Size of a storage pool that policies use.",
        _named(Resource.POOL_SPACE, lambda account: account.total),
    ),
    Family(
        "autoscaler_pool_used_bytes", "gauge", ("host", "pool"),
        "Space in use in the pool, by anything.",
        _named(Resource.POOL_SPACE, lambda account: account.used),
    ),
    Family(
        "autoscaler_pool_growth_bytes", "gauge", ("host", "pool"),
        "Space that the pool's thin volumes may still come to take.",
        _growth,
    ),
    Family(
        "autoscaler_pool_committed_bytes", "gauge", ("host", "pool"),
        "Space in use, growth of thin volumes as far as the configuration counts it, and instances on their way.",
        _named(Resource.POOL_SPACE, lambda account: account.committed),
    ),
    Family(
        "autoscaler_pool_reserved_bytes", "gauge", ("host", "pool"),
        "Space that the configuration keeps from instances.",
        _named(Resource.POOL_SPACE, lambda account: account.reserved),
    ),
    Family(
        "autoscaler_network_addresses", "gauge", ("host", "network"),
        "Addresses of the DHCP ranges of a network that policies use.",
        _named(Resource.ADDRESSES, lambda account: account.total),
        unit="addresses",
    ),
    Family(
        "autoscaler_network_addresses_committed", "gauge", ("host", "network"),
        "Addresses with a live lease or a host of their own, and those that instances on their way will take.",
        _named(Resource.ADDRESSES, lambda account: account.committed),
        unit="addresses",
    ),
)  # fmt: skip
