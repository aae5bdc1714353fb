"""A real Prometheus scrapes the daemon's web server and answers for what it was told."""

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoscaler.exporter.collector import make_registry
from autoscaler.web.server import WebServer
from tests.samples import SNAPSHOT

PROMETHEUS = shutil.which("prometheus")

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: autoscaler
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""

Query = Callable[[str], float | None]

pytestmark = pytest.mark.real


def free_port() -> int:
    """Return a port that was free a moment ago; Prometheus cannot be asked which it chose."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer("127.0.0.1", 0, lambda: SNAPSHOT, make_registry(lambda: SNAPSHOT))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def query(web: WebServer, tmp_path: Path) -> Iterator[Query]:
    """A running Prometheus that scrapes `web`: asked in PromQL, it answers with one number, or None so far."""
    assert PROMETHEUS is not None, "prometheus is not installed; `apt-get install prometheus`"
    (tmp_path / "prometheus.yml").write_text(CONFIGURATION.format(port=web.port))
    address = f"127.0.0.1:{free_port()}"
    command = [
        PROMETHEUS,
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def query(expression: str) -> float | None:
        assert process.poll() is None, (tmp_path / "log").read_text()
        url = f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                results = json.load(response)["data"]["result"]
        except OSError:  # not listening yet
            return None
        return float(results[0]["value"][1]) if results else None

    yield query
    process.terminate()
    process.wait(timeout=20)


def answered(query: Query, expression: str) -> float:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        value = query(expression)
        if value is not None:
            return value
        time.sleep(0.2)
    pytest.fail(f"Prometheus gave no answer to {expression}")


def test_prometheus_answers_for_the_groups_size(query: Query) -> None:
    assert answered(query, 'autoscaler_group_size_admitted{group="web"}') == 4
    assert answered(query, 'autoscaler_group_instances{group="web",state="ready"}') == 2
    assert answered(query, 'up{job="autoscaler"}') == 1
    assert answered(query, 'histogram_quantile(0.5, autoscaler_clone_duration_seconds_bucket{group="web"})') > 0
