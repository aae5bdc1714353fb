"""What only guests tell: whether their agents answer, and their addresses.

Asked in the background, so that a hung guest delays no listing; and commands run inside guests, by their agents.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import libvirt
import libvirt_qemu
import structlog

from autoscaler.core.errors import HypervisorError
from autoscaler.hypervisor import addresses
from autoscaler.hypervisor.connection import Connections
from autoscaler.hypervisor.domain_xml import agent_connected
from autoscaler.hypervisor.errors import is_code

T = TypeVar("T")

log = structlog.get_logger(__name__)

_WORKERS = 4
_IDLE_SECONDS = 0.25
_UNANSWERED_INTERVAL_SECONDS = 1.0
_ANSWERED_INTERVAL_SECONDS = 10.0
_PING_SECONDS = 2
_CALL_SECONDS = 10.0


@dataclass(slots=True)
class _Watched:
    due: float
    answers: bool | None = None
    addresses: tuple[str, ...] = ()
    complaint: str | None = None


class AgentProber:
    """Pings the agents of the domains it is told to watch, with a few workers.

    A domain is asked each second until it has answered, then every ten; so are the addresses of those where they are
    asked for. `on_answer` is called, from a worker, when an answer or an address changed.
    """

    def __init__(self, connections: Connections, on_answer: Callable[[], None]) -> None:
        self._connections = connections
        self._on_answer = on_answer
        self._watched: dict[str, _Watched] = {}
        self._addressed: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._started = False

    def watch(self, uuids: frozenset[str], addressed: frozenset[str]) -> None:
        """Watch exactly these running domains from now on, and look for the addresses of those `addressed`."""
        with self._lock:
            for asked_now in (addressed - self._addressed) & self._watched.keys():
                self._watched[asked_now].due = min(self._watched[asked_now].due, time.monotonic())
            self._addressed = addressed
            for gone in self._watched.keys() - uuids:
                del self._watched[gone]
            for new in uuids - self._watched.keys():
                self._watched[new] = _Watched(due=time.monotonic())
            if uuids and not self._started:
                self._started = True
                self._start()

    def answers(self, uuid: str) -> bool | None:
        """Give the newest known answer; None where it was not asked yet or could not be told."""
        with self._lock:
            watched = self._watched.get(uuid)
            return None if watched is None else watched.answers

    def addresses(self, uuid: str) -> tuple[str, ...]:
        """Give the newest known addresses, the one to be reached by first; none where nobody asked for them."""
        with self._lock:
            watched = self._watched.get(uuid)
            return () if watched is None or uuid not in self._addressed else watched.addresses

    def close(self) -> None:
        """Ask no more; a ping under way ends by itself."""
        self._closed.set()
        self._connections.close()

    def _start(self) -> None:
        for number in range(_WORKERS):
            name = f"{self._connections.host}: agents {number}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while not self._closed.is_set():
            uuid = self._take_due()
            if uuid is None:
                self._closed.wait(_IDLE_SECONDS)
            else:
                self._look_at(uuid)

    def _look_at(self, uuid: str) -> None:
        answers = self._ask(uuid, f"ask the agent of {uuid}", lambda it: ping(it, uuid))
        with self._lock:
            wanted = uuid in self._addressed
        found = None
        if wanted:
            # An agent that does not answer a ping is not asked for more.
            ask_agent = answers is True
            found = self._ask(
                uuid, f"find the addresses of {uuid}", lambda it: addresses.read(it, uuid, ask_agent=ask_agent)
            )
        self._keep(uuid, answers=answers, found=found, wanted=wanted)

    def _take_due(self) -> str | None:
        now = time.monotonic()
        with self._lock:
            for uuid, watched in self._watched.items():
                if watched.due <= now:
                    watched.due = math.inf
                    return uuid
        return None

    def _keep(self, uuid: str, *, answers: bool | None, found: tuple[str, ...] | None, wanted: bool) -> None:
        settled = answers and (found or not wanted)
        with self._lock:
            watched = self._watched.get(uuid)
            if watched is None:
                return
            before = watched.answers, watched.addresses
            watched.answers = answers
            if found or (found is not None and answers):
                # What an agent told is kept while it is silent; a guest that answers and has no address has none.
                watched.addresses = found
            watched.due = time.monotonic() + (_ANSWERED_INTERVAL_SECONDS if settled else _UNANSWERED_INTERVAL_SECONDS)
            changed = before != (watched.answers, watched.addresses)
        if changed and not self._closed.is_set():
            self._on_answer()

    def _ask(self, uuid: str, what: str, question: Callable[[libvirt.virConnect], T]) -> T | None:
        try:
            return self._connections.call(what, question, _CALL_SECONDS)
        except HypervisorError as error:
            # Whether libvirt answers is told by the listing; here it only means that nothing is known of the guest.
            self._complain(uuid, str(error))
            return None

    def _complain(self, uuid: str, complaint: str) -> None:
        """Log what keeps a guest from being asked, each thing once."""
        with self._lock:
            watched = self._watched.get(uuid)
            if watched is None or watched.complaint == complaint:
                return
            watched.complaint = complaint
        log.warning("guest cannot be asked", uuid=uuid, error=complaint)


def ping(connection: libvirt.virConnect, uuid: str) -> bool | None:
    """Ping one domain's agent; None where it has no agent channel. Raises libvirtError where nobody could ask it."""
    domain = connection.lookupByUUIDString(uuid)
    connected = agent_connected(domain.XMLDesc())
    if not connected:
        return connected
    try:
        libvirt_qemu.qemuAgentCommand(domain, '{"execute":"guest-ping"}', _PING_SECONDS, 0)
    except libvirt.libvirtError as error:
        if _refused(error):
            return True
        if is_code(error, libvirt.VIR_ERR_AGENT_UNRESPONSIVE):
            return False
        raise
    return True


def _refused(error: libvirt.libvirtError) -> bool:
    """Whether the agent said that it may not be pinged; libvirt has no code for that, only the agent's words."""
    of_qemu = error.get_error_domain() == libvirt.VIR_FROM_QEMU
    return of_qemu and is_code(error, libvirt.VIR_ERR_INTERNAL_ERROR) and "'guest-ping'" in str(error)
