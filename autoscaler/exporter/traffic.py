"""What the load balancers have and should have."""

from collections import Counter
from collections.abc import Callable, Iterator

from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.snapshot import Snapshot, TrafficStatus
from autoscaler.exporter.family import Family, Sample, Samples

SLOT_STATES = ("serving", "down", SlotState.DRAIN.value, SlotState.MAINT.value)


def _traffic(read: Callable[[TrafficStatus], float | None]) -> Samples:
    return lambda snapshot: (
        ((status.group,), read(status.traffic)) for status in snapshot.groups if status.traffic is not None
    )


def _view(read: Callable[[TrafficView], float | None]) -> Samples:
    return _traffic(lambda traffic: read(traffic.view) if traffic.view is not None else None)


def _known(traffic: TrafficStatus) -> bool | None:
    """Whether it could be read; one that was not asked yet is neither."""
    return None if traffic.view is None and traffic.why is None else traffic.view is not None


def _sessions(view: TrafficView) -> int | None:
    told = [slot.sessions for slot in view.slots if slot.sessions is not None]
    return sum(told) if told else None


def _state(slot: Slot) -> str:
    if slot.state is SlotState.READY:
        return "serving" if slot.serves else "down"
    return slot.state.value


def _slots(snapshot: Snapshot) -> Iterator[Sample]:
    for status in snapshot.groups:
        if status.traffic is not None and status.traffic.view is not None:
            states = Counter(_state(slot) for slot in status.traffic.view.slots)
            yield from (((status.group, state), states[state]) for state in SLOT_STATES)


TRAFFIC: tuple[Family, ...] = (
    Family(
        "autoscaler_traffic_connected", "gauge", ("group",),
        "1 while the group's load balancer, or what tells it whom to serve, answers.",
        _traffic(_known),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_traffic_wanted", "gauge", ("group",),
        "Instances that the load balancer should send new requests to.",
        _traffic(lambda traffic: sum(service.state is SlotState.READY for service in traffic.wanted)),
        unit="instances",
    ),
    Family(
        "autoscaler_traffic_slots", "gauge", ("group", "state"),
        "Places of the load balancer's backend: serving, down by its own checks, drain or maint.",
        _slots,
        unit="servers", choices=len(SLOT_STATES),
    ),
    Family(
        "autoscaler_traffic_sessions", "gauge", ("group",),
        "Connections or requests under way on all instances.",
        _view(_sessions),
        unit="sessions",
    ),
    Family(
        "autoscaler_traffic_queue", "gauge", ("group",),
        "Requests that wait in the load balancer for any instance.",
        _view(lambda view: view.queue),
        unit="requests",
    ),
    Family(
        "autoscaler_traffic_response_seconds", "gauge", ("group",),
        "Mean time to a response, of the backend's last 1024 requests.",
        _view(lambda view: view.response_seconds),
    ),
)  # fmt: skip
