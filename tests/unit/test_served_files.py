"""Files and webhooks that say whom to serve."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.core.observation import SlotState
from autoscaler.core.policy import Traffic, TrafficKind
from autoscaler.core.traffic import Service, Wanted, targets
from autoscaler.external.haproxy import BalancerError
from autoscaler.external.served_files import PrometheusTargets, TemplatedFile, render
from autoscaler.external.served_webhook import ServedWebhook

A = Service("web-a", "local", "192.0.2.1", 80)
B = Service("web-b", "local", "2001:db8::1", 80, weight_share=0.1)
LEAVING = Service("web-c", "local", "192.0.2.3", 80, SlotState.DRAIN)

TEMPLATE = """\
# @{group}: @{count}
upstream @{group} {
    server @{address}:@{port} weight=@{weight}; # @{instance} on @{host}
}
proxy_set_header Host $host; # user@example.org @{unknown}
"""


def wanted(*services: Service) -> Wanted:
    return Wanted("web", Traffic(TrafficKind.FILE), services, at=1.0)


def test_a_line_comes_once_for_each_instance_and_others_stay_as_they_are() -> None:
    assert render(TEMPLATE, "web", (A, B)) == (
        "# web: 2\n"
        "upstream web {\n"
        "    server 192.0.2.1:80 weight=100; # web-a on local\n"
        "    server [2001:db8::1]:80 weight=10; # web-b on local\n"
        "}\n"
        "proxy_set_header Host $host; # user@example.org @{unknown}\n"
    )


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    (tmp_path / "template").write_text("@{address}\n")
    script = f"cat {tmp_path}/out >> {tmp_path}/reloads; test ! -e {tmp_path}/broken"
    return Traffic(
        TrafficKind.FILE,
        template=str(tmp_path / "template"),
        path=str(tmp_path / "out"),
        reload=("/bin/sh", "-c", script),
    )


def test_the_file_is_read_when_it_changed_and_until_that_succeeded(tmp_path: Path, traffic: Traffic) -> None:
    file = TemplatedFile(traffic, lambda: 0.0)
    reloads = tmp_path / "reloads"
    for _ in range(3):
        file.put(wanted(A, LEAVING))
    assert (tmp_path / "out").read_text() == "192.0.2.1\n"
    assert reloads.read_text() == "192.0.2.1\n"
    assert [(slot.name, slot.state) for slot in file.view(1.0).slots] == [
        ("web-a", SlotState.READY),
        ("web-c", SlotState.DRAIN),
    ]
    (tmp_path / "broken").touch()
    for _ in range(2):
        with pytest.raises(BalancerError, match="ended with 1"):
            file.put(wanted(A, B))
    (tmp_path / "broken").unlink()
    reloads.unlink()
    file.put(wanted(A, B))
    file.put(wanted(A, B))
    assert reloads.read_text() == "192.0.2.1\n[2001:db8::1]\n"
    assert {path.name for path in tmp_path.iterdir()} == {"template", "out", "reloads"}


def test_a_file_that_somebody_changed_is_put_right(tmp_path: Path, traffic: Traffic) -> None:
    file = TemplatedFile(traffic, lambda: 0.0)
    file.put(wanted(A))
    (tmp_path / "out").write_text("something else")
    (tmp_path / "out").chmod(0o640)
    file.put(wanted(A))
    assert (tmp_path / "out").read_text() == "192.0.2.1\n"
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640


def test_errors_name_the_file(tmp_path: Path, traffic: Traffic) -> None:
    (tmp_path / "template").unlink()
    with pytest.raises(BalancerError, match=f"template {tmp_path}/template cannot be read"):
        TemplatedFile(traffic, lambda: 0.0).put(wanted(A))
    nowhere = Traffic(TrafficKind.FILE_SD, path="/nowhere/targets.json")
    with pytest.raises(BalancerError, match=r"file /nowhere/targets\.json cannot be written: No such file"):
        PrometheusTargets(nowhere, lambda: 0.0).put(wanted(A))


def test_prometheus_targets(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    PrometheusTargets(Traffic(TrafficKind.FILE_SD, path=str(path)), lambda: 0.0).put(wanted(A, LEAVING))
    assert json.loads(path.read_text()) == [
        {"targets": ["192.0.2.1:80"], "labels": {"group": "web", "instance": "web-a", "host": "local"}}
    ]
    assert targets("web", (B,))[0]["targets"] == ["[2001:db8::1]:80"]


class Receiver(http.server.BaseHTTPRequestHandler):
    status = 204
    heard: list[object]

    def do_POST(self) -> None:
        self.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[tuple[str, type[Receiver]]]:
    kind = type("OneReceiver", (Receiver,), {"heard": []})
    with http.server.HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/served", kind
        server.shutdown()


def test_a_webhook_is_told_of_changes_and_once_a_minute(receiver: tuple[str, type[Receiver]]) -> None:
    url, kind = receiver
    now = [100.0]
    webhook = ServedWebhook(Traffic(TrafficKind.WEBHOOK, url=url), lambda: now[0])
    webhook.put(wanted(A, LEAVING))
    webhook.put(wanted(A, LEAVING))
    assert kind.heard == [
        {
            "group": "web",
            "instances": [
                {
                    "instance": "web-a",
                    "host": "local",
                    "address": "192.0.2.1",
                    "port": 80,
                    "state": "ready",
                    "weight": 100,
                },
                {
                    "instance": "web-c",
                    "host": "local",
                    "address": "192.0.2.3",
                    "port": 80,
                    "state": "drain",
                    "weight": 0,
                },
            ],
        }
    ]
    webhook.put(wanted(A))
    now[0] += 61
    webhook.put(wanted(A))
    assert len(kind.heard) == 3
    kind.status = 500
    with pytest.raises(BalancerError, match="status 500"):
        webhook.put(wanted(A, B))
    kind.status = 200
    webhook.put(wanted(A, B))
    assert len(kind.heard) == 5
