"""What the control server asks of the daemon."""

from typing import Protocol

from autoscaler.control.images import ImageBackend
from autoscaler.core.decision import Decision
from autoscaler.core.observation import Change, Request
from autoscaler.core.snapshot import ReloadStatus, Snapshot
from autoscaler.store import Event, History


class Backend(Protocol):
    """The daemon as the control socket sees it; called from several threads at once."""

    @property
    def images(self) -> ImageBackend:
        """The catalog of golden images."""
        ...

    def snapshot(self) -> Snapshot | None:
        """Return what the last tick left; None before the first has finished."""
        ...

    def change(self, by: str, group: str, change: Change, count: int | None, for_seconds: float | None) -> Request:
        """Journal an operator's request for the next tick. Raises `ControlError` when it is refused."""
        ...

    def change_instance(self, by: str, instance: str, change: Change, for_seconds: float | None) -> Request:
        """Journal an operator's request about one instance. Raises `ControlError` when it is refused."""
        ...

    def explain(self, group: str, at: float | None) -> Decision:
        """Return the group's latest decision at or before `at` (seconds since the epoch).

        Raises `ControlError` when there is none.
        """
        ...

    def events(self, group: str | None, since: float | None, after: int) -> tuple[Event, ...]:
        """Return the newest events, oldest of them first: of a group, since a time, with ids above `after`."""
        ...

    def history(self, group: str, since: float | None) -> History:
        """Return what became of a group since a time. Raises `ControlError` when there is no such group."""
        ...

    def reload(self, by: str) -> ReloadStatus:
        """Read the policy files again and say what became of it."""
        ...

    def accept_ledger(self, by: str) -> None:
        """Take a ledger that was lost for whole again. Raises `ControlError` when it had not been lost.

        And `HypervisorError` when a host cannot tell which volumes its instances have.
        """
        ...
