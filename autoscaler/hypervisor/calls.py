"""Deadlines for calls that cannot be cancelled.

Each call runs in a thread of its own. One that does not return in time is abandoned: its thread is a daemon, so it
cannot keep the process from ending. How many may be stuck at once is bounded, or a host that hangs would collect
threads for ever.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind

T = TypeVar("T")


class Calls:
    """Runs the calls to one host; `limit` is how many may be stuck before further ones are refused."""

    def __init__(self, host: str, *, limit: int = 16) -> None:
        self._host = host
        self._limit = limit
        self._stuck: dict[object, str] = {}
        self._lock = threading.Lock()

    def run(self, what: str, function: Callable[[], T], seconds: float) -> T:
        """Give the function's result, or raise what it raised.

        Raises HypervisorError: DEADLINE when it did not return within `seconds`, and UNREACHABLE, without calling it,
        when too many earlier calls are stuck.
        """
        self._refuse_when_stuck(what)
        future: Future[T] = Future()
        worker = threading.Thread(target=self._work, args=(function, future), name=f"{self._host}: {what}", daemon=True)
        worker.start()
        try:
            return future.result(seconds)
        except TimeoutError:
            if self._returned_after_all(future, what):
                return future.result()
        raise HypervisorError(
            HypervisorErrorKind.DEADLINE,
            f"host {self._host} did not {what} within {seconds:g} s; what became of it is unknown. "
            f"Is libvirt, or the guest's QEMU, hanging there?",
            retryable=True,
        )

    def stuck(self) -> tuple[str, ...]:
        """Say what was asked in the calls that were given up and have not returned yet."""
        with self._lock:
            return tuple(self._stuck.values())

    def _refuse_when_stuck(self, what: str) -> None:
        with self._lock:
            stuck = len(self._stuck)
        if stuck >= self._limit:
            raise HypervisorError(
                HypervisorErrorKind.UNREACHABLE,
                f"host {self._host} was not asked to {what}: {stuck} earlier calls have not returned. "
                f"Restart libvirt on that host, or see what its QEMU processes hang on",
                retryable=True,
            )

    def _returned_after_all(self, future: Future[T], what: str) -> bool:
        with self._lock:
            if not future.done():
                self._stuck[future] = what
            return future.done()

    def _work(self, function: Callable[[], T], future: Future[T]) -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            future.set_exception(error)
        finally:
            with self._lock:
                self._stuck.pop(future, None)
