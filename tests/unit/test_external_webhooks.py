"""Webhooks to real receivers on loopback: signed, tried again, in order, and waited for by nobody."""

import hashlib
import hmac
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from autoscaler.core.transition import InstanceState, Transition, TransitionReason
from autoscaler.external.webhooks import Event, Patience, Receiver, Webhooks, body_of, of_transition, sign
from tests.support.polling import wait_until
from tests.support.receiver import read_request, refusing, serving, silent

QUICK = Patience(seconds=0.3, attempts=3, first_backoff_seconds=0.01, longest_backoff_seconds=0.02, kept=3)
NONE = {"delivered": 0, "retried": 0, "given_up": 0, "dropped": 0}


def event(number: int = 0, name: str = "became_ready") -> Event:
    return Event(name, {"group": "web", "instance": f"web-{number}"})


class Inbox:
    """What a receiver got, and with what it answers next."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self._statuses = list(statuses)

    def talk(self, line: socket.socket) -> None:
        self.got.append(read_request(line))
        status = self._statuses.pop(0) if self._statuses else 200
        line.sendall(b"HTTP/1.1 %d X\r\n\r\n" % status)

    def instances(self) -> list[str]:
        return [json.loads(body)["instance"] for _, body in self.got]


@contextmanager
def hooks(*receivers: Receiver, patience: Patience = QUICK) -> Iterator[Webhooks]:
    made = Webhooks(receivers, patience)
    made.start()
    try:
        yield made
    finally:
        made.close()


def at(port: int, secret: bytes = b"", events: frozenset[str] = frozenset()) -> Receiver:
    return Receiver(f"http://127.0.0.1:{port}/hook", secret, events)


def test_what_arrives_is_signed_as_it_was_sent() -> None:
    inbox = Inbox()
    with serving(inbox.talk) as port, hooks(at(port, b"secret")) as webhooks:
        webhooks.send([event()])
        wait_until(lambda: webhooks.counts()["delivered"] == 1, 5, "delivered")
    ((headers, body),) = inbox.got
    assert headers[""] == "POST /hook HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["x-autoscaler-event"] == "became_ready"
    assert headers["x-autoscaler-signature"] == "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()
    payload = json.loads(body)
    assert payload == {
        "id": headers["x-autoscaler-delivery"], "event": "became_ready", "group": "web", "instance": "web-0",
    }  # fmt: skip


def test_a_signature_is_hmac_of_the_body() -> None:
    assert sign(b"key", b"The quick brown fox jumps over the lazy dog") == (
        "sha256=f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    )


def test_without_a_secret_nothing_is_signed_and_only_what_is_wanted_is_sent() -> None:
    inbox = Inbox()
    with serving(inbox.talk) as port, hooks(at(port, events=frozenset({"probe_failed"}))) as webhooks:
        webhooks.send([event(1), event(2, "probe_failed")])
        wait_until(lambda: webhooks.counts()["delivered"] == 1, 5, "delivered")
    ((headers, _),) = inbox.got
    assert inbox.instances() == ["web-2"]
    assert "x-autoscaler-signature" not in headers


def test_what_fails_is_sent_again_the_same_and_in_order() -> None:
    inbox = Inbox(500, 302)
    with serving(inbox.talk) as port, hooks(at(port)) as webhooks:
        webhooks.send([event(1), event(2)])
        wait_until(lambda: webhooks.counts()["delivered"] == 2, 5, "both delivered")
        assert webhooks.counts() == NONE | {"delivered": 2, "retried": 2}
    assert inbox.instances() == ["web-1", "web-1", "web-1", "web-2"]
    assert len({body for _, body in inbox.got}) == 2, "the same delivery is the same to the byte"


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_one_that_is_not_there_is_given_up_and_that_is_said(kind: str) -> None:
    with (
        refusing() as closed,
        serving(silent) as quiet,
        capture_logs() as logs,
        hooks(at(closed if kind == "refused" else quiet)) as webhooks,
    ):
        webhooks.send([event()])
        wait_until(lambda: webhooks.counts()["given_up"] == 1, 10, "given up")
        assert webhooks.counts() == NONE | {"given_up": 1, "retried": 2}
    assert [line["event"] for line in logs] == ["webhook not delivered, tried again", "webhook lost"]
    assert {line["receiver"] for line in logs} == {"127.0.0.1"}


def test_the_queue_is_bounded_and_the_oldest_goes() -> None:
    inbox, may = Inbox(), threading.Event()

    def slow(line: socket.socket) -> None:
        may.wait(10)
        inbox.talk(line)

    patience = Patience(seconds=10.0, kept=3)
    with serving(slow) as port, capture_logs() as logs, hooks(at(port), patience=patience) as webhooks:
        webhooks.send([event(0)])
        wait_until(lambda: not webhooks._lines[0]._queue, 5, "the first is under way")
        webhooks.send([event(number) for number in range(1, 6)])
        assert webhooks.counts()["dropped"] == 2
        may.set()
        wait_until(lambda: webhooks.counts()["delivered"] == 4, 5, "the others arrive")
    assert inbox.instances() == ["web-0", "web-3", "web-4", "web-5"]
    assert [line["event"] for line in logs] == ["webhook lost"] * 2


def test_a_slow_receiver_keeps_neither_the_sender_nor_another() -> None:
    inbox = Inbox()
    with serving(silent) as quiet, serving(inbox.talk) as port, hooks(at(quiet), at(port)) as webhooks:
        began = time.monotonic()
        webhooks.send([event(number) for number in range(3)])
        assert time.monotonic() - began < QUICK.seconds
        wait_until(lambda: len(inbox.got) == 3, 5, "the other one has them all")


def test_nothing_is_sent_after_closing() -> None:
    inbox = Inbox()
    with serving(inbox.talk) as port, hooks(at(port)) as webhooks:
        webhooks.close()
        webhooks.send([event()])
    assert webhooks.counts() == NONE
    assert not inbox.got


def test_a_receiver_shows_neither_its_secret_nor_its_address() -> None:
    assert repr(Receiver("https://chat/T0KEN", b"hunter2")) == "Receiver(events=frozenset())"


DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"


def test_the_document_tells_what_is_sent_and_how_to_check_it() -> None:
    text = DOCUMENT.read_text()
    transition = Transition(
        "web", "web-1a2b3c", "local", InstanceState.BOOTING, InstanceState.READY, 1700000000.0,
        TransitionReason.BECAME_READY,
    )  # fmt: skip
    body = body_of("7f0c9a52-4c1e-4c6b-9d38-0f5c8a2f6b11", of_transition(transition))
    (shown,) = re.findall(r"```json\n(.*)\n```", text)
    assert shown == body.decode()
    (signature,) = re.findall(r"X-Autoscaler-Signature: (.*)", text)
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Callable[[bytes, bytes, str], bool]] = {}
    exec(program, names)
    assert names["is_genuine"](b"a secret for the example", body, signature)
    assert not names["is_genuine"](b"another", body, signature)
    assert not names["is_genuine"](b"a secret for the example", body + b" ", signature)


def test_the_document_names_every_event() -> None:
    (paragraph,) = re.findall(r"The events are: (.*?)\.\n\n", DOCUMENT.read_text(), re.DOTALL)
    assert re.findall(r"`(.*?)`", paragraph) == [reason.value for reason in TransitionReason]
