"""The catalog of images for people."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

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


def show_images(console: Console, view: CatalogView) -> None:
    """Print a line for every version on every host."""
    if not view.catalog.versions:
        console.print("no images: store one with `autoscaler image import FILE --name NAME`")
        return
    table = _table("IMAGE", "VERSION", "HOST", "POOL", "DISK", "FILE", "IMPORTED", "FOLLOWED BY")
    for stored in view.catalog.versions:
        latest = view.catalog.published(stored.name) == stored.version
        table.add_row(
            stored.name,
            Text(f"{stored.version} latest" if latest else str(stored.version), "bold" if latest else ""),
            stored.host,
            stored.pool,
            size(stored.disk_bytes),
            size(stored.file_bytes),
            minute(stored.at),
            ", ".join(followers(view, stored)),
        )
    console.print(table)


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


def show_image(console: Console, view: CatalogView, name: str) -> None:
    """Print everything that is known of one image."""
    published = view.catalog.published(name)
    for index, stored in enumerate(view.catalog.of(name)):
        if index:
            console.print()
        title = Text(f"{name} version {stored.version}", "bold")
        if stored.version == published:
            title.append(", the latest that is published", "green")
        console.print(title, soft_wrap=True)
        facts = {
            "stored": f"host {stored.host}, pool {stored.pool}, volume {stored.volume}",
            "size": f"a disk of {size(stored.disk_bytes)}, in a file of {size(stored.file_bytes)}",
            "sha256": stored.digest,
            "imported": f"{minute(stored.at)}, by {stored.by}",
            "from": stored.source,
            "followed by": ", ".join(followers(view, stored)) or "none",
        }
        for fact, said in facts.items():
            console.print(Text(f"  {fact + ':':<13}{said}"), soft_wrap=True)
    history = [p for p in view.catalog.publications if p.name == name]
    if history:
        console.print()
        console.print("published, the newest last; a rollback goes one back:")
        for publication in history:
            line = f"  version {publication.version} at {minute(publication.at)}, by {publication.by}"
            console.print(Text(line), soft_wrap=True)


def show_pruning(console: Console, plans: Sequence[Pruning], *, dry_run: bool) -> None:
    """Print what goes, and what stays for which reason."""
    table = _table("IMAGE", "VERSION", "HOST", "FILE", "")
    for plan in plans:
        stored = plan.stored
        gone = "would be removed" if dry_run else "removed"
        said = Text(kept_because(plan)) if plan.kept else Text(gone, "yellow")
        table.add_row(stored.name, str(stored.version), stored.host, size(stored.file_bytes), said)
    console.print(table)


def kept_because(plan: Pruning) -> str:
    """Say why a version stays."""
    by = {Kept.PINNED: plan.uses.pinned_by, Kept.STOOD_ON: plan.uses.overlays}
    why = (_WHY[kept] + (f" by {_some(by[kept])}" if kept in by else "") for kept in plan.kept)
    return f"kept: {'; '.join(why)}"


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _MOST_USERS
    return ", ".join(listed[:_MOST_USERS]) + (f" and {more} more" if more > 0 else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in {"DISK", "FILE"} else "left", header_style="bold")
    return table
