"""A group's refresh for people: how far it is, what it waits for, and what each instance stands on."""

from collections.abc import Iterator
from typing import Any

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from autoscaler.cli.output import table
from autoscaler.codec import encode
from autoscaler.core.decision import ABOUT_REFRESH, Reason, ReasonCode
from autoscaler.core.memory import RefreshPhase, Setback
from autoscaler.core.policy import Image
from autoscaler.core.snapshot import GroupStatus, RefreshStatus
from autoscaler.reasons import clock, describe, describe_setback, duration

_PHASES = {
    RefreshPhase.ASKED: "asked for, not begun",
    RefreshPhase.CANARY: "trying it with the first instances",
    RefreshPhase.SOAK: "watching the first instances",
    RefreshPhase.BATCH: "replacing batch {batch}",
    RefreshPhase.PAUSE: "pausing after batch {batch}",
    RefreshPhase.DONE: "done",
    RefreshPhase.CANCELLED: "cancelled",
    RefreshPhase.ROLLED_BACK: "rolled back",
    RefreshPhase.FAILED: "failed: stopped where it was",
}
_INSTANCE: dict[str, JustifyMethod] = {"INSTANCE": "left", "IMAGE": "left", "STATE": "left", "FOR": "right"}
_STYLES = {
    RefreshPhase.DONE: "green",
    RefreshPhase.FAILED: "bold red",
    RefreshPhase.ROLLED_BACK: "yellow",
    RefreshPhase.CANCELLED: "yellow",
}


_TOLD = frozenset({ReasonCode.REFRESH_REPLACES, ReasonCode.REFRESH_GOES_BACK, ReasonCode.REFRESH_SPARES})
"""What the lines above the reasons say already."""


def refresh_data(status: GroupStatus) -> dict[str, Any]:
    """Give as plain JSON data what `refresh_picture` shows."""
    return {
        "group": status.group,
        "image": encode(status.image),
        "paused": status.paused,
        "refresh": None if status.refresh is None else {**encode(status.refresh), "running": status.refresh.running},
        "waits_for": [{**encode(reason), "text": describe(reason)} for reason in _reasons(status)],
        "instances": [
            {"instance": i.instance, "state": i.state.value, "image": encode(i.image)} for i in status.instances
        ],
    }


def refresh_picture(status: GroupStatus, now: float) -> Iterator[Text | Table]:
    """Give a group's refresh under way, or its last one; `now` is seconds since the epoch."""
    yield from _lines(status, now)
    if status.instances:
        yield _instances(status, now)


def _lines(status: GroupStatus, now: float) -> Iterator[Text]:
    refresh = status.refresh
    title = Text().append(status.group, "bold")
    if refresh is None:
        image = "unknown" if status.image is None else str(status.image)
        yield title.append(f": was not refreshed yet; its policy names {image}")
        return
    way = "goes back to" if refresh.back else "refresh to"
    by_itself = refresh.back and refresh.why is not Setback.ASKED
    began = clock(refresh.started_at)
    asked = f"by itself since {began}" if by_itself else f"asked for at {began} by {refresh.by}"
    yield title.append(f": {way} {refresh.target}, {asked}")
    phase = _PHASES[refresh.phase].format(batch=refresh.batch)
    yield Text("  phase: ").append(phase, _STYLES.get(refresh.phase, "")).append(f", for {_since(refresh.since, now)}")
    yield Text(f"  instances: {refresh.new} on it, {refresh.ready} of them ready, {refresh.old} still to be replaced")
    if refresh.spared:
        yield Text(f"  left as they are, protected or detached: {refresh.spared}", "yellow")
    yield from (Text(f"  {line}") for line in _history(refresh))
    if status.paused:
        yield Text(f"  paused: nothing is done until `autoscaler resume {status.group}`", "yellow")
    yield from (Text(f"  {describe(reason)}") for reason in _reasons(status))


def _history(refresh: RefreshStatus) -> Iterator[str]:
    if refresh.previous is not None:
        yield f"before: {refresh.previous}"
    if refresh.refused is not None:
        yield f"taken out of service: {refresh.refused}"
    if refresh.why is not None:
        yield f"why: {describe_setback(refresh.why.value, refresh.culprit or '')}"


def _reasons(status: GroupStatus) -> tuple[Reason, ...]:
    reasons = status.decision.reasons if status.decision is not None else ()
    return tuple(reason for reason in reasons if reason.code in ABOUT_REFRESH - _TOLD)


def _instances(status: GroupStatus, now: float) -> Table:
    target = status.image if status.refresh is None else status.refresh.target
    rows = (
        (instance.instance, _image(instance.image, target), instance.state.value, _since(instance.since, now))
        for instance in status.instances
    )
    return table(_INSTANCE, rows)


def _image(image: Image | None, target: Image | None) -> Text:
    if image is None:
        return Text("not known", "yellow")
    return Text(str(image), "green" if image.same_as(target) else "")


def _since(at: float, now: float) -> str:
    return duration(max(0, round(now - at)))
