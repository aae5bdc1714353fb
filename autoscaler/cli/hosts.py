"""What the hosts have, what is committed of it, and what still fits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from autoscaler.cli.output import table
from autoscaler.codec import encode
from autoscaler.core.capacity import AVAILABLE, Account, Key, Ledger, Need, Resource, Shortage
from autoscaler.core.errors import ControlError
from autoscaler.core.snapshot import GroupRoom, HostRoom
from autoscaler.core.words import nearest
from autoscaler.reasons import percent, size

_ACCOUNT: Mapping[str, JustifyMethod] = {
    "RESOURCE": "left",
    "HAS": "right",
    "RESERVED": "right",
    "COMMITTED": "right",
    "FREE": "right",
    "USED": "right",
}
_WIDTH_OF_ACCOUNT = 75
_GROUP: Mapping[str, JustifyMethod] = {"GROUP": "left", "LIVE": "right", "FITS MORE": "right", "THEN": "left"}
_IN_BYTES = frozenset({Resource.MEMORY, Resource.HUGEPAGES, Resource.POOL_SPACE})
_NAMES: Mapping[Resource, str] = {
    Resource.MEMORY: "memory",
    Resource.VCPUS: "vCPUs",
    Resource.HUGEPAGES: "huge pages",
    Resource.POOL_SPACE: "pool",
    Resource.ADDRESSES: "network",
    Resource.PRESSURE: "memory pressure",
}


@dataclass(frozen=True, slots=True)
class Foresight:
    """Whether a group's host could carry a number of instances."""

    group: str
    host: str
    live: int
    asked: int
    fits: bool
    most: int | None
    """How many instances there could be; None for any number."""
    runs_out: str | None
    """What is scarce after that."""
    sentence: str


def hosts_picture(rooms: Sequence[HostRoom], width: int) -> Iterator[Text | Table]:
    """Give a table of accounts and one of groups for each host; with fewer columns where there is little width."""
    if not rooms:
        yield Text("no host has told what it has to give yet")
    for number, room in enumerate(rooms):
        if number:
            yield Text()
        yield Text(f"host {room.ledger.host}", "bold")
        yield _accounts(room.ledger, width)
        yield from _remarks(room)
        if room.groups:
            yield Text()
            yield _groups(room)


def hosts_data(rooms: Sequence[HostRoom]) -> list[dict[str, Any]]:
    """Give the same as plain data."""
    return [
        {
            "host": room.ledger.host,
            "accounts": [{**encode(account), "free": account.free} for account in room.ledger.accounts],
            "unread": dict(room.ledger.unread),
            "ballooned_bytes": room.ballooned_bytes,
            "swap_total_bytes": room.swap_total_bytes,
            "swap_used_bytes": room.swap_used_bytes,
            "memory_pressure": room.ledger.memory_pressure,
            "top": encode(room.top, as_type=tuple),
            "groups": [_group_data(room.ledger, group) for group in room.groups],
        }
        for room in rooms
    ]


def foresee(rooms: Sequence[HostRoom], group: str, count: int) -> Foresight:
    """Tell whether a group could have so many instances. Raises ControlError for a group that no host knows."""
    for room in rooms:
        for each in room.groups:
            if each.group == group:
                return _foresight(room.ledger, each, count)
    known = (each.group for room in rooms for each in room.groups)
    near = nearest(group, known, "groups that are known")
    raise ControlError(f"no host that could be read has clones of group {group}; {near}")


def _foresight(ledger: Ledger, group: GroupRoom, count: int) -> Foresight:
    more, shortage = ledger.fits(_need(group))
    most = None if more is None else group.live + more
    fits = count <= group.live or most is None or count <= most
    runs_out = _describe(shortage) if shortage is not None else None
    now = f"host {ledger.host} carries {group.live} of {group.group}"
    if most is None:
        sentence = f"fits: {now}, and nothing limits their number"
    else:
        sentence = f"{'fits' if fits else 'does not fit'}: {now} and could carry {most}; then {runs_out}"
    if count > group.max:
        sentence += f" (the policy's size.max is {group.max})"
    return Foresight(group.group, ledger.host, group.live, count, fits, most, runs_out, sentence)


def _need(group: GroupRoom) -> Need:
    return {portion.key: portion.amount for portion in group.need}


def _group_data(ledger: Ledger, group: GroupRoom) -> dict[str, Any]:
    more, shortage = ledger.fits(_need(group))
    runs_out = str(shortage.key) if shortage is not None else None
    return {"group": group.group, "live": group.live, "max": group.max, "fits_more": more, "runs_out": runs_out}


def _accounts(ledger: Ledger, width: int) -> Table:
    told = (account for account in ledger.accounts if account.total or account.committed)
    return table(_ACCOUNT, map(_account, told), without={"RESERVED"} if width < _WIDTH_OF_ACCOUNT else ())


def _account(account: Account) -> Iterator[str | Text]:
    key = account.key
    yield _name(key)
    yield _amount(key, account.total)
    yield _amount(key, account.reserved)
    yield _amount(key, account.committed)
    yield Text(_amount(key, account.free), "red" if account.free <= 0 else "")
    yield "-" if account.used is None else _amount(key, account.used)


def _remarks(room: HostRoom) -> Iterator[Text]:
    yield Text(f"  guests have {size(room.ballooned_bytes)} of the host's memory at present")
    if room.swap_total_bytes and room.swap_used_bytes is not None:
        yield Text(f"  {size(room.swap_used_bytes)} of {size(room.swap_total_bytes)} of swap is used")
    ledger = room.ledger
    pressure = ledger.memory_pressure
    if pressure is not None and pressure >= ledger.pressure_limit:
        yield Text(
            f"  memory pressure is {percent(pressure)}, and from {percent(ledger.pressure_limit)} on nothing is cloned",
            "red",
        )
    for key, why in ledger.unread.items():
        yield Text(f"  {key} could not be read, so nothing that needs it is cloned: {why}", "red")
    if room.top:
        takers = ", ".join(f"{'guest ' if c.guest else ''}{c.name} {c.cores:.1f}" for c in room.top)
        yield Text(f"  most CPU, in cores: {takers}")


def _groups(room: HostRoom) -> Table:
    return table(_GROUP, (_group(room.ledger, group) for group in room.groups))


def _group(ledger: Ledger, group: GroupRoom) -> tuple[str, ...]:
    more, shortage = ledger.fits(_need(group))
    fitting = "any number" if more is None else str(more)
    return group.group, str(group.live), fitting, _describe(shortage) if shortage is not None else "-"


def _describe(shortage: Shortage) -> str:
    key = shortage.key
    if shortage.why is not None:
        return f"{_name(key)} could not be read"
    if key.resource is Resource.PRESSURE:
        return f"the memory pressure is {percent(shortage.have)}"
    return f"{_name(key)} runs out"


def _name(key: Key) -> str:
    if key == Key(Resource.MEMORY, AVAILABLE):
        return "memory available"
    return f"{_NAMES[key.resource]} {key.name}".rstrip()


def _amount(key: Key, amount: int) -> str:
    return size(amount) if key.resource in _IN_BYTES else str(amount)
