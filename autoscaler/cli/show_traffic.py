"""A group's load balancer for people: who is served, and with how many sessions."""

from collections.abc import Iterator, Mapping

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from autoscaler.cli.output import table
from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.snapshot import TrafficStatus
from autoscaler.core.traffic import Service
from autoscaler.reasons import duration

_COLUMNS: Mapping[str, JustifyMethod] = {
    "INSTANCE": "left",
    "ADDRESS": "left",
    "WANTED": "left",
    "SLOT": "left",
    "STATE": "left",
    "WEIGHT": "right",
    "SESSIONS": "right",
    "CHECKS": "left",
}
_LEAST_WIDTH = {"SLOT": 90, "WEIGHT": 90, "CHECKS": 75}
_STYLES = {SlotState.READY: "green", SlotState.DRAIN: "yellow"}


def traffic_picture(group: str, status: TrafficStatus, now: float, width: int) -> Iterator[Text | Table]:
    """Give what the balancer has for each instance; `now` is seconds since the epoch.

    With little width the columns that say the least are left out.
    """
    yield _title(group, status, now)
    rows = tuple(_rows(status))
    if rows:
        yield table(_COLUMNS, rows, without={name for name, least in _LEAST_WIDTH.items() if width < least})


def _rows(status: TrafficStatus) -> Iterator[tuple[str | Text, ...]]:
    slots = {} if status.view is None else _by_address(status.view)
    for service in status.wanted:
        yield _row(service, slots.pop((service.address, service.port), None))
    for slot in slots.values():
        if slot.state is not SlotState.MAINT:
            yield ("-", f"{slot.address}:{slot.port}", "-", *_slot(slot))


def _title(group: str, status: TrafficStatus, now: float) -> Text:
    text = Text().append(group, "bold").append(f": {status.kind.value}")
    if status.why is not None:
        return text.append(f", cannot be told whom to serve: {status.why}", "bold red")
    view = status.view
    if view is None:
        return text.append(", not looked at yet", "yellow")
    serving = sum(slot.serves for slot in view.slots)
    text.append(f", {serving} in service, of {len(view.slots)} slots, {duration(max(0.0, now - view.at))} ago")
    if view.queue is not None:
        text.append(f", {view.queue} requests wait")
    return text


def _by_address(view: TrafficView) -> dict[tuple[str, int], Slot]:
    # One in service comes before one in maintenance that still has the address.
    slots = sorted(view.slots, key=lambda slot: slot.state is not SlotState.MAINT)
    return {(slot.address, slot.port): slot for slot in slots}


def _row(service: Service, slot: Slot | None) -> tuple[str | Text, ...]:
    shown = _slot(slot) if slot is not None else ("-", Text("not there", "bold red"), "-", "-", "-")
    return (service.instance, f"{service.address}:{service.port}", service.state.value, *shown)


def _slot(slot: Slot) -> tuple[str | Text, ...]:
    checks = {True: "up", False: "down", None: "-"}[slot.healthy]
    sessions = "-" if slot.sessions is None else str(slot.sessions)
    state = Text(slot.state.value, _STYLES.get(slot.state, ""))
    return (slot.name, state, str(slot.weight), sessions, checks)
