"""The answering side of the control socket."""

import errno
import os
import pwd
import socket
import socketserver
import stat
import struct
import threading
import time
from pathlib import Path
from typing import Any

import structlog

from autoscaler.codec import encode
from autoscaler.control.backend import Backend
from autoscaler.control.images import QUIET, carry_out_image
from autoscaler.control.protocol import DEFAULT_HOLD_SECONDS, MAX_REQUEST_BYTES, Call, answer, parse_call, refusal
from autoscaler.core.errors import AutoscalerError, ControlError
from autoscaler.core.observation import Change, Request
from autoscaler.core.snapshot import ReloadStatus

SOCKET_MODE = 0o660
_LONGEST_PATH = 107
_PEER_CREDENTIALS = struct.Struct("3i")
_OF_INSTANCES = frozenset({"protect", "unprotect", "detach", "attach"})
_log = structlog.get_logger("autoscaler.control")


class ControlServer:
    """Answers the control socket in threads of its own; who may open the socket may do everything.

    The socket appears at its path whole: bound, listening and with its mode set. One left behind by a daemon that is
    gone is replaced; one that still answers is left alone and refused.
    """

    def __init__(
        self,
        socket_path: Path,
        backend: Backend,
        *,
        idle_timeout_seconds: float = 30.0,
        max_connections: int = 32,
    ) -> None:
        self._path = socket_path
        self._backend = backend
        self._idle_timeout_seconds = idle_timeout_seconds
        self._max_connections = max_connections
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._inode: int | None = None

    def start(self) -> None:
        """Bind the socket and begin to answer. Raises `AutoscalerError` when the path cannot be taken."""
        _refuse_taken(self._path)
        try:
            self._server = _Server(self._path, self._backend, self._idle_timeout_seconds, self._max_connections)
            self._inode = self._path.stat().st_ino
        except OSError as error:
            raise AutoscalerError(
                f"cannot create the control socket {self._path}: {error.strerror or error}. "
                "Make its folder and let the daemon write there, or set control_socket in the configuration."
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop answering and remove the socket, unless another daemon has put its own there since."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()
        self._server.server_close()
        self._server = None


def _refuse_taken(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise AutoscalerError(
            f"{path} is in the way of the control socket and is no socket. "
            "Move it, or set control_socket in the configuration to another path."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise AutoscalerError(
                f"cannot tell whether a daemon listens at {path}: {error}. Check who owns it."
            ) from error
    raise AutoscalerError(
        f"a daemon already answers at {path}. Stop it first, or give this one a configuration with its own "
        "control_socket and state_dir."
    )


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, path: Path, backend: Backend, idle_timeout_seconds: float, max_connections: int) -> None:
        self.path = path
        self.backend = backend
        self.idle_timeout_seconds = idle_timeout_seconds
        self.slots = threading.BoundedSemaphore(max_connections)
        super().__init__(str(path), _Handler)

    def server_bind(self) -> None:
        """Bind under a passing name, closed to others until the mode is set, whatever the umask is."""
        if len(os.fsencode(self.path)) > _LONGEST_PATH:
            raise OSError(errno.ENAMETOOLONG, f"the path is longer than {_LONGEST_PATH} bytes")
        self.temporary = self.path.with_name(f".{os.getpid()}.tmp")
        self.temporary.unlink(missing_ok=True)
        os.fchmod(self.socket.fileno(), 0o600)
        self.socket.bind(str(self.temporary))
        self.temporary.chmod(SOCKET_MODE)

    def server_activate(self) -> None:
        """Listen, and only then take the path: who sees the socket can connect to it."""
        super().server_activate()
        self.temporary.replace(self.path)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, or refuse when too many are connected already."""
        if self.slots.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        request.settimeout(0)
        try:
            request.send(refusal("too many connections to the daemon at once; try again"))
        except OSError as error:
            _log.debug("control_refusal_unsent", error=str(error))
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one connection and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as socketserver declares it
        """Log what a connection died of: the caller sees it closed, the operator finds why."""
        _log.exception("control_connection_failed")


class _Handler(socketserver.BaseRequestHandler):
    request: socket.socket
    server: _Server

    def handle(self) -> None:
        """Answer line after line until the caller hangs up, is silent for too long, or sends too much."""
        by = caller(self.request)
        received = bytearray()
        try:
            while (line := self._read_line(received)) is not None:
                self.request.sendall(self._answer(by, line))
        except ControlError as error:
            self.request.sendall(refusal(str(error)))
        except (TimeoutError, ConnectionError) as error:
            _log.debug("control_connection_ended", by=by, error=str(error) or type(error).__name__)

    def _read_line(self, received: bytearray) -> bytes | None:
        deadline = time.monotonic() + self.server.idle_timeout_seconds
        while (end := received.find(b"\n")) < 0:
            if len(received) > MAX_REQUEST_BYTES:
                raise ControlError(f"the request is longer than {MAX_REQUEST_BYTES} bytes")
            self.request.settimeout(max(deadline - time.monotonic(), 0.001))
            part = self.request.recv(4096)
            if not part:
                return None
            received += part
        line = bytes(received[:end])
        del received[: end + 1]
        return line

    def _answer(self, by: str, line: bytes) -> bytes:
        self.request.settimeout(self.server.idle_timeout_seconds)
        try:
            return answer(carry_out(self.server.backend, by, parse_call(line)))
        except AutoscalerError as error:
            return refusal(str(error))


def caller(connection: socket.socket) -> str:
    """Say who is at the other end, by the kernel's word: ``name (uid 1000, pid 4242)``."""
    size = _PEER_CREDENTIALS.size
    pid, uid, _gid = _PEER_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = "unknown"
    return f"{name} (uid {uid}, pid {pid})"


def carry_out(backend: Backend, by: str, call: Call) -> Any:
    """Do what `call` asks and return the result as plain JSON data. Raises `AutoscalerError` when it is refused."""
    match call.command:
        case "status":
            return _status(backend)
        case "explain":
            return encode(backend.explain(call.group(), call.seconds("at")))
        case "events":
            return encode(backend.events(call.optional_group(), call.seconds("since"), call.after()))
        case "history":
            return encode(backend.history(call.group(), call.seconds("since")))
        case command if command in QUIET:
            return carry_out_image(backend.images, by, call)
        case _:
            return _audited(backend, by, call)


def _status(backend: Backend) -> Any:
    snapshot = backend.snapshot()
    if snapshot is None:
        raise ControlError("the daemon has not finished its first tick yet; try again in a few seconds")
    return encode(snapshot)


def _audited(backend: Backend, by: str, call: Call) -> dict[str, Any]:
    log = _log.bind(by=by, command=call.command, **call.arguments)
    try:
        of_images = call.command.startswith("image_")
        result: dict[str, Any] = carry_out_image(backend.images, by, call) if of_images else _change(backend, by, call)
    except AutoscalerError as error:
        log.warning("control_change", result="refused", error=str(error))
        raise
    log.info("control_change", result="accepted" if result.get("ok", True) else "refused")
    return result


def _change(backend: Backend, by: str, call: Call) -> dict[str, Any]:
    if call.command == "reload":
        return _fields(backend.reload(by))
    if call.command == "accept_ledger":
        backend.accept_ledger(by)
        return {"ok": True}
    if call.command in _OF_INSTANCES:
        change = Change(call.command)
        seconds = (call.seconds("for_seconds") or DEFAULT_HOLD_SECONDS) if change is Change.PROTECT else None
        return _fields(backend.change_instance(by, call.instance(), change, seconds))
    group = call.group()
    if call.command != "scale":
        return _fields(backend.change(by, group, Change(call.command), None, None))
    count = call.count()
    if count is None:
        if call.seconds("for_seconds") is not None:
            raise ControlError('scale: "for_seconds" has no meaning with "auto"; leave it out')
        return _fields(backend.change(by, group, Change.AUTO, None, None))
    held = call.seconds("for_seconds") or DEFAULT_HOLD_SECONDS
    return _fields(backend.change(by, group, Change.SCALE, count, held))


def _fields(value: Request | ReloadStatus) -> dict[str, Any]:
    fields: dict[str, Any] = encode(value)
    return fields
