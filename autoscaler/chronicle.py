"""What people find in `autoscaler events`: written into the journal as it happens, beside the log.

These kinds of events are written here; their details are plain figures and words:

================== ===========================================================================
kind               detail
================== ===========================================================================
request            change, by, and of scale: count, for_seconds
reload             by, policies
reload_refused     by, error
policy_vanished    -
image_imported     image, version, host, by
image_published    image, version, by
image_rolled_back  image, version, by
image_pruned       image, version, host, by
image_changed      image, why
scaled             before, admitted, recommended, reasons
refresh            phase, target, batch, why
host_unreachable   host, why
host_answers       host
no_figure          query, why
figure             query
================== ===========================================================================
"""

from collections.abc import Mapping
from typing import Protocol

import structlog

from autoscaler.core.decision import ABOUT_REFRESH, Decision, ReasonCode, decisive
from autoscaler.core.errors import StoreError
from autoscaler.core.memory import RefreshPhase, RefreshState
from autoscaler.core.observation import ExternalSample, Observation, Request, Unknown
from autoscaler.core.policy import Image
from autoscaler.core.snapshot import HostStatus, ReloadStatus
from autoscaler.external.prometheus import NOT_ASKED
from autoscaler.reasons import describe

log = structlog.get_logger(__name__)

Detail = Mapping[str, str | int | float]
_LONGEST_DETAIL = 1000
_OF_HOSTS = frozenset(
    {
        *(code for code in ReasonCode if code.startswith("refused_for_")),
        ReasonCode.YIELDS_TO_GROUP,
        ReasonCode.TAKES_ROOM_FROM,
        ReasonCode.STARVED,
    }
)


class EventStore(Protocol):
    """Where events are kept."""

    def add_event(
        self,
        at: float,
        kind: str,
        group: str | None = None,
        instance: str | None = None,
        detail: Detail | None = None,
    ) -> None:
        """Keep one. Raises StoreError."""
        ...


class Chronicle:
    """Notes events; one that cannot be written is logged and nothing waits for it."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._hosts: dict[str, bool] = {}
        self._figures: dict[str, bool] = {}
        self._refreshes: dict[str, tuple[Image, RefreshPhase, int]] = {}
        self._capacity: dict[str, frozenset[ReasonCode]] = {}

    def note(self, at: float, kind: str, group: str | None = None, **detail: str | float) -> None:
        """Note an event of any kind; texts are cut to what a line may hold."""
        cut = {name: value[:_LONGEST_DETAIL] if isinstance(value, str) else value for name, value in detail.items()}
        try:
            self._store.add_event(at, kind, group, None, cut)
        except StoreError as error:
            log.error("event not kept", kind=kind, error=str(error))  # noqa: TRY400 - an operator's error, not a bug

    def capacity(self, decision: Decision) -> None:
        """Note what a group's host began to lack, who began to yield to whom, and that guests began to starve."""
        said = {reason.code: reason for reason in decision.reasons if reason.code in _OF_HOSTS}
        for code in sorted(said.keys() - self._capacity.get(decision.group, frozenset())):
            self.note(decision.at, "capacity", decision.group, reason=code.value, why=describe(said[code]))
        self._capacity[decision.group] = frozenset(said)

    def refresh(self, decision: Decision, refresh: RefreshState | None) -> None:
        """Note that a group's refresh came into another phase."""
        if refresh is None:
            return
        known, now = self._refreshes.get(decision.group), (refresh.target, refresh.phase, refresh.batch)
        self._refreshes[decision.group] = now
        # What a daemon finds at its start was noted by the one before.
        if now != known and (known is not None or refresh.since == decision.at):
            said = [describe(reason) for reason in decision.reasons if reason.code in ABOUT_REFRESH]
            detail = {"phase": refresh.phase.value, "target": str(refresh.target), "why": "; ".join(said)}
            self.note(decision.at, "refresh", decision.group, batch=refresh.batch, **detail)

    def request(self, request: Request) -> None:
        """Note what an operator asked for."""
        given = {"count": request.count, "for_seconds": request.for_seconds}
        figures = {name: value for name, value in given.items() if value is not None}
        self.note(request.at, "request", request.group, change=request.change.value, by=request.by, **figures)

    def reload(self, status: ReloadStatus, by: str, policies: int) -> None:
        """Note that the policy files were read again, and what became of it."""
        if status.ok:
            self.note(status.at, "reload", by=by, policies=policies)
        else:
            self.note(status.at, "reload_refused", by=by, error=status.error or "")

    def scaled(self, decision: Decision) -> None:
        """Note a decision if it changed its group's size."""
        if decision.admitted == decision.current:
            return
        self.note(
            decision.at,
            "scaled",
            decision.group,
            before=decision.current,
            admitted=decision.admitted,
            recommended=decision.recommended,
            reasons=" ".join(reason.code.value for reason in decisive(decision)),
        )

    def hosts(self, at: float, statuses: tuple[HostStatus, ...]) -> None:
        """Note hosts that stopped answering since the tick before, or answer again."""
        for status in statuses:
            answers = status.why is None
            if self._hosts.get(status.host, True) != answers:
                if answers:
                    self.note(at, "host_answers", host=status.host)
                else:
                    self.note(at, "host_unreachable", host=status.host, why=status.why or "")
            self._hosts[status.host] = answers

    def figures(self, observation: Observation) -> None:
        """Note queries that stopped giving figures since the tick before, or give them again."""
        for key, found in observation.external.items():
            given = isinstance(found, ExternalSample)
            if isinstance(found, Unknown) and found.why == NOT_ASKED:
                continue
            if self._figures.get(key, True) != given:
                if isinstance(found, Unknown):
                    self.note(observation.at, "no_figure", query=key, why=found.why)
                else:
                    self.note(observation.at, "figure", query=key)
            self._figures[key] = given
