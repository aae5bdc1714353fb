"""Metrics, health and status over HTTP. Read-only; fed by snapshots."""

import asyncio
import gzip
import socket
import threading
import time
from collections.abc import Callable

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder, gzip_accepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from autoscaler.codec import encode
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.snapshot import GroupStatus, Snapshot
from autoscaler.core.traffic import Service, targets
from autoscaler.core.transition import InstanceState

REQUEST_TIMEOUT_SECONDS = 5
STOP_TIMEOUT_SECONDS = 2
MAX_CONNECTIONS = 400
"""Beyond these the answer is 503. Enough that a hundred silent ones leave room for those who ask something."""
_GZIP_LEVEL = 3
"""Metrics shrink to a tenth at any level, and higher ones only take longer."""
UNHEALTHY_AFTER_INTERVALS = 3

GetSnapshot = Callable[[], Snapshot | None]


def make_app(get_snapshot: GetSnapshot, registry: CollectorRegistry) -> Starlette:
    """Make the application: ``/metrics``, ``/healthz``, ``/api/v1/status`` and ``/sd/GROUP``."""
    rendered = _Rendered(get_snapshot)

    async def metrics(request: Request) -> Response:
        return _metrics(request, rendered, registry)

    async def healthz(_: Request) -> Response:
        trouble = _trouble(get_snapshot(), time.time())
        return PlainTextResponse(trouble or "ok\n", status_code=503 if trouble else 200)

    async def status(_: Request) -> Response:
        snapshot = get_snapshot()
        if snapshot is None:
            return JSONResponse({"error": "the first tick has not finished yet"}, status_code=503)
        content = rendered.once("status", lambda: JSONResponse(encode(snapshot)).body)
        return Response(content, media_type="application/json")

    async def discovery(request: Request) -> Response:
        snapshot, name, asked = get_snapshot(), request.path_params["group"], request.query_params.get("port", "")
        if asked and not (asked.isdecimal() and len(asked) <= 5 and 0 < int(asked) < 65536):
            return JSONResponse({"error": "port must be a number from 1 to 65535"}, status_code=400)
        if snapshot is None or snapshot.tick is None:
            # Prometheus keeps the targets it has when it is answered so.
            return JSONResponse({"error": "the first tick has not finished yet"}, status_code=503)
        found = [group for group in snapshot.groups if group.group == name]
        if not found:
            return JSONResponse({"error": f"no group {name}"}, status_code=404)
        if not found[0].listed:
            return JSONResponse({"error": f"the instances of {name} cannot be listed now"}, status_code=503)
        return JSONResponse(_targets(found[0], int(asked) if asked else found[0].port or 80))

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/api/v1/status", status),
            Route("/sd/{group}", discovery),
        ]
    )


def _metrics(request: Request, rendered: "_Rendered", registry: CollectorRegistry) -> Response:
    encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    content = rendered.once(content_type, lambda: encoder(registry))
    if gzip_accepted(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        content = rendered.once(f"{content_type}, gzip", lambda: gzip.compress(content, _GZIP_LEVEL, mtime=0))
    return Response(content, headers=headers)


def _targets(group: GroupStatus, port: int) -> list[dict[str, object]]:
    """Render Prometheus' HTTP service discovery: the ready instances whose address is known."""
    ready = (i for i in group.instances if i.state is InstanceState.READY and i.address is not None)
    services = [Service(i.instance, i.host, i.address or "", port) for i in ready]
    return targets(group.group, services)


class _Rendered:
    """What was rendered of the present snapshot: a crowd of scrapes costs the daemon one rendering per tick."""

    def __init__(self, get_snapshot: GetSnapshot) -> None:
        self._get_snapshot = get_snapshot
        self._of: Snapshot | None = None
        self._contents: dict[str, bytes] = {}

    def once(self, what: str, render: Callable[[], bytes | memoryview]) -> bytes:
        """Give what `render` gave for this snapshot; called from the server's one thread only."""
        snapshot = self._get_snapshot()
        if snapshot is None:
            return bytes(render())
        if snapshot is not self._of:
            self._of, self._contents = snapshot, {}
        if what not in self._contents:
            self._contents[what] = bytes(render())
        return self._contents[what]


def _trouble(snapshot: Snapshot | None, now: float) -> str | None:
    if snapshot is None or snapshot.last_success_at is None:
        return "no tick has finished yet\n"
    age = now - snapshot.last_success_at
    if age > UNHEALTHY_AFTER_INTERVALS * snapshot.interval_seconds:
        return f"no tick has finished for {age:.0f} s; the interval is {snapshot.interval_seconds:g} s\n"
    return None


class WebServer:
    """Serves in a thread of its own. Use port 0 for any free one; `port` tells which it became."""

    def __init__(self, listen_host: str, port: int, get_snapshot: GetSnapshot, registry: CollectorRegistry) -> None:
        self._host = listen_host
        self.port = port
        self._app = make_app(get_snapshot, registry)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Bind in the calling thread, then serve in another; from the return on, connections are taken.

        Raises `AutoscalerError` when the address is not to be had.
        """
        listener = self._bind()
        self.port = listener.getsockname()[1]
        self._server = uvicorn.Server(_settings(self._app))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="web", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End within a few seconds, whatever connections are open."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(timeout=2 * STOP_TIMEOUT_SECONDS)
        self._server = None

    def _bind(self) -> socket.socket:
        try:
            family, _, _, _, address = socket.getaddrinfo(self._host, self.port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address[:2], family=family)
        except (OSError, UnicodeError) as error:
            why = (isinstance(error, OSError) and error.strerror) or error
            raise AutoscalerError(
                f"cannot listen on {self._host}:{self.port}: {why}. "
                f"`ss -ltnp 'sport = :{self.port}'` names who has the port; "
                "set listen in the configuration to an address that is free."
            ) from error


def _settings(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_ImpatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_keep_alive=REQUEST_TIMEOUT_SECONDS,
        timeout_graceful_shutdown=STOP_TIMEOUT_SECONDS,
    )


class _ImpatientProtocol(H11Protocol):
    """Closes connections on which no whole request comes in time.

    uvicorn itself waits for a first request, and for the rest of one that has begun, for ever; a few dozen silent
    connections would then keep Prometheus out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        self._close_at(self.loop.time() + self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        due = self.timeout_keep_alive_task.when() if self.timeout_keep_alive_task is not None else None
        super().data_received(data)
        idle = self.cycle is None or self.cycle.response_complete
        if due is not None and idle and self.timeout_keep_alive_task is None:
            self._close_at(due)

    def pause_writing(self) -> None:
        """Give up on one that asks and asks and reads no answer."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread.cancel()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits for what was written last to be read; that ends, too.
        self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _close_at(self, when: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_at(when, self.timeout_keep_alive_handler)
