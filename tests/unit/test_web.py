import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from prometheus_client.metrics_core import Metric

from autoscaler.codec import decode
from autoscaler.core.decision import ReasonCode, because
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.snapshot import Snapshot
from autoscaler.exporter.collector import SnapshotCollector, make_registry
from autoscaler.web import server as web
from autoscaler.web.server import WebServer
from tests.samples import SNAPSHOT

Get = Callable[..., tuple[int, str, str]]


class Shown:
    """What the server is told to show."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = SNAPSHOT

    def get(self) -> Snapshot | None:
        return self.snapshot


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def server(shown: Shown) -> Iterator[WebServer]:
    server = WebServer("127.0.0.1", 0, shown.get, make_registry(shown.get))
    server.start()
    yield server
    server.stop()
    assert "web" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def get(server: WebServer) -> Get:
    def get(path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Content-Type", ""), response.read().decode()

    return get


def test_metrics_in_both_formats(get: Get) -> None:
    status, content_type, text = get("/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'autoscaler_group_size_admitted{group="web"} 4.0' in text
    _, content_type, text = get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")


def test_a_snapshot_is_rendered_once_for_all_who_ask(get: Get, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[Snapshot | None] = []
    collect = SnapshotCollector.collect

    def counting(self: SnapshotCollector) -> Iterator[Metric]:
        collected.append(shown.snapshot)
        return collect(self)

    monkeypatch.setattr(SnapshotCollector, "collect", counting)
    before = {get("/metrics")[2] for _ in range(5)}
    assert (len(collected), len(before)) == (1, 1)
    shown.snapshot = replace(SNAPSHOT, started_at=1.0)
    after = {get("/metrics")[2] for _ in range(5)}
    assert (len(collected), len(after), len(before & after)) == (2, 1, 0)
    assert get("/metrics", Accept="application/openmetrics-text;version=1.0.0")[2].endswith("# EOF\n")


def test_who_accepts_gzip_gets_the_same_compressed_once(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    compressed: list[int] = []
    compress = gzip.compress

    def counting(data: bytes, *arguments: int, **options: int) -> bytes:
        compressed.append(len(data))
        return compress(data, *arguments, **options)

    monkeypatch.setattr(gzip, "compress", counting)

    def scrape(accepted: str) -> tuple[str | None, bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
            connection.request("GET", "/metrics", headers={"Accept-Encoding": accepted})
            response = connection.getresponse()
            assert response.headers["Vary"] == "Accept, Accept-Encoding"
            return response.headers["Content-Encoding"], response.read()

    encoding, plain = scrape("identity")
    assert (encoding, compressed) == (None, [])
    for _ in range(3):
        encoding, small = scrape("br, gzip;q=0.8")
        assert (encoding, gzip.decompress(small)) == ("gzip", plain)
    assert compressed == [len(plain)]
    assert len(small) < len(plain) / 3


def test_status_is_the_snapshot(get: Get, shown: Shown) -> None:
    status, _, text = get("/api/v1/status")
    assert status == 200
    assert decode(json.loads(text), Snapshot) == SNAPSHOT
    shown.snapshot = None
    assert get("/api/v1/status")[0] == 503


def test_health_follows_the_ticks(get: Get, shown: Shown) -> None:
    shown.snapshot = replace(SNAPSHOT, last_success_at=time.time() - 5)
    assert get("/healthz")[::2] == (200, "ok\n")
    shown.snapshot = replace(SNAPSHOT, last_success_at=time.time() - 31)
    assert get("/healthz")[::2] == (503, "no tick has finished for 31 s; the interval is 10 s\n")
    shown.snapshot = None
    assert get("/healthz")[::2] == (503, "no tick has finished yet\n")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/api/v1/status"])
def test_nothing_can_be_changed(get: Get, path: str) -> None:
    assert {get(path, method)[0] for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}


def test_ready_instances_with_an_address_are_discovered(get: Get, shown: Shown) -> None:
    web_group = next(group for group in SNAPSHOT.groups if group.group == "web")
    first, second, *others = web_group.instances
    there = (replace(first, address="192.0.2.1"), replace(second, address="2001:db8::1"), *others)
    addressed = replace(web_group, instances=there, port=8080)
    shown.snapshot = replace(SNAPSHOT, groups=(addressed,))
    status, content_type, text = get("/sd/web")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(text) == [
        {"targets": ["192.0.2.1:8080"], "labels": {"group": "web", "instance": "web-1", "host": "local"}},
        {"targets": ["[2001:db8::1]:8080"], "labels": {"group": "web", "instance": "web-2", "host": "local"}},
    ]
    assert json.loads(get("/sd/web?port=9100")[2])[0]["targets"] == ["192.0.2.1:9100"]
    assert get("/sd/nobody")[0] == 404
    assert [get(f"/sd/web?port={port}")[0] for port in ("0", "65536", "000000080", "x")] == [400] * 4
    assert web_group.decision is not None
    unknown = because(ReasonCode.HELD_BY_UNKNOWN_INVENTORY, host="local", why="gone")
    held = replace(addressed, instances=(), decision=replace(web_group.decision, reasons=(unknown,)))
    shown.snapshot = replace(SNAPSHOT, groups=(held,))
    assert get("/sd/web")[0] == 503, "what cannot be listed is not gone"
    shown.snapshot = replace(SNAPSHOT, tick=None)
    assert get("/sd/web")[0] == 503


def test_unknown_paths_are_refused(get: Get) -> None:
    assert get("/nothing")[0] == 404


def test_headers_without_end_are_refused(server: WebServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nCookie: " + b"x" * 20_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_a_taken_port_is_a_clear_error(server: WebServer) -> None:
    second = WebServer("127.0.0.1", server.port, lambda: None, make_registry(lambda: None))
    with pytest.raises(
        AutoscalerError, match=rf"cannot listen on 127.0.0.1:{server.port}: .* set listen in the config"
    ):
        second.start()


def test_an_unknown_address_is_a_clear_error() -> None:
    with pytest.raises(AutoscalerError, match=r"cannot listen on 192.0.2.1:0"):
        WebServer("192.0.2.1", 0, lambda: None, make_registry(lambda: None)).start()


@pytest.mark.parametrize("sent", [b"", b"GET /metrics HTT", b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_connections_without_a_whole_request_are_closed(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(web, "REQUEST_TIMEOUT_SECONDS", 1)
    server = WebServer("127.0.0.1", 0, shown.get, make_registry(shown.get))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            began = time.monotonic()
            for byte in sent:
                connection.sendall(bytes([byte]))
            while connection.recv(65536):
                pass
            assert time.monotonic() - began >= 0.9
    finally:
        server.stop()


def test_dripping_bytes_does_not_buy_time(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_TIMEOUT_SECONDS", 1)
    server = WebServer("127.0.0.1", 0, shown.get, make_registry(shown.get))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as connection:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    connection.sendall(b"G")
                    if connection.recv(1) == b"":
                        return
                except TimeoutError:
                    continue
                except ConnectionError:
                    return
        pytest.fail("the connection stayed open")
    finally:
        server.stop()


def test_it_stops_in_time_with_a_connection_open(shown: Shown) -> None:
    server = WebServer("127.0.0.1", 0, shown.get, make_registry(shown.get))
    server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 4


def test_one_that_asks_and_never_reads_is_cut_off(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_TIMEOUT_SECONDS", 1)
    server = WebServer("127.0.0.1", 0, shown.get, make_registry(shown.get))
    server.start()
    try:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(0.2)
            connection.connect(("127.0.0.1", server.port))
            assert _asks_until_cut_off(connection, 20)
    finally:
        server.stop()


def _asks_until_cut_off(connection: socket.socket, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False
