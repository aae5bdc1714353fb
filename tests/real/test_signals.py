"""A whole daemon that scales real guests by what a real Prometheus says, and what people then see of it."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.codec import decode
from autoscaler.core.decision import ReasonCode
from autoscaler.core.snapshot import Snapshot
from autoscaler.store import Event, History
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, group_of
from tests.support.http_answers import Answers
from tests.support.prometheus import Prometheus

pytestmark = [pytest.mark.real, pytest.mark.timeout(480)]

QUERY = "sum(queue_jobs_waiting)"


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    yield process
    process.close()


def queue_of(server: Answers, jobs: int) -> None:
    server.body = f"# TYPE queue_jobs_waiting gauge\nqueue_jobs_waiting {jobs}\n".encode()


def codes(snapshot: Snapshot) -> set[ReasonCode]:
    decision = group_of(snapshot).decision
    return set() if decision is None else {wish.reason.code for wish in decision.recommendations}


def test_scales_by_a_queue_and_holds_when_its_figures_end(daemon: DaemonProcess) -> None:
    with Answers() as workload:
        workload.headers = {"Content-Type": "text/plain; version=0.0.4"}
        queue_of(workload, 5)
        with Prometheus(daemon.directory / "prometheus", workload.port) as prometheus:
            prometheus.until(QUERY, 5.0)
            daemon.configure(prometheus={"url": prometheus.url, "timeout": "2s"})
            signal = {"metric": "prometheus", "query": QUERY}
            daemon.write_policy(
                size={"min": 0, "max": 3},
                scaling=[
                    {"type": "target_tracking", **signal, "per_instance": True, "target": 10, "over": "3s"},
                    {
                        "type": "step",
                        **signal,
                        "over": "1s",
                        "take": "last",
                        "steps": [{"from": 1, "exact": 1}, {"to": 1, "exact": 0}],
                    },
                ],
            )
            daemon.start()
            daemon.until_ready(1)
            queue_of(workload, 27)
            daemon.until_ready(3)
            queue_of(workload, 0)
            daemon.until_ready(0)
            queue_of(workload, 8)
            daemon.until_ready(1)
            _is_seen(daemon)
        # Prometheus is gone: what it said last holds for a while, then nothing is known.
        daemon.until(lambda snapshot: codes(snapshot) == {ReasonCode.NO_SIGNAL}, 60, "no signal")
        said = daemon.run("explain", "web")
        assert "it could not be read: the last figure is" in said.stdout
        assert f"{prometheus.url} does not answer" in said.stdout
        daemon.until_tick(12)
        assert len(group_of(daemon.snapshot()).instances) == 1
    lost = [event for event in _events(daemon) if event.kind == "no_figure"]
    assert lost
    assert f"prometheus {QUERY}" in {event.detail["query"] for event in lost}
    assert daemon.stop() == 0


def _events(daemon: DaemonProcess, *arguments: str) -> tuple[Event, ...]:
    result = daemon.run("events", "--json", *arguments)
    assert result.returncode == 0, result.stderr
    return decode(json.loads(result.stdout), tuple[Event, ...])


def _is_seen(daemon: DaemonProcess) -> None:
    assert daemon.run("scale", "web", "1", "--for", "1m").returncode == 0
    assert daemon.run("scale", "web", "auto").returncode == 0
    assert daemon.run("reload").returncode == 0
    (daemon.policies / "broken.yaml").write_text("version: 2\n")
    assert daemon.run("reload").returncode == 1
    (daemon.policies / "broken.yaml").unlink()
    events = _events(daemon)
    kinds = [event.kind for event in events]
    assert {"request", "reload", "reload_refused", "scaled"} <= set(kinds)
    counts = [event.detail["admitted"] for event in events if event.kind == "scaled" and event.group == "web"]
    assert counts[-2:] == [0, 1]
    assert max(int(count) for count in counts) == 3
    lines = daemon.run("events", "--group", "web", "--since", "10m").stdout
    assert "web: scaled from 0 to 1" in lines
    assert "web: held at 1 for 1 min, asked by root (uid 0" in lines
    assert "policies" not in lines
    history = decode(json.loads(daemon.run("history", "web", "--json").stdout), History)
    assert {"prometheus " + QUERY} <= set(history.loads)
    assert {decision.admitted for decision in history.decisions} >= {0, 1, 3}
    drawn = daemon.run("history", "web", "--since", "10m").stdout
    assert re.search(rf"^prometheus {re.escape(QUERY)}, the highest in each \d+ s$", drawn, re.MULTILINE)
    assert "█" in drawn


def test_scales_by_what_guests_say_of_their_memory(daemon: DaemonProcess) -> None:
    daemon.write_policy(
        size={"min": 1, "max": 2},
        scaling=[{"type": "threshold", "metric": "guest.memory", "above": "1%", "for": "0s"}],
    )
    daemon.start()
    daemon.until_ready(2)
    decision = daemon.explain()
    (seen,) = decision.inputs
    assert seen.latest is not None
    # A guest of 192 MiB with kernel, busybox and the agent: neither empty nor full.
    assert 0.05 < seen.latest < 0.95
    began = time.monotonic()
    assert daemon.run("explain", "web").stdout.count("guest.memory") >= 2
    assert time.monotonic() - began < 10
