"""Figures from Prometheus, asked in the background by its HTTP API and taken by ticks that never wait for them.

The API: https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries
"""

import json
import math
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Protocol

import structlog

from autoscaler.core.errors import AutoscalerError
from autoscaler.core.observation import ExternalSample, Unknown

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES = 256 * 1024
NOT_ASKED = "not asked yet"
"""Why there is no figure of a query that was just begun."""
_MAX_TOKEN_BYTES = 64 * 1024
_STALE_INTERVALS = 3.0
_SHOWN_SAMPLES = 3
_SHOWN_CHARACTERS = 200


class QueryError(AutoscalerError):
    """A query gave no figure; `answered` tells whether the server said so itself."""

    def __init__(self, message: str, *, answered: bool) -> None:
        self.answered = answered
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression to be asked every `interval_seconds`; `key` is where its figure stands in observations."""

    key: str
    expression: str
    interval_seconds: float = 15.0

    @property
    def stale_seconds(self) -> float:
        """How old a figure may be that was not followed by another."""
        return _STALE_INTERVALS * self.interval_seconds


class Asker(Protocol):
    """Whoever answers a PromQL expression with one number."""

    def ask(self, expression: str) -> float:
        """Give the number. Raises QueryError."""
        ...


class Prometheus:
    """One Prometheus, or what answers like one, by its URL without the API's path.

    `ca_file` replaces the system's certificate authorities. `token_file` holds a bearer token and is read for each
    query, so that it may be renewed; systemd's credentials are such files.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 5.0,
        ca_file: Path | None = None,
        token_file: Path | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._ca_file = ca_file
        self._token_file = token_file

    def ask(self, expression: str) -> float:
        """Evaluate a PromQL expression now and give its one number. Raises QueryError.

        A scalar, or a vector of one sample, is a number; none, several, or one that is not finite are not.
        """
        try:
            body = self._post(expression)
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(self._refused(error), answered=True) from error
        except (OSError, HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = getattr(cause, "strerror", None) or cause
            raise QueryError(
                f"{self._url} does not answer: {reason}. Does it run, and is prometheus.url right?",
                answered=False,
            ) from error
        return number_in(body)

    def _post(self, expression: str) -> bytes:
        deadline = time.monotonic() + self._timeout_seconds
        form = urllib.parse.urlencode({"query": expression, "timeout": f"{self._timeout_seconds:g}s"})
        request = urllib.request.Request(f"{self._url}/api/v1/query", form.encode(), self._headers())  # noqa: S310 - the configuration allows http and https only
        with self._opener().open(request, timeout=self._timeout_seconds) as reply:
            return _read(reply, deadline)

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            with self._token_file.open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, ValueError) as error:
            raise QueryError(f"the token in {self._token_file} cannot be read: {error}", answered=False) from error
        if not token or not token.isprintable():
            raise QueryError(f"{self._token_file} holds no token: write it there, on one line", answered=False)
        return {"Authorization": f"Bearer {token}"}

    def _opener(self) -> urllib.request.OpenerDirector:
        # Made anew for each query: a certificate authority's file may be renewed while the daemon runs.
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise QueryError(f"{self._ca_file} holds no certificates: {error}", answered=False) from error
        return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)

    def _refused(self, error: urllib.error.HTTPError) -> str:
        if error.code in {401, 403}:
            return f"{self._url} refuses the query ({error.code}): prometheus.token_file must hold a token it takes"
        if 300 <= error.code < 400:
            return f"{self._url} points elsewhere ({error.headers.get('Location')}): write that into prometheus.url"
        said = _error_in(error.read(MAX_ANSWER_BYTES))
        if said is None:
            return f"{self._url} answers {error.code} {error.reason}: prometheus.url must be that of a Prometheus"
        return f"{self._url} refuses the query ({error.code}): {said}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection would take the token to another server."""

    def redirect_request(
        self,
        req: urllib.request.Request,  # noqa: ARG002 - as urllib declares it
        fp: IO[bytes],  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        """Follow none; the answer becomes an HTTPError."""
        return


def _read(reply: Any, deadline: float) -> bytes:
    received = bytearray()
    while part := reply.read1(65536):
        received += part
        if len(received) > MAX_ANSWER_BYTES:
            raise QueryError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes: sum() over it", answered=True)
        if time.monotonic() > deadline:
            raise TimeoutError("the answer came too slowly")
    return bytes(received)


def _error_in(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["error"])[:_SHOWN_CHARACTERS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def number_in(body: bytes) -> float:
    """Find the one number in an answer of the API. Raises QueryError, saying what to change in the query."""
    try:
        data = json.loads(body)["data"]
        kind, result = data["resultType"], data["result"]
        values = [result] if kind == "scalar" else [sample["value"] for sample in result] if kind == "vector" else None
        numbers = None if values is None else [float(value) for _, value in values]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise QueryError("the answer is not that of Prometheus' API: check prometheus.url", answered=True) from error
    if numbers is None:
        raise QueryError(f"the query gives a {kind}, not one number: leave out its range [...]", answered=True)
    if not numbers:
        raise QueryError("the query gives nothing: no such series at present", answered=True)
    if len(numbers) > 1:
        raise QueryError(_several(result), answered=True)
    if not math.isfinite(numbers[0]):
        raise QueryError(f"the query gives {values[0][1] if values else ''}, which is no figure", answered=True)
    return numbers[0]


def _several(samples: list[dict[str, Any]]) -> str:
    shown = ", ".join(json.dumps(sample.get("metric"))[:_SHOWN_CHARACTERS] for sample in samples[:_SHOWN_SAMPLES])
    more = ", ..." if len(samples) > _SHOWN_SAMPLES else ""
    return f"the query gives {len(samples)} samples, not one: sum() over them or name one by its labels: {shown}{more}"


class Queries:
    """Asks queries, each in a thread of its own, and keeps what they gave last."""

    def __init__(self, prometheus: Asker | None, now: Callable[[], float] = time.time) -> None:
        """Ask `prometheus`; without one every query is Unknown. `now` gives seconds since the epoch."""
        self._prometheus = prometheus
        self._now = now
        self._lock = threading.Lock()
        self._wanted: frozenset[Query] = frozenset()
        self._watches: dict[Query, _Watch] = {}

    def watch(self, queries: Iterable[Query]) -> None:
        """Ask these from now on, and no others; what was known of those that stay is kept."""
        wanted = frozenset(queries)
        with self._lock:
            for query in self._watches.keys() - wanted:
                self._watches.pop(query).stop()
            if self._prometheus is not None:
                for query in wanted - self._watches.keys():
                    self._watches[query] = _Watch(query, self._prometheus, self._now)
            self._wanted = wanted

    def newest(self) -> Mapping[str, ExternalSample | Unknown]:
        """Give the newest figure of each query by its key, without waiting; Unknown where there is none that holds."""
        with self._lock:
            watches, wanted = dict(self._watches), self._wanted
        return {
            query.key: watches[query].newest(self._now())
            if query in watches
            else Unknown("no Prometheus to ask: set prometheus.url in the configuration")
            for query in wanted
        }

    def close(self) -> None:
        """Ask no more; a query under way ends by itself."""
        self.watch(())


class _Watch:
    """One query and its thread."""

    def __init__(self, query: Query, prometheus: Asker, now: Callable[[], float]) -> None:
        self._query = query
        self._prometheus = prometheus
        self._now = now
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._sample: ExternalSample | None = None
        self._why: str | None = NOT_ASKED
        threading.Thread(target=self._run, name=f"query {query.key}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def newest(self, at: float) -> ExternalSample | Unknown:
        with self._lock:
            sample, why = self._sample, self._why
        if sample is None:
            return Unknown(why or NOT_ASKED)
        age = at - sample.at
        if age > self._query.stale_seconds:
            return Unknown(f"the last figure is {age:.0f} s old{f': {why}' if why else ''}")
        return sample

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._ask()
            self._stopped.wait(self._query.interval_seconds)

    def _ask(self) -> None:
        # Prometheus evaluates when it is asked: its own clock need not agree with this one.
        at = self._now()
        try:
            sample = ExternalSample(self._prometheus.ask(self._query.expression), at)
        except QueryError as error:
            self._note(None, str(error), forget=error.answered)
            return
        self._note(sample, None, forget=True)

    def _note(self, sample: ExternalSample | None, why: str | None, *, forget: bool) -> None:
        """Keep a figure; one that a server out of reach did not replace holds until it is stale."""
        with self._lock:
            if self._stopped.is_set():
                return
            changed = why != self._why
            if forget:
                self._sample = sample
            self._why = why
        if changed and why is not None:
            log.warning("query gave no figure", query=self._query.key, expression=self._query.expression, why=why)
        elif changed:
            log.info("query gives a figure", query=self._query.key)
