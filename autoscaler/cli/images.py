"""Commands about golden images."""

from pathlib import Path

import click

from autoscaler.cli import arguments
from autoscaler.cli.command import json_option
from autoscaler.cli.show_findings import report
from autoscaler.images.lint import lint_file


@click.group()
def image() -> None:
    """Look after golden images.

    Example: autoscaler image lint golden.qcow2
    """


@image.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--largest",
    "largest_bytes",
    metavar="SIZE",
    default="2TiB",
    show_default=True,
    callback=arguments.size,
    help="The largest virtual disk that is taken for meant.",
)
@json_option
@click.pass_context
def lint(ctx: click.Context, file: Path, largest_bytes: int, as_json: bool) -> None:
    """Look at an image file before clones are made of it.

    Needs no daemon and no libvirt, and opens nothing that the image refers to.
    Ends with 1 when something has to be mended.

    Example: autoscaler image lint /var/lib/libvirt/images/golden.qcow2
    """
    report(ctx, lint_file(file, largest_bytes=largest_bytes), as_json=as_json)


COMMANDS: tuple[click.Command, ...] = (image,)
