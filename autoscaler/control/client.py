"""The asking side of the control socket."""

import grp
import json
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from autoscaler.core.errors import ControlError, DaemonUnreachableError


def request(socket_path: Path, command: str, *, timeout_seconds: float = 30, **arguments: object) -> Any:
    """Send one command to the daemon and return its result as plain JSON data; arguments that are None are left out.

    Raises `DaemonUnreachableError` when there is no answer within `timeout_seconds`, and `ControlError` with the
    daemon's own words when it refuses.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    line = json.dumps({"command": command, "arguments": given}).encode() + b"\n"
    try:
        reply = _exchange(socket_path, line, timeout_seconds)
    except OSError as error:
        raise DaemonUnreachableError(_unreachable(socket_path, error, timeout_seconds)) from error
    return _result(socket_path, reply)


def _exchange(socket_path: Path, line: bytes, timeout_seconds: float) -> bytes:
    deadline = time.monotonic() + timeout_seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(str(socket_path))
        with suppress(BrokenPipeError):  # closed on us before it read: what it said is still there to be received
            connection.sendall(line)
        received = bytearray()
        while not received.endswith(b"\n"):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            part = connection.recv(65536)
            if not part:
                break
            received += part
    return bytes(received)


def _unreachable(socket_path: Path, error: OSError, timeout_seconds: float) -> str:
    match error:
        case FileNotFoundError() | NotADirectoryError():
            return (
                f"no daemon answers: there is no socket at {socket_path}. Start one with `autoscaler run`; if it runs "
                "with another configuration, name that with --config."
            )
        case ConnectionRefusedError():
            return (
                f"no daemon answers: the socket {socket_path} was left behind by one that is gone. "
                "Start it again with `autoscaler run`."
            )
        case PermissionError():
            return (
                f"the daemon may not be spoken to: no permission for {socket_path}. "
                f"Run this command as root or as a member of {_socket_group(socket_path)}."
            )
        case TimeoutError():
            return (
                f"the daemon at {socket_path} gave no answer within {timeout_seconds:g} s. "
                "Its log says what it is busy with; try again."
            )
    return f"the daemon at {socket_path} cannot be reached: {error}. Check control_socket in the configuration."


def _socket_group(socket_path: Path) -> str:
    try:
        return f"the group {grp.getgrgid(socket_path.stat().st_gid).gr_name}"
    except (OSError, KeyError):  # the folder is closed to us, or the group has no name
        return "the socket's group"


def _result(socket_path: Path, reply: bytes) -> Any:
    if not reply.endswith(b"\n"):
        raise DaemonUnreachableError(
            f"the daemon at {socket_path} closed the connection without an answer. "
            "It may be stopping, or have met a fault: its log says which."
        )
    try:
        data = json.loads(reply)
        if data["ok"]:
            return data["result"]
        message = str(data["error"])
    except (ValueError, KeyError, TypeError) as error:
        raise DaemonUnreachableError(
            f"what listens at {socket_path} is no autoscaler daemon, or one of another version. "
            "Check control_socket in the configuration."
        ) from error
    raise ControlError(message)
