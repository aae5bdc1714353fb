"""Asks instances over the network whether they serve, in the background: no tick waits for an answer."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from autoscaler.core.observation import Domain, Probe
from autoscaler.core.policy import HttpCheck, Policy
from autoscaler.external.http import ExchangeError, connect, exchange

_WORKERS = 16
"""So many targets that let every question time out delay no others; connections are few and short."""
_IDLE_SECONDS = 0.1
_FIRST_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """An instance's address and what is to be asked there: that a TCP port opens, that a GET is answered, or both."""

    address: str
    tcp_port: int | None = None
    http: HttpCheck | None = None
    interval_seconds: float = 5.0
    timeout_seconds: float = 2.0


def targets(policies: Iterable[Policy], domains: Iterable[Domain], controller: str) -> Mapping[str, ProbeTarget]:
    """Give what to ask of the instances among these domains whose address is known and whose policy asks anything."""
    asking = {policy.group: policy.ready for policy in policies if policy.ready.probes}
    found = {}
    for domain in domains:
        owner = domain.ownership
        if owner is not None and owner.controller == controller and owner.group in asking and domain.addresses:
            ready = asking[owner.group]
            found[owner.instance] = ProbeTarget(domain.addresses[0], ready.tcp_port, ready.http)
    return found


@dataclass(slots=True)
class _Watched:
    host: str
    target: ProbeTarget
    due: float
    probe: Probe | None = None
    passed_once: bool = False
    failed_at: float = -math.inf


class Prober:
    """Asks the instances it is told to watch, with a few workers; `now` is the clock of the results.

    An instance is asked each second until it has passed, then at its target's interval; of failures at most one in each
    interval counts. `on_change` is called, from a worker, when an instance was asked for the first time, passes, or no
    longer does.
    """

    def __init__(self, *, now: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._now = now
        self._on_change = on_change
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._workers = 0

    def watch(self, host: str, targets: Mapping[str, ProbeTarget]) -> None:
        """Watch exactly these instances of a host from now on; what is known of one at another target is forgotten."""
        with self._lock:
            for gone in [key for key, it in self._watched.items() if it.host == host and key not in targets]:
                del self._watched[gone]
            for instance, target in targets.items():
                known = self._watched.get(instance)
                if known is None or known.target != target:
                    self._watched[instance] = _Watched(host, target, due=time.monotonic())
            for _ in range(min(len(self._watched), _WORKERS) - self._workers):
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
            failures = 0 if passed else _failures(asked)
            asked.probe = Probe(passed, self._now(), failures, complaint or "")
            asked.passed_once = asked.passed_once or passed
            interval = asked.target.interval_seconds
            asked.due = time.monotonic() + (interval if asked.passed_once else min(interval, _FIRST_INTERVAL_SECONDS))
        if (before is None or before.passed is not passed) and not self._closed.is_set():
            self._on_change()


def _failures(asked: _Watched) -> int:
    """Count one more failure, unless one was counted within the interval."""
    now = time.monotonic()
    before = asked.probe.failures if asked.probe is not None else 0
    if before and now - asked.failed_at < asked.target.interval_seconds:
        return before
    asked.failed_at = now
    return before + 1


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
