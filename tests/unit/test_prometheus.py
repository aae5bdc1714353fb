"""What comes of an answer to a query, and that ticks never wait for one. The server is HTTP, its answers literal."""

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from autoscaler.core.observation import ExternalSample, Unknown
from autoscaler.external.prometheus import MAX_ANSWER_BYTES, Prometheus, Queries, Query, QueryError, number_in
from tests.support.http_answers import Answers, Certificate

VECTOR = '{"status":"success","data":{"resultType":"vector","result":[%s]}}'
SAMPLE = '{"metric":{"queue":"mail"},"value":[1700000000.123,"42.5"]}'
GOOD = (VECTOR % SAMPLE).encode()


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers() as answers:
        answers.body = GOOD
        yield answers


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (VECTOR % SAMPLE, 42.5),
        ('{"status":"success","data":{"resultType":"scalar","result":[1700000000,"7"]}}', 7.0),
        (VECTOR % SAMPLE.replace("42.5", "-1e3"), -1000.0),
        (VECTOR % SAMPLE.replace("42.5", "0"), 0.0),
    ],
)
def test_a_scalar_or_one_sample_is_a_number(body: str, number: float) -> None:
    assert number_in(body.encode()) == number


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (VECTOR % "", "the query gives nothing: no such series at present"),
        (
            VECTOR % f"{SAMPLE},{SAMPLE.replace('mail', 'web')}",
            'the query gives 2 samples, not one: sum() over them or name one by its labels: {"queue": "mail"},',
        ),
        (VECTOR % SAMPLE.replace("42.5", "NaN"), "the query gives NaN, which is no figure"),
        (VECTOR % SAMPLE.replace("42.5", "+Inf"), "the query gives +Inf, which is no figure"),
        (
            '{"data":{"resultType":"matrix","result":[]}}',
            "the query gives a matrix, not one number: leave out its range [...]",
        ),
        ('{"data":{"resultType":"string","result":[1,"x"]}}', "the query gives a string, not one number: leave out"),
        ("<html>", "the answer is not that of Prometheus' API: check prometheus.url"),
        ("[]", "the answer is not that of Prometheus' API"),
        ("[" * 100_000, "the answer is not that of Prometheus' API"),
        (VECTOR % '{"metric":{},"value":null}', "the answer is not that of Prometheus' API"),
        (VECTOR % '{"metric":{},"value":[1,"many"]}', "the answer is not that of Prometheus' API"),
    ],
)
def test_anything_else_is_no_number_and_says_why(body: str, why: str) -> None:
    with pytest.raises(QueryError) as caught:
        number_in(body.encode())
    assert str(caught.value).startswith(why)
    assert caught.value.answered


def test_the_query_goes_into_a_form_and_the_path_behind_the_url(server: Answers) -> None:
    assert Prometheus(f"{server.url}/prefix/").ask('sum(rate(jobs{kind="a"}[5m]))') == 42.5
    ((path, headers, form),) = server.asked
    assert path == "/prefix/api/v1/query"
    assert form["query"] == ['sum(rate(jobs{kind="a"}[5m]))']
    assert "Authorization" not in headers


def test_a_token_is_read_for_each_query(server: Answers, tmp_path: Path) -> None:
    token = tmp_path / "token"
    prometheus = Prometheus(server.url, token_file=token)
    for secret in ("first", "second"):
        token.write_text(f"{secret}\n")
        prometheus.ask("up")
        assert server.asked[-1][1]["Authorization"] == f"Bearer {secret}"
    token.write_text("\n")
    with pytest.raises(QueryError, match=r"token holds no token"):
        prometheus.ask("up")
    token.unlink()
    with pytest.raises(QueryError, match=r"the token in .*token cannot be read: .*No such file"):
        prometheus.ask("up")
    token.write_text("a\nb")
    with pytest.raises(QueryError, match="holds no token") as caught:
        prometheus.ask("up")
    assert "a\nb" not in str(caught.value)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "headers", "why"),
    [
        (400, b'{"status":"error","errorType":"bad_data","error":"1:5: parse error"}', {}, "(400): 1:5: parse error"),
        (401, b"", {}, "refuses the query (401): prometheus.token_file must hold a token it takes"),
        (404, b"nothing here", {}, "answers 404 Not Found: prometheus.url must be that of a Prometheus"),
        (503, b"", {}, "answers 503 Service Unavailable"),
        (302, b"", {"Location": "https://login"}, "points elsewhere (https://login): write that into prometheus.url"),
    ],
)
def test_a_refusal_says_what_to_do(
    server: Answers, status: int, body: bytes, headers: dict[str, str], why: str
) -> None:
    server.status, server.body, server.headers = status, body, headers
    with pytest.raises(QueryError) as caught:
        Prometheus(server.url).ask("up[")
    assert why in str(caught.value)
    assert len(server.asked) == 1, "a redirection is not followed: it would take the token along"


def test_an_answer_is_bounded(server: Answers) -> None:
    server.body = b" " * (MAX_ANSWER_BYTES + 1)
    with pytest.raises(QueryError, match=r"longer than 262144 bytes: sum\(\) over it"):
        Prometheus(server.url).ask("up")


def trickle(stop: threading.Event) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not stop.wait(0.05):
            try:
                request.wfile.write(b" ")
            except OSError:
                return

    return answer


def test_an_answer_that_trickles_in_is_given_up(server: Answers) -> None:
    stop = threading.Event()
    server.answer = trickle(stop)
    began = time.monotonic()
    with pytest.raises(QueryError, match="does not answer: the answer came too slowly") as caught:
        Prometheus(server.url, timeout_seconds=0.3).ask("up")
    assert time.monotonic() - began < 5
    assert not caught.value.answered
    stop.set()


def test_a_server_that_is_silent_or_gone_does_not_answer() -> None:
    with Answers() as silent:
        held = threading.Event()

        def hold(_request: BaseHTTPRequestHandler) -> None:
            held.wait(10)

        silent.answer = hold
        with pytest.raises(QueryError, match=r"does not answer: .*timed out"):
            Prometheus(silent.url, timeout_seconds=0.2).ask("up")
        held.set()
    with pytest.raises(QueryError, match=r"does not answer: .*Connection refused.*\. Does it run") as caught:
        Prometheus(silent.url).ask("up")
    assert not caught.value.answered


def test_tls_is_checked_against_the_authority_that_was_named(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    with Answers(certificate) as server:
        server.body = GOOD
        assert Prometheus(server.url, ca_file=certificate.certificate).ask("up") == 42.5
        with pytest.raises(QueryError, match=r"does not answer: .*CERTIFICATE_VERIFY_FAILED"):
            Prometheus(server.url).ask("up")
        with pytest.raises(QueryError, match=r"does not answer: .*CERTIFICATE_VERIFY_FAILED.*mismatch"):
            Prometheus(f"https://localhost:{server.port}", ca_file=certificate.certificate).ask("up")
        (tmp_path / "empty").touch()
        for wrong in ("empty", "absent"):
            with pytest.raises(QueryError, match=f"{wrong} holds no certificates"):
                Prometheus(server.url, ca_file=tmp_path / wrong).ask("up")


class Slow:
    """Answers when it is let."""

    def __init__(self) -> None:
        self.may = threading.Semaphore(0)
        self.asked = threading.Semaphore(0)
        self.gives: float | QueryError = 1.0

    def ask(self, expression: str) -> float:
        self.asked.release()
        assert self.may.acquire(timeout=20)
        if isinstance(self.gives, QueryError):
            raise self.gives
        return self.gives


QUERY = Query("prometheus queue", "queue", interval_seconds=0.01)
LONG = Query("prometheus queue", "queue", interval_seconds=100)


def until(queries: Queries, wanted: Callable[[ExternalSample | Unknown], bool]) -> ExternalSample | Unknown:
    deadline = time.monotonic() + 20
    while not wanted(found := queries.newest()["prometheus queue"]):
        assert time.monotonic() < deadline, f"last: {found}"
        time.sleep(0.005)
    return found


def test_a_tick_takes_the_newest_figure_and_never_waits() -> None:
    slow = Slow()
    queries = Queries(slow, lambda: 1000.0)
    queries.watch([QUERY])
    assert slow.asked.acquire(timeout=20)
    assert queries.newest() == {"prometheus queue": Unknown("not asked yet")}
    slow.may.release()
    assert until(queries, lambda found: isinstance(found, ExternalSample)) == ExternalSample(1.0, 1000.0)
    assert slow.asked.acquire(timeout=20)
    slow.gives = 2.0
    slow.may.release()
    until(queries, lambda found: found == ExternalSample(2.0, 1000.0))
    queries.watch([])
    assert queries.newest() == {}
    slow.may.release(10)


def test_a_figure_grows_old_and_then_is_unknown() -> None:
    slow = Slow()
    now = [1000.0]
    queries = Queries(slow, lambda: now[0])
    queries.watch([LONG])
    slow.may.release()
    until(queries, lambda found: isinstance(found, ExternalSample))
    now[0] += 300
    assert isinstance(queries.newest()["prometheus queue"], ExternalSample)
    now[0] += 1
    assert queries.newest()["prometheus queue"] == Unknown("the last figure is 301 s old")
    queries.close()


@pytest.mark.parametrize(
    ("error", "kept"),
    [(QueryError("gone for a moment", answered=False), True), (QueryError("gives nothing", answered=True), False)],
)
def test_what_was_known_holds_while_the_server_is_away_but_not_against_its_word(error: QueryError, kept: bool) -> None:
    slow = Slow()
    now = [1000.0]
    queries = Queries(slow, lambda: now[0])
    # Figures of a frozen clock do not age: what is seen is the answer's doing.
    queries.watch([QUERY])
    slow.may.release()
    until(queries, lambda found: isinstance(found, ExternalSample))
    slow.gives = error
    slow.may.release()
    for _ in range(3):
        assert slow.asked.acquire(timeout=20)
    if kept:
        assert queries.newest()["prometheus queue"] == ExternalSample(1.0, 1000.0)
        now[0] += 1
        why = Unknown("the last figure is 1 s old: gone for a moment")
    else:
        why = Unknown("gives nothing")
    until(queries, lambda found: found == why)
    queries.close()
    slow.may.release(10)


def test_what_stays_is_not_asked_anew_and_without_a_server_nothing_is_known() -> None:
    slow = Slow()
    queries = Queries(slow, lambda: 1000.0)
    queries.watch([LONG])
    slow.may.release()
    until(queries, lambda found: isinstance(found, ExternalSample))
    queries.watch([LONG, Query("other", "other", 100)])
    assert isinstance(queries.newest()["prometheus queue"], ExternalSample)
    queries.close()
    slow.may.release(10)
    without = Queries(None)
    without.watch([LONG])
    assert without.newest() == {
        "prometheus queue": Unknown("no Prometheus to ask: set prometheus.url in the configuration")
    }
