"""HAProxy's runtime API: what a backend's slots have, and single changes to them.

One connection per command, as HAProxy's own non-interactive mode works. The whole of an exchange has one deadline, and
an answer a bound. Changes are lost when HAProxy restarts; who asks looks again and puts them right.
"""

import csv
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence

from autoscaler.core.errors import AutoscalerError
from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.policy import Traffic
from autoscaler.core.traffic import Correction, SetAddress, SetState, SetWeight

SECONDS = 2.0
MOST_BYTES = 4 * 1024 * 1024
_MAINT_BITS = 0x01 | 0x02 | 0x20 | 0x40
"""srv_admin_state: forced, inherited, by name resolution, by host name; what the configuration says is no state."""
_DRAIN_BITS = 0x08 | 0x10
_CHANGED = ("IP changed", "port changed", "no need to change")
_FIELDS = ("srv_name", "srv_addr", "srv_port", "srv_admin_state", "srv_uweight", "srv_iweight")


class BalancerError(AutoscalerError):
    """A load balancer did not answer, or not as it should; the message names it."""


class HAProxy:
    """One backend of one HAProxy, and of it the slots of one `server-template`."""

    def __init__(self, traffic: Traffic, now: Callable[[], float], seconds: float = SECONDS) -> None:
        self._where = traffic.socket
        self._backend = traffic.backend
        self._slot = re.compile(rf"{re.escape(traffic.slots)}[0-9]+")
        self._now = now
        self._seconds = seconds

    def view(self, wanted_at: float | None) -> TrafficView:
        """Read the slots; servers of other names are left out. Raises BalancerError."""
        at = self._now()
        servers = self._servers(self.ask(f"show servers state {self._backend}"))
        stats = self._stats(self.ask(f"show stat {self._backend} -1 -1"))
        whole = stats.get("BACKEND", {})
        slots = [_slot(server, stats.get(server["srv_name"], {})) for server in servers]
        mine = sorted((s for s in slots if self._slot.fullmatch(s.name)), key=lambda s: (len(s.name), s.name))
        milliseconds = _number(whole.get("rtime"))
        return TrafficView(
            at=at,
            wanted_at=wanted_at,
            slots=tuple(mine),
            queue=_number(whole.get("qcur")),
            response_seconds=None if milliseconds is None else milliseconds / 1000,
        )

    def apply(self, correction: Correction) -> None:
        """Change one thing of one slot. Raises BalancerError when HAProxy does not do it."""
        server = f"{self._backend}/{correction.slot}"
        match correction:
            case SetAddress(address=address, port=port):
                command = f"set server {server} addr {address} port {port}"
            case SetWeight(weight=weight):
                command = f"set server {server} weight {weight}"
            case SetState(state=state):
                command = f"set server {server} state {state.value}"
        answer = self.ask(command).strip()
        if answer and not answer.startswith(_CHANGED):
            raise BalancerError(f"HAProxy at {self._where} refused `{command}`: {_short(answer)}")

    def ask(self, command: str) -> str:
        """Send one command and give the answer. Raises BalancerError."""
        deadline = time.monotonic() + self._seconds
        try:
            with _connect(self._where, self._seconds) as line:
                line.sendall(command.encode() + b"\n")
                return _read(line, deadline).decode(errors="replace")
        except TimeoutError:
            raise self._error(f"no answer within {self._seconds:g} s") from None
        except (OSError, ValueError) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise self._error(
                f"{why}; is it running, and does its configuration say `stats socket … level admin`?"
            ) from (error)

    def _error(self, why: str) -> BalancerError:
        return BalancerError(f"HAProxy at {self._where}: {why}")

    def _servers(self, text: str) -> list[dict[str, str]]:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
            raise self._error(f"no servers of backend {self._backend}: {_short(text)}")
        names = lines[1].removeprefix("# ").split()
        servers = [dict(zip(names, line.split(), strict=False)) for line in lines[2:]]
        if any(field not in server for server in servers for field in _FIELDS):
            raise self._error(f"servers of backend {self._backend} without {', '.join(_FIELDS)}: {_short(text)}")
        return servers

    def _stats(self, text: str) -> Mapping[str, Mapping[str, str]]:
        if not text.startswith("# "):
            raise self._error(f"no statistics of backend {self._backend}: {_short(text)}")
        rows = csv.DictReader(text.removeprefix("# ").strip().splitlines())
        return {row["svname"]: row for row in rows}


def _slot(server: Mapping[str, str], stats: Mapping[str, str]) -> Slot:
    admin = _number(server["srv_admin_state"]) or 0
    state = SlotState.MAINT if admin & _MAINT_BITS else SlotState.DRAIN if admin & _DRAIN_BITS else SlotState.READY
    status = stats.get("status", "")
    return Slot(
        name=server["srv_name"],
        address=server["srv_addr"],
        port=_number(server["srv_port"]) or 0,
        state=state,
        weight=_number(server["srv_uweight"]) or 0,
        initial_weight=_number(server["srv_iweight"]) or 0,
        sessions=_number(stats.get("scur")),
        healthy=None if status.startswith(("MAINT", "no check")) or not status else not status.startswith("DOWN"),
    )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _short(text: str) -> str:
    return " ".join(text.split())[:200] or "nothing"


def _connect(where: str, seconds: float) -> socket.socket:
    if where.startswith("/"):
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.settimeout(seconds)
            line.connect(where)
        except BaseException:
            line.close()
            raise
        return line
    host, _, port = where.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=seconds)


def _read(line: socket.socket, deadline: float) -> bytes:
    answer = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        line.settimeout(left)
        chunk = line.recv(65536)
        if not chunk:
            return bytes(answer)
        answer += chunk
        if len(answer) > MOST_BYTES:
            raise ValueError(f"an answer of more than {MOST_BYTES} bytes")


def slots_lacking(view: TrafficView, traffic: Traffic, most: int) -> str | None:
    """Say what to do when a group may have more instances than the backend has slots."""
    if len(view.slots) >= most:
        return None
    have = _listing([slot.name for slot in view.slots])
    return (
        f"backend {traffic.backend} of HAProxy at {traffic.socket} has {have} for a group of up to {most}: "
        f"write `server-template {traffic.slots} {most} …` there and reload HAProxy, or lower size.max to "
        f"{len(view.slots)}"
    )


def _listing(names: Sequence[str]) -> str:
    if not names:
        return "no slot of that prefix"
    return f"{len(names)} slot{'s' if len(names) > 1 else ''} ({', '.join(names[:8])}{', …' if len(names) > 8 else ''})"
