"""Commands about golden images."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click

from autoscaler.cli import arguments
from autoscaler.cli.command import config_option, json_option
from autoscaler.cli.image_boot import boot_findings, boot_of, boot_options
from autoscaler.cli.image_build import build
from autoscaler.cli.image_catalog import list_, prune, publish, rollback, show, stored_file
from autoscaler.cli.image_import import import_
from autoscaler.cli.show_findings import report
from autoscaler.core.finding import Finding, Level
from autoscaler.images.lint import lint_file


@click.group()
def image() -> None:
    """Look after golden images.

    Example: autoscaler image lint golden.qcow2
    """


@image.command()
@click.argument("file", metavar="FILE|NAME", type=click.Path(path_type=Path))
@arguments.largest_option
@boot_options
@json_option
@config_option
@click.pass_context
def lint(ctx: click.Context, /, file: Path, largest_bytes: int, as_json: bool, **given: Any) -> None:
    """Look at an image file before clones are made of it.

    A FILE needs no daemon and no libvirt, and nothing that it refers to is
    opened. NAME is the version of an image that is followed, or NAME@VERSION,
    where the catalog has it on this machine. Ends with 1 when something has to
    be mended.

    With --boot two guests of it are started at once, and removed again: they
    have to be ready in time, and to differ in what clones must not share.

    Example: autoscaler image lint /var/lib/libvirt/images/golden.qcow2 --boot
    """
    path = file if arguments.is_there(file) else stored_file(ctx, str(file)) or file
    boot = boot_of(given)
    findings = lint_file(path, largest_bytes=largest_bytes, shown=str(file))
    if boot is not None:
        findings = _and_boot(findings, partial(boot_findings, ctx, path, boot))
    report(ctx, findings, as_json=as_json)


def _and_boot(findings: Iterator[Finding], boot: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Give the findings, and those of its guests unless the file itself is bad."""
    sound = True
    for finding in findings:
        sound = sound and not (finding.level is Level.ERROR and finding.code.startswith("image."))
        yield finding
    if sound:
        yield from boot()


for _command in (build, import_, list_, show, publish, rollback, prune):
    image.add_command(_command)

COMMANDS: tuple[click.Command, ...] = (image,)
