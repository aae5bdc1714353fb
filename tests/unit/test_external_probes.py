"""Probes against real sockets on loopback: good answers, wrong ones, late ones, and none."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from autoscaler.core.observation import Domain, DomainState, Ownership, Probe
from autoscaler.core.policy import HttpCheck, Image, Policy, Ready, Size
from autoscaler.external.http import ExchangeError, exchange
from autoscaler.external.probes import Prober, ProbeTarget, ask, targets
from tests.support.polling import wait_until
from tests.support.receiver import Talk, answering, for_ever, read_request, refusing, serving, silent

PATIENCE_SECONDS = 0.4


def target(port: int, status: int = 200, path: str = "/") -> ProbeTarget:
    check = HttpCheck(port, path, status)
    return ProbeTarget("127.0.0.1", None, check, interval_seconds=0.05, timeout_seconds=PATIENCE_SECONDS)


def _hang_up(line: socket.socket) -> None:
    read_request(line)


@pytest.mark.parametrize(
    ("talk", "complaint"),
    [
        (answering(200), None),
        (answering(200, b"Content-Length: 9999999999\r\n", for_ever(b"endless")), None),
        (answering(503), "HTTP status 503, not 200"),
        (answering(302, b"Location: http://127.0.0.1/\r\n"), "HTTP status 302, not 200"),
        (silent, "HTTP on port PORT: no answer within 0.4 s"),
        (for_ever(b"HTTP/1.1 200 OK\r\nX: y"), "HTTP on port PORT: no HTTP in the answer (HTTPException)"),
        (for_ever(b"HTTP/1.1 200 "), "HTTP on port PORT: no HTTP in the answer (LineTooLong)"),
        (for_ever(b"HTTP/1.1 200 OK\r\nX: ", 0.05), "HTTP on port PORT: no answer within 0.4 s"),
        (for_ever(b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), "HTTP on port PORT: no answer within 0.4 s"),
        (lambda line: line.sendall(b"SSH-2.0-x\r\n"), "HTTP on port PORT: no HTTP in the answer (BadStatusLine)"),
        (_hang_up, "HTTP on port PORT: no HTTP in the answer (RemoteDisconnected)"),
    ],
    ids=[
        "good",
        "endless-body",
        "unavailable",
        "redirect",
        "silent",
        "many-headers",
        "long-line",
        "dripping",
        "continued",
        "no-http",
        "hangs-up",
    ],
)
def test_what_is_said_of_an_answer(talk: Talk, complaint: str | None) -> None:
    with serving(talk) as port:
        began = time.monotonic()
        said = ask(target(port))
        assert said == (complaint.replace("PORT", str(port)) if complaint else None)
        assert time.monotonic() - began < 4 * PATIENCE_SECONDS


def test_the_path_and_another_status() -> None:
    asked: list[str] = []

    def talk(line: socket.socket) -> None:
        asked.append(read_request(line)[0][""])
        line.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")

    with serving(talk) as port:
        assert ask(target(port, 204, "/health?deep=1")) is None
    assert asked == ["GET /health?deep=1 HTTP/1.1"]


def test_a_port_that_opens_and_one_that_does_not() -> None:
    with serving(silent) as port, refusing() as closed:
        assert ask(ProbeTarget("127.0.0.1", port)) is None
        assert ask(ProbeTarget("127.0.0.1", closed)) == f"port {closed}: Connection refused"
        both = ProbeTarget("127.0.0.1", port, HttpCheck(closed), timeout_seconds=PATIENCE_SECONDS)
        assert ask(both) == f"HTTP on port {closed}: Connection refused"


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(ExchangeError, match=r"not known|No address|failure|resolution"):
        exchange("GET", "http://nobody.invalid/", seconds=1.0)


@pytest.fixture
def prober() -> Iterator[tuple[Prober, list[float]]]:
    changes: list[float] = []
    made = Prober(now=lambda: 7.0, on_change=lambda: changes.append(time.monotonic()))
    yield made, changes
    made.close()


def test_results_come_by_themselves_and_wake_on_change(prober: tuple[Prober, list[float]]) -> None:
    watching, changes = prober
    good = threading.Event()
    good.set()

    def talk(line: socket.socket) -> None:
        answering(200 if good.is_set() else 500)(line)

    with serving(talk) as port, refusing() as closed:
        watching.watch("local", {"web-1": target(port), "web-2": target(closed)})
        wait_until(lambda: len(watching.results()) == 2, 5, "both were asked")
        assert watching.results()["web-1"] == Probe(passed=True, at=7.0)
        wait_until(lambda: watching.results()["web-2"].failures >= 3, 5, "failures are counted")
        assert len(changes) == 2, "more of the same wakes nobody"
        good.clear()
        wait_until(lambda: not watching.results()["web-1"].passed, 5, "it fails")
        wait_until(lambda: len(changes) == 3, 5, "the change is told")
        assert watching.results()["web-1"].detail == "HTTP status 500, not 200"
        good.set()
        wait_until(lambda: watching.results()["web-1"] == Probe(passed=True, at=7.0), 5, "failures begin anew")


def test_one_no_longer_watched_or_elsewhere_is_forgotten(prober: tuple[Prober, list[float]]) -> None:
    watching, _ = prober
    with serving(answering(200)) as port, refusing() as closed:
        watching.watch("local", {"web-1": target(port), "web-2": target(port)})
        wait_until(lambda: len(watching.results()) == 2, 5, "both were asked")
        watching.watch("local", {"web-1": target(closed)})
        assert "web-2" not in watching.results()
        assert "web-1" not in watching.results() or not watching.results()["web-1"].passed
        wait_until(lambda: "web-1" in watching.results(), 5, "it was asked at its new place")
        assert not watching.results()["web-1"].passed


def test_watching_many_that_never_answer_holds_up_nobody_who_looks(prober: tuple[Prober, list[float]]) -> None:
    watching, _ = prober
    with serving(silent) as port, serving(answering(200)) as good:
        asked = {f"web-{n}": target(port) for n in range(10)} | {"web-good": target(good)}
        began = time.monotonic()
        watching.watch("local", asked)
        watching.results()
        assert time.monotonic() - began < PATIENCE_SECONDS
        wait_until(lambda: "web-good" in watching.results(), 5, "the good one was asked")
        assert watching.results()["web-good"].passed


def test_hosts_are_watched_each_for_itself(prober: tuple[Prober, list[float]]) -> None:
    watching, _ = prober
    with serving(answering(200)) as port:
        watching.watch("a", {"web-1": target(port)})
        watching.watch("b", {"web-2": target(port)})
        wait_until(lambda: len(watching.results()) == 2, 5, "both were asked")
        watching.watch("a", {})
        assert set(watching.results()) == {"web-2"}


def test_who_is_asked_what() -> None:
    check = HttpCheck(8080, "/health", 204)
    asking = Policy("web", Image("p", "v"), Size(1, 2), ready=Ready(tcp_port=22, http=check))
    other = Policy("db", Image("p", "v"), Size(1, 2))

    def domain(instance: str, group: str, controller: str = "us", addresses: tuple[str, ...] = ("10.0.0.1",)) -> Domain:
        owner = Ownership(controller, group, instance, "", 0.0)
        return Domain("local", instance, instance, DomainState.RUNNING, owner, addresses=addresses)

    domains = [
        domain("web-1", "web", addresses=("10.0.0.1", "10.0.0.2")),
        domain("web-2", "web", addresses=()),
        domain("web-3", "web", controller="them"),
        domain("db-1", "db"),
        Domain("local", "x", "x", DomainState.RUNNING, None, addresses=("10.0.0.9",)),
    ]
    assert targets([asking, other], domains, "us") == {"web-1": ProbeTarget("10.0.0.1", 22, check)}
