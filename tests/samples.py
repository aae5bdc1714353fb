"""A snapshot with something of everything, for tests of what renders snapshots."""

from dataclasses import replace

from autoscaler.core.capacity import AVAILABLE, Account, Key, Ledger, Resource
from autoscaler.core.decision import Decision, Input, Parameter, Reason, ReasonCode, Recommendation
from autoscaler.core.memory import Override
from autoscaler.core.observation import Consumer, HostSample, Slot, SlotState, TrafficView
from autoscaler.core.policy import Mode, Size, TrafficKind
from autoscaler.core.snapshot import (
    Durations,
    GroupRoom,
    GroupStatus,
    GroupTotals,
    HostRoom,
    HostStatus,
    ImageLaunches,
    InstanceStatus,
    Portion,
    ReloadStatus,
    Scaling,
    Snapshot,
    TickStatus,
    Totals,
    TrafficStatus,
)
from autoscaler.core.traffic import Service
from autoscaler.core.transition import InstanceState, TransitionReason
from autoscaler.store import Event, History, Rollup

NOW = 1_700_000_000.0
"""2023-11-14T22:13:20Z"""

LOAD: dict[str, Parameter] = {"metric": "guest.cpu", "load": 0.897, "target": 0.6, "count": 5}

SCALING_OUT = Decision(
    group="web",
    at=NOW,
    current=2,
    inputs=(
        Input(
            "guest.cpu", 0.897, 0.95, 2.0, 0.6, measured=2, warming=1, missing=0, window_seconds=60.0, window_full=True
        ),
    ),
    recommendations=(Recommendation("target_tracking guest.cpu", 5, Reason(ReasonCode.TARGET_EXCEEDED, LOAD)),),
    recommended=5,
    desired=4,
    admitted=4,
    reasons=(Reason(ReasonCode.SCALE_OUT_LIMITED_BY_MAX, {"max": 4, "wanted": 5}),),
)

STEADY = Decision(
    group="db",
    at=NOW,
    current=2,
    inputs=(
        Input(
            "guest.cpu",
            None,
            None,
            None,
            0.5,
            measured=0,
            warming=1,
            missing=1,
            window_seconds=300.0,
            window_full=False,
        ),
    ),
    recommendations=(
        Recommendation("target_tracking guest.cpu", None, Reason(ReasonCode.NO_SIGNAL, {"metric": "guest.cpu"})),
    ),
    recommended=2,
    desired=2,
    admitted=2,
    reasons=(),
)

WEB = GroupStatus(
    "web",
    Mode.ACTIVE,
    Size(1, 4),
    paused=False,
    override=None,
    decision=SCALING_OUT,
    instances=(
        InstanceStatus("web-1", "local", InstanceState.READY, NOW - 7500, load=0.91),
        InstanceStatus(
            "web-2",
            "local",
            InstanceState.READY,
            NOW - 90,
            load=0.88,
            reason=TransitionReason.RECOVERED,
            protected_until=NOW + 7200,
        ),
        InstanceStatus("web-3", "local", InstanceState.BOOTING, NOW - 4),
        InstanceStatus("web-4", "local", InstanceState.CLONING, NOW - 1, detail="create_overlay"),
    ),
)
TRAFFIC = TrafficStatus(
    TrafficKind.HAPROXY,
    (
        Service("web-1", "local", "192.0.2.1", 80),
        Service("web-2", "local", "192.0.2.2", 80, SlotState.DRAIN),
        Service("web-3", "local", "192.0.2.3", 80),
    ),
    TrafficView(
        NOW - 2,
        NOW - 3,
        (
            Slot("web1", "192.0.2.1", 80, SlotState.READY, 100, 100, 7, healthy=True),
            Slot("web2", "192.0.2.2", 80, SlotState.DRAIN, 100, 100, 1, healthy=True),
            Slot("web3", "192.0.2.9", 80, SlotState.READY, 10, 100, 0, healthy=False),
        ),
        queue=3,
    ),
)
DB = GroupStatus(
    "db",
    Mode.SHADOW,
    Size(2, 2),
    paused=True,
    override=Override(2, NOW + 1800, "alice (uid 1000, pid 4242)"),
    decision=STEADY,
    instances=(InstanceStatus("db-1", "local", InstanceState.FAILED, NOW - 30, detail="crashed"),),
    breaker_open=True,
)
OLD = GroupStatus(
    "old",
    mode=None,
    size=None,
    paused=False,
    override=None,
    decision=None,
    instances=(InstanceStatus("old-1", "far", InstanceState.READY, NOW - 86400 * 3, load=0.01),),
)

_WEB_NEED = (
    Portion(Key(Resource.MEMORY), 1162 * 2**20),
    Portion(Key(Resource.VCPUS), 1),
    Portion(Key(Resource.POOL_SPACE, "default"), 10 * 2**30),
    Portion(Key(Resource.ADDRESSES, "default"), 1),
)
ROOM = HostRoom(
    Ledger(
        "local",
        (
            Account(Key(Resource.MEMORY), 8 << 30, 1 << 30, 4520 * 2**20, 3 << 30),
            Account(Key(Resource.MEMORY, AVAILABLE), 5 << 30, 1 << 30, 1162 * 2**20),
            Account(Key(Resource.HUGEPAGES), 0, 0, 0, 0),
            Account(Key(Resource.VCPUS), 32, 0, 6, 2),
            Account(Key(Resource.POOL_SPACE, "default"), 40 << 30, 0, 30208 * 2**20, 10 << 30),
            Account(Key(Resource.ADDRESSES, "default"), 253, 0, 5, 4),
        ),
    ),
    3 << 30,
    (GroupRoom("db", 1, 2, _WEB_NEED[:2]), GroupRoom("web", 4, 4, _WEB_NEED)),
    (Consumer("ffmpeg", 4242, 0.93), Consumer("web-1", 77, 0.52, guest=True)),
    4 << 30,
    300 << 20,
    {"default": 29 << 30},
)

SNAPSHOT = Snapshot(
    version="0.1.0",
    controller="11111111-2222-3333-4444-555555555555",
    started_at=NOW - 7600,
    at=NOW,
    interval_seconds=10.0,
    tick=TickStatus(760, NOW, 0.21, 0.002),
    last_success_at=NOW + 0.21,
    reload=ReloadStatus(ok=False, at=NOW - 60, error='web.yaml:3:1: unknown key "szie"; did you mean "size"?'),
    hosts=(
        HostStatus("local", True, None, HostSample("local", 2, 0.75, 1.5, 8 << 30, 5 << 30, psi_cpu_share=0.12)),
        HostStatus("far", False, "the connection was refused", None),
    ),
    groups=(WEB, DB, OLD),
    images=(ImageLaunches("default/golden.qcow2", 12, 5.5, 31.0),),
    totals=Totals(
        groups={
            "web": GroupTotals(
                reasons={"target_exceeded": 3, "scale_out_limited_by_max": 1},
                failures={"no_space": 2},
                clones=Durations().add(0.6).add(1.4),
                launches=Durations().add(5.5),
                transitions={"ready": 2},
                failed_launches=2,
                scalings={"out": 3, "in": 1},
                scaled=Scaling(NOW - 10, 2, 4, ReasonCode.SCALE_OUT_LIMITED_BY_MAX),
                admitted=4,
            )
        },
        ticks=Durations().add(0.21).add(0.19),
        tick_failures=1,
    ),
    room=(ROOM,),
    webhooks={"delivered": 3, "retried": 2, "given_up": 0, "dropped": 0},
)

BOB = "bob (uid 1000, pid 4242)"
EVENTS = (
    Event(1, NOW - 3600, "reload", None, None, {"by": BOB, "policies": 2}),
    Event(2, NOW - 900, "request", "web", None, {"change": "scale", "by": BOB, "count": 3, "for_seconds": 3600.0}),
    Event(
        3,
        NOW - 890,
        "scaled",
        "web",
        None,
        {"before": 1, "admitted": 3, "recommended": 1, "reasons": "held_by_operator shadow"},
    ),
    Event(4, NOW - 600, "request", "web", None, {"change": "auto", "by": BOB}),
    Event(5, NOW - 500, "instance", "web", "web-2", {"before": "booting", "after": "ready", "reason": "became_ready"}),
    Event(6, NOW - 450, "instance", "web", "web-3", {"before": "", "after": "requested", "reason": "requested"}),
    Event(
        7, NOW - 440, "instance", "web", "web-3", {"before": "ready", "after": "ready", "reason": "paused_by_somebody"}
    ),
    Event(8, NOW - 430, "request", "web", "web-3", {"change": "protect", "by": BOB}),
    Event(9, NOW - 430, "request", "web", None, {"change": "juggle", "by": BOB}),
    Event(10, NOW - 400, "request", "db", None, {"change": "pause", "by": BOB}),
    Event(11, NOW - 390, "request", "db", None, {"change": "resume", "by": BOB}),
    Event(12, NOW - 300, "host_unreachable", None, None, {"host": "far", "why": "the connection was refused"}),
    Event(13, NOW - 290, "host_answers", None, None, {"host": "far"}),
    Event(14, NOW - 200, "no_figure", None, None, {"query": "prometheus sum(queue)", "why": "the query gives nothing"}),
    Event(15, NOW - 190, "figure", None, None, {"query": "prometheus sum(queue)"}),
    Event(16, NOW - 90, "reload_refused", None, None, {"by": BOB, "error": "web.yaml:3:1: unknown key\nsecond"}),
    Event(17, NOW - 80, "policy_vanished", "old", None, {}),
    Event(18, NOW - 79, "request", "web", None, {"change": "refresh", "by": BOB}),
    Event(19, NOW - 78, "request", "web", None, {"change": "roll_back", "by": BOB}),
    Event(20, NOW - 77, "request", "web", None, {"change": "cancel_refresh", "by": BOB}),
    Event(
        21,
        NOW - 76,
        "refresh",
        "web",
        None,
        {"phase": "done", "target": "default/v2.qcow2", "batch": 2, "why": "refreshed to default/v2.qcow2"},
    ),
    Event(22, NOW - 75, "image_imported", None, None, {"image": "web", "version": 2, "host": "local", "by": BOB}),
    Event(23, NOW - 74, "image_published", None, None, {"image": "web", "version": 2, "by": BOB}),
    Event(24, NOW - 73, "image_rolled_back", None, None, {"image": "web", "version": 1, "by": BOB}),
    Event(25, NOW - 72, "image_pruned", None, None, {"image": "web", "version": 2, "host": "local", "by": BOB}),
    Event(26, NOW - 71, "image_changed", "web", None, {"image": "p/golden.qcow2", "why": "alarm: it was changed"}),
    Event(27, NOW - 70, "of_tomorrow", "web", None, {"depth": 4, "what": "new"}),
    Event(28, NOW - 60, "of_tomorrow", None, None, {}),
)
HISTORY = History(
    "web",
    NOW - 3600,
    NOW,
    (
        replace(STEADY, group="web", at=NOW - 3000, current=2, admitted=2),
        replace(SCALING_OUT, at=NOW - 1200),
        replace(SCALING_OUT, at=NOW - 300, current=4, admitted=4, recommended=4, desired=4),
    ),
    {
        "guest.cpu": tuple(
            Rollup(int(NOW // 60 * 60) - 60 * back, 6, 0.9 - back / 100, 0.1, 0.95 - back / 100, 2 if back > 20 else 4)
            for back in range(50, -1, -1)
            if not 30 <= back < 33
        ),
        'prometheus sum by (queue) (rate(queue_jobs_arrived_total{queue="mail", site="north"}[5m]))': tuple(
            Rollup(int(NOW // 60 * 60) - 60 * back, 6, 100.0, 0.0, 1234.5 if back == 7 else 80.0, 4)
            for back in range(50)
        )[::-1],
    },
    60,
)
