"""What a name leads to, and which versions may go: a table and its invariants."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.catalog import (
    Catalog,
    CatalogView,
    Follower,
    ImageVersion,
    Kept,
    Publication,
    Uses,
    plan_pruning,
    resolve_images,
)
from autoscaler.core.decision import ReasonCode
from autoscaler.core.policy import Image, Policy, Size
from tests.support.plant import Plant


def stored(version: int, host: str = "local", name: str = "web") -> ImageVersion:
    digest = f"{version:064x}"
    return ImageVersion(
        name, version, host, "default", f"{name}@{version}.qcow2", digest, 16 << 20, 1 << 30, "/tmp/a.qcow2", 5.0, "me"
    )


def published(*versions: int, name: str = "web") -> tuple[Publication, ...]:
    return tuple(Publication(name, version, float(at), "me") for at, version in enumerate(versions))


CATALOG = Catalog((stored(1), stored(2), stored(2, "far"), stored(3)), published(1, 2))


@pytest.mark.parametrize(
    ("image", "host", "volume", "version"),
    [
        (Image("", "", "web"), "local", "web@2.qcow2", 2),
        (Image("", "", "web", 3), "local", "web@3.qcow2", 3),
        (Image("", "", "web"), "far", "web@2.qcow2", 2),
        (Image("", "", "web", 3), "far", "", 3),
        (Image("", "", "web", 9), "local", "", 9),
        (Image("", "", "db"), "local", "", None),
        (Image("default", "golden.qcow2"), "local", "golden.qcow2", None),
    ],
)
def test_a_name_leads_to_a_volume_or_to_nothing(image: Image, host: str, volume: str, version: int | None) -> None:
    found = CATALOG.resolve(image, host)
    assert (found.volume, found.version, found.found) == (volume, version, bool(volume))


def test_a_rollback_leads_to_what_was_published_before() -> None:
    assert Catalog(publications=published(1, 2, 1)).before("web") == 2
    assert Catalog(publications=published(1)).before("web") is None
    assert Catalog(publications=published(1, name="db")).published("web") is None


def kept(catalog: Catalog, keep: int, uses: dict[ImageVersion, Uses]) -> dict[tuple[int, str], tuple[Kept, ...]]:
    return {(plan.stored.version, plan.stored.host): plan.kept for plan in plan_pruning(catalog, "web", keep, uses)}


def test_what_nobody_needs_may_go_but_for_the_newest_of_it() -> None:
    catalog = Catalog(tuple(stored(n) for n in range(1, 7)), published(1, 5))
    uses = {stored(1): Uses(overlays=("web-1.qcow2",)), stored(4): Uses(pinned_by=("shop",))}
    assert kept(catalog, 1, uses) == {
        (1, "local"): (Kept.STOOD_ON,),
        (2, "local"): (),
        (3, "local"): (Kept.RECENT,),
        (4, "local"): (Kept.PINNED,),
        (5, "local"): (Kept.PUBLISHED,),
        (6, "local"): (Kept.NOT_YET_PUBLISHED,),
    }


@given(
    versions=st.sets(st.integers(1, 8)),
    out=st.lists(st.integers(1, 8), max_size=5),
    keep=st.integers(0, 4),
    on=st.sets(st.integers(1, 8)),
    pinned=st.sets(st.integers(1, 8)),
)
def test_pruning_never_takes_what_is_needed(
    versions: set[int], out: list[int], keep: int, on: set[int], pinned: set[int]
) -> None:
    catalog = Catalog(tuple(stored(n) for n in sorted(versions)), published(*out))
    uses = {
        stored(n): Uses(("an overlay",) if n in on else (), ("a group",) if n in pinned else ()) for n in on | pinned
    }
    plans = plan_pruning(catalog, "web", keep, uses)
    going = {plan.stored.version for plan in plans if not plan.kept}
    assert {plan.stored.version for plan in plans} == versions
    assert not going & (on | pinned | {catalog.published("web")})
    assert all(version < (catalog.published("web") or 0) for version in going)
    left = {plan.stored.version for plan in plans if Kept.RECENT in plan.kept}
    assert len(left) <= keep
    assert not left or not going or min(left) > max(going)


def test_who_pins_a_version() -> None:
    view = CatalogView(CATALOG, (Follower("a", "local", "web", None), Follower("b", "local", "web", 2)))
    assert view.pinned_by(stored(2)) == ("b",)
    assert view.pinned_by(stored(2, "far")) == ()


def test_a_name_that_leads_nowhere_holds_launches_and_nothing_else() -> None:
    found = Policy("web", CATALOG.resolve(Image("", "", "web"), "local"), Size(2, 4))
    plant = Plant(found, interval_seconds=2.0)
    plant.run(30.0)
    assert len(plant.owned()) == 2
    plant.policy = replace(found, image=Image("", "", "web"), size=Size(3, 4))
    (decision,) = plant.run(30.0).decisions
    (held,) = (reason for reason in decision.reasons if reason.code is ReasonCode.HELD_BY_UNKNOWN_IMAGE)
    assert dict(held.parameters) == {"image": "web", "host": "local", "wanted": 1}
    assert len(plant.owned()) == 2
    plant.policy = replace(plant.policy, size=Size(1, 1))
    plant.run(90.0)
    assert len(plant.owned()) == 1, "what is too much leaves all the same"
    plant.policy = replace(found, size=Size(3, 4))
    plant.run(30.0)
    assert len(plant.owned()) == 3


def test_only_names_are_resolved() -> None:
    plain = Policy("db", Image("default", "golden.qcow2"), Size(1, 2))
    named = Policy("web", Image("", "", "web"), Size(1, 2))
    assert resolve_images((plain, named), CATALOG) == (plain, replace(named, image=stored(2).image))
