"""Commands about the catalog of images: what there is, what is followed, what may go."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from autoscaler.cli import arguments, complete, output
from autoscaler.cli.command import ask, config_option, confirm, json_option, print_json, understand
from autoscaler.cli.image_import import image_store
from autoscaler.cli.output import console, say
from autoscaler.cli.show_images import image_picture, images_picture, pruning_picture
from autoscaler.codec import encode
from autoscaler.core.catalog import (
    CatalogView,
    ImageVersion,
    Kept,
    Pruning,
    Publication,
    Uses,
    half_of,
    plan_pruning,
)
from autoscaler.core.errors import AutoscalerError, DaemonUnreachableError, PolicyError
from autoscaler.core.policy import IMAGE_NAME
from autoscaler.core.ports import VolumeRef
from autoscaler.core.words import nearest
from autoscaler.workshop.interrupts import ended_as_interrupted, held_back

if TYPE_CHECKING:
    from autoscaler.hypervisor import ImageStore


def catalog_view(ctx: click.Context, name: str | None = None) -> CatalogView:
    """Ask the daemon for the catalog. Raises AutoscalerError where it has no image of this name."""
    view = understand(ask(ctx, "images"), CatalogView)
    if name is not None and not view.catalog.of(name):
        there = {stored.name for stored in view.catalog.versions}
        raise AutoscalerError(f"there is no image {name}; {nearest(name, there, 'images')}")
    return view


def stored_file(ctx: click.Context, named: str) -> Path | None:
    """Give the file of NAME or NAME@VERSION; None for what cannot be such a name. Raises AutoscalerError."""
    name, _, number = named.partition("@")
    if re.fullmatch(IMAGE_NAME, name) is None or (number and not number.isdecimal()):
        return None
    try:
        view = catalog_view(ctx, name)
    except (PolicyError, DaemonUnreachableError):
        return None  # without a daemon there are files only
    version = int(number) if number else view.catalog.published(name)
    stored = [each for each in view.catalog.of(name) if each.version == version]
    if not stored:
        raise AutoscalerError(
            f"image {name} has no version {number}" if number else f"no version of image {name} is published"
        )
    for each in stored:
        store = image_store(ctx, each.host)
        try:
            path = store.path(each.image)
        finally:
            store.close()
        if path is not None:
            return path
    raise AutoscalerError(f"version {version} of image {name} is not on this machine but on {stored[0].host}")


@click.command("list")
@json_option
@config_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List all images with their versions.

    Example: autoscaler image list
    """
    view = catalog_view(ctx)
    if as_json:
        print_json(encode(view))
    else:
        output.show(console(), images_picture(view))


@click.command()
@click.argument("name", callback=arguments.image_name, shell_complete=complete.images)
@json_option
@config_option
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show what is known of an image.

    Example: autoscaler image show web
    """
    view = catalog_view(ctx, name)
    if as_json:
        print_json({"published": view.catalog.published(name), "versions": encode(view.catalog.of(name))})
    else:
        output.show(console(), image_picture(view, name))


@click.command()
@click.argument("name", callback=arguments.image_name, shell_complete=complete.images)
@click.argument("version", type=click.IntRange(1), required=False)
@json_option
@config_option
@click.pass_context
def publish(ctx: click.Context, name: str, version: int | None, as_json: bool) -> None:
    """Let groups follow a version of an image.

    It is the newest if none is given. Instances that are made from now on are
    made of it; what runs is left as it is.

    Example: autoscaler image publish web 3
    """
    data = ask(ctx, "image_publish", name=name, version=version)
    confirm(data, f"version {understand(data, Publication).version} of image {name} is followed from now on", as_json)


@click.command()
@click.argument("name", callback=arguments.image_name, shell_complete=complete.images)
@json_option
@config_option
@click.pass_context
def rollback(ctx: click.Context, name: str, as_json: bool) -> None:
    """Let groups follow the version that was published before.

    Example: autoscaler image rollback web
    """
    data = ask(ctx, "image_rollback", name=name)
    confirm(data, f"version {understand(data, Publication).version} of image {name} is followed again", as_json)


@click.command()
@click.argument("name", required=False, callback=arguments.image_name, shell_complete=complete.images)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="How many of the versions that nobody needs stay, the newest.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@json_option
@config_option
@click.pass_context
def prune(ctx: click.Context, name: str | None, keep: int, dry_run: bool, as_json: bool) -> None:
    """Remove versions that nobody needs, of an image or of all.

    Kept is what is published or newer, what a policy pins, what is being
    cloned, and what any volume stands on, whosever it is; and the newest of
    the others, for a rollback.

    Example: autoscaler image prune web --dry-run
    """
    view = catalog_view(ctx, name)
    with ended_as_interrupted(), _stores(ctx, view, name) as stores:
        plans = _plans(view, name, keep, stores)
        if not dry_run:
            plans = tuple(plan if plan.kept else _remove(ctx, plan, stores) for plan in plans)
    if as_json:
        print_json({"dry_run": dry_run, "versions": encode(plans, tuple[Pruning, ...])})
    elif plans:
        output.show(console(), pruning_picture(plans, dry_run=dry_run))
    else:
        say("no images, so there is nothing to prune")


Stores = dict[str, "ImageStore"]


@contextmanager
def _stores(ctx: click.Context, view: CatalogView, name: str | None) -> Iterator[Stores]:
    hosts = {stored.host for stored in view.catalog.versions if name in {None, stored.name}}
    made = {host: image_store(ctx, host) for host in sorted(hosts)}
    try:
        yield made
    finally:
        for each in made.values():
            each.close()


def _plans(view: CatalogView, name: str | None, keep: int, stores: Stores) -> tuple[Pruning, ...]:
    names = sorted({stored.name for stored in view.catalog.versions if name in {None, stored.name}})
    uses = {
        stored: Uses(stores[stored.host].overlays_on(_volume(stored)), view.pinned_by(stored))
        for stored in view.catalog.versions
        if stored.name in names
    }
    return tuple(plan for each in names for plan in plan_pruning(view.catalog, each, keep, uses))


def _remove(ctx: click.Context, plan: Pruning, stores: Stores) -> Pruning:
    """Remove a version: out of reach first, looked at once more, then deleted; tells if it was kept after all."""
    stored, volume = plan.stored, _volume(plan.stored)
    ask(ctx, "image_remove", version=encode(stored))
    users = stores[stored.host].overlays_on(volume)
    if users:
        ask(ctx, "image_keep", version=encode(stored))
        return replace(plan, kept=(Kept.STOOD_ON,), uses=Uses(users))
    with held_back():
        ask(ctx, "image_removed", version=encode(stored))
        stores[stored.host].delete(volume)
        ask(ctx, "image_gone", volume=encode(volume))
    return plan


def _volume(stored: ImageVersion) -> VolumeRef:
    return half_of(stored.host, stored.pool, stored.volume, stored.digest)
