"""Looks after golden images in the background: when one was touched, it reads what it holds now.

A whole image is read, which may take minutes, so no tick waits for it; it is read once for each state of its volume
that libvirt tells by sizes and time of change, and what was read is kept across restarts.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from autoscaler.core.catalog import Catalog
from autoscaler.core.errors import HypervisorError, StoreError
from autoscaler.core.golden import golden_key
from autoscaler.core.observation import GoldenState, HostInventory, Observation
from autoscaler.core.policy import Image, Policy
from autoscaler.core.ports import GoldenSeen, Sight
from autoscaler.images.flatten import content_digest
from autoscaler.store.images import ImageTables

log = structlog.get_logger(__name__)

_NICE = 19


@dataclass(frozen=True, slots=True)
class Watched:
    """One golden image to look after."""

    host: str
    image: Image
    stamps: frozenset[str] = frozenset()
    """Under which instances were cloned from it."""
    expected: str | None = None
    """What it must hold."""


def watched_images(
    cloned: Iterable[tuple[Policy, Image]], observation: Observation, controller: str, catalog: Catalog
) -> tuple[Watched, ...]:
    """Name the images that instances are, or may be, made of by these policies, and that our instances stand on."""
    stamps: dict[tuple[str, Image], set[str]] = {}
    for policy, image in cloned:
        if image.found:
            stamps.setdefault((policy.host, _bare(image)), set())
    for inventory in observation.inventory.values():
        for domain in inventory.domains if isinstance(inventory, HostInventory) else ():
            owner = domain.ownership
            if owner is not None and owner.controller == controller and owner.image is not None:
                stamps.setdefault((domain.host, _bare(owner.image)), set()).add(owner.image_digest)
    expected = {(v.host, Image(v.pool, v.volume)): v.digest for v in catalog.versions}
    return tuple(
        Watched(host, image, frozenset(seen), expected.get((host, image))) for (host, image), seen in stamps.items()
    )


def _bare(image: Image) -> Image:
    return Image(image.pool, image.volume)


class GoldenWatch:
    """Looks at each image every so many seconds, in one thread of low priority.

    `on_change` is called when something else was seen than before, `on_bug` with what ended the thread.
    """

    def __init__(
        self,
        hypervisors: Mapping[str, Sight],
        tables: ImageTables,
        interval_seconds: float,
        *,
        on_change: Callable[[], None],
        on_bug: Callable[[BaseException], None],
        read: Callable[[Path], str] = content_digest,
    ) -> None:
        self._hypervisors = hypervisors
        self._tables = tables
        self._interval_seconds = interval_seconds
        self._on_change = on_change
        self._on_bug = on_bug
        self._read = read
        self._wanted: tuple[Watched, ...] = ()
        self._states: Mapping[str, GoldenState] = {}
        self._complaints: dict[str, str] = {}
        self._closed = threading.Event()
        self._asked = threading.Event()

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="golden images", daemon=True).start()

    def close(self) -> None:
        """Look no more; what is being read is not waited for."""
        self._closed.set()
        self._asked.set()

    def watch(self, wanted: tuple[Watched, ...]) -> None:
        """Say which images to look after from now on; new ones are looked at at once."""
        fresh = {(each.host, each.image) for each in wanted} - {(each.host, each.image) for each in self._wanted}
        self._wanted = wanted
        if fresh:
            self._asked.set()

    def states(self) -> Mapping[str, GoldenState]:
        """Give what is known of the images, at once."""
        return self._states

    def _run(self) -> None:
        try:
            # The service's sandbox forbids it; then images are read beside everything else.
            with contextlib.suppress(PermissionError):
                # Of this thread alone, on Linux.
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            while not self._closed.is_set():
                self.look()
                self._asked.wait(self._interval_seconds)
                self._asked.clear()
        except BaseException as error:  # noqa: BLE001 - a bug ends the daemon, from its main thread
            self._on_bug(error)

    def look(self) -> None:
        """Look at every image once: first at what is told at once, then into those that were touched."""
        wanted = self._wanted
        seen = {golden_key(each.host, each.image): (each, self._seen(each)) for each in wanted}
        self._show({key: self._state(each, found, key) for key, (each, found) in seen.items()})
        for key, (each, found) in seen.items():
            if self._closed.is_set():
                return
            if found is not None and found.path is not None and self._states[key].unread:
                self._read_content(each, found, key)

    def _seen(self, watched: Watched) -> GoldenSeen | None:
        try:
            return self._hypervisors[watched.host].golden(watched.image)
        except HypervisorError as error:
            self._complain(watched, str(error))
        return None

    def _state(self, watched: Watched, found: GoldenSeen | None, key: str) -> GoldenState:
        if found is None:
            # What was known is kept while nobody answers; of a volume that is gone, cloning tells by itself.
            return self._states.get(key, GoldenState(None))
        return _known(watched, found, self._contents(watched))

    def _read_content(self, watched: Watched, found: GoldenSeen, key: str) -> None:
        assert found.path is not None
        try:
            digest = self._read(Path(found.path))
        except OSError as error:
            self._complain(watched, f"{found.path} cannot be read: {error.strerror or error}")
            return
        if self._seen(watched) != found:
            return  # it was changed meanwhile, and is read again
        try:
            self._tables.note_content(watched.host, watched.image.pool, watched.image.volume, found.stamp, digest)
        except StoreError as error:
            self._complain(watched, str(error))
        self._show({**self._states, key: _known(watched, found, {**self._contents(watched), found.stamp: digest})})

    def _contents(self, watched: Watched) -> Mapping[str, str]:
        try:
            return self._tables.contents(watched.host, watched.image.pool, watched.image.volume)
        except StoreError as error:
            self._complain(watched, str(error))
        return {}

    def _complain(self, watched: Watched, why: str) -> None:
        key = golden_key(watched.host, watched.image)
        if self._complaints.get(key) != why:
            log.warning("golden image cannot be looked at", host=watched.host, image=str(watched.image), why=why)
            self._complaints[key] = why

    def _show(self, states: Mapping[str, GoldenState]) -> None:
        if states != self._states:
            self._states = states
            self._on_change()


def _known(watched: Watched, found: GoldenSeen, read: Mapping[str, str]) -> GoldenState:
    """Put together what was read; where contents cannot be read, one stamp is one content."""
    unreadable = found.stamp if found.path is None else None
    needed = {stamp: digest for stamp, digest in sorted(read.items()) if stamp in watched.stamps}
    return GoldenState(found.stamp, read.get(found.stamp, unreadable), needed, watched.expected)
