"""The catalog of golden images: names, their immutable versions, and which version of a name is published."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from autoscaler.core.policy import Image, Policy
from autoscaler.core.ports import VolumeRef


@dataclass(frozen=True, slots=True)
class ImageVersion:
    """One version of an image, as it is stored on one host. Its content never changes."""

    name: str
    version: int
    host: str
    pool: str
    volume: str
    digest: str
    """SHA-256 of the volume's content, in hexadecimal digits."""
    file_bytes: int
    disk_bytes: int
    """The size of the disk that a guest sees."""
    source: str
    """What it was imported from."""
    at: float
    by: str

    @property
    def image(self) -> Image:
        """The image as a clone is made of it."""
        return Image(self.pool, self.volume, self.name, self.version)


@dataclass(frozen=True, slots=True)
class Publication:
    """That a version became the one that is followed."""

    name: str
    version: int
    at: float
    by: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """All images, and what holds of their publications: the last one of each name; a rollback takes it away again."""

    versions: tuple[ImageVersion, ...] = ()
    publications: tuple[Publication, ...] = ()
    """Oldest first."""

    def of(self, name: str) -> tuple[ImageVersion, ...]:
        """List what is stored of a name, on all hosts, by version."""
        return tuple(sorted((v for v in self.versions if v.name == name), key=lambda v: (v.version, v.host)))

    def find(self, name: str, version: int, host: str) -> ImageVersion | None:
        """Find a version on a host."""
        return next((v for v in self.versions if (v.name, v.version, v.host) == (name, version, host)), None)

    def published(self, name: str) -> int | None:
        """Tell which version of a name is followed; None where none is."""
        return next((p.version for p in reversed(self.publications) if p.name == name), None)

    def before(self, name: str) -> int | None:
        """Tell which version a rollback would publish; None where none was published before this one."""
        earlier = [p.version for p in self.publications if p.name == name]
        return earlier[-2] if len(earlier) > 1 else None

    def resolve(self, image: Image, host: str) -> Image:
        """Find the volume of an image that is followed by its name; left as it is where there is none on the host."""
        if image.name is None:
            return image
        version = self.published(image.name) if image.version is None else image.version
        stored = None if version is None else self.find(image.name, version, host)
        return image if stored is None else stored.image


def resolve_images(policies: Iterable[Policy], catalog: Catalog) -> tuple[Policy, ...]:
    """Put into policies what the names of their images lead to."""
    return tuple(replace(policy, image=catalog.resolve(policy.image, policy.host)) for policy in policies)


class Kept(StrEnum):
    """Why a version is not pruned."""

    PUBLISHED = "published"
    NOT_YET_PUBLISHED = "not_yet_published"
    """It is newer than the one that is published."""
    PINNED = "pinned"
    STOOD_ON = "stood_on"
    RECENT = "recent"
    """It is among the newest of what could be pruned, which a rollback may want."""


@dataclass(frozen=True, slots=True)
class Uses:
    """Who refers to a stored version."""

    overlays: tuple[str, ...] = ()
    pinned_by: tuple[str, ...] = ()
    """Groups whose policy names this version, or whose clone of it is under way."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What is to become of one version on one host: removed, or kept for reasons."""

    stored: ImageVersion
    kept: tuple[Kept, ...] = ()
    uses: Uses = Uses()


def plan_pruning(catalog: Catalog, name: str, keep: int, uses: Mapping[ImageVersion, Uses]) -> tuple[Pruning, ...]:
    """Say of every stored version of a name whether it goes; `keep` of those that nobody needs stay, the newest."""
    published = catalog.published(name)
    plans = [_pruning(stored, published, uses.get(stored, Uses())) for stored in catalog.of(name)]
    unneeded = sorted({plan.stored.version for plan in plans if not plan.kept}, reverse=True)
    spared = frozenset(unneeded[:keep])
    return tuple(
        replace(plan, kept=(Kept.RECENT,)) if not plan.kept and plan.stored.version in spared else plan
        for plan in plans
    )


def _pruning(stored: ImageVersion, published: int | None, uses: Uses) -> Pruning:
    said = {
        Kept.PUBLISHED: stored.version == published,
        Kept.NOT_YET_PUBLISHED: published is None or stored.version > published,
        Kept.PINNED: bool(uses.pinned_by),
        Kept.STOOD_ON: bool(uses.overlays),
    }
    return Pruning(stored, tuple(kept for kept, so in said.items() if so), uses)


def names(versions: Sequence[ImageVersion]) -> tuple[str, ...]:
    """Name the images there are."""
    return tuple(sorted({stored.name for stored in versions}))


# What commands and daemon say to each other while an image is imported or pruned.


@dataclass(frozen=True, slots=True)
class Import:
    """What is to be imported: checked, flattened and measured, and not uploaded yet."""

    name: str
    host: str
    pool: str
    digest: str
    file_bytes: int
    disk_bytes: int
    source: str

    @property
    def volume(self) -> str:
        """The name of the volume it becomes."""
        return f"{self.name}@{self.digest[:12]}.qcow2"

    @property
    def half(self) -> VolumeRef:
        """The volume as the ledger has it while it may be half there."""
        return half_of(self.host, self.pool, self.volume, self.digest)


IMAGES = "(images)"
"""Stands for a group where the ledger has volumes that are no instance's: no group can be called so."""


def half_of(host: str, pool: str, volume: str, digest: str) -> VolumeRef:
    """Give the ledger's row of a stored image that is coming or going."""
    return VolumeRef(host, pool, volume, f"{IMAGES}-{digest[:12]}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """The daemon's leave to upload an image."""

    known: ImageVersion | None = None
    """The version that has this content already; then there is nothing to upload."""
    stale: bool = False
    """What an earlier import left half done is to be deleted first."""
    alive_seconds: float = 10.0
    """How often the daemon wants to hear that the import goes on."""


@dataclass(frozen=True, slots=True)
class Follower:
    """A group that is made of an image by its name, or clones such a version at this moment."""

    group: str
    host: str
    name: str
    version: int | None
    """The version it names; None where it follows the one that is published."""


@dataclass(frozen=True, slots=True)
class CatalogView:
    """The catalog, and who follows it."""

    catalog: Catalog
    followers: tuple[Follower, ...] = ()

    def pinned_by(self, stored: ImageVersion) -> tuple[str, ...]:
        """Name the groups that name this very version."""
        return tuple(
            follower.group
            for follower in self.followers
            if (follower.name, follower.version, follower.host) == (stored.name, stored.version, stored.host)
        )
