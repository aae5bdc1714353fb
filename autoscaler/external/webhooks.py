"""Tells others what happened: JSON over HTTP, signed, tried again, and never waited for by a tick.

Deliveries are made at least once and in order for each receiver: one that answered too late is sent the same again.
`docs/webhooks.md` is for those who receive them.
"""

import hashlib
import hmac
import json
import threading
import uuid
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog

from autoscaler.core.transition import Transition
from autoscaler.external.http import ExchangeError, exchange

log = structlog.get_logger(__name__)

SIGNATURE_HEADER = "X-Autoscaler-Signature"
EVENT_HEADER = "X-Autoscaler-Event"
DELIVERY_HEADER = "X-Autoscaler-Delivery"

DELIVERED, RETRIED, GIVEN_UP, DROPPED = "delivered", "retried", "given_up", "dropped"
RESULTS = (DELIVERED, RETRIED, GIVEN_UP, DROPPED)
"""What becomes of an attempt (retried) and of a delivery (the others)."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened: what it is called, and the payload, of what JSON can hold."""

    name: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where to send what; without a secret nothing is signed, and no `events` means all of them."""

    url: str = field(repr=False)
    secret: bytes = field(default=b"", repr=False)
    events: frozenset[str] = frozenset()

    def wants(self, event: str) -> bool:
        """Whether it asked for events of this name."""
        return not self.events or event in self.events


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a receiver is waited for, and what is kept for one that does not answer."""

    seconds: float = 5.0
    """For one answer."""
    attempts: int = 10
    first_backoff_seconds: float = 1.0
    longest_backoff_seconds: float = 60.0
    kept: int = 1000
    """Deliveries for one receiver; the oldest goes when there is one more."""


@dataclass(frozen=True, slots=True)
class _Delivery:
    id: str
    event: str
    body: bytes


def sign(secret: bytes, body: bytes) -> str:
    """Give the value of the signature header: HMAC-SHA256 of the body as it was sent."""
    return f"sha256={hmac.new(secret, body, hashlib.sha256).hexdigest()}"


def body_of(delivery: str, event: Event) -> bytes:
    """Render what is sent."""
    return json.dumps({"id": delivery, "event": event.name, **event.payload}, separators=(",", ":")).encode()


def of_transition(transition: Transition) -> Event:
    """Make an event of what happened to an instance, named after its reason."""
    payload: dict[str, object] = {
        "group": transition.group,
        "instance": transition.instance,
        "host": transition.host,
        "before": transition.before,
        "after": transition.after,
        "at": transition.at,
    }
    return Event(transition.reason.value, payload)


class Webhooks:
    """A queue and a daemon thread for each receiver: a slow one delays neither a tick nor another."""

    def __init__(self, receivers: Sequence[Receiver], patience: Patience | None = None) -> None:
        self._closed = threading.Event()
        self._lines = tuple(_Line(receiver, patience or Patience(), self._closed) for receiver in receivers)

    def start(self) -> None:
        """Begin to deliver."""
        for number, line in enumerate(self._lines):
            threading.Thread(target=line.run, name=f"webhook {number}", daemon=True).start()

    def send(self, events: Sequence[Event]) -> None:
        """Queue these events for all who want them; returns at once."""
        for event in events:
            for line in self._lines:
                line.put(event)

    def counts(self) -> Mapping[str, int]:
        """Count what became of attempts and deliveries, by `RESULTS`."""
        total: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        for line in self._lines:
            total.update(line.counts())
        return dict(total)

    def close(self) -> None:
        """Deliver no more; what is queued is lost."""
        self._closed.set()
        for line in self._lines:
            line.wake()


class _Line:
    def __init__(self, receiver: Receiver, patience: Patience, closed: threading.Event) -> None:
        self._receiver = receiver
        self._patience = patience
        self._closed = closed
        self._queue: deque[_Delivery] = deque()
        self._counts: Counter[str] = Counter()
        self._condition = threading.Condition()

    def put(self, event: Event) -> None:
        if not self._receiver.wants(event.name):
            return
        delivery = str(uuid.uuid4())
        with self._condition:
            if len(self._queue) >= self._patience.kept:
                self._lost(self._queue.popleft(), DROPPED, f"{self._patience.kept} others wait for this receiver")
            self._queue.append(_Delivery(delivery, event.name, body_of(delivery, event)))
            self._condition.notify()

    def counts(self) -> Mapping[str, int]:
        with self._condition:
            return dict(self._counts)

    def wake(self) -> None:
        with self._condition:
            self._condition.notify()

    def run(self) -> None:
        while (delivery := self._take()) is not None:
            self._deliver(delivery)

    def _take(self) -> _Delivery | None:
        with self._condition:
            self._condition.wait_for(lambda: self._queue or self._closed.is_set())
            return None if self._closed.is_set() else self._queue.popleft()

    def _deliver(self, delivery: _Delivery) -> None:
        backoff_seconds = self._patience.first_backoff_seconds
        for attempt in range(1, self._patience.attempts + 1):
            complaint = self._attempt(delivery)
            if complaint is None:
                self._count(DELIVERED)
                return
            if attempt < self._patience.attempts:
                self._count(RETRIED)
                if attempt == 1:
                    self._say("webhook not delivered, tried again", delivery, complaint)
                if self._closed.wait(backoff_seconds):
                    return
                backoff_seconds = min(backoff_seconds * 2, self._patience.longest_backoff_seconds)
        with self._condition:
            self._lost(delivery, GIVEN_UP, f"{complaint}, {self._patience.attempts} times")

    def _attempt(self, delivery: _Delivery) -> str | None:
        headers = {
            "Content-Type": "application/json",
            EVENT_HEADER: delivery.event,
            DELIVERY_HEADER: delivery.id,
        }
        if self._receiver.secret:
            headers[SIGNATURE_HEADER] = sign(self._receiver.secret, delivery.body)
        try:
            status = exchange(
                "POST", self._receiver.url, seconds=self._patience.seconds, body=delivery.body, headers=headers
            )
        except ExchangeError as error:
            return str(error)
        return None if 200 <= status < 300 else f"HTTP status {status}"

    def _count(self, result: str) -> None:
        with self._condition:
            self._counts[result] += 1

    def _lost(self, delivery: _Delivery, result: str, why: str) -> None:
        self._counts[result] += 1
        self._say("webhook lost", delivery, why)

    def _say(self, what: str, delivery: _Delivery, why: str) -> None:
        # Not the URL: with some receivers its path is the password.
        host = urlsplit(self._receiver.url).hostname
        log.warning(what, receiver=host, webhook_event=delivery.event, delivery=delivery.id, why=why)
