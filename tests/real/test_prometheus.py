"""Queries against a real Prometheus that scrapes itself, plain and over TLS."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoscaler.core.observation import ExternalSample, Unknown
from autoscaler.external import prometheus
from autoscaler.external.prometheus import Queries, Query, QueryError
from tests.support.daemon import free_port
from tests.support.http_answers import Certificate
from tests.support.prometheus import Prometheus

pytestmark = pytest.mark.real


def until(holds: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_real_prometheus_gives_figures_and_reasons(tmp_path: Path) -> None:
    with Prometheus(tmp_path / "prometheus", free_port()) as server:
        server.until("vector(7)", 7.0)
        asked = prometheus.Prometheus(server.url)
        assert asked.ask("2 * 21") == 42.0
        assert asked.ask("vector(7)") == 7.0
        for expression, why in (
            ("no_such_series", "the query gives nothing"),
            ('vector(1) or label_replace(vector(2), "a", "b", "", "")', "the query gives 2 samples, not one"),
            ("vector(0) / 0", "the query gives NaN"),
            ("up[5m]", "the query gives a matrix"),
            ("sum(", "parse error"),
        ):
            with pytest.raises(QueryError) as caught:
                asked.ask(expression)
            assert why in str(caught.value)
            assert caught.value.answered
        queries = Queries(asked)
        queries.watch([Query("up", "sum(up)", 0.2), Query("wrong", "sum(", 0.2)])
        # Nothing listens on the port that it scrapes: `up` is there, and 0.
        until(lambda: isinstance(queries.newest()["up"], ExternalSample))
        newest = queries.newest()
        up, wrong = newest["up"], newest["wrong"]
        assert isinstance(up, ExternalSample)
        assert up.value == 0.0
        assert 0 <= time.time() - up.at < 5
        assert isinstance(wrong, Unknown)
        assert "parse error" in wrong.why
    until(lambda: isinstance(queries.newest()["up"], Unknown))
    gone = queries.newest()["up"]
    assert isinstance(gone, Unknown)
    assert "s old" in gone.why
    assert "does not answer" in gone.why
    queries.close()


def test_a_real_prometheus_over_tls(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    web = tmp_path / "web.yml"
    web.write_text(f"tls_server_config: {{cert_file: {certificate.certificate}, key_file: {certificate.key}}}\n")
    with Prometheus(tmp_path / "prometheus", free_port(), f"--web.config.file={web}") as server:
        url = server.url.replace("http://", "https://")
        asked = prometheus.Prometheus(url, ca_file=certificate.certificate)

        def answers() -> bool:
            try:
                return asked.ask("2 * 21") == 42.0
            except QueryError:  # not listening yet
                return False

        until(answers)
        with pytest.raises(QueryError, match="CERTIFICATE_VERIFY_FAILED"):
            prometheus.Prometheus(url).ask("1")
