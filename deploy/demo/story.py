"""What the demo saw happen, in order: from the daemon's snapshots to the lines and the summary people read."""

from dataclasses import dataclass, field

from autoscaler.core.decision import Decision, ReasonCode
from autoscaler.core.snapshot import GroupStatus, Snapshot
from autoscaler.core.transition import InstanceState
from autoscaler.reasons import describe

GROUP = "demo"
_AWAY = frozenset({InstanceState.STOPPING, InstanceState.FAILED})


@dataclass
class Story:
    """The moments of one demo, in seconds since the epoch; `None` for what has not happened."""

    started: float
    """When the daemon was started."""
    first_ready: float | None = None
    load_begun: float | None = None
    load_crossed: float | None = None
    """When the group's load was first seen above its target."""
    clone_asked: float | None = None
    running: float | None = None
    """When the first added domain ran."""
    ready: float | None = None
    """When the first added instance's agent answered."""
    scaled_out: float | None = None
    """When at least three instances were ready."""
    load_ended: float | None = None
    removal_asked: float | None = None
    scaled_in: float | None = None
    most_ready: int = 0
    first: frozenset[str] = field(default_factory=frozenset)
    """The instances that were ready when the load began."""

    def note(self, snapshot: Snapshot) -> None:
        """Take in one snapshot."""
        group = find_group(snapshot)
        if group is None:
            return
        ready = ready_instances(group)
        self.most_ready = max(self.most_ready, len(ready))
        if self.first_ready is None and ready:
            self.first_ready = snapshot.at
        if self.load_begun is not None:
            self._note_growth(group, snapshot.at)
        if self.load_ended is not None:
            self._note_shrinking(group, snapshot.at)

    def _note_growth(self, group: GroupStatus, at: float) -> None:
        decision = group.decision
        if self.load_crossed is None and decision is not None and exceeds(decision):
            self.load_crossed = decision.at
        added = [instance for instance in group.instances if instance.instance not in self.first]
        if self.clone_asked is None and added:
            self.clone_asked = min(instance.since for instance in added)
        if self.running is None and any(i.state in (InstanceState.BOOTING, InstanceState.READY) for i in added):
            self.running = min(i.since for i in added if i.state in (InstanceState.BOOTING, InstanceState.READY))
        if self.ready is None and any(i.state is InstanceState.READY for i in added):
            self.ready = min(i.since for i in added if i.state is InstanceState.READY)
        if self.scaled_out is None and len(ready_instances(group)) >= 3:
            self.scaled_out = at

    def _note_shrinking(self, group: GroupStatus, at: float) -> None:
        if (
            self.removal_asked is None
            and group.decision is not None
            and group.decision.admitted < group.decision.current
        ):
            self.removal_asked = group.decision.at
        if self.scaled_in is None and len(group.instances) == 1 and len(ready_instances(group)) == 1:
            self.scaled_in = at

    def summary(self) -> list[tuple[str, float | None, float | None]]:
        """Give each moment as what happened, seconds since the daemon's start, and seconds since its cause."""
        moments = [
            ("the daemon starts", self.started, None),
            ("the first instance is ready", self.first_ready, self.started),
            ("the load is applied", self.load_begun, None),
            ("the load is seen above the target", self.load_crossed, self.load_begun),
            ("a clone is asked for", self.clone_asked, self.load_crossed),
            ("its domain runs", self.running, self.clone_asked),
            ("its agent answers: ready", self.ready, self.running),
            ("three instances are ready", self.scaled_out, self.load_begun),
            ("the load ends", self.load_ended, None),
            ("the first removal is asked for", self.removal_asked, self.load_ended),
            ("one instance is left", self.scaled_in, self.load_ended),
        ]
        return [
            (what, None if at is None else at - self.started, None if at is None or cause is None else at - cause)
            for what, at, cause in moments
        ]


def find_group(snapshot: Snapshot) -> GroupStatus | None:
    """Return the demo's group; None before the first tick."""
    return next((group for group in snapshot.groups if group.group == GROUP), None)


def ready_instances(group: GroupStatus) -> list[str]:
    """Name the instances whose agent answers."""
    return [instance.instance for instance in group.instances if instance.state is InstanceState.READY]


def exceeds(decision: Decision) -> bool:
    """Whether a strategy saw the load above its target."""
    return any(wish.reason.code is ReasonCode.TARGET_EXCEEDED for wish in decision.recommendations)


def explain(decision: Decision) -> str:
    """Say a decision with its reasons in one line."""
    change = f"{decision.current} → {decision.admitted}" if decision.admitted != decision.current else "stays"
    reasons = [wish.reason for wish in decision.recommendations] + list(decision.reasons)
    return f"{change}: {'; '.join(describe(reason) for reason in reasons)}"


def is_news(decision: Decision, before: Decision | None) -> bool:
    """Whether a decision changes the count, or has other reasons than the one before; newer figures are no news."""
    if before is None or decision.admitted != decision.current:
        return before is None or decision.at != before.at
    return _codes(decision) != _codes(before)


def _codes(decision: Decision) -> list[ReasonCode]:
    return [wish.reason.code for wish in decision.recommendations] + [reason.code for reason in decision.reasons]
