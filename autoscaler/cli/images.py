"""Commands about golden images."""

from pathlib import Path

import click

from autoscaler.cli import arguments
from autoscaler.cli.command import config_option, json_option
from autoscaler.cli.image_catalog import list_, prune, publish, rollback, show, stored_file
from autoscaler.cli.image_import import import_
from autoscaler.cli.show_findings import report
from autoscaler.images.lint import lint_file


@click.group()
def image() -> None:
    """Look after golden images.

    Example: autoscaler image lint golden.qcow2
    """


@image.command()
@click.argument("file", metavar="FILE|NAME", type=click.Path(path_type=Path))
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
@config_option
@click.pass_context
def lint(ctx: click.Context, file: Path, largest_bytes: int, as_json: bool) -> None:
    """Look at an image file before clones are made of it.

    A FILE needs no daemon and no libvirt, and nothing that it refers to is
    opened. NAME is the version of an image that is followed, or NAME@VERSION,
    where the catalog has it on this machine. Ends with 1 when something has to
    be mended.

    Example: autoscaler image lint /var/lib/libvirt/images/golden.qcow2
    """
    path = file if arguments.is_there(file) else stored_file(ctx, str(file)) or file
    report(ctx, lint_file(path, largest_bytes=largest_bytes, shown=str(file)), as_json=as_json)


for _command in (import_, list_, show, publish, rollback, prune):
    image.add_command(_command)

COMMANDS: tuple[click.Command, ...] = (image,)
