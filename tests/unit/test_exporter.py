import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.exposition import choose_encoder

from autoscaler.core.decision import Reason, ReasonCode
from autoscaler.core.observation import HostSample
from autoscaler.core.snapshot import Snapshot
from autoscaler.exporter.collector import make_registry
from autoscaler.exporter.families import FAMILIES
from tests.samples import DB, NOW, SNAPSHOT, WEB

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def series(snapshot: Snapshot | None) -> dict[str, float]:
    text = generate_latest(make_registry(lambda: snapshot)).decode()
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def test_promtool_finds_nothing_to_say() -> None:
    text = generate_latest(make_registry(lambda: SNAPSHOT))
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
    ],
)
def test_a_snapshot_is_told(name: str, value: float) -> None:
    assert series(SNAPSHOT)[name] == pytest.approx(value)


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
    sample = HostSample("local", 2, 0.5, 1.0, 2, 1, 0.1, 0.2, 0.3)
    known = replace(SNAPSHOT, hosts=(replace(SNAPSHOT.hosts[0], sample=sample),))
    assert [family.name for family in FAMILIES if not list(family.samples(known))] == []


def test_the_document_has_the_same_table() -> None:
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels) or '-'} "
        f"| {family.meaning} |"
        for family in FAMILIES
    ]
    written = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert written == rows
