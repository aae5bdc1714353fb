import json
import os
import pwd
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from autoscaler.codec import decode
from autoscaler.control.client import request
from autoscaler.control.protocol import MAX_REQUEST_BYTES
from autoscaler.control.server import ControlServer
from autoscaler.core.decision import Decision
from autoscaler.core.errors import AutoscalerError, ControlError, DaemonUnreachableError
from autoscaler.core.observation import Change, Request
from autoscaler.core.snapshot import ReloadStatus, Snapshot
from autoscaler.store import Event, History
from tests.samples import EVENTS, HISTORY, NOW, SCALING_OUT, SNAPSHOT
from tests.support.desk import Desk


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def server(path: Path, desk: Desk) -> Iterator[ControlServer]:
    server = ControlServer(path, desk, idle_timeout_seconds=1.0, max_connections=8)
    server.start()
    yield server
    server.stop()
    assert not path.exists()


@pytest.fixture
def raw(server: ControlServer, path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        yield connection


def exchange(connection: socket.socket, line: bytes) -> Any:
    connection.sendall(line + b"\n")
    return json.loads(connection.makefile("rb").readline())


@pytest.mark.usefixtures("server")
def test_status_and_explain_come_back_whole(path: Path, desk: Desk) -> None:
    assert decode(request(path, "status"), Snapshot) == SNAPSHOT
    assert decode(request(path, "explain", group="web", at=NOW), Decision) == SCALING_OUT
    assert desk.asked_at == NOW


@pytest.mark.usefixtures("server")
def test_events_and_history_come_back_whole(path: Path, desk: Desk) -> None:
    assert decode(request(path, "events"), tuple[Event, ...]) == EVENTS
    last_but_one = EVENTS[-2].id
    newest = decode(request(path, "events", group="web", since=NOW, after=last_but_one), tuple[Event, ...])
    assert newest == EVENTS[-1:]
    assert desk.asked_events == ("web", NOW, last_but_one)
    assert decode(request(path, "history", group="web", since=NOW), History) == HISTORY
    assert desk.asked_history == ("web", NOW)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": -1}, 'events: "after" must be the id of an event, or 0, not -1'),
        ({"after": 1.5}, "not 1.5"),
        ({"after": True}, "not true"),
        ({"after": 1 << 70}, '"after" must be'),
        ({"group": ""}, '"group" must be the name of a group'),
        ({"since": 0}, '"since" must be a number of seconds above 0'),
        ({"limit": 9}, 'unknown argument "limit"; known: after, group, since'),
    ],
)
def test_wrong_questions_for_events_are_refused(path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ControlError) as error:
        request(path, "events", **arguments)
    assert message in str(error.value)


@pytest.mark.usefixtures("server")
def test_changes_reach_the_daemon_with_the_callers_name(path: Path, desk: Desk) -> None:
    request(path, "scale", group="web", count=3, for_seconds=60)
    request(path, "scale", group="web", count=2)
    request(path, "scale", group="web", count="auto")
    request(path, "pause", group="web")
    assert decode(request(path, "resume", group="web"), Request) == desk.noted[-1]
    asked = [(note.change, note.count, note.for_seconds) for note in desk.noted]
    assert asked == [
        (Change.SCALE, 3, 60.0),
        (Change.SCALE, 2, 3600.0),
        (Change.AUTO, None, None),
        (Change.PAUSE, None, None),
        (Change.RESUME, None, None),
    ]
    name = pwd.getpwuid(os.getuid()).pw_name
    assert {note.by for note in desk.noted} == {f"{name} (uid {os.getuid()}, pid {os.getpid()})"}


@pytest.mark.usefixtures("server")
def test_changes_of_instances_and_groups_reach_the_daemon(path: Path, desk: Desk) -> None:
    request(path, "protect", instance="web-1", for_seconds=60)
    request(path, "protect", instance="web-1")
    for command in ("unprotect", "detach", "attach"):
        request(path, command, instance="web-1")
    for command in ("reset", "delete"):
        request(path, command, group="web")
    asked = [(note.change, note.instance, note.for_seconds) for note in desk.noted]
    assert asked == [
        (Change.PROTECT, "web-1", 60.0),
        (Change.PROTECT, "web-1", 3600.0),
        (Change.UNPROTECT, "web-1", None),
        (Change.DETACH, "web-1", None),
        (Change.ATTACH, "web-1", None),
        (Change.RESET, None, None),
        (Change.DELETE, None, None),
    ]
    with capture_logs() as logs:
        with pytest.raises(ControlError, match="no instance web-9"):
            request(path, "detach", instance="web-9")
        with pytest.raises(ControlError, match='detach: "instance" must be the name of an instance, not nothing'):
            request(path, "detach")
    assert [(log["command"], log.get("instance"), log["result"]) for log in logs] == [
        ("detach", "web-9", "refused"),
        ("detach", None, "refused"),
    ]


@pytest.mark.usefixtures("server")
def test_every_change_is_logged_with_its_result(path: Path, desk: Desk) -> None:
    desk.reloaded = ReloadStatus(ok=False, at=NOW, error="web.yaml:3:1: unknown key")
    with capture_logs() as logs:
        request(path, "scale", group="web", count=3)
        with pytest.raises(ControlError):
            request(path, "pause", group="wbe")
        request(path, "reload")
        request(path, "status")
    told = [(log["command"], log.get("group"), log["result"]) for log in logs]
    assert told == [("scale", "web", "accepted"), ("pause", "wbe", "refused"), ("reload", None, "refused")]
    assert all(str(os.getpid()) in log["by"] for log in logs)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("group", "message"), [("wbe", "no policy for group wbe"), ("full", "journal cannot be")])
def test_a_refusal_has_the_daemons_words(path: Path, group: str, message: str) -> None:
    with pytest.raises(ControlError, match=message):
        request(path, "pause", group=group)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "the request is no JSON: column 1: Expecting value"),
        (b"{", "the request is no JSON: column 2"),
        (b"\xff", "the request is no JSON that can be read"),
        (b"[" * 60_000, "the request is no JSON that can be read"),
        (b"3", "the request must be an object"),
        (b'{"comand": "status"}', 'unknown key "comand"; known: command, arguments'),
        (b'{"command": "stauts"}', 'unknown command "stauts"; "command" is one of: status,'),
        (b'{"command": ["status"]}', 'unknown command ["status"]'),
        (b'{"command": "status", "arguments": 3}', 'status: "arguments" must be an object, not 3'),
        (b'{"command": "pause", "arguments": {"grup": "web"}}', 'pause: unknown argument "grup"; known: group'),
        (b'{"command": "pause"}', 'pause: "group" must be the name of a group, not nothing'),
        (b'{"command": "scale", "arguments": {"group": "web", "count": "three"}}', '"auto", not "three"'),
        (b'{"command": "scale", "arguments": {"group": "web", "count": true}}', '"auto", not true'),
        (b'{"command": "scale", "arguments": {"group": "web", "count": -1}}', '"auto", not -1'),
        (b'{"command": "scale", "arguments": {"group": "web", "count": 1.5}}', '"auto", not 1.5'),
        (
            b'{"command": "scale", "arguments": {"group": "web", "count": 1, "for_seconds": NaN}}',
            'scale: "for_seconds" must be a number of seconds above 0, not NaN',
        ),
        (
            b'{"command": "scale", "arguments": {"group": "web", "count": 1, "for_seconds": 1' + b"0" * 400 + b"}}",
            "a number of seconds above 0",
        ),
        (
            b'{"command": "scale", "arguments": {"group": "web", "count": "auto", "for_seconds": 5}}',
            '"for_seconds" has no meaning with "auto"',
        ),
    ],
)
def test_wrong_requests_are_told_what_is_wrong_and_the_connection_lives(
    raw: socket.socket, desk: Desk, line: bytes, error: str
) -> None:
    answer = exchange(raw, line)
    assert answer["ok"] is False
    assert error in answer["error"]
    assert desk.noted == []
    assert exchange(raw, b'{"command": "status"}')["ok"] is True


def test_a_request_without_end_is_refused(raw: socket.socket) -> None:
    raw.sendall(b"x" * (MAX_REQUEST_BYTES + 1))
    assert "longer than 65536 bytes" in json.loads(raw.makefile("rb").readline())["error"]
    assert raw.recv(1) == b""


def test_a_silent_connection_is_closed(raw: socket.socket) -> None:
    assert raw.recv(1) == b""


def answers(path: Path) -> bool:
    try:
        request(path, "status")
    except ControlError:
        return False
    return True


@pytest.mark.usefixtures("server")
def test_connections_are_bounded_and_places_come_free_again(path: Path) -> None:
    with ExitStack() as held:
        for _ in range(8):
            connection = held.enter_context(socket.socket(socket.AF_UNIX))
            connection.connect(str(path))
            assert exchange(connection, b'{"command": "status"}')["ok"]
        with pytest.raises(ControlError, match="too many connections"):
            request(path, "status")
    deadline = time.monotonic() + 10
    while not answers(path):
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("server")
def test_before_the_first_tick_status_says_so(path: Path, desk: Desk) -> None:
    desk.shown = None
    with pytest.raises(ControlError, match="has not finished its first tick"):
        request(path, "status")


@pytest.mark.usefixtures("server")
def test_a_bug_in_the_daemon_is_logged_there_and_ends_that_connection_only(path: Path, desk: Desk) -> None:
    desk.reloaded = None
    with capture_logs() as logs, pytest.raises(DaemonUnreachableError, match="closed the connection without an answer"):
        request(path, "reload")
    assert [log["event"] for log in logs] == ["control_connection_failed"]
    assert request(path, "status")


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_socket_is_for_owner_and_group_whatever_the_umask(path: Path, desk: Desk, umask: int) -> None:
    before = os.umask(umask)
    try:
        server = ControlServer(path, desk)
        server.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert list(path.parent.iterdir()) == [path]
        server.stop()
    finally:
        os.umask(before)


def test_a_dead_daemons_socket_is_replaced(path: Path, desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(DaemonUnreachableError, match=r"left behind by one that is gone.*autoscaler run"):
        request(path, "status")
    server = ControlServer(path, desk)
    server.start()
    assert request(path, "status")
    server.stop()


@pytest.mark.usefixtures("server")
def test_a_live_daemons_socket_is_refused(path: Path, desk: Desk) -> None:
    with pytest.raises(AutoscalerError, match=r"a daemon already answers at .*control\.sock"):
        ControlServer(path, desk).start()
    assert request(path, "status")


def test_a_file_in_the_way_is_left_alone(path: Path, desk: Desk) -> None:
    path.write_text("precious")
    with pytest.raises(AutoscalerError, match="is no socket"):
        ControlServer(path, desk).start()
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["no/such/folder/control.sock", "x" * 120])
def test_a_path_that_cannot_be_is_a_clear_error(tmp_path: Path, desk: Desk, name: str) -> None:
    with pytest.raises(AutoscalerError, match="cannot create the control socket"):
        ControlServer(tmp_path / name, desk).start()
    assert list(tmp_path.iterdir()) == []


def test_another_daemons_socket_is_not_removed_on_stop(path: Path, desk: Desk) -> None:
    first = ControlServer(path, desk)
    first.start()
    path.unlink()
    second = ControlServer(path, desk)
    second.start()
    first.stop()
    assert request(path, "status")
    second.stop()


def test_no_socket_says_how_to_start(path: Path) -> None:
    with pytest.raises(DaemonUnreachableError, match=r"there is no socket at .*`autoscaler run`.*--config"):
        request(path, "status")


@pytest.mark.usefixtures("server")
def test_a_daemon_that_is_busy_is_not_waited_for_for_ever(path: Path, desk: Desk) -> None:
    desk.busy.clear()
    with pytest.raises(DaemonUnreachableError, match=r"no answer within 0.2 s"):
        request(path, "status", timeout_seconds=0.2)
    desk.busy.set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_without_permission_the_group_is_named(desk: Desk) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o755)
        path = Path(folder) / "control.sock"
        server = ControlServer(path, desk)
        server.start()
        child = os.fork()
        if child == 0:
            os._exit(_as_nobody(path))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        server.stop()


def _as_nobody(path: Path) -> int:
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        request(path, "status")
    except DaemonUnreachableError as error:
        return 0 if "as root or as a member of the group root" in str(error) else 1
    return 2


def test_a_stranger_on_the_socket_is_named_so(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(path))
        stranger.listen()

        def greet() -> None:
            connection, _ = stranger.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"220 mail.example ESMTP\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(DaemonUnreachableError, match="is no autoscaler daemon"):
            request(path, "status")
        thread.join()
