"""What is left of instances that are gone: found in the ledger, and collected after a grace period.

An instance vanishes without its volumes when somebody undefines its domain by hand, or its host lost it. What the
ledger does not name is never looked at: a name proves nothing.
"""

from collections.abc import Iterable, Mapping

from autoscaler.core.action import Collect
from autoscaler.core.observation import HostInventory, Leftover, Observation, Unknown
from autoscaler.core.ports import VolumeRef


def find_leftovers(ledger: Iterable[VolumeRef], seen: Observation) -> tuple[Leftover, ...]:
    """Give what the ledger names on hosts that were read, without an action in flight and without a domain.

    A domain of the same name counts, too, whoever owns it: somebody may have made it of the instance, disk and all.
    """
    busy = {(flight.intent.action.host, flight.intent.action.instance) for flight in seen.in_flight}
    present = {
        (inventory.host, name)
        for inventory in seen.inventory.values()
        if isinstance(inventory, HostInventory)
        for domain in inventory.domains
        for name in (domain.name, domain.ownership.instance if domain.ownership is not None else domain.name)
    }
    named = {
        (volume.host, volume.instance)
        for volume in ledger
        if isinstance(seen.inventory.get(volume.host), HostInventory)
    }
    return tuple(Leftover(*each) for each in sorted(named - busy - present))


def collects(
    observation: Observation, known: Mapping[str, float], held: frozenset[str]
) -> tuple[tuple[Collect, ...], dict[str, float]]:
    """Collect what has been left over for the grace period, but of no group that is held; also gives since when.

    What cannot be looked at now is neither collected nor forgotten. One that could not be collected is found again by
    the next step, and its grace begins anew.
    """
    at = observation.at
    since = {_key(leftover): known.get(_key(leftover), at) for leftover in observation.leftovers}
    actions = []
    for leftover in observation.leftovers:
        group = _group(leftover.instance)
        ripe = at - since[_key(leftover)] >= observation.leftover_grace_seconds
        if ripe and group not in held and not observation.ledger_lost:
            actions.append(Collect(group, leftover.host, leftover.instance))
            del since[_key(leftover)]
    unread = {host for host, inventory in observation.inventory.items() if isinstance(inventory, Unknown)}
    kept = {key: began for key, began in known.items() if key.partition("/")[0] in unread}
    return tuple(actions), kept | since


def _key(leftover: Leftover) -> str:
    return f"{leftover.host}/{leftover.instance}"


def _group(instance: str) -> str:
    """Read the group off an instance's name, as `reconcile.instance_id` makes it: its policy may be gone as well."""
    return instance.rpartition("-")[0] or instance
