"""The daemon's catalog: imports, publications and what is pruned, on a journal in memory."""

from dataclasses import replace

import pytest

from autoscaler.core.action import Clone
from autoscaler.core.catalog import IMAGES, ImageVersion, Import
from autoscaler.core.errors import ControlError
from autoscaler.core.memory import Memory
from autoscaler.core.observation import HostInventory, Leftover, Observation
from autoscaler.core.policy import Image, Machine, Policy, Size
from autoscaler.image_desk import ImageDesk
from autoscaler.store import Journal, TickRecord
from autoscaler.world import World
from tests.support.image_desk import Clock, image_desk

ME = "me (uid 0, pid 1)"
FIRST = Import("web", "local", "default", "a" * 64, 16 << 20, 1 << 30, "/tmp/a.qcow2")
SECOND = replace(FIRST, digest="b" * 64)
FOLLOWING = Policy("web", Image("", "", "web"), Size(1, 2))


def bring(desk: ImageDesk, asked: Import, *, publish: bool = True) -> ImageVersion:
    ticket = desk.begin(ME, asked)
    assert ticket.known is None
    return desk.finish(ME, asked, f"stamp of {asked.digest}", publish=publish)


@pytest.fixture
def journal() -> Journal:
    return Journal.in_memory()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def desk(journal: Journal, clock: Clock) -> ImageDesk:
    return image_desk(journal, clock, (FOLLOWING,))


def test_the_first_of_a_name_is_published_and_later_ones_are_when_somebody_says_so(desk: ImageDesk) -> None:
    assert desk.resolve((FOLLOWING,)) == (FOLLOWING,)
    assert bring(desk, FIRST).version == 1
    assert bring(desk, SECOND).version == 2
    assert [p.image.version for p in desk.resolve((FOLLOWING,))] == [1]
    assert desk.publish(ME, "web", None).version == 2
    assert [p.image for p in desk.resolve((FOLLOWING,))] == [Image("default", SECOND.volume, "web", 2)]
    assert desk.rollback(ME, "web").version == 1
    assert [p.image.version for p in desk.resolve((FOLLOWING,))] == [1]
    with pytest.raises(ControlError, match="no version of image web was published before"):
        desk.rollback(ME, "web")


def test_what_is_refused(desk: ImageDesk) -> None:
    bring(desk, FIRST, publish=False)
    assert desk.resolve((FOLLOWING,)) == (FOLLOWING,)
    with pytest.raises(ControlError, match="no image db; images: web"):
        desk.publish(ME, "db", None)
    with pytest.raises(ControlError, match="no version 7"):
        desk.publish(ME, "web", 7)
    desk.publish(ME, "web", 1)
    with pytest.raises(ControlError, match="published already"):
        desk.publish(ME, "web", 1)
    with pytest.raises(ControlError, match="no host elsewhere; hosts: far, local"):
        desk.begin(ME, replace(FIRST, host="elsewhere"))


def test_the_same_content_is_one_version_on_each_host(desk: ImageDesk) -> None:
    first = bring(desk, FIRST)
    bring(desk, SECOND)
    assert desk.begin(ME, FIRST).known == first
    assert desk.finish(ME, FIRST, "stamp", publish=True) == first, "the answer may have been lost on its way"
    assert bring(desk, replace(FIRST, host="far")).version == 1
    assert [(v.version, v.host) for v in desk.catalog.of("web")] == [(1, "far"), (1, "local"), (2, "local")]


def test_all_of_it_survives_a_restart(desk: ImageDesk, journal: Journal) -> None:
    bring(desk, FIRST)
    bring(desk, SECOND)
    desk.publish(ME, "web", 2)
    assert image_desk(journal).catalog == desk.catalog
    assert dict(journal.images.contents("local", "default", FIRST.volume)) == {f"stamp of {FIRST.digest}": FIRST.digest}


class Nowhere:
    """Workers that do nothing, on a host that has nothing."""

    def observe(self, at: float, metrics: frozenset[str], wanted: object = None) -> Observation:
        return Observation(at, 10.0, inventory={"local": HostInventory("local", ())})


def leftovers(desk: ImageDesk, journal: Journal) -> tuple[Leftover, ...]:
    world = World(Nowhere(), journal, None, 600.0, desk.in_hand)  # type: ignore[arg-type]
    return world.observe(0.0, frozenset()).leftovers


def test_a_half_is_left_over_only_once_nobody_is_heard_of(desk: ImageDesk, journal: Journal, clock: Clock) -> None:
    ticket = desk.begin(ME, FIRST)
    assert journal.volumes() == (FIRST.half,)
    for _ in range(20):
        clock.seconds += ticket.alive_seconds
        desk.alive(FIRST)
        assert leftovers(desk, journal) == ()
    with pytest.raises(ControlError, match="is being imported to host local already"):
        desk.begin(ME, FIRST)
    clock.seconds += 5 * ticket.alive_seconds
    assert leftovers(desk, journal) == (Leftover("local", f"{IMAGES}-{'a' * 12}"),)
    assert desk.begin(ME, FIRST).stale
    assert leftovers(desk, journal) == ()


def test_a_restarted_daemon_gives_an_import_time_to_be_heard_of(journal: Journal, clock: Clock) -> None:
    image_desk(journal, clock).begin(ME, FIRST)
    restarted = image_desk(journal, clock)
    assert leftovers(restarted, journal) == ()
    restarted.alive(FIRST)
    assert restarted.finish(ME, FIRST, "stamp", publish=True).version == 1


def test_what_was_given_up_comes_too_late(desk: ImageDesk, journal: Journal) -> None:
    desk.begin(ME, FIRST)
    desk.abandon(FIRST)
    desk.gone(FIRST.half)
    assert journal.volumes() == ()
    for late in (lambda: desk.alive(FIRST), lambda: desk.finish(ME, FIRST, "stamp", publish=True)):
        with pytest.raises(ControlError, match="is not being imported"):
            late()
    bring(desk, FIRST)
    with pytest.raises(ControlError, match="is not being imported"):
        desk.abandon(FIRST)


def test_what_goes_is_out_of_reach_before_it_is_deleted(desk: ImageDesk, journal: Journal) -> None:
    first, second = bring(desk, FIRST), bring(desk, SECOND)
    with pytest.raises(ControlError, match="is published"):
        desk.remove(ME, first)
    desk.publish(ME, "web", 2)
    with pytest.raises(ControlError, match="not being pruned"):
        desk.removed(ME, first)
    desk.remove(ME, first)
    assert desk.catalog.of("web") == (second,)
    desk.keep(first)
    assert desk.catalog.of("web") == (first, second)
    desk.remove(ME, first)
    desk.removed(ME, first)
    assert journal.volumes() == (FIRST.half,)
    assert leftovers(desk, journal) == ()
    desk.gone(FIRST.half)
    assert journal.volumes() == ()
    with pytest.raises(ControlError, match="no version of image web was published before"):
        desk.rollback(ME, "web")
    assert bring(desk, replace(FIRST, digest="c" * 64)).version == 3, "a number is never given out twice"


def test_what_is_pinned_or_being_cloned_stays(journal: Journal) -> None:
    pinning = Policy("shop", Image("", "", "web", 1), Size(1, 2))
    desk = image_desk(journal, Clock(), (pinning,))
    first, second = bring(desk, FIRST), bring(desk, SECOND)
    bring(desk, replace(FIRST, digest="c" * 64))
    desk.publish(ME, "web", 3)
    with pytest.raises(ControlError, match="needed by: shop"):
        desk.remove(ME, first)
    clone = Clone("blog", "local", "blog-1", second.image, Machine())
    journal.commit_tick(TickRecord(Observation(0.0, 10.0), (), (), Memory(journal.controller)), [clone])
    with pytest.raises(ControlError, match="needed by: blog"):
        desk.remove(ME, second)


def test_what_a_refresh_may_go_back_to_stays(journal: Journal) -> None:
    first = bring(image_desk(journal), FIRST)
    before = Image(first.pool, first.volume)
    desk = image_desk(journal, refreshing=((FOLLOWING, before),))
    bring(desk, SECOND)
    desk.publish(ME, "web", 2)
    with pytest.raises(ControlError, match="needed by: web"):
        desk.remove(ME, first)
