"""Connections to one host's libvirt that come back by themselves."""

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import TypeVar
from urllib.parse import urlsplit

import libvirt

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.hypervisor.calls import Calls
from autoscaler.hypervisor.errors import is_code, translate

T = TypeVar("T")

_KEEPALIVE_SECONDS = 5
_KEEPALIVE_COUNT = 3
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 8.0


def is_local(uri: str) -> bool:
    """Whether the URI means a libvirt on this machine."""
    return not urlsplit(uri).netloc


@cache
def start_event_loop() -> None:
    """Run libvirt's event loop in a thread that never ends.

    It must be registered before the first connection is opened, and run for ever: without it keepalive answers are
    never read, and libvirt drops the connection.
    """
    # libvirt prints each error to stderr otherwise; they are raised as exceptions all the same.
    libvirt.registerErrorHandler(_ignore, None)
    libvirt.virEventRegisterDefaultImpl()

    def run() -> None:
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=run, name="libvirt events", daemon=True).start()


def _ignore(_context: None, _error: object) -> None:
    """Take an error that is also raised."""


class Connections:
    """Connections to one host, opened when needed and again after they were lost, each lent to one call at a time.

    Calls do not share one: the client library up to libvirt 9 may lose the wake-up of a second call on a connection
    (until something else arrives, seconds later), and a call that hangs keeps none waiting but itself. `on_open`
    registers what a lost connection took with it. After a failed attempt to open, calls fail at once until a growing
    backoff (0.5 s to 8 s) has passed. With `read_only` they may look and change nothing, and every user may have them.
    """

    def __init__(
        self,
        host: str,
        uri: str,
        calls: Calls,
        on_open: Callable[[libvirt.virConnect], None] | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.host = host
        self.uri = uri
        self._calls = calls
        self._on_open = on_open
        self._opener = libvirt.openReadOnly if read_only else libvirt.open
        self._lock = threading.Lock()
        self._idle: list[libvirt.virConnect] = []
        self._closed = False
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        self._refused: tuple[float, HypervisorError] | None = None
        start_event_loop()

    def call(self, what: str, function: Callable[[libvirt.virConnect], T], seconds: float) -> T:
        """Give the function's result; `what` completes "host H could not …". Raises HypervisorError.

        The function must look up what it needs: objects of an earlier connection are dead.
        """
        return self._calls.run(what, lambda: self._attempt(what, function), seconds)

    def stuck(self) -> tuple[str, ...]:
        """Say what was asked in the calls that were given up and have not returned yet."""
        return self._calls.stuck()

    def close(self) -> None:
        """Take no more calls and let idle connections go; one that is in use goes when its call ends."""
        with self._lock:
            self._closed = True
            self._idle.clear()

    def _attempt(self, what: str, function: Callable[[libvirt.virConnect], T]) -> T:
        connection = self._take() or self._open(what)
        try:
            return function(connection)
        except libvirt.libvirtError as error:
            raise translate(self.host, self.uri, what, error) from error
        finally:
            self._give_back(connection)

    def _take(self) -> libvirt.virConnect | None:
        with self._lock:
            if self._closed:
                raise HypervisorError(HypervisorErrorKind.UNREACHABLE, f"the connection to {self.host} was closed")
            while self._idle:
                connection = self._idle.pop()
                if connection.isAlive():
                    return connection
            if self._refused is not None and time.monotonic() < self._refused[0]:
                last = self._refused[1]
                raise HypervisorError(last.kind, str(last), retryable=last.retryable)
        return None

    def _give_back(self, connection: libvirt.virConnect) -> None:
        with self._lock:
            if not self._closed and connection.isAlive():
                self._idle.append(connection)

    def _open(self, what: str) -> libvirt.virConnect:
        # Without the lock: opening may hang, and others must still run into their own deadline.
        try:
            connection = self._opener(self.uri)
            _keep_alive(connection)
            if self._on_open is not None:
                self._on_open(connection)
        except libvirt.libvirtError as error:
            translated = translate(self.host, self.uri, what, error)
            if translated.kind is HypervisorErrorKind.FAILED:
                translated = HypervisorError(HypervisorErrorKind.UNREACHABLE, str(translated), retryable=True)
            self._back_off(translated)
            raise translated from error
        with self._lock:
            self._backoff_seconds, self._refused = _FIRST_BACKOFF_SECONDS, None
        return connection

    def _back_off(self, error: HypervisorError) -> None:
        with self._lock:
            self._refused = (time.monotonic() + self._backoff_seconds, error)
            self._backoff_seconds = min(self._backoff_seconds * 2, _LONGEST_BACKOFF_SECONDS)


def _keep_alive(connection: libvirt.virConnect) -> None:
    try:
        connection.setKeepAlive(_KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        # A driver inside this process has no line that could break.
        if not is_code(error, libvirt.VIR_ERR_NO_SUPPORT):
            raise
