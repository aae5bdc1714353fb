"""The catalog of images for people."""

from collections.abc import Iterable, Sequence

from rich.console import JustifyMethod
from rich.text import Text

from autoscaler.cli.output import Picture, table
from autoscaler.core.catalog import CatalogView, ImageVersion, Kept, Pruning
from autoscaler.reasons import minute, size

_WHY = {
    Kept.PUBLISHED: "published",
    Kept.NOT_YET_PUBLISHED: "newer than the published one",
    Kept.PINNED: "pinned",
    Kept.STOOD_ON: "stood on",
    Kept.RECENT: "for a rollback",
}
_MOST_USERS = 3
_LISTED: dict[str, JustifyMethod] = {
    "IMAGE": "left",
    "VERSION": "left",
    "HOST": "left",
    "POOL": "left",
    "DISK": "right",
    "IMPORTED": "left",
    "FOLLOWED BY": "left",
}
_PRUNED: dict[str, JustifyMethod] = {
    "IMAGE": "left",
    "VERSION": "left",
    "HOST": "left",
    "FILE": "right",
    "WHAT": "left",
}


def images_picture(view: CatalogView) -> Picture:
    """Draw a line for every version on every host."""
    if not view.catalog.versions:
        yield Text("no images: store one with `autoscaler image import FILE --name NAME`")
        return
    yield table(_LISTED, (_listed(view, stored) for stored in view.catalog.versions))


def _listed(view: CatalogView, stored: ImageVersion) -> tuple[str | Text, ...]:
    latest = view.catalog.published(stored.name) == stored.version
    return (
        stored.name,
        Text(f"{stored.version} latest" if latest else str(stored.version), "green" if latest else ""),
        stored.host,
        stored.pool,
        size(stored.disk_bytes),
        minute(stored.at),
        ", ".join(followers(view, stored)),
    )


def followers(view: CatalogView, stored: ImageVersion) -> tuple[str, ...]:
    """Name the groups whose next instances are made of this version: they pin it, or follow what is published."""
    published = view.catalog.published(stored.name)
    return tuple(
        sorted(
            {
                follower.group
                for follower in view.followers
                if (follower.name, follower.host) == (stored.name, stored.host)
                and (published if follower.version is None else follower.version) == stored.version
            }
        )
    )


def image_picture(view: CatalogView, name: str) -> Picture:
    """Draw everything that is known of one image."""
    for stored in view.catalog.of(name):
        yield from _version(view, stored)
        yield Text()
    history = [p for p in view.catalog.publications if p.name == name]
    if not history:
        yield Text("no version is published: `autoscaler image publish` lets groups follow one")
        return
    yield Text("published, the newest last; a rollback goes one back:")
    for publication in history:
        yield Text(f"  version {publication.version} at {minute(publication.at)}, by {publication.by}")


def _version(view: CatalogView, stored: ImageVersion) -> Picture:
    title = Text(f"{stored.name} version {stored.version}", "bold")
    if view.catalog.published(stored.name) == stored.version:
        title.append(", the latest that is published", "green")
    yield title
    facts = {
        "stored": f"host {stored.host}, pool {stored.pool}, volume {stored.volume}",
        "size": f"a disk of {size(stored.disk_bytes)}, in a file of {size(stored.file_bytes)}",
        "sha256": stored.digest,
        "imported": f"{minute(stored.at)}, by {stored.by}",
        "from": stored.source,
        "followed by": ", ".join(followers(view, stored)) or "none",
    }
    for fact, said in facts.items():
        yield Text(f"  {fact + ':':<13}{said}")


def pruning_picture(plans: Sequence[Pruning], *, dry_run: bool) -> Picture:
    """Draw what goes, and what stays for which reason."""
    yield table(_PRUNED, (_pruned(plan, dry_run=dry_run) for plan in plans))


def _pruned(plan: Pruning, *, dry_run: bool) -> tuple[str | Text, ...]:
    stored = plan.stored
    gone = "would be removed" if dry_run else "removed"
    said = Text(_kept_because(plan)) if plan.kept else Text(gone, "yellow")
    return stored.name, str(stored.version), stored.host, size(stored.file_bytes), said


def _kept_because(plan: Pruning) -> str:
    by = {Kept.PINNED: plan.uses.pinned_by, Kept.STOOD_ON: plan.uses.overlays}
    why = (_WHY[kept] + (f" by {_some(by[kept])}" if kept in by else "") for kept in plan.kept)
    return f"kept: {'; '.join(why)}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _MOST_USERS
    return ", ".join(listed[:_MOST_USERS]) + (f" and {more} more" if more > 0 else "")
