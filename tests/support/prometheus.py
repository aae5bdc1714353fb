"""A real Prometheus that scrapes one port of this machine every second."""

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.daemon import free_port

CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: autoscaler
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


DISCOVERING = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: web
    http_sd_configs: [{{url: "http://127.0.0.1:{port}/sd/web", refresh_interval: 1s}}]
"""


_RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
WITH_RULES = f"""
global: {{{{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}}}
rule_files: ["{_RULES}/recording.yml", "{_RULES}/alerts.yml"]
scrape_configs:
  - job_name: autoscaler
    static_configs: [{{{{targets: ["127.0.0.1:{{port}}"]}}}}]
"""


class Prometheus:
    """Runs while the context is open; `inside` is put before its command."""

    configuration = CONFIGURATION

    def __init__(self, directory: Path, port: int, *options: str, inside: Sequence[str] = ()) -> None:
        program = shutil.which("prometheus")
        assert program is not None, "prometheus is not installed; `apt-get install prometheus`"
        directory.mkdir()
        (directory / "prometheus.yml").write_text(self.configuration.format(port=port))
        self._log = directory / "log"
        self._address = f"127.0.0.1:{free_port()}"
        self._inside = list(inside)
        self._command = [
            *inside,
            program,
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={self._address}",
            *options,
        ]

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)

    @property
    def url(self) -> str:
        return f"http://{self._address}"

    def query(self, expression: str) -> float | None:
        """Ask in PromQL; gives one number, or None while there is none."""
        assert self._process.poll() is None, self._log.read_text()
        url = f"http://{self._address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                results = json.load(response)["data"]["result"]
        except OSError:  # not listening yet
            return None
        return float(results[0]["value"][1]) if results else None

    def get(self, path: str, **given: str) -> Any:
        """Ask its API, from where it runs; gives the data of the answer."""
        assert self._process.poll() is None, self._log.read_text()
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(given)}"
        asked = subprocess.run(
            [*self._inside, "wget", "-q", "-O", "-", "-T", "10", url], capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, f"{path} {given}: {asked.stderr}"
        return json.loads(asked.stdout)["data"]

    def at(self, expression: str, time: float) -> list[tuple[dict[str, str], float]]:
        """Evaluate at one moment: labels and value of each series."""
        result = self.get("query", query=expression, time=f"{time:.3f}")["result"]
        return [(series["metric"], float(series["value"][1])) for series in result]

    def over(self, expression: str, start: float, end: float) -> list[tuple[dict[str, str], list[float]]]:
        """Evaluate each second of a time: labels and values of each series."""
        span = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": "1"}
        result = self.get("query_range", query=expression, **span)["result"]
        return [(series["metric"], [float(value) for _, value in series["values"]]) for series in result]

    def until(self, expression: str, value: float, seconds: float = 40.0) -> None:
        """Wait until it answers with this value."""
        deadline = time.monotonic() + seconds
        answer = None
        while time.monotonic() < deadline:
            answer = self.query(expression)
            if answer == value:
                return
            time.sleep(0.2)
        raise AssertionError(f"Prometheus says {answer} to {expression}, not {value}, for {seconds:g} s")


class PrometheusWithRules(Prometheus):
    """Evaluates the rules of this project, too."""

    configuration = WITH_RULES


class DiscoveringPrometheus(Prometheus):
    """Finds what it scrapes by asking the daemon; it may run in a network namespace, and is asked from there."""

    configuration = DISCOVERING

    def targets(self) -> set[str]:
        """Give the addresses of all it scrapes now."""
        assert self._process.poll() is None, self._log.read_text()
        url = f"http://{self._address}/api/v1/targets?state=active"
        asked = subprocess.run(
            [*self._inside, "wget", "-q", "-O", "-", "-T", "5", url], capture_output=True, text=True, check=False
        )
        if asked.returncode != 0:  # not listening yet
            return set()
        active = json.loads(asked.stdout)["data"]["activeTargets"]
        return {target["discoveredLabels"]["__address__"].rpartition(":")[0] for target in active}
