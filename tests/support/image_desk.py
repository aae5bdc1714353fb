"""A catalog of images on a journal in memory."""

from autoscaler.chronicle import Chronicle
from autoscaler.core.policy import Policy
from autoscaler.image_desk import ImageDesk
from autoscaler.store import Journal


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def image_desk(
    journal: Journal | None = None, clock: Clock | None = None, policies: tuple[Policy, ...] = ()
) -> ImageDesk:
    """Make one for the hosts local and far."""
    kept = journal or Journal.in_memory()
    return ImageDesk(
        kept,
        Chronicle(kept),
        hosts=frozenset({"local", "far"}),
        policies=lambda: policies,
        wake=lambda: None,
        grace_seconds=600.0,
        monotonic=clock or Clock(),
    )
