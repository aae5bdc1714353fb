"""The command that builds a golden image."""

import re
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column

from autoscaler.cli import arguments
from autoscaler.cli.command import config_option, json_option, print_json
from autoscaler.cli.output import console
from autoscaler.cli.show_findings import show_findings
from autoscaler.cli.workplace import host_option, libvirt_uri, state_dir
from autoscaler.codec import encode
from autoscaler.core.finding import Level, warning
from autoscaler.core.policy import Accelerator
from autoscaler.images.installation import Installation
from autoscaler.images.lint import lint_file
from autoscaler.reasons import duration

if TYPE_CHECKING:
    from autoscaler.workshop.build import Build

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_QUIET_SECONDS = 10.0
_BESIDE_TEXT = 14


def _name(_: click.Context, __: click.Parameter, value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise click.BadParameter(
            f"{value!r} is no name: lower-case letters, digits, and . _ - between them, at most 63"
        )
    return value


@click.command()
@click.argument("name", callback=_name)
@click.option("--location", metavar="TREE", required=True, help="The installer: a URL, an ISO, or a local directory.")
@click.option("--os-variant", metavar="NAME", help="The system, as virt-install --osinfo list names it.")
@click.option(
    "--initrd-inject",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Put a preseed or kickstart file into the installer's initrd.",
)
@click.option("--extra-args", metavar="ARGS", multiple=True, help="For the installer's kernel; console=ttyS0 is added.")
@click.option(
    "--unattended",
    metavar="[OPTIONS]",
    is_flag=False,
    flag_value="",
    help="Let virt-install write the answers, for the systems it can.",
)
@click.option("--memory", metavar="SIZE", default="2GiB", show_default=True, callback=arguments.size)
@click.option("--vcpus", metavar="N", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option(
    "--disk",
    metavar="SIZE",
    default="10GiB",
    show_default=True,
    callback=arguments.size,
    help="How large every clone's disk will be.",
)
@click.option("--network", metavar="NAME", default="default", show_default=True, help="A network, or user.")
@click.option(
    "--accelerator",
    type=click.Choice([each.value for each in Accelerator]),
    default=Accelerator.AUTO.value,
    show_default=True,
    help="auto leaves it to virt-install.",
)
@click.option("--pool", metavar="POOL", default="default", show_default=True, help="Where the disk is made.")
@click.option("--volume", metavar="NAME", help="The disk's name.  [default: NAME.qcow2]")
@click.option("--within", metavar="DURATION", default="2h", show_default=True, callback=arguments.duration)
@click.option("--print", "--dry-run", "only_print", is_flag=True, help="Print the command, and do nothing.")
@host_option
@json_option
@config_option
@click.argument("more", metavar="[-- OPTION...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def build(ctx: click.Context, /, host: str | None, only_print: bool, as_json: bool, **given: Any) -> None:
    """Install a golden image with virt-install, unattended.

    The domain that it is installed in is gone afterwards; its disk stays as a
    volume, and is looked at as by `image lint`. Nothing stays when that fails
    or is interrupted. What stands after -- goes to virt-install as it is.
    Ends with 1 when it fails, or something has to be mended in the image.

    Example: autoscaler image build web --location TREE --os-variant debian11
      --initrd-inject preseed.cfg
    """
    # What talks to libvirt is loaded when needed.
    from autoscaler.hypervisor import BuildSite, is_local  # noqa: PLC0415
    from autoscaler.workshop import build as workshop  # noqa: PLC0415
    from autoscaler.workshop.bench import open_bench  # noqa: PLC0415
    from autoscaler.workshop.interrupts import ended_as_interrupted  # noqa: PLC0415

    installation = _installation(given)
    uri = libvirt_uri(ctx, host)
    with ended_as_interrupted():
        journal = open_bench(state_dir(ctx), "builds")
        site = BuildSite(uri)
        try:
            said = Console(stderr=True, highlight=False, markup=False, emoji=False)
            if not only_print:
                workshop.clear_remains(journal, said.print)
            volume = given["volume"] or f"{installation.name}.qcow2"
            planned = workshop.prepare(installation, given["pool"], volume, site, journal)
            if only_print:
                click.echo(written_out(planned.command))
                return
            with _progress(said) as hear:
                workshop.run(planned, site, journal, now=time.time, within_seconds=given["within"], hear=hear)
        finally:
            site.close()
            journal.close()
    ctx.exit(_show(planned, as_json, local=is_local(uri)))


def _installation(given: dict[str, Any]) -> Installation:
    if not (given["initrd_inject"] or given["extra_args"] or given["unattended"] is not None):
        raise click.UsageError(
            "nobody answers the installer's questions: give it a preseed or kickstart file with --initrd-inject "
            "(or name one in --extra-args), or let virt-install write one with --unattended"
        )
    for file in given["initrd_inject"]:
        if not arguments.is_there(file):
            raise click.UsageError(f"--initrd-inject: there is no file {file}")
    return Installation(
        name=given["name"],
        location=given["location"],
        os_variant=given["os_variant"],
        memory_bytes=given["memory"],
        vcpus=given["vcpus"],
        disk_bytes=given["disk"],
        network=given["network"],
        accelerator=Accelerator(given["accelerator"]),
        extra_args=given["extra_args"],
        initrd_inject=given["initrd_inject"],
        unattended=given["unattended"],
        more=given["more"],
    )


def written_out(command: tuple[str, ...]) -> str:
    """Write a command as a shell takes it, an option a line."""
    lines: list[str] = []
    for word in map(shlex.quote, command):
        if not lines or word.startswith("--"):
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return " \\\n    ".join(lines)


@contextmanager
def _progress(said: Console) -> Iterator[Any]:
    """Show how long it takes, and what was said last: in one line on a terminal, else a line now and then."""
    if not said.is_terminal:
        yield _Log(said)
        return
    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    with Progress(SpinnerColumn(), TimeElapsedColumn(), text, console=said, transient=True) as bar:
        task = bar.add_task("virt-install begins", total=None)
        yield lambda line: bar.update(task, description=line[: max(said.width - _BESIDE_TEXT, 1)])


class _Log:
    """Writes the lines that were said, at most one in a few seconds."""

    def __init__(self, said: Console) -> None:
        self._said = said
        self._began = time.monotonic()
        self._next = self._began

    def __call__(self, line: str) -> None:
        """Write a line, unless one was written just now."""
        now = time.monotonic()
        if now >= self._next:
            self._said.print(f"{duration(round(now - self._began)):>7}  {line}", soft_wrap=True)
            self._next = now + _QUIET_SECONDS


def _show(built: "Build", as_json: bool, *, local: bool) -> int:
    """Look at what was built, say what comes next, and give the exit code."""
    volume = built.volume
    source = built.path if local else f"{volume.pool}/{volume.name}"
    next_command = f"autoscaler image import {source} --name {built.installation.name}"
    findings = lint_file(Path(built.path)) if local else iter((_NOT_SEEN,))
    if as_json:
        found = tuple(findings)
    else:
        click.echo(f"installed: volume {volume.name} in pool {volume.pool}, {built.path}")
        found = show_findings(console(), findings)
    good = all(finding.level is not Level.ERROR for finding in found)
    if as_json:
        place = {"host": volume.host, "pool": volume.pool, "volume": volume.name, "path": built.path}
        print_json({"ok": good, **place, "findings": encode(found), "next": next_command})
    else:
        click.echo(f"{'Next' if good else 'Mend what is said above, then'}: {next_command}")
    return 0 if good else 1


_NOT_SEEN = warning("image.not-seen", "it is on another machine: not looked at", "Look at it there: image lint FILE")
