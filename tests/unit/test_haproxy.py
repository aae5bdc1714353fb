"""HAProxy's runtime API, against a socket that says what HAProxy says, or something else."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.policy import Traffic, TrafficKind
from autoscaler.core.traffic import SetAddress, SetState, SetWeight
from autoscaler.external.haproxy import BalancerError, HAProxy, slots_lacking

STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_port
3 web 1 web1 192.0.2.1 2 0 100 100 80
3 web 2 web2 192.0.2.2 2 8 10 100 80
3 web 10 web10 127.0.0.1 0 5 100 100 1
3 web 3 web3 ::1 0 4 100 100 8080
3 web 4 other 127.0.0.1 0 0 100 100 81
3 web 5 web-canary 127.0.0.1 0 0 100 100 81

"""
STAT = """\
# pxname,svname,qcur,scur,status,rtime,
web,web1,0,3,UP,12,
web,web2,0,1,DRAIN,7,
web,web10,0,0,MAINT,0,
web,web3,0,0,DOWN,0,
web,other,0,9,no check,0,
web,BACKEND,2,13,UP,40,

"""
SAID = {"show servers state web": STATE, "show stat web -1 -1": STAT}

Answer = Callable[[socket.socket, str], None]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Answer], HAProxy]]:
    listeners: list[socket.socket] = []
    heard: list[str] = []

    def start(answer: Answer) -> HAProxy:
        listener = socket.socket(socket.AF_UNIX)
        path = tmp_path / "s"
        listener.bind(str(path))
        listener.listen()
        listeners.append(listener)

        def run() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    command = line.recv(4096).decode().strip()
                    heard.append(command)
                    try:
                        answer(line, command)
                    except OSError:
                        continue

        threading.Thread(target=run, daemon=True).start()
        traffic = Traffic(TrafficKind.HAPROXY, socket=str(path), backend="web", slots="web")
        return HAProxy(traffic, lambda: 5.0, seconds=0.5)

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def says(texts: dict[str, str]) -> Answer:
    return lambda line, command: line.sendall(texts.get(command, "Unknown command.\n").encode())


def test_the_slots_of_the_prefix_are_read(serve: Callable[[Answer], HAProxy]) -> None:
    assert serve(says(SAID)).view(4.0) == TrafficView(
        at=5.0,
        wanted_at=4.0,
        slots=(
            Slot("web1", "192.0.2.1", 80, SlotState.READY, 100, 100, 3, healthy=True),
            Slot("web2", "192.0.2.2", 80, SlotState.DRAIN, 10, 100, 1, healthy=True),
            Slot("web3", "::1", 8080, SlotState.READY, 100, 100, 0, healthy=False),
            Slot("web10", "127.0.0.1", 1, SlotState.MAINT, 100, 100, 0, healthy=None),
        ),
        queue=2,
        response_seconds=0.04,
    )


@pytest.mark.parametrize(
    ("correction", "command"),
    [
        (SetAddress("web1", "192.0.2.9", 8080), "set server web/web1 addr 192.0.2.9 port 8080"),
        (SetWeight("web1", 10), "set server web/web1 weight 10"),
        (SetState("web1", SlotState.DRAIN), "set server web/web1 state drain"),
    ],
)
def test_a_correction_is_one_command(serve: Callable[[Answer], HAProxy], correction: object, command: str) -> None:
    heard = []

    def answer(line: socket.socket, said: str) -> None:
        heard.append(said)
        line.sendall(b"IP changed from '127.0.0.1' to '192.0.2.9' by 'stats socket command'\n\n")

    serve(answer).apply(correction)  # type: ignore[arg-type]
    assert heard == [command]


@pytest.mark.parametrize("said", ["No such server.\n\n", "Permission denied\n", "Invalid addr 'x' by 'cli'\n"])
def test_a_refusal_is_told(serve: Callable[[Answer], HAProxy], said: str) -> None:
    haproxy = serve(lambda line, _: line.sendall(said.encode()))
    with pytest.raises(BalancerError, match=said.split(maxsplit=1)[0]):
        haproxy.apply(SetState("web1", SlotState.READY))


def _drip(line: socket.socket, _: str) -> None:
    for _byte in range(50):
        line.sendall(b".")
        time.sleep(0.1)


WRONG: dict[str, tuple[Answer, str]] = {
    "no such backend": (says({"show servers state web": "Can't find backend.\n\n"}), "Can't find backend"),
    "nothing": (lambda _line, _command: None, "nothing"),
    "no statistics": (says({"show servers state web": STATE}), "no statistics of backend web: Unknown command"),
    "a byte now and then": (_drip, r"no answer within 0\.5 s"),
    "without end": (lambda line, _: line.sendall(b"x" * 8_000_000), "more than"),
    "another version": (says({**SAID, "show servers state web": "2\n# srv_name\nweb1\n"}), "no servers of backend"),
    "fields are missing": (says({**SAID, "show servers state web": "1\n# srv_name\nweb1\n"}), "without srv_name, srv"),
}


@pytest.mark.parametrize(("answer", "why"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_answer_is_told_within_its_deadline(
    serve: Callable[[Answer], HAProxy], answer: Answer, why: str
) -> None:
    haproxy = serve(answer)
    began = time.monotonic()
    with pytest.raises(BalancerError, match=why) as caught:
        haproxy.view(None)
    assert "HAProxy at /" in str(caught.value)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("where", ["/nowhere/s", "127.0.0.1:1"])
def test_nobody_is_there(where: str) -> None:
    traffic = Traffic(TrafficKind.HAPROXY, socket=where, backend="web", slots="web")
    with pytest.raises(BalancerError, match="is it running"):
        HAProxy(traffic, lambda: 0.0).view(None)


def test_too_few_slots_are_told_with_the_remedy() -> None:
    traffic = Traffic(TrafficKind.HAPROXY, socket="/run/s", backend="web", slots="web")
    two = TrafficView(0.0, None, tuple(Slot(f"web{n}", "", 0, SlotState.MAINT) for n in (1, 2)))
    assert slots_lacking(two, traffic, 2) is None
    assert slots_lacking(two, traffic, 4) == (
        "backend web of HAProxy at /run/s has 2 slots (web1, web2) for a group of up to 4: write "
        "`server-template web 4 …` there and reload HAProxy, or lower size.max to 2"
    )
