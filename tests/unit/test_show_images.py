"""What the commands about the catalog print, against golden files; all of it fits 80 columns."""

from dataclasses import replace

import pytest

from autoscaler.cli.show_images import image_picture, images_picture, pruning_picture
from autoscaler.core.catalog import (
    Catalog,
    CatalogView,
    Follower,
    ImageVersion,
    Kept,
    Pruning,
    Publication,
    Uses,
)
from tests.support.commands import golden, shown

AT = 1_760_000_000.0


def stored(name: str, version: int, host: str = "local") -> ImageVersion:
    digest = f"{version * 7919:012x}" + "c0ffee" * 8 + "beef"
    return ImageVersion(
        name, version, host, "default", f"{name}@{digest[:12]}.qcow2", digest, version * (17 << 20), 10 << 30,
        f"/srv/images/{name}-{version}.qcow2", AT + 86400 * version, "root (uid 0, pid 4711)",
    )  # fmt: skip


ONE, TWO, THREE = (stored("web", version) for version in (1, 2, 3))
VIEW = CatalogView(
    Catalog(
        (stored("db", 1), ONE, TWO, stored("web", 2, "rack7"), THREE),
        (
            Publication("db", 1, AT, "root (uid 0, pid 4711)"),
            Publication("web", 1, AT + 100, "root (uid 0, pid 4711)"),
            Publication("web", 2, AT + 90_000, "eva (uid 1000, pid 815)"),
        ),
    ),
    (
        Follower("shop", "local", "web", None),
        Follower("blog", "local", "web", None),
        Follower("old-shop", "local", "web", 1),
        Follower("far", "rack7", "web", None),
    ),
)


@pytest.mark.usefixtures("berlin")
def test_list() -> None:
    text = shown(images_picture(VIEW))
    assert max(map(len, text.splitlines())) <= 80
    golden("cli_image_list.txt", text)


def test_list_of_nothing() -> None:
    golden("cli_image_list_empty.txt", shown(images_picture(CatalogView(Catalog()))))


@pytest.mark.usefixtures("berlin")
def test_show() -> None:
    golden("cli_image_show.txt", shown(image_picture(VIEW, "web")))
    unpublished = replace(VIEW, catalog=replace(VIEW.catalog, publications=()))
    golden("cli_image_show_unpublished.txt", shown(image_picture(unpublished, "db")))


@pytest.mark.parametrize("dry_run", [True, False])
def test_prune(dry_run: bool) -> None:
    overlays = tuple(f"web-{number}.qcow2" for number in range(5))
    plans = (
        Pruning(ONE, (Kept.PINNED, Kept.STOOD_ON), Uses(overlays, ("old-shop",))),
        Pruning(replace(ONE, version=2)),
        Pruning(replace(ONE, version=3), (Kept.RECENT,)),
        Pruning(replace(ONE, version=4), (Kept.PUBLISHED,)),
        Pruning(replace(ONE, version=5), (Kept.NOT_YET_PUBLISHED,)),
    )
    text = shown(pruning_picture(plans, dry_run=dry_run))
    assert max(map(len, text.splitlines())) <= 80
    golden(f"cli_image_prune_{'planned' if dry_run else 'done'}.txt", text)
