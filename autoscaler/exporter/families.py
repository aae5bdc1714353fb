"""Every metric the daemon exports, each a row: what it is called, what it means, and where a snapshot has it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from autoscaler.core.admission import REFUSALS
from autoscaler.core.decision import Decision, Input, ReasonCode, decisive
from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.memory import RefreshPhase
from autoscaler.core.observation import HostSample
from autoscaler.core.policy import Mode
from autoscaler.core.snapshot import Durations, GroupStatus, GroupTotals, HostStatus, Snapshot
from autoscaler.core.transition import InstanceState
from autoscaler.exporter.family import Family, Sample, Samples
from autoscaler.exporter.room import ROOM
from autoscaler.exporter.traffic import TRAFFIC

_STATES = tuple(state for state in InstanceState if state is not InstanceState.REMOVED)
"""Every state an instance can be found in."""
_STARVED = frozenset({ReasonCode.STARVED, ReasonCode.HELD_BY_STARVED_GUESTS, ReasonCode.ACTS_THOUGH_STARVED})


def _one(read: Callable[[Snapshot], float | Durations | None]) -> Samples:
    return lambda snapshot: (((), read(snapshot)),)


def _group(read: Callable[[GroupStatus], float | None]) -> Samples:
    return lambda snapshot: (((status.group,), read(status)) for status in snapshot.groups)


def _decision(read: Callable[[Decision], float | None]) -> Samples:
    return _group(lambda status: read(status.decision) if status.decision else None)


def _input(read: Callable[[Input], float | None]) -> Samples:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for status in snapshot.groups:
            seen = {entry.metric: read(entry) for entry in (status.decision.inputs if status.decision else ())}
            yield from (((status.group, metric), value) for metric, value in seen.items())

    return samples


def _reasons(snapshot: Snapshot) -> Iterator[Sample]:
    for status in snapshot.groups:
        codes = {reason.code for reason in decisive(status.decision)} if status.decision else set()
        yield from (((status.group, code.value), 1) for code in sorted(codes))


def _last_scalings(snapshot: Snapshot) -> Iterator[Sample]:
    for group, totals in snapshot.totals.groups.items():
        if totals.scaled is not None:
            code = totals.scaled.reason
            yield (group, totals.scaled.direction, code.value if code is not None else ""), totals.scaled.at


def _host(read: Callable[[HostStatus], float | None]) -> Samples:
    return lambda snapshot: (((status.host,), read(status)) for status in snapshot.hosts)


def _host_sample(read: Callable[[HostSample], float | None]) -> Samples:
    return _host(lambda status: read(status.sample) if status.sample else None)


def _pressure(snapshot: Snapshot) -> Iterator[Sample]:
    for status in snapshot.hosts:
        if status.sample is not None:
            yield (status.host, "cpu"), status.sample.psi_cpu_share
            yield (status.host, "memory"), status.sample.psi_memory_share
            yield (status.host, "io"), status.sample.psi_io_share


def _instances_by_state(snapshot: Snapshot) -> Iterator[Sample]:
    for status in snapshot.groups:
        counts = Counter(instance.state for instance in status.instances)
        for state in _STATES if status.listed else ():
            yield (status.group, state.value), counts[state]


def _outdated(status: GroupStatus) -> float | None:
    if status.image is None:
        return None
    gone = {InstanceState.STOPPING, InstanceState.DETACHED}
    return sum(not status.image.same_as(i.image) for i in status.instances if i.state not in gone)


def _instance_loads(snapshot: Snapshot) -> Iterator[Sample]:
    for status in snapshot.groups:
        yield from (((status.group, instance.instance), instance.load) for instance in status.instances)


def _counts(read: Callable[[GroupTotals], Mapping[str, int]], known: Iterable[str] = ()) -> Samples:
    zeros = dict.fromkeys(known, 0)

    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for group, totals in snapshot.totals.groups.items():
            yield from (((group, key), count) for key, count in (zeros | dict(read(totals))).items())

    return samples


def _durations(read: Callable[[GroupTotals], Durations]) -> Samples:
    return lambda snapshot: (((group,), read(totals)) for group, totals in snapshot.totals.groups.items())


def _refused(snapshot: Snapshot) -> Iterator[Sample]:
    for status in snapshot.groups:
        if status.decision is not None:
            refused = {
                REFUSALS[reason.code]: reason.parameters.get("refused", 0)
                for reason in status.decision.reasons
                if reason.code in REFUSALS
            }
            yield from (((status.group, name), float(refused.get(name, 0))) for name in REFUSALS.values())


FAMILIES: tuple[Family, ...] = (
    Family(
        "autoscaler_build_info", "gauge", ("version", "controller"),
        "Always 1; which daemon this is.",
        lambda snapshot: (((snapshot.version, snapshot.controller), 1),),
        unit="1",
    ),
    Family(
        "autoscaler_start_time_seconds", "gauge", (),
        "When the daemon started, in seconds since the epoch.",
        _one(lambda snapshot: snapshot.started_at),
    ),
    Family(
        "autoscaler_group_size_min", "gauge", ("group",),
        "The policy's lower bound on the number of instances.",
        _group(lambda status: status.size.min if status.size else None),
        unit="instances",
    ),
    Family(
        "autoscaler_group_size_max", "gauge", ("group",),
        "The policy's upper bound on the number of instances.",
        _group(lambda status: status.size.max if status.size else None),
        unit="instances",
    ),
    Family(
        "autoscaler_group_size_recommended", "gauge", ("group",),
        "Instances the strategies call for.",
        _decision(lambda decision: decision.recommended),
        unit="instances",
    ),
    Family(
        "autoscaler_group_size_desired", "gauge", ("group",),
        "Instances wanted after the behavior's limits.",
        _decision(lambda decision: decision.desired),
        unit="instances",
    ),
    Family(
        "autoscaler_group_size_admitted", "gauge", ("group",),
        "Instances granted after the hosts' limits: what the group is moved toward.",
        _decision(lambda decision: decision.admitted),
        unit="instances",
    ),
    Family(
        "autoscaler_admission_refused", "gauge", ("group", "resource"),
        "Clones that the group wants and its host has no room for, by what is scarce.",
        _refused,
        unit="instances", choices=len(REFUSALS),
    ),
    Family(
        "autoscaler_group_reason", "gauge", ("group", "reason"),
        "1 for each code that made the latest decision what it is: its limits, or what was called for without any.",
        _reasons,
        unit="1", choices=len(ReasonCode),
    ),
    Family(
        "autoscaler_group_starved", "gauge", ("group",),
        "1 while the host withholds so much CPU from the group's guests that their load tells too little.",
        _decision(lambda decision: any(reason.code in _STARVED for reason in decision.reasons)),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_managed", "gauge", ("group",),
        "1 while a policy governs the group, 0 when its policy file vanished and its instances run on unmanaged.",
        _group(lambda status: status.size is not None),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_paused", "gauge", ("group",),
        "1 while an operator has paused the group.",
        _group(lambda status: status.paused),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_shadow", "gauge", ("group",),
        "1 while everything is decided for the group and nothing is done.",
        _group(lambda status: status.mode is Mode.SHADOW if status.mode else None),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_breaker_open", "gauge", ("group",),
        "1 while launches are stopped after too many had failed, until an operator resets the group.",
        _group(lambda status: status.breaker_open),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_replacement_stopped", "gauge", ("group",),
        "1 while so many instances are unhealthy that none is replaced.",
        _group(lambda status: status.replacement_stopped),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_image_changed", "gauge", ("group",),
        "1 while a golden image of the group is not what it was: instances stand on what changed, or would.",
        _group(lambda status: status.image_changed),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_refresh_running", "gauge", ("group",),
        "1 while the group's instances are being replaced by another golden image, or brought back from one.",
        _group(lambda status: status.refresh is not None and status.refresh.running),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_refresh_failed", "gauge", ("group",),
        "1 when the group's last refresh has stopped in the middle, because it came no further.",
        _group(lambda status: status.refresh is not None and status.refresh.phase is RefreshPhase.FAILED),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_launches_pinned", "gauge", ("group",),
        "1 while new instances are made of an earlier golden image, because the policy's was rolled back.",
        _group(lambda status: status.refresh is not None and status.refresh.pinned),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_group_instances_outdated", "gauge", ("group",),
        "Instances that do not stand on the golden image that the policy names.",
        _group(_outdated),
        unit="instances",
    ),
    Family(
        "autoscaler_group_instances", "gauge", ("group", "state"),
        "Owned instances and clones in flight, by where they are in their life; no sample while they cannot be listed.",
        _instances_by_state,
        unit="instances", choices=len(_STATES),
    ),
    Family(
        "autoscaler_instance_load_ratio", "gauge", ("group", "instance"),
        "The latest load of one instance, as a fraction of its capacity.",
        _instance_loads,
    ),
    Family(
        "autoscaler_group_load_ratio", "gauge", ("group", "metric"),
        "The group's load over the policy's window: of a share its fraction of one, else in the metric's own unit.",
        _input(lambda entry: entry.value),
        unit="share of one, or the metric's own",
    ),
    Family(
        "autoscaler_group_load_target_ratio", "gauge", ("group", "metric"),
        "The load the policy aims at, in the unit of autoscaler_group_load_ratio.",
        _input(lambda entry: entry.target),
        unit="share of one, or the metric's own",
    ),
    Family(
        "autoscaler_group_load_age_seconds", "gauge", ("group", "metric"),
        "How old the newest sample of the load was at the last tick.",
        _input(lambda entry: entry.age_seconds),
    ),
    Family(
        "autoscaler_decisions_total", "counter", ("group", "reason"),
        "Decisions that carried this reason code.",
        _counts(lambda totals: totals.reasons),
        choices=len(ReasonCode),
    ),
    Family(
        "autoscaler_scalings_total", "counter", ("group", "direction"),
        "Decisions that changed the group's size.",
        _counts(lambda totals: totals.scalings, ("in", "out")),
        choices=2,
    ),
    Family(
        "autoscaler_last_scaling_timestamp_seconds", "gauge", ("group", "direction", "reason"),
        "When the group's size was last changed since the daemon started, in seconds since the epoch, and why.",
        _last_scalings,
    ),
    Family(
        "autoscaler_launch_failures_total", "counter", ("group",),
        "Instances that were lost before they ever were ready: the clone failed, or they did not come up.",
        lambda snapshot: (((group,), totals.failed_launches) for group, totals in snapshot.totals.groups.items()),
    ),
    Family(
        "autoscaler_action_failures_total", "counter", ("group", "kind"),
        "Clones and removals that failed, by kind of error.",
        _counts(lambda totals: totals.failures, (kind.value for kind in HypervisorErrorKind)),
        choices=len(HypervisorErrorKind),
    ),
    Family(
        "autoscaler_clone_duration_seconds", "histogram", ("group",),
        "From the decision to clone until the domain was started.",
        _durations(lambda totals: totals.clones),
    ),
    Family(
        "autoscaler_launch_duration_seconds", "histogram", ("group",),
        "From the decision to clone until the instance was ready.",
        _durations(lambda totals: totals.launches),
    ),
    Family(
        "autoscaler_removal_duration_seconds", "histogram", ("group",),
        "From the decision to remove until nothing of the instance was left.",
        _durations(lambda totals: totals.removals),
    ),
    Family(
        "autoscaler_instance_transitions_total", "counter", ("group", "to"),
        "Instances that came into this state.",
        _counts(lambda totals: totals.transitions, (state.value for state in InstanceState)),
        choices=len(InstanceState),
    ),
    Family(
        "autoscaler_image_launch_p50_seconds", "gauge", ("image",),
        "Half of the last launches of an image took no longer than this from clone to ready.",
        lambda snapshot: (((image.image,), image.p50_seconds) for image in snapshot.images),
    ),
    Family(
        "autoscaler_image_launch_p95_seconds", "gauge", ("image",),
        "95 % of the last launches of an image took no longer than this from clone to ready.",
        lambda snapshot: (((image.image,), image.p95_seconds) for image in snapshot.images),
    ),
    Family(
        "autoscaler_ticks_total", "counter", (),
        "Ticks that finished.",
        _one(lambda snapshot: snapshot.totals.ticks.count),
    ),
    Family(
        "autoscaler_tick_failures_total", "counter", (),
        "Ticks that could not be finished.",
        _one(lambda snapshot: snapshot.totals.tick_failures),
    ),
    Family(
        "autoscaler_tick_duration_seconds", "histogram", (),
        "How long ticks took.",
        _one(lambda snapshot: snapshot.totals.ticks),
    ),
    Family(
        "autoscaler_tick_lateness_seconds", "gauge", (),
        "How much later than its interval asked for the last tick began.",
        _one(lambda snapshot: snapshot.tick.lateness_seconds if snapshot.tick else None),
    ),
    Family(
        "autoscaler_tick_interval_seconds", "gauge", (),
        "The interval ticks are meant to have.",
        _one(lambda snapshot: snapshot.interval_seconds),
    ),
    Family(
        "autoscaler_last_success_timestamp_seconds", "gauge", (),
        "When a tick last finished, in seconds since the epoch.",
        _one(lambda snapshot: snapshot.last_success_at),
    ),
    Family(
        "autoscaler_policy_reload_success", "gauge", (),
        "1 if the policy files were good when last read, 0 if the earlier ones run on.",
        _one(lambda snapshot: snapshot.reload.ok if snapshot.reload else None),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_policy_reload_timestamp_seconds", "gauge", (),
        "When the policy files were last read, in seconds since the epoch.",
        _one(lambda snapshot: snapshot.reload.at if snapshot.reload else None),
    ),
    Family(
        "autoscaler_libvirt_connected", "gauge", ("host",),
        "1 while the host's libvirt answers.",
        _host(lambda status: status.connected),
        unit="0 or 1",
    ),
    Family(
        "autoscaler_host_cpus", "gauge", ("host",),
        "Logical processors of the host.",
        _host_sample(lambda sample: sample.cpu_count),
        unit="processors",
    ),
    Family(
        "autoscaler_host_cpu_busy_ratio", "gauge", ("host",),
        "Share of all the host's processors' time that was not idle.",
        _host_sample(lambda sample: sample.cpu_busy_share),
    ),
    Family(
        "autoscaler_host_load1", "gauge", ("host",),
        "The host's load average over one minute.",
        _host_sample(lambda sample: sample.load_1m),
        unit="processes",
    ),
    Family(
        "autoscaler_host_memory_total_bytes", "gauge", ("host",),
        "Memory of the host.",
        _host_sample(lambda sample: sample.memory_total_bytes),
    ),
    Family(
        "autoscaler_host_memory_available_bytes", "gauge", ("host",),
        "Memory the host can still give without swapping.",
        _host_sample(lambda sample: sample.memory_available_bytes),
    ),
    Family(
        "autoscaler_host_pressure_ratio", "gauge", ("host", "resource"),
        "Share of the last 10 s in which something on the host waited for the resource (kernel PSI).",
        _pressure,
        choices=3,
    ),
    *ROOM,
    *TRAFFIC,
    Family(
        "autoscaler_webhook_deliveries_total", "counter", ("result",),
        "What became of webhooks: delivered, given_up or dropped, and each attempt that is to be retried.",
        lambda snapshot: (((result,), count) for result, count in snapshot.webhooks.items()),
        choices=4,
    ),
)  # fmt: skip
