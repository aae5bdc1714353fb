"""A catalog of images on a journal in memory."""

from autoscaler.chronicle import Chronicle
from autoscaler.core.catalog import Import
from autoscaler.core.policy import Image, Policy, Size
from autoscaler.image_desk import ImageDesk
from autoscaler.store import Journal
from tests.samples import BOB


class Clock:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def image_desk(
    journal: Journal | None = None,
    clock: Clock | None = None,
    policies: tuple[Policy, ...] = (),
    refreshing: tuple[tuple[Policy, Image], ...] = (),
) -> ImageDesk:
    """Make one for the hosts local and far."""
    kept = journal or Journal.in_memory()
    return ImageDesk(
        kept,
        Chronicle(kept),
        hosts=frozenset({"local", "far"}),
        policies=lambda: policies,
        refreshing=lambda: refreshing,
        wake=lambda: None,
        grace_seconds=600.0,
        monotonic=clock or Clock(),
    )


def filled_image_desk() -> ImageDesk:
    """Make one with an image of three versions, the second of which is published after the first, and followed."""
    policy = Policy("web", Image("", "", "web"), Size(1, 4))
    desk = image_desk(policies=(policy,))
    for number in (1, 2, 3):
        digest = f"{number}c0ffee{number}" * 8
        asked = Import("web", "local", "default", digest, number * (16 << 20), 1 << 30, f"/srv/web-{number}.qcow2")
        desk.begin(BOB, asked)
        desk.finish(BOB, asked, "stamp", publish=True)
    desk.publish(BOB, "web", 2)
    return desk
