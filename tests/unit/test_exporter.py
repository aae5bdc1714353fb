import subprocess
from dataclasses import replace

import pytest
from prometheus_client import generate_latest
from prometheus_client.exposition import choose_encoder

from autoscaler.core.capacity import Resource
from autoscaler.core.decision import Reason, ReasonCode
from autoscaler.core.observation import HostSample, Slot, SlotState, TrafficView
from autoscaler.core.policy import TrafficKind
from autoscaler.core.snapshot import Snapshot, TrafficStatus
from autoscaler.core.traffic import Service
from autoscaler.exporter.collector import make_registry
from autoscaler.exporter.families import FAMILIES
from autoscaler.exporter.family import series_per_entity
from benchmarks.scrape import make_snapshot
from deploy.prometheus.page import ENTITIES, PAGE, render
from tests.samples import DB, NOW, SNAPSHOT, WEB

SLOTS = (
    Slot("web1", "192.0.2.1", 80, SlotState.READY, sessions=3, healthy=True),
    Slot("web2", "192.0.2.2", 80, SlotState.READY, sessions=1, healthy=False),
    Slot("web3", "192.0.2.3", 80, SlotState.DRAIN, sessions=2),
    Slot("web4", "192.0.2.4", 80, SlotState.MAINT),
)
VIEW = TrafficView(NOW, NOW - 10, SLOTS, queue=5, response_seconds=0.25)
BALANCED = replace(WEB, traffic=TrafficStatus(TrafficKind.HAPROXY, (Service("web-1", "local", "192.0.2.1", 80),), VIEW))
FULL = replace(
    SNAPSHOT,
    hosts=(
        replace(SNAPSHOT.hosts[0], sample=HostSample("local", 2, 0.5, 1.0, 2, 1, 0.1, 0.2, 0.3)),
        *SNAPSHOT.hosts[1:],
    ),
    groups=(BALANCED, *SNAPSHOT.groups[1:]),
)
"""With a sample of every family."""


def series(snapshot: Snapshot | None) -> dict[str, float]:
    text = generate_latest(make_registry(lambda: snapshot)).decode()
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def test_promtool_finds_nothing_to_say() -> None:
    text = generate_latest(make_registry(lambda: FULL))
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ('autoscaler_build_info{controller="11111111-2222-3333-4444-555555555555",version="0.1.0"}', 1),
        ('autoscaler_group_size_min{group="web"}', 1),
        ('autoscaler_group_size_max{group="web"}', 4),
        ('autoscaler_group_size_recommended{group="web"}', 5),
        ('autoscaler_group_size_desired{group="web"}', 4),
        ('autoscaler_group_size_admitted{group="web"}', 4),
        ('autoscaler_admission_refused{group="db",resource="addresses"}', 0),
        ('autoscaler_group_managed{group="old"}', 0),
        ('autoscaler_group_paused{group="db"}', 1),
        ('autoscaler_group_shadow{group="db"}', 1),
        ('autoscaler_group_shadow{group="web"}', 0),
        ('autoscaler_group_instances{group="web",state="ready"}', 2),
        ('autoscaler_group_instances{group="web",state="failed"}', 0),
        ('autoscaler_instance_load_ratio{group="web",instance="web-1"}', 0.91),
        ('autoscaler_group_load_ratio{group="web",metric="guest.cpu"}', 0.897),
        ('autoscaler_group_load_target_ratio{group="db",metric="guest.cpu"}', 0.5),
        ('autoscaler_group_load_age_seconds{group="web",metric="guest.cpu"}', 2),
        ('autoscaler_decisions_total{group="web",reason="target_exceeded"}', 3),
        ('autoscaler_action_failures_total{group="web",kind="no_space"}', 2),
        ('autoscaler_action_failures_total{group="web",kind="denied"}', 0),
        ('autoscaler_clone_duration_seconds_bucket{group="web",le="1.0"}', 1),
        ('autoscaler_clone_duration_seconds_bucket{group="web",le="+Inf"}', 2),
        ('autoscaler_clone_duration_seconds_sum{group="web"}', 2.0),
        ('autoscaler_launch_duration_seconds_count{group="web"}', 1),
        ('autoscaler_webhook_deliveries_total{result="delivered"}', 3),
        ("autoscaler_ticks_total", 2),
        ("autoscaler_tick_failures_total", 1),
        ("autoscaler_tick_lateness_seconds", 0.002),
        ("autoscaler_last_success_timestamp_seconds", NOW + 0.21),
        ("autoscaler_policy_reload_success", 0),
        ("autoscaler_policy_reload_timestamp_seconds", NOW - 60),
        ('autoscaler_libvirt_connected{host="far"}', 0),
        ('autoscaler_host_cpu_busy_ratio{host="local"}', 0.75),
        ('autoscaler_host_memory_available_bytes{host="local"}', 5 << 30),
        ('autoscaler_host_pressure_ratio{host="local",resource="cpu"}', 0.12),
        ('autoscaler_group_reason{group="web",reason="scale_out_limited_by_max"}', 1),
        ('autoscaler_group_reason{group="db",reason="no_signal"}', 1),
        ('autoscaler_group_starved{group="web"}', 0),
        ('autoscaler_scalings_total{direction="out",group="web"}', 3),
        (
            'autoscaler_last_scaling_timestamp_seconds{direction="out",group="web",reason="scale_out_limited_by_max"}',
            NOW - 10,
        ),
        ('autoscaler_launch_failures_total{group="web"}', 2),
        ('autoscaler_group_fitting{group="web",host="local"}', 1),
        ('autoscaler_host_memory_committed_bytes{host="local"}', 4520 << 20),
        ('autoscaler_host_memory_reserved_bytes{host="local"}', 1 << 30),
        ('autoscaler_host_memory_pending_bytes{host="local"}', 1162 << 20),
        ('autoscaler_host_swap_used_bytes{host="local"}', 300 << 20),
        ('autoscaler_host_vcpus_limit{host="local"}', 32),
        ('autoscaler_host_vcpus_committed{host="local"}', 6),
        ('autoscaler_pool_capacity_bytes{host="local",pool="default"}', 40 << 30),
        ('autoscaler_pool_used_bytes{host="local",pool="default"}', 10 << 30),
        ('autoscaler_pool_growth_bytes{host="local",pool="default"}', 29 << 30),
        ('autoscaler_pool_committed_bytes{host="local",pool="default"}', 30208 << 20),
        ('autoscaler_pool_reserved_bytes{host="local",pool="default"}', 0),
        ('autoscaler_network_addresses{host="local",network="default"}', 253),
        ('autoscaler_network_addresses_committed{host="local",network="default"}', 5),
        ('autoscaler_traffic_connected{group="web"}', 1),
        ('autoscaler_traffic_wanted{group="web"}', 1),
        ('autoscaler_traffic_slots{group="web",state="serving"}', 1),
        ('autoscaler_traffic_slots{group="web",state="down"}', 1),
        ('autoscaler_traffic_slots{group="web",state="drain"}', 1),
        ('autoscaler_traffic_slots{group="web",state="maint"}', 1),
        ('autoscaler_traffic_sessions{group="web"}', 6),
        ('autoscaler_traffic_queue{group="web"}', 5),
        ('autoscaler_traffic_response_seconds{group="web"}', 0.25),
    ],
)
def test_a_snapshot_is_told(name: str, value: float) -> None:
    assert series(replace(SNAPSHOT, groups=FULL.groups))[name] == pytest.approx(value)


@pytest.mark.parametrize(
    ("view", "why", "connected"), [(None, None, None), (None, "no such file", 0.0), (TrafficView(NOW, NOW), None, 1.0)]
)
def test_a_balancer_that_tells_nothing_has_no_figures(
    view: TrafficView | None, why: str | None, connected: float | None
) -> None:
    traffic = TrafficStatus(TrafficKind.FILE, (), view, why)
    told = series(replace(SNAPSHOT, groups=(replace(WEB, traffic=traffic),)))
    assert told.get('autoscaler_traffic_connected{group="web"}') == connected
    assert not [name for name in told if name.startswith(("autoscaler_traffic_sessions", "autoscaler_traffic_queue"))]


@pytest.mark.parametrize(
    "code", [ReasonCode.STARVED, ReasonCode.HELD_BY_STARVED_GUESTS, ReasonCode.ACTS_THOUGH_STARVED]
)
def test_a_starved_group_is_told(code: ReasonCode) -> None:
    assert DB.decision is not None
    starved = replace(DB, decision=replace(DB.decision, reasons=(Reason(code),)))
    assert series(replace(SNAPSHOT, groups=(starved,)))['autoscaler_group_starved{group="db"}'] == 1


def test_a_refusal_is_told_by_its_resource() -> None:
    assert DB.decision is not None
    refusal = Reason(ReasonCode.REFUSED_FOR_POOL_SPACE, {"refused": 3, "host": "local", "name": "default"})
    refused = replace(DB, decision=replace(DB.decision, reasons=(refusal,)))
    told = series(replace(SNAPSHOT, groups=(refused,)))
    assert told['autoscaler_admission_refused{group="db",resource="pool_space"}'] == 3
    assert told['autoscaler_admission_refused{group="db",resource="memory"}'] == 0


@pytest.mark.parametrize(
    "beginning",
    [
        'autoscaler_group_load_ratio{group="db"',
        'autoscaler_group_load_age_seconds{group="db"',
        'autoscaler_group_size_min{group="old"',
        'autoscaler_group_size_admitted{group="old"',
        'autoscaler_instance_load_ratio{group="web",instance="web-3"',
        'autoscaler_host_cpu_busy_ratio{host="far"',
        'autoscaler_host_pressure_ratio{host="local",resource="io"',
    ],
)
def test_what_is_not_known_has_no_sample(beginning: str) -> None:
    assert not [name for name in series(SNAPSHOT) if name.startswith(beginning)]


def test_instances_that_cannot_be_listed_are_not_none() -> None:
    assert DB.decision is not None
    held = Reason(ReasonCode.HELD_BY_UNKNOWN_INVENTORY, {"host": "local", "why": "the connection was refused"})
    unlisted = replace(DB, instances=(), decision=replace(DB.decision, reasons=(held,)))
    told = series(replace(SNAPSHOT, groups=(unlisted,)))
    assert not [name for name in told if name.startswith("autoscaler_group_instances")]


def test_a_removed_instance_leaves_no_series() -> None:
    assert [name for name in series(SNAPSHOT) if "web-1" in name]
    without = replace(SNAPSHOT, groups=(replace(WEB, instances=WEB.instances[1:]),))
    assert not [name for name in series(without) if "web-1" in name]


def test_nothing_before_the_first_tick() -> None:
    assert series(None) == {}
    bare = Snapshot("0.1.0", "c", NOW, NOW, 10.0)
    assert "autoscaler_tick_lateness_seconds" not in series(bare)


def test_openmetrics_has_it_too() -> None:
    encoder, _ = choose_encoder("application/openmetrics-text;version=1.0.0")
    text = encoder(make_registry(lambda: SNAPSHOT)).decode()
    assert 'autoscaler_group_size_admitted{group="web"} 4.0' in text
    assert text.endswith("# EOF\n")


def test_every_family_has_a_sample_when_everything_is_known() -> None:
    assert [family.name for family in FAMILIES if not list(family.samples(FULL))] == []


def test_the_page_is_what_the_code_gives() -> None:
    assert PAGE.read_text() == render(), "run `make generate`"


def test_every_family_tells_its_unit_and_its_name_once() -> None:
    assert all(family.measured_in for family in FAMILIES)
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert {family.per for family in FAMILIES} <= set(ENTITIES)


@pytest.mark.parametrize("snapshot", [FULL, make_snapshot(200), make_snapshot(2000)])
def test_there_are_no_more_series_than_the_page_says(snapshot: Snapshot) -> None:
    accounts = [account.key for room in snapshot.room for account in room.ledger.accounts]
    counts = {
        "": 1,
        "group": len({status.group for status in snapshot.groups} | {*snapshot.totals.groups}),
        "instance": sum(len(status.instances) for status in snapshot.groups),
        "metric": sum(len(status.decision.inputs) for status in snapshot.groups if status.decision),
        "host": len(snapshot.hosts),
        "pool": sum(key.resource is Resource.POOL_SPACE for key in accounts),
        "network": sum(key.resource is Resource.ADDRESSES for key in accounts),
        "image": len(snapshot.images),
    }
    collected = {metric.name: metric for metric in make_registry(lambda: snapshot).collect()}
    for family in FAMILIES:
        metric = collected[family.name.removesuffix("_total") if family.kind == "counter" else family.name]
        assert len(metric.samples) <= family.series * counts[family.per], family.name
    most = sum(counts[entity] * bound for entity, bound in series_per_entity(FAMILIES).items())
    assert len(series(snapshot)) <= most


def test_two_thousand_instances_stay_below_a_megabyte() -> None:
    snapshot = make_snapshot(2000)
    assert sum(len(status.instances) for status in snapshot.groups) == 2000
    assert len(generate_latest(make_registry(lambda: snapshot))) < 1_000_000
