"""What commands ask of the daemon about golden images: the catalog, imports under way, what is taken out of it."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from autoscaler.chronicle import Chronicle
from autoscaler.core.action import Clone
from autoscaler.core.catalog import (
    IMAGES,
    Catalog,
    CatalogView,
    Follower,
    ImageVersion,
    Import,
    Publication,
    Ticket,
    half_of,
    resolve_images,
)
from autoscaler.core.errors import ControlError
from autoscaler.core.policy import Image, Policy
from autoscaler.core.ports import VolumeRef
from autoscaler.core.words import nearest
from autoscaler.store import Journal

log = structlog.get_logger(__name__)

_LONGEST_ALIVE_SECONDS = 10.0
_MISSED = 4
"""After so many signs of life that did not come, nobody is taken to be there any more."""


class ImageDesk:
    """Keeps the catalog, of which the daemon is the one writer.

    Volumes are made and deleted by the commands, each in the ledger while it may be half there: what a command that
    died leaves is collected as other volumes are that nobody has, after the same grace. `refreshing` gives the images
    that refreshes make instances of, or may go back to, with the policies of their groups.
    """

    def __init__(
        self,
        journal: Journal,
        chronicle: Chronicle,
        *,
        hosts: frozenset[str],
        policies: Callable[[], tuple[Policy, ...]],
        refreshing: Callable[[], Iterable[tuple[Policy, Image]]],
        wake: Callable[[], None],
        grace_seconds: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._chronicle = chronicle
        self._hosts = hosts
        self._policies = policies
        self._refreshing = refreshing
        self._wake = wake
        self._monotonic = monotonic
        self._alive_seconds = min(_LONGEST_ALIVE_SECONDS, grace_seconds / _MISSED)
        self._catalog = journal.images.catalog()
        # By the volume: until when a command has it in hand. What was in hand when the daemon started may still be.
        self._in_hand: dict[VolumeRef, float] = {}
        for half in journal.volumes():
            if half.instance.startswith(IMAGES):
                self._keep(half)

    @property
    def catalog(self) -> Catalog:
        """The catalog as it is; what is being taken out of it is not in it any more."""
        going = {(half.host, half.pool, half.name) for half in self.in_hand()}
        kept = tuple(v for v in self._catalog.versions if (v.host, v.pool, v.volume) not in going)
        return replace(self._catalog, versions=kept)

    @property
    def stored(self) -> frozenset[Image]:
        """All volumes of the catalog."""
        return frozenset(Image(stored.pool, stored.volume) for stored in self._catalog.versions)

    def resolve(self, policies: tuple[Policy, ...]) -> tuple[Policy, ...]:
        """Put into policies what the names of their images lead to."""
        return resolve_images(policies, self.catalog)

    def in_hand(self) -> frozenset[VolumeRef]:
        """Give the volumes that a command is making or deleting: nothing of them is left over."""
        now = self._monotonic()
        return frozenset(half for half, until in tuple(self._in_hand.items()) if now < until)

    # What commands ask

    def view(self) -> CatalogView:
        """Give the catalog and who follows it."""
        followers = [
            Follower(policy.group, policy.host, policy.image.name, policy.image.version)
            for policy in self._policies()
            if policy.image.name is not None
        ]
        for flight in self._journal.in_flight():
            action = flight.intent.action
            if isinstance(action, Clone) and action.image.name is not None:
                followers.append(Follower(action.group, action.host, action.image.name, action.image.version))
        for policy, image in self._refreshing():
            at = (policy.host, image.pool, image.volume)
            followers += [
                Follower(policy.group, v.host, v.name, v.version)
                for v in self._catalog.versions
                if (v.host, v.pool, v.volume) == at
            ]
        return CatalogView(self._catalog, tuple(dict.fromkeys(followers)))

    def begin(self, by: str, asked: Import) -> Ticket:
        """Give leave to make a volume. Raises ControlError where the host is not known or somebody makes it already."""
        self._refuse_unknown_host(asked.host)
        known = self._known(asked)
        if known is not None:
            return Ticket(known)
        half = asked.half
        if half in self.in_hand():
            raise ControlError(f"{asked.volume} is being imported to host {asked.host} already; wait for that to end")
        if any(flight.intent.action.instance == half.instance for flight in self._journal.in_flight()):
            raise ControlError(f"what an earlier import of {asked.volume} left is being deleted; try again in a while")
        stale = any(each == half for each in self._journal.volumes(half.instance))
        self._journal.add_volume(half, time.time())
        self._keep(half)
        log.info("import began", by=by, image=asked.name, volume=asked.volume, host=asked.host, pool=asked.pool)
        return Ticket(None, stale, self._alive_seconds)

    def alive(self, asked: Import) -> None:
        """Hear that an import goes on. Raises ControlError where it was taken for dead."""
        self._require_half(asked.half)
        self._keep(asked.half)

    def finish(self, by: str, asked: Import, stamp: str, *, publish: bool) -> ImageVersion:
        """Take a volume that is whole into the catalog; the first of its name is published if `publish` says so.

        `stamp` is what the volume had when it was whole; asking twice is no error. Raises ControlError where the import
        was taken for dead.
        """
        known = self._known(asked)
        if known is not None and (known.pool, known.volume) == (asked.pool, asked.volume):
            return known
        self._require_half(asked.half)
        first = not self._catalog.of(asked.name)
        self._journal.images.note_content(asked.host, asked.pool, asked.volume, stamp, asked.digest)
        stored = self._journal.images.add(
            ImageVersion(
                asked.name, 0, asked.host, asked.pool, asked.volume, asked.digest, asked.file_bytes, asked.disk_bytes,
                asked.source, time.time(), by,
            )
        )  # fmt: skip
        self._in_hand.pop(asked.half, None)
        if first and publish:
            self._journal.images.publish(Publication(stored.name, stored.version, stored.at, by))
        self._changed("image_imported", stored.name, version=stored.version, host=stored.host, by=by)
        return stored

    def abandon(self, asked: Import) -> None:
        """Let a half be deleted by the command that made it. Raises ControlError where it is none any more."""
        self._require_half(asked.half)
        self._keep(asked.half)

    def gone(self, half: VolumeRef) -> None:
        """Strike out a volume that was deleted."""
        self._require_half(half)
        self._journal.remove_volume(half)
        self._in_hand.pop(half, None)

    def publish(self, by: str, name: str, version: int | None) -> Publication:
        """Let groups follow a version, the newest if none is given. Raises ControlError where there is none."""
        stored = self._versions(name)
        chosen = stored[-1].version if version is None else version
        if all(each.version != chosen for each in stored):
            raise ControlError(f"image {name} has no version {chosen}; `autoscaler image show {name}` lists them")
        if self._catalog.published(name) == chosen:
            raise ControlError(f"version {chosen} of image {name} is published already")
        return self._publish(by, name, chosen)

    def _publish(self, by: str, name: str, version: int) -> Publication:
        publication = Publication(name, version, time.time(), by)
        self._journal.images.publish(publication)
        self._changed("image_published", name, version=version, by=by)
        return publication

    def rollback(self, by: str, name: str) -> Publication:
        """Publish what was published before. Raises ControlError where nothing was."""
        self._versions(name)
        before = self._catalog.before(name)
        if before is None:
            raise ControlError(f"no version of image {name} was published before this one; publish one by its number")
        at = time.time()
        self._journal.images.withdraw(name, at)
        self._changed("image_rolled_back", name, version=before, by=by)
        return Publication(name, before, at, by)

    def remove(self, by: str, asked: ImageVersion) -> None:
        """Let nothing new stand on a version that is to be pruned. Raises ControlError where somebody needs it."""
        stored = self._catalog.find(asked.name, asked.version, asked.host)
        if stored is None:
            raise ControlError(f"version {asked.version} of image {asked.name} on host {asked.host} is gone already")
        if self._catalog.published(stored.name) == stored.version:
            raise ControlError(f"version {stored.version} of image {stored.name} is published; publish another first")
        users = self.view().pinned_by(stored)
        if users:
            raise ControlError(f"version {stored.version} of image {stored.name} is needed by: {', '.join(users)}")
        self._keep(_half(stored))
        log.info("image is being pruned", by=by, image=stored.name, version=stored.version, host=stored.host)

    def keep(self, asked: ImageVersion) -> None:
        """Take back that a version is to be pruned: something was found to stand on it."""
        self._in_hand.pop(_half(asked), None)

    def removed(self, by: str, asked: ImageVersion) -> None:
        """Take a version that nothing stands on out of the catalog; its volume is then deleted, and in the ledger.

        Raises ControlError where the command that asks took too long.
        """
        stored = self._catalog.find(asked.name, asked.version, asked.host)
        if stored is None or _half(stored) not in self.in_hand():
            raise ControlError(f"version {asked.version} of image {asked.name} is not being pruned; try again")
        self._journal.images.remove(stored, _half(stored).instance, time.time())
        self._keep(_half(stored))
        self._changed("image_pruned", stored.name, version=stored.version, host=stored.host, by=by)

    def _known(self, asked: Import) -> ImageVersion | None:
        """Find the version that has this content on this host already."""
        of_the_name = self._catalog.of(asked.name)
        return next((v for v in of_the_name if (v.digest, v.host) == (asked.digest, asked.host)), None)

    def _versions(self, name: str) -> tuple[ImageVersion, ...]:
        stored = self._catalog.of(name)
        if not stored:
            there = {each.name for each in self._catalog.versions}
            raise ControlError(f"there is no image {name}; {nearest(name, there, 'images')}")
        return stored

    def _refuse_unknown_host(self, host: str) -> None:
        if host not in self._hosts:
            near = nearest(host, self._hosts, "hosts")
            raise ControlError(f"the daemon's configuration has no host {host}; {near}")

    def _require_half(self, half: VolumeRef) -> None:
        if not half.instance.startswith(IMAGES) or half not in self._journal.volumes(half.instance):
            raise ControlError(
                f"{half.name} on host {half.host} is not being imported: it is done, or was given up as nobody "
                "was heard of; `autoscaler image list` tells what there is"
            )

    def _keep(self, half: VolumeRef) -> None:
        self._in_hand[half] = self._monotonic() + self._alive_seconds * _MISSED

    def _changed(self, kind: str, name: str, **detail: str | float) -> None:
        self._catalog = self._journal.images.catalog()
        log.info(kind.replace("_", " "), image=name, **detail)
        self._chronicle.note(time.time(), kind, None, image=name, **detail)
        self._wake()


def _half(stored: ImageVersion) -> VolumeRef:
    return half_of(stored.host, stored.pool, stored.volume, stored.digest)
