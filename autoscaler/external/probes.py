"""Asks instances over the network whether they serve, in the background: no tick waits for an answer."""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoscaler.core.observation import Probe
from autoscaler.external.http import ExchangeError, connect, exchange

_WORKERS = 16
"""So many targets that let every question time out delay no others; connections are few and short."""
_IDLE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """An HTTP GET that an instance has to answer with this status."""

    port: int = 80
    path: str = "/"
    status: int = 200


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """An instance's address and what is to be asked there: that a TCP port opens, that a GET is answered, or both."""

    address: str
    tcp_port: int | None = None
    http: HttpCheck | None = None
    interval_seconds: float = 5.0
    timeout_seconds: float = 2.0


@dataclass(slots=True)
class _Watched:
    target: ProbeTarget
    due: float
    probe: Probe | None = None


class Prober:
    """Asks the instances it is told to watch, with a few workers; `now` is the clock of the results.

    `on_change` is called, from a worker, when an instance was asked for the first time, passes, or no longer does.
    """

    def __init__(self, *, now: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._now = now
        self._on_change = on_change
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._workers = 0

    def watch(self, targets: Mapping[str, ProbeTarget]) -> None:
        """Watch exactly these instances from now on; what is known of one whose target is another is forgotten."""
        with self._lock:
            for gone in self._watched.keys() - targets.keys():
                del self._watched[gone]
            for instance, target in targets.items():
                known = self._watched.get(instance)
                if known is None or known.target != target:
                    self._watched[instance] = _Watched(target, due=time.monotonic())
            for _ in range(min(len(targets), _WORKERS) - self._workers):
                threading.Thread(target=self._run, name=f"probes {self._workers}", daemon=True).start()
                self._workers += 1

    def results(self) -> Mapping[str, Probe]:
        """Give the newest answer of each watched instance that was asked."""
        with self._lock:
            return {instance: it.probe for instance, it in self._watched.items() if it.probe is not None}

    def close(self) -> None:
        """Ask no more; a question under way ends by itself."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.is_set():
            taken = self._take_due()
            if taken is None:
                self._closed.wait(_IDLE_SECONDS)
            else:
                self._keep(*taken, ask(taken[1].target))

    def _take_due(self) -> tuple[str, _Watched] | None:
        now = time.monotonic()
        with self._lock:
            instance = min(self._watched, key=lambda key: self._watched[key].due, default=None)
            if instance is None or self._watched[instance].due > now:
                return None
            watched = self._watched[instance]
            watched.due = math.inf
            return instance, watched

    def _keep(self, instance: str, asked: _Watched, complaint: str | None) -> None:
        passed = complaint is None
        with self._lock:
            if self._watched.get(instance) is not asked:
                return
            before = asked.probe
            failures = 0 if passed else (before.failures if before is not None else 0) + 1
            asked.probe = Probe(passed, self._now(), failures, complaint or "")
            asked.due = time.monotonic() + asked.target.interval_seconds
        if (before is None or before.passed is not passed) and not self._closed.is_set():
            self._on_change()


def ask(target: ProbeTarget) -> str | None:
    """Ask once, each thing within the target's time-out, and give what is wrong; None where nothing is."""
    complaint = None if target.tcp_port is None else _ask_tcp(target.address, target.tcp_port, target.timeout_seconds)
    if complaint is None and target.http is not None:
        complaint = _ask_http(target.address, target.http, target.timeout_seconds)
    return complaint


def _ask_tcp(address: str, port: int, seconds: float) -> str | None:
    try:
        connect(address, port, seconds).close()
    except TimeoutError:
        return f"port {port}: no answer within {seconds:g} s"
    except OSError as error:
        return f"port {port}: {error.strerror or error}"
    return None


def _ask_http(address: str, check: HttpCheck, seconds: float) -> str | None:
    host = f"[{address}]" if ":" in address else address
    try:
        status = exchange("GET", f"http://{host}:{check.port}{check.path}", seconds=seconds)
    except ExchangeError as error:
        return f"HTTP on port {check.port}: {error}"
    return None if status == check.status else f"HTTP status {status}, not {check.status}"
