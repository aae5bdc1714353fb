"""Commands about golden images."""

import json
from pathlib import Path

import click

from autoscaler.cli import arguments
from autoscaler.cli.output import console
from autoscaler.cli.show_findings import show_findings
from autoscaler.codec import encode
from autoscaler.core.finding import Level
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def lint(ctx: click.Context, file: Path, largest_bytes: int, as_json: bool) -> None:
    """Look at an image file before clones are made of it.

    Needs no daemon and no libvirt, and opens nothing that the image refers to.
    Ends with 1 when something has to be mended.

    Example: autoscaler image lint /var/lib/libvirt/images/golden.qcow2
    """
    findings = lint_file(file, largest_bytes=largest_bytes)
    if as_json:
        found = tuple(findings)
        good = all(finding.level is not Level.ERROR for finding in found)
        click.echo(json.dumps({"ok": good, "findings": encode(found)}, indent=2))
    else:
        found = show_findings(console(), findings)
    ctx.exit(1 if any(finding.level is Level.ERROR for finding in found) else 0)


COMMANDS: tuple[click.Command, ...] = (image,)
