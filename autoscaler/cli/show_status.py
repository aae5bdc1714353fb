"""The daemon's snapshot for people."""

from collections.abc import Iterator, Mapping

from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from autoscaler.cli.output import table
from autoscaler.core.policy import Mode
from autoscaler.core.snapshot import GroupStatus, HostStatus, ImageLaunches, InstanceStatus, Snapshot
from autoscaler.core.transition import InstanceState, TransitionReason
from autoscaler.reasons import clock, describe, duration, figure, percent

_STATE_STYLES = {
    InstanceState.READY: "green",
    InstanceState.FAILED: "bold red",
    InstanceState.RETURNING: "cyan",
    InstanceState.STOPPING: "yellow",
    InstanceState.DRAINING: "yellow",
    InstanceState.UNHEALTHY: "bold red",
    InstanceState.DETACHED: "dim",
}
_INSTANCE: Mapping[str, JustifyMethod] = {
    "INSTANCE": "left",
    "HOST": "left",
    "STATE": "left",
    "FOR": "right",
    "LOAD": "right",
}
_TELLING = frozenset({TransitionReason.TAKEN_BACK, TransitionReason.RECOVERED, TransitionReason.ATTACHED})
"""Reasons that are worth a word beside the state they led to."""


def status_picture(snapshot: Snapshot, now: float) -> Iterator[Text | Table]:
    """Give header, hosts and groups; `now` is seconds since the epoch."""
    yield from _header(snapshot, now)
    for group in snapshot.groups:
        yield Text()
        yield from _group(group)
        if group.instances:
            yield _instances(group.instances, now)
    if snapshot.tick is not None and not snapshot.groups:
        yield Text()
        yield Text("no groups: put a policy file into the policies folder, then `autoscaler reload`")


def _header(snapshot: Snapshot, now: float) -> Iterator[Text]:
    title = Text.assemble(("autoscaler ", "bold"), (snapshot.version, "bold"))
    title.append(f", running for {_since(snapshot.started_at, now)}")
    yield title
    yield _tick(snapshot, now)
    yield from (_host(host) for host in snapshot.hosts)
    yield from (_image(image) for image in snapshot.images)
    if snapshot.reload is not None and not snapshot.reload.ok:
        yield Text(f"policies: refused at {clock(snapshot.reload.at)}, the earlier ones run on:", "bold red")
        yield from (Text(f"  {line}") for line in (snapshot.reload.error or "").splitlines())


def _tick(snapshot: Snapshot, now: float) -> Text:
    tick = snapshot.tick
    if tick is None:
        return Text("no tick has finished yet", "yellow")
    late = now - tick.at > 3 * snapshot.interval_seconds
    line = f"last tick {_since(tick.at, now)} ago, took {tick.duration_seconds:.2f} s"
    return Text(f"{line}; one is due every {duration(snapshot.interval_seconds)}", "bold red" if late else "")


def _host(status: HostStatus) -> Text:
    text = Text(f"host {status.host}: ")
    if status.connected:
        text.append("connected", "green")
    else:
        text.append("not connected", "bold red")
    if status.why:
        text.append(f": {status.why}")
    sample = status.sample
    if sample is not None:
        if sample.cpu_busy_share is not None:
            text.append(f", CPU {percent(sample.cpu_busy_share)} of {sample.cpu_count}")
        used = sample.memory_total_bytes - sample.memory_available_bytes
        text.append(f", memory {_gib(used)} of {_gib(sample.memory_total_bytes)} GiB")
    return text


def _image(image: ImageLaunches) -> Text:
    launches = f"{image.count} launch{'' if image.count == 1 else 'es'}"
    half, slow = duration(image.p50_seconds), duration(image.p95_seconds)
    return Text(f"image {image.image}: half of the last {launches} were ready within {half}, 95% within {slow}")


def _group(status: GroupStatus) -> Iterator[Text]:
    yield _title(status)
    if status.deleting:
        yield Text("  being deleted: every instance that is neither protected nor detached is removed", "yellow")
    if status.breaker_open:
        yield Text(f"  alarm: launches are stopped until `autoscaler reset {status.group}`", "bold red")
    if status.override is not None:
        held = status.override
        yield Text(f"  held at {held.count} until {clock(held.until)} by {held.by}", "yellow")
    decision = status.decision
    if decision is None:
        return
    for entry in decision.inputs:
        load = figure(entry.value, entry.unit) if entry.value is not None else "not measured"
        target = f", target {figure(entry.target, entry.unit)}" if entry.target is not None else ""
        yield Text(f"  {entry.metric} {load}{target}")
    for reason in decision.reasons or tuple(wish.reason for wish in decision.recommendations):
        yield Text(f"  {describe(reason)}")


def _title(status: GroupStatus) -> Text:
    text = Text().append(status.group, "bold")
    ready = sum(instance.state is InstanceState.READY for instance in status.instances)
    if status.decision is None or status.size is None:
        return text.append(f": {ready} ready, unmanaged: no policy file names this group", "yellow")
    text.append(
        f": {ready} ready of {status.decision.admitted}, from {status.size.min} to {status.size.max}", "not bold"
    )
    if status.mode is Mode.SHADOW:
        text.append(", shadow mode", "yellow")
    if status.paused:
        text.append(", paused", "yellow")
    return text


def _instances(instances: tuple[InstanceStatus, ...], now: float) -> Table:
    return table(_INSTANCE, (_instance(instance, now) for instance in instances))


def _instance(instance: InstanceStatus, now: float) -> tuple[str | Text, ...]:
    state = Text(instance.state.value, _STATE_STYLES.get(instance.state, ""))
    said = ", ".join(_remarks(instance))
    if said:
        state.append(f" ({said})", "default")
    load = percent(instance.load) if instance.load is not None else "-"
    return instance.instance, instance.host, state, _since(instance.since, now), load


def _remarks(instance: InstanceStatus) -> Iterator[str]:
    told = instance.detail or (instance.reason.value if instance.reason in _TELLING else None)
    if told is not None:
        yield told.replace("_", " ")
    if instance.complaint is not None:
        yield instance.complaint
    if instance.protected_until is not None:
        yield f"protected until {clock(instance.protected_until)}"


def _since(at: float, now: float) -> str:
    return duration(max(0, round(now - at)))


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f}"
