"""A backend of the control socket with the samples' groups, that notes what it is asked."""

import threading

from autoscaler.core.decision import Decision
from autoscaler.core.errors import ControlError, StoreError
from autoscaler.core.observation import Change, Request
from autoscaler.core.snapshot import ReloadStatus, Snapshot
from autoscaler.core.words import nearest
from autoscaler.image_desk import ImageDesk
from autoscaler.store import Event, History
from tests.samples import EVENTS, HISTORY, NOW, SCALING_OUT, SNAPSHOT
from tests.support.image_desk import filled_image_desk

FULL = "full"
"""A group whose changes the journal has no room for."""
POLICIES = ("web",)
INSTANCES = ("web-1",)


class Desk:
    """Knows the group web with the instance web-1; `reloaded` is what the next reload comes to, None for a bug."""

    def __init__(self) -> None:
        self.of_images = filled_image_desk()
        self.shown: Snapshot | None = SNAPSHOT
        self.noted: list[Request] = []
        self.asked_at: float | None = None
        self.asked_events: tuple[str | None, float | None, int] | None = None
        self.asked_history: tuple[str, float | None] | None = None
        self.reloaded: ReloadStatus | None = ReloadStatus(ok=True, at=NOW)
        self.busy = threading.Event()
        self.busy.set()

    @property
    def images(self) -> ImageDesk:
        return self.of_images

    def snapshot(self) -> Snapshot | None:
        assert self.busy.wait(20)
        return self.shown

    def change(self, by: str, group: str, change: Change, count: int | None, for_seconds: float | None) -> Request:
        if group == FULL:
            raise StoreError("the journal cannot be written: no space left on the device")
        self._refuse_unknown(group)
        return self._note(Request(len(self.noted) + 1, NOW, by, group, change, count, for_seconds))

    def change_instance(self, by: str, instance: str, change: Change, for_seconds: float | None) -> Request:
        if instance not in INSTANCES:
            raise ControlError(f"there is no instance {instance}; {nearest(instance, INSTANCES, 'instances')}")
        return self._note(Request(len(self.noted) + 1, NOW, by, "web", change, None, for_seconds, instance))

    def explain(self, group: str, at: float | None) -> Decision:
        self._refuse_unknown(group)
        self.asked_at = at
        return SCALING_OUT

    def accept_ledger(self, by: str) -> None:
        if self.reloaded is None or not self.reloaded.ok:
            raise ControlError("the ledger was not lost")

    def events(self, group: str | None, since: float | None, after: int) -> tuple[Event, ...]:
        self.asked_events = (group, since, after)
        return tuple(event for event in EVENTS if event.id > after)

    def history(self, group: str, since: float | None) -> History:
        self._refuse_unknown(group)
        self.asked_history = (group, since)
        return HISTORY

    def reload(self, by: str) -> ReloadStatus:
        if self.reloaded is None:
            raise ZeroDivisionError("a bug in the daemon")
        return self.reloaded

    def _note(self, request: Request) -> Request:
        self.noted.append(request)
        return request

    def _refuse_unknown(self, group: str) -> None:
        if group not in POLICIES:
            raise ControlError(f"no policy for group {group}; {nearest(group, POLICIES, 'groups with a policy')}")
