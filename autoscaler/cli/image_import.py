"""The command that brings an image into the catalog: looked at, flattened, and stored under a version."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import click
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from autoscaler.cli import arguments, complete
from autoscaler.cli.command import ask, config_option, json_option, print_json, settings, understand
from autoscaler.cli.output import console, is_live, say
from autoscaler.cli.show_findings import show_findings
from autoscaler.codec import encode
from autoscaler.core.catalog import CatalogView, ImageVersion, Import, Ticket
from autoscaler.core.errors import AutoscalerError, DaemonUnreachableError, ImageError
from autoscaler.core.finding import Finding, Level
from autoscaler.core.policy import Image
from autoscaler.core.words import nearest
from autoscaler.images.flatten import Tell, content_digest, flatten
from autoscaler.images.header import read_header
from autoscaler.images.lint import Room, lint_file
from autoscaler.policy.values import WrongValueError, read_name
from autoscaler.workshop.interrupts import ended_as_interrupted, held_back

if TYPE_CHECKING:
    from autoscaler.hypervisor import ImageStore

DEFAULT_POOL = "default"
_RESTART_SECONDS = 30.0


class Ask(Protocol):
    """Asks the daemon something."""

    def __call__(self, command: str, **given: object) -> object:
        """Give its answer. Raises AutoscalerError where it refuses or does not answer."""
        ...


Show = Callable[[str], Tell]
"""Begins a progress bar, and gives what is told how far it is."""


def host_name(ctx: click.Context, host: str | None) -> str:
    """Give the host of the configuration that is meant. Raises AutoscalerError where that is none, or not clear."""
    hosts = settings(ctx).hosts
    if host is None and len(hosts) > 1:
        raise AutoscalerError(f"the configuration has several hosts: name one of them with --host: {', '.join(hosts)}")
    name = next(iter(hosts)) if host is None else host
    if name not in hosts:
        raise AutoscalerError(f"--host: the configuration has no host {name}; {nearest(name, hosts, 'hosts')}")
    return name


def image_store(ctx: click.Context, host: str) -> "ImageStore":
    """Open a host's pools."""
    from autoscaler.hypervisor import ImageStore  # noqa: PLC0415 - what talks to libvirt is loaded when needed

    return ImageStore(host, settings(ctx).hosts[host].uri)


@click.command("import")
@click.argument("source", metavar="FILE|VOLUME")
@click.option(
    "--name",
    required=True,
    metavar="NAME",
    callback=arguments.image_name,
    help="The image that it becomes a version of.",
)
@click.option(
    "--pool",
    default=DEFAULT_POOL,
    show_default=True,
    metavar="POOL",
    callback=arguments.name,
    help="Where it is stored.",
)
@click.option(
    "--host", metavar="HOST", shell_complete=complete.hosts, help="On which host.  [default: the only one there is]"
)
@click.option("--no-publish", is_flag=True, help="Do not publish it, even if it is the first of its name.")
@arguments.largest_option
@json_option
@config_option
@click.pass_context
def import_(
    ctx: click.Context,
    source: str,
    name: str,
    pool: str,
    host: str | None,
    no_publish: bool,
    largest_bytes: int,
    as_json: bool,
) -> None:
    """Store an image as the next version of a name.

    FILE is a qcow2 file here; VOLUME is one of the pool, or POOL/VOLUME. It is
    looked at first, as `image lint` does, and refused with 1 where something
    has to be mended. Whatever ends the import, no half of it stays. Content
    that the name has already makes no second version.

    The first version of a name is published by itself; later ones are followed
    once `autoscaler image publish` says so.

    Example: autoscaler image import golden.qcow2 --name web
    """
    chosen = host_name(ctx, host)
    # The daemon's answer is needed in the end: better to know now.
    understand(ask(ctx, "images"), CatalogView)
    store = image_store(ctx, chosen)
    with ended_as_interrupted(), _bars() as show, tempfile.TemporaryFile() as copy, tempfile.TemporaryFile() as whole:
        try:
            file = _source(store, source, pool, copy, show)
            room = Room(f"pool {pool}", store.free_bytes(pool))
            if _refused(lint_file(file, largest_bytes=largest_bytes, shown=source, room=room), as_json):
                ctx.exit(1)
            asked = _flattened(file, whole, Import(name, chosen, pool, "", 0, 0, source), show)
            stored, is_new = _store(store, partial(ask, ctx), asked, whole, show, publish=not no_publish)
        finally:
            store.close()
    if as_json:
        print_json({"new": is_new, "version": encode(stored)})
    else:
        view = understand(ask(ctx, "images"), CatalogView)
        say(_said(stored, is_new, view))


def _said(stored: ImageVersion, is_new: bool, view: CatalogView) -> str:
    if not is_new:
        return f"image {stored.name} has this content already: it is version {stored.version} on host {stored.host}"
    published = view.catalog.published(stored.name)
    what = f"stored as version {stored.version} of image {stored.name}, on host {stored.host} in pool {stored.pool}"
    if published == stored.version:
        return f"{what}, and published"
    followed = "none is published" if published is None else f"version {published} is still the one that is followed"
    return f"{what}; {followed}. Publish it with: autoscaler image publish {stored.name} {stored.version}"


@contextmanager
def _bars() -> Iterator[Show]:
    """Show progress on the terminal, if standard error is one."""
    shown = console(err=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True, disable=not is_live(shown)) as progress:

        def show(what: str) -> Tell:
            task = progress.add_task(f"{what:<10}", total=1.0)
            return lambda share: progress.update(task, completed=share)

        yield show


def _path(file: BinaryIO) -> Path:
    """Give a path of a file that has no name, for programs that want one; it is gone with the last that has it open."""
    return Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")


def _source(store: "ImageStore", source: str, pool: str, copy: BinaryIO, show: Show) -> Path:
    """Give the file to import; a volume is copied here first."""
    path = Path(source)
    in_pool, _, volume = source.partition("/") if "/" in source else (pool, "/", source)
    try:
        image = Image(read_name(in_pool), read_name(volume))
    except WrongValueError:
        return path  # which cannot name a volume
    if arguments.is_there(path):
        return path
    try:
        store.download(image, copy, show("download"))
        copy.flush()
    except OSError as error:
        raise ImageError(
            f"{source} cannot be copied to {tempfile.gettempdir()}: {error.strerror or error}. "
            "Set TMPDIR to a folder with more room"
        ) from error
    return _path(copy)


def _refused(looked: Iterable[Finding], as_json: bool) -> bool:
    """Look at the image, print what is to be thought about or mended, and tell whether it is refused for that."""
    findings = tuple(looked)
    bad = any(finding.level is Level.ERROR for finding in findings)
    if as_json:
        if bad:
            print_json({"ok": False, "findings": encode(findings)})
    else:
        wanted = [finding for finding in findings if finding.level is not Level.OK]
        if wanted:
            show_findings(console(), wanted)
    return bad


def _flattened(file: Path, whole: BinaryIO, asked: Import, show: Show) -> Import:
    """Make the copy that is stored, and measure it."""
    flatten(file, _path(whole), show("flatten"))
    header = read_header(_path(whole))
    if header is None or header.backing_file is not None or header.external_data_file:
        raise ImageError("what qemu-img made is no self-contained qcow2 image: see what qemu-img --version is in use")
    digest = content_digest(_path(whole), show("digest"))
    size_bytes = whole.seek(0, 2)
    return Import(asked.name, asked.host, asked.pool, digest, size_bytes, header.virtual_bytes, asked.source)


def _store(
    store: "ImageStore", ask_daemon: Ask, asked: Import, whole: BinaryIO, show: Show, *, publish: bool
) -> tuple[ImageVersion, bool]:
    """Upload it, unless the name has this content already; tells whether it is new."""
    ticket = understand(ask_daemon("image_begin", **{"import": encode(asked)}), Ticket)
    if ticket.known is not None:
        return ticket.known, False
    if ticket.stale:
        _refuse_used(store, asked)
    with _undone(store, ask_daemon, asked), _alive(store, ask_daemon, asked, ticket.alive_seconds):
        if ticket.stale:
            store.delete(asked.half)
        whole.seek(0)
        stamp = store.upload(asked.half, whole, asked.file_bytes, show("upload"))
        return _finish(ask_daemon, asked, stamp, publish=publish), True


def _finish(ask_daemon: Ask, asked: Import, stamp: str, *, publish: bool) -> ImageVersion:
    """Have it entered into the catalog; a daemon that is being restarted is waited for."""
    until = time.monotonic() + _RESTART_SECONDS
    while True:
        try:
            finished = ask_daemon("image_finish", **{"import": encode(asked), "stamp": stamp, "publish": publish})
        except DaemonUnreachableError:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)
        else:
            return understand(finished, ImageVersion)


def _refuse_used(store: "ImageStore", asked: Import) -> None:
    users = store.overlays_on(asked.half)
    if users:
        raise ImageError(
            f"volume {asked.volume} in pool {asked.pool} on host {asked.host} was left by an earlier import, and has "
            f"been used since: {', '.join(users)}. Delete what stands on it first"
        )


@contextmanager
def _undone(store: "ImageStore", ask_daemon: Ask, asked: Import) -> Iterator[None]:
    """Delete the half whatever ends this, unless the daemon has it in the catalog: then it is whole."""
    try:
        yield
    except BaseException:
        with held_back():
            _undo(store, ask_daemon, asked)
        raise


def _undo(store: "ImageStore", ask_daemon: Ask, asked: Import) -> None:
    store.stop()
    try:
        ask_daemon("image_abandon", **{"import": encode(asked)})
        store.delete(asked.half)
        ask_daemon("image_gone", volume=encode(asked.half))
    except DaemonUnreachableError:
        say(f"the daemon does not answer; it deletes {asked.volume} when it runs again", err=True)
    except AutoscalerError as error:
        say(f"{asked.volume} was not deleted: {error}", err=True)


@contextmanager
def _alive(store: "ImageStore", ask_daemon: Ask, asked: Import, every_seconds: float) -> Iterator[None]:
    """Let the daemon hear that the import goes on; where it was taken for dead, it ends."""
    done = threading.Event()

    def tell() -> None:
        while not done.wait(every_seconds):
            try:
                ask_daemon("image_alive", **{"import": encode(asked)})
            except DaemonUnreachableError:
                continue  # it may be restarting, and gives imports time to be heard of
            except AutoscalerError:
                store.stop()
                return

    thread = threading.Thread(target=tell, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
