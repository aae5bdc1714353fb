"""What a host has to give, as far as libvirt tells: memory, processors, huge pages, pools and addresses.

What changes rarely and costs much to ask for is kept for a while: a domain's definition as long as it runs, what is
known of a volume for half a minute. Volumes are looked at one by one, and for no longer than a second in each reading.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from autoscaler.core.capacity import Key, Resource, overhead_bytes
from autoscaler.core.observation import AddressRoom, HostCapacity, HostLimits, PoolRoom, Tenant
from autoscaler.core.policy import Wanted
from autoscaler.hypervisor.errors import is_code

_DEFINITION_SECONDS = 300.0
_VOLUME_SECONDS = 30.0
_LISTING_SECONDS = 1.0
_STATS = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_NO_STORAGE_VOL)
_ABSENT = (
    libvirt.VIR_ERR_NO_STORAGE_POOL,
    libvirt.VIR_ERR_NO_NETWORK,
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_OPERATION_INVALID,
)


@dataclass(frozen=True, slots=True)
class _Definition:
    """What a running domain's XML tells of it."""

    read_at: float
    memory_bytes: int | None
    vcpus: int | None
    hugepages: bool
    macs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Volume:
    read_at: float
    name: str
    path: str
    capacity: int
    allocation: int
    backing: str | None


class _UnfinishedError(Exception):
    """More has to be looked at than there is time for in one reading; the next goes on."""


class CapacityReader:
    """Reads one host; `read` is called by one thread at a time, and a call given up leaves what is kept whole.

    `local` tells that the host's files can be looked at directly, which says more of a pool than libvirt, which looks
    at its free space only when it is refreshed.
    """

    def __init__(self, host: str, limits: HostLimits, *, local: bool) -> None:
        self._host = host
        self._limits = limits
        self._local = local
        self._definitions: dict[tuple[str, int], _Definition] = {}
        self._volumes: dict[str, dict[str, _Volume]] = {}

    def read(self, connection: libvirt.virConnect, wanted: Wanted) -> HostCapacity:
        """Read everything once; what fails is said in `unread`."""
        unread: dict[str, str] = {}
        memory = _try(unread, Key(Resource.MEMORY), lambda: _memory(connection)) or (None, None)
        pools = {image.pool for image in wanted.images}
        found = HostCapacity(
            self._host,
            self._limits,
            cores=_try(unread, Key(Resource.VCPUS), lambda: _cores(connection)),
            memory_total_bytes=memory[0],
            memory_available_bytes=memory[1],
        )
        with_pages = _try(unread, Key(Resource.HUGEPAGES), lambda: _hugepages_bytes(connection))
        tenants = _try(unread, Key(Resource.MEMORY), lambda: self._tenants(connection))
        if tenants is None and str(Key(Resource.MEMORY)) in unread:
            unread[str(Key(Resource.VCPUS))] = unread[str(Key(Resource.MEMORY))]
        rooms = {
            name: _try(unread, Key(Resource.POOL_SPACE, name), partial(self._pool, connection, name, wanted))
            for name in sorted(pools)
        }
        networks = {
            name: _try(unread, Key(Resource.ADDRESSES, name), partial(_addresses, connection, name))
            for name in sorted(wanted.networks)
        }
        return replace(
            found,
            hugepages_bytes=with_pages or 0,
            tenants=tenants or (),
            pools={name: room for name, room in rooms.items() if room is not None},
            networks={name: room for name, room in networks.items() if room is not None},
            unread=unread,
        )

    def _tenants(self, connection: libvirt.virConnect) -> tuple[Tenant, ...]:
        found, kept = [], {}
        for domain, stats in connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, _STATS):
            key = (domain.UUIDString(), domain.ID())
            definition = self._definitions.get(key)
            if definition is None or time.monotonic() - definition.read_at > _DEFINITION_SECONDS:
                try:
                    definition = _definition(domain)
                except libvirt.libvirtError as error:
                    if not is_code(error, *_GONE):
                        raise
                    continue
            kept[key] = definition
            found.append(_tenant(domain, stats, definition))
        self._definitions = kept
        return tuple(found)

    def _pool(self, connection: libvirt.virConnect, name: str, wanted: Wanted) -> PoolRoom | None:
        pool = connection.storagePoolLookupByName(name)
        if not pool.isActive():
            return None
        volumes = self._list(name, pool)
        golden = {image.volume for image in wanted.images if image.pool == name}
        stored = golden | {image.volume for image in wanted.stored if image.pool == name}
        # What others are built upon is written to by nobody.
        base = {volume.backing for volume in volumes} | {volume.path for volume in volumes if volume.name in stored}
        thin = [volume for volume in volumes if volume.path not in base]
        capacity, available = self._space(pool, volumes)
        return PoolRoom(
            capacity,
            available,
            sum(max(volume.capacity - volume.allocation, 0) for volume in thin),
            tuple(sorted(volume.name for volume in thin if volume.backing is not None)),
            {volume.name: volume.capacity for volume in volumes if volume.name in golden},
        )

    def _list(self, name: str, pool: libvirt.virStoragePool) -> list[_Volume]:
        """List a pool's volumes. Raises _UnfinishedError where one was not looked at yet and there is no time left."""
        known, began = self._volumes.get(name, {}), time.monotonic()
        found: dict[str, _Volume] = {}
        unseen = 0
        # Those that nothing is known of come first, then those that were looked at longest ago.
        listed = {volume.name(): volume for volume in pool.listAllVolumes()}
        for each in sorted(listed, key=lambda each: known[each].read_at if each in known else 0.0):
            now, before = time.monotonic(), known.get(each)
            if before is not None and now - before.read_at <= _VOLUME_SECONDS:
                found[each] = before
            elif now - began <= _LISTING_SECONDS:
                seen = _look(listed[each])
                found |= {each: seen} if seen is not None else {}
            elif before is not None:
                found[each] = before
            else:
                unseen += 1
        self._volumes[name] = found
        if unseen:
            raise _UnfinishedError(f"{unseen} volumes of {len(listed)} are still to be looked at")
        return list(found.values())

    def _space(self, pool: libvirt.virStoragePool, volumes: Iterable[_Volume]) -> tuple[int, int]:
        """Give the pool's size and what is free of it."""
        _state, capacity, _allocation, seen_available = pool.info()
        # libvirt looks at what is free when it refreshes the pool, and volumes grow meanwhile.
        available = max(0, min(seen_available, capacity - sum(volume.allocation for volume in volumes)))
        path = ET.fromstring(pool.XMLDesc()).findtext("./target/path")  # noqa: S314 - libvirt's own output
        if not self._local or path is None:
            return capacity, available
        try:
            space = os.statvfs(path)
        except OSError:
            return capacity, available
        if space.f_blocks * space.f_frsize < capacity:
            # Another file system than the one libvirt sees: this process lives in a mount namespace of its own.
            return capacity, available
        return space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize


def _try(unread: dict[str, str], key: Key, read: Callable[[], Any]) -> Any:
    """Read one resource: None, with the reason noted, where that fails; None where it is not there."""
    try:
        return read()
    except libvirt.libvirtError as error:
        if not is_code(error, *_ABSENT):
            unread[str(key)] = str(error)
    except _UnfinishedError as error:
        unread[str(key)] = str(error)
    return None


def _memory(connection: libvirt.virConnect) -> tuple[int, int]:
    """Give the memory of all cells, and what of it is free or could be at once."""
    stats = connection.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS)
    return stats["total"] * 1024, sum(stats.get(part, 0) for part in ("free", "buffers", "cached")) * 1024


def _cores(connection: libvirt.virConnect) -> int:
    """Count the processors that are online."""
    online: int = connection.getCPUMap()[1].count(True)
    return online


def _hugepages_bytes(connection: libvirt.virConnect) -> int:
    """Sum up the pages beyond the ordinary size, of all NUMA cells."""
    capabilities = ET.fromstring(connection.getCapabilities())  # noqa: S314 - libvirt's own output
    ordinary = min((int(p.get("size", 0)) for p in capabilities.iterfind("./host/cpu/pages")), default=4)
    return sum(
        int(pages.text or 0) * int(pages.get("size", 0)) * 1024
        for pages in capabilities.iterfind("./host/topology/cells/cell/pages")
        if int(pages.get("size", 0)) > ordinary
    )


def _definition(domain: libvirt.virDomain) -> _Definition:
    description = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt's own output
    vcpu = description.find("./vcpu")
    count = None if vcpu is None else vcpu.get("current") or vcpu.text
    memory = description.findtext("./memory")
    return _Definition(
        time.monotonic(),
        int(memory) * 1024 if memory else None,
        int(count) if count else None,
        description.find("./memoryBacking/hugepages") is not None,
        tuple(mac.get("address", "") for mac in description.iterfind("./devices/interface/mac")),
    )


def _tenant(domain: libvirt.virDomain, stats: dict[str, Any], definition: _Definition) -> Tenant:
    most, now, resident = (stats.get(f"balloon.{name}") for name in ("maximum", "current", "rss"))
    memory = definition.memory_bytes if most is None else most * 1024
    overhead = overhead_bytes(memory or 0, definition.vcpus or 1)
    if resident is not None and memory is not None and not definition.hugepages:
        # More than the guest's memory and the estimate: QEMU takes it, whatever for.
        overhead = max(overhead, resident * 1024 - memory)
    return Tenant(
        domain.UUIDString(),
        domain.name(),
        memory,
        None if now is None else now * 1024,
        definition.vcpus,
        overhead,
        definition.hugepages,
        definition.macs,
    )


def _look(volume: libvirt.virStorageVol) -> _Volume | None:
    """Look at one volume; None where it is gone."""
    try:
        description = ET.fromstring(volume.XMLDesc())  # noqa: S314 - libvirt's own output
    except libvirt.libvirtError as error:
        if not is_code(error, *_GONE):
            raise
        return None
    return _Volume(
        time.monotonic(),
        volume.name(),
        description.findtext("./target/path", ""),
        int(description.findtext("./capacity", "0")),
        int(description.findtext("./allocation", "0")),
        description.findtext("./backingStore/path"),
    )


def _addresses(connection: libvirt.virConnect, name: str) -> AddressRoom | None:
    """Count a network's IPv4 addresses for DHCP and who holds them; None where it gives out none."""
    network = connection.networkLookupByName(name)
    if not network.isActive():
        return None
    description = ET.fromstring(network.XMLDesc())  # noqa: S314 - libvirt's own output
    ranges = [
        (int(ip_address(each.get("start", ""))), int(ip_address(each.get("end", ""))))
        for each in description.iterfind("./ip/dhcp/range")
        if ip_address(each.get("start", "")).version == 4
    ]
    if not ranges:
        return None
    leases = [lease for lease in network.DHCPLeases() if _is_live(lease)]
    fixed = [host.get("ip", "") for host in description.iterfind("./ip/dhcp/host")]
    taken = {int(ip_address(ip)) for ip in [*(lease["ipaddr"] for lease in leases), *fixed] if ip and "." in ip}
    inside = {address for address in taken if any(low <= address <= high for low, high in ranges)}
    return AddressRoom(
        sum(high - low + 1 for low, high in ranges),
        len(inside),
        tuple(sorted(str(lease["mac"]) for lease in leases if "." in lease["ipaddr"])),
    )


def _is_live(lease: dict[str, Any]) -> bool:
    """Whether a lease has not run out; one without an end never does."""
    expiry = lease.get("expirytime", 0)
    return not expiry or expiry > time.time()
