"""What a load balancer has against what it should have, and the ordered corrections from one to the other.

Looked at as a whole each time, so that a balancer that was restarted, or changed by hand, is put right without anybody
having to notice. What is added comes before what is taken away. Slots that are not named are not touched.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoscaler.core.observation import ExternalSample, Slot, SlotState, TrafficView, Unknown
from autoscaler.core.policy import Traffic


@dataclass(frozen=True, slots=True)
class Service:
    """An instance as the balancer should have it."""

    instance: str
    host: str
    address: str
    port: int
    state: SlotState = SlotState.READY
    """Ready or drain; one that is gone is not wanted at all."""
    weight_share: float = 1.0
    """Its weight, as a fraction of the slot's initial one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one group's balancer should have."""

    group: str
    traffic: Traffic
    services: tuple[Service, ...]
    at: float
    """The tick that wants it, in seconds since the epoch."""
    min_in_service: int = 0
    """So many are left in service, whoever should go."""


@dataclass(frozen=True, slots=True)
class SetAddress:
    """Let a slot stand for another machine."""

    slot: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class SetWeight:
    """Give a slot this weight."""

    slot: str
    weight: int


@dataclass(frozen=True, slots=True)
class SetState:
    """Put a slot into service, or take it out."""

    slot: str
    state: SlotState


Correction = SetAddress | SetWeight | SetState


def corrections(view: TrafficView, wanted: Wanted) -> tuple[Correction, ...]:
    """Give what is to be changed, in order: who is to be served first, then who is not.

    Of those in service, which is for the balancer to say, at least `min_in_service` are left there.
    """
    assigned = _assign(view.slots, wanted.services)
    added = [c for slot, service in assigned if service.state is SlotState.READY for c in _serve(slot, service)]
    staying = sum(
        slot.serves and _stands_for(slot, service) for slot, service in assigned if service.state is SlotState.READY
    )
    known = {slot.name for slot, _ in assigned}
    leaving = [(slot, service.state) for slot, service in assigned if service.state is not SlotState.READY]
    leaving += [(slot, SlotState.MAINT) for slot in view.slots if slot.name not in known]
    return (*added, *_take_out(leaving, staying - wanted.min_in_service))


def _take_out(leaving: Sequence[tuple[Slot, SlotState]], spare: int) -> Iterator[SetState]:
    """Take slots out of service; `spare` is how many more than needed are left without them."""
    held = max(0, -spare)
    for slot, state in leaving:
        # Whom the balancer's checks found alive is missed; of a machine that is gone nothing else is to be believed.
        if slot.serves and (state is SlotState.DRAIN or slot.healthy) and held:
            held -= 1
        elif slot.state is not state and (slot.state is SlotState.READY or state is SlotState.MAINT):
            yield SetState(slot.name, state)


def targets(group: str, services: Sequence[Service]) -> list[dict[str, object]]:
    """Give Prometheus' list of targets, one for each instance."""
    return [
        {
            "targets": [f"[{s.address}]:{s.port}" if ":" in s.address else f"{s.address}:{s.port}"],
            "labels": {"group": group, "instance": s.instance, "host": s.host},
        }
        for s in services
    ]


def figures(view: TrafficView | Unknown | None) -> dict[str, ExternalSample | Unknown]:
    """Give what a group can be scaled by of what its load balancer tells, by metric."""
    if view is None:
        return {}
    if isinstance(view, Unknown):
        return dict.fromkeys(("haproxy.sessions_per_server", "haproxy.queue", "haproxy.response_time"), view)
    serving = [slot.sessions for slot in view.slots if slot.serves and slot.sessions is not None]
    idle = Unknown("the load balancer has nobody in service")
    return {
        "haproxy.sessions_per_server": ExternalSample(sum(serving) / len(serving), view.at) if serving else idle,
        "haproxy.queue": _figure(view.queue, view.at),
        "haproxy.response_time": _figure(view.response_seconds, view.at),
    }


def _figure(value: float | None, at: float) -> ExternalSample | Unknown:
    return Unknown("the load balancer does not tell it") if value is None else ExternalSample(value, at)


def unplaced(view: TrafficView, wanted: Wanted) -> tuple[Service, ...]:
    """Name those for whom the balancer has no slot left."""
    placed = {service.instance for _, service in _assign(view.slots, wanted.services)}
    ready = (service for service in wanted.services if service.state is SlotState.READY)
    return tuple(service for service in ready if service.instance not in placed)


def slot_of(view: TrafficView, address: str, port: int) -> Slot | None:
    """Find the slot that stands for an instance; one in maintenance stands for nobody."""
    for slot in view.slots:
        if slot.state is not SlotState.MAINT and (slot.address, slot.port) == (address, port):
            return slot
    return None


def _stands_for(slot: Slot, service: Service) -> bool:
    return (slot.address, slot.port) == (service.address, service.port)


def _assign(slots: Sequence[Slot], services: Sequence[Service]) -> tuple[tuple[Slot, Service], ...]:
    """Pair instances with slots: with the one that has their address, else, for who is to be served, with a free one.

    Free is first what is in maintenance, and of that what nobody is connected to.
    """
    # Guests tell their own addresses: two may claim the same one, and each keeps a slot of its own.
    by_address: dict[tuple[str, int], list[Slot]] = {}
    # Of several with one address, the one in service is whom that instance's clients know.
    for slot in sorted(slots, key=lambda slot: (slot.state is SlotState.MAINT, not slot.serves)):
        by_address.setdefault((slot.address, slot.port), []).append(slot)
    pairs: dict[str, tuple[Slot, Service]] = {}
    for service in services:
        alike = by_address.get((service.address, service.port))
        if alike:
            pairs[service.instance] = (alike.pop(0), service)
    taken = {slot.name for slot, _ in pairs.values()}
    free = iter(sorted((slot for slot in slots if slot.name not in taken), key=_availability))
    for service, slot in zip(
        (s for s in services if s.instance not in pairs and s.state is SlotState.READY), free, strict=False
    ):
        pairs[service.instance] = (slot, service)
    return tuple(pairs.values())


def _availability(slot: Slot) -> tuple[bool, bool]:
    return slot.state is not SlotState.MAINT, bool(slot.sessions)


def _serve(slot: Slot, service: Service) -> Iterator[Correction]:
    moved = not _stands_for(slot, service)
    if moved:
        if slot.state is not SlotState.MAINT:
            yield SetState(slot.name, SlotState.MAINT)
        yield SetAddress(slot.name, service.address, service.port)
    weight = max(1, round(slot.initial_weight * service.weight_share))
    if slot.weight != weight:
        yield SetWeight(slot.name, weight)
    if moved or slot.state is not SlotState.READY:
        yield SetState(slot.name, SlotState.READY)
