"""What operators ask of the daemon: what is, what was, and what the next tick is to take into account."""

import time
from collections.abc import Callable

import structlog

from autoscaler.chronicle import Chronicle
from autoscaler.core.decision import Decision
from autoscaler.core.errors import ControlError
from autoscaler.core.observation import Change, Request
from autoscaler.core.policy import Policy
from autoscaler.core.refresh import refuse_refresh
from autoscaler.core.snapshot import ReloadStatus, Snapshot
from autoscaler.core.status import refuse_change
from autoscaler.core.words import nearest
from autoscaler.image_desk import ImageDesk
from autoscaler.store import Event, History, Journal

log = structlog.get_logger(__name__)

_OF_REFRESH = frozenset({Change.REFRESH, Change.CANCEL_REFRESH, Change.ROLL_BACK})
_MOST_EVENTS = 500
_HISTORY_SECONDS = 6 * 3600.0


class Desk:
    """Answers the control socket, as `autoscaler.control.backend.Backend` says.

    `adopt` puts the volumes of all instances into the ledger, `wake` lets the next tick come at once.
    """

    def __init__(
        self,
        journal: Journal,
        chronicle: Chronicle,
        *,
        images: ImageDesk,
        snapshot: Callable[[], Snapshot],
        policies: Callable[[], tuple[Policy, ...]],
        reload: Callable[[str], ReloadStatus],
        adopt: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self.images = images
        self._journal = journal
        self._chronicle = chronicle
        self._snapshot = snapshot
        self._policies = policies
        self._reload = reload
        self._adopt = adopt
        self._wake = wake

    def snapshot(self) -> Snapshot:
        """Give what the last finished tick left."""
        return self._snapshot()

    def reload(self, by: str) -> ReloadStatus:
        """Read the policy files again, and say what became of it."""
        return self._reload(by)

    def change(self, by: str, group: str, change: Change, count: int | None, for_seconds: float | None) -> Request:
        """Note an operator's request for the next tick. Raises ControlError where it cannot be granted."""
        if change is Change.DELETE:
            self._refuse_deletion(group)
        else:
            size = self._policy(group).size
            if change in _OF_REFRESH:
                known = next((status for status in self._snapshot().groups if status.group == group), None)
                refuse_refresh(group, known, change)
            if change is Change.SCALE and (count is None or not size.min <= count <= size.max):
                bounds = f"{size.min} to {size.max}"
                raise ControlError(
                    f"group {group} can be scaled to {bounds} instances; change size in its policy for more"
                )
        return self._request(Request(0, time.time(), by, group, change, count, for_seconds))

    def change_instance(self, by: str, instance: str, change: Change, for_seconds: float | None) -> Request:
        """Note an operator's request about one instance. Raises ControlError where there is no such instance."""
        group = refuse_change(self._snapshot(), instance, change)
        return self._request(Request(0, time.time(), by, group, change, None, for_seconds, instance))

    def _request(self, asked: Request) -> Request:
        request = self._journal.add_request(
            asked.at, asked.by, asked.group, asked.change, asked.count, asked.for_seconds, asked.instance
        )
        self._chronicle.request(request)
        self._wake()
        return request

    def _refuse_deletion(self, group: str) -> None:
        """Raise ControlError for a group that has a policy, or nothing to delete."""
        if any(policy.group == group for policy in self._policies()):
            raise ControlError(
                f"group {group} has a policy, which would make its instances anew; "
                "take its file out of the policies folder and run `autoscaler reload` first"
            )
        if all(status.group != group for status in self._snapshot().groups):
            known = (status.group for status in self._snapshot().groups)
            raise ControlError(f"there is no group {group}; {nearest(group, known, 'groups')}")

    def explain(self, group: str, at: float | None) -> Decision:
        """Give the decision of the last tick, or of the one at a time. Raises ControlError where there is none."""
        for status in self._snapshot().groups:
            if at is None and status.group == group and status.decision is not None:
                return status.decision
        decision = self._journal.decision_at(group, at)
        if decision is None:
            self._policy(group)
            raise ControlError(f"no decision of group {group} is recorded for that time")
        return decision

    def events(self, group: str | None, since: float | None, after: int) -> tuple[Event, ...]:
        """Give the newest events, oldest of them first. Raises ControlError for a group that nothing is known of."""
        found = self._journal.events(since, group, _MOST_EVENTS, after)
        if group is not None and not found and all(status.group != group for status in self._snapshot().groups):
            self._policy(group)
        return found

    def history(self, group: str, since: float | None) -> History:
        """Give what became of a group. Raises ControlError where nothing is known of it."""
        now = time.time()
        history = self._journal.history(group, now - _HISTORY_SECONDS if since is None else min(since, now), now)
        if not history.decisions and not history.loads:
            self._policy(group)
        return history

    def accept_ledger(self, by: str) -> None:
        """Delete what is left over again, after the ledger was lost, with the volumes of all instances in it.

        Raises ControlError when it was not lost, HypervisorError when a host does not answer.
        """
        if not self._journal.pending().ledger_lost:
            raise ControlError("the ledger was not lost, or has been accepted already: there is nothing to accept")
        self._adopt()
        self._journal.accept_ledger()
        log.info("ledger accepted, what is left over is collected again", by=by)
        self._wake()

    def _policy(self, group: str) -> Policy:
        for policy in self._policies():
            if policy.group == group:
                return policy
        known = (policy.group for policy in self._policies())
        raise ControlError(f"no policy for group {group}; {nearest(group, known, 'groups with a policy')}")
