"""The part of `autoscaler image lint` that starts two guests of the image."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from autoscaler import log
from autoscaler.cli import arguments
from autoscaler.cli.workplace import host_option, libvirt_uri, state_dir
from autoscaler.core.finding import Finding
from autoscaler.core.policy import USER_NETWORK, Accelerator, Image, Machine
from autoscaler.images.canaries import judge

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Boot:
    """How the guests are started."""

    within_seconds: float
    pool: str
    machine: Machine
    host: str | None


_OPTIONS = (
    click.option("--boot", is_flag=True, help="Start two guests of it at once, and compare them."),
    click.option(
        "--within",
        metavar="DURATION",
        default="120s",
        show_default=True,
        callback=arguments.duration,
        help="With --boot: how long they may take to be ready.",
    ),
    click.option(
        "--pool",
        metavar="POOL",
        default="default",
        show_default=True,
        help="With --boot: where a file that is in no pool is copied to, for that time.",
    ),
    click.option("--network", metavar="NAME", default="default", show_default=True, help="With --boot: or user."),
    click.option("--memory", metavar="SIZE", default="1GiB", show_default=True, callback=arguments.size),
    click.option("--vcpus", metavar="N", type=click.IntRange(1, 256), default=1, show_default=True),
    click.option(
        "--accelerator",
        type=click.Choice([each.value for each in Accelerator]),
        default=Accelerator.AUTO.value,
        show_default=True,
    ),
    host_option,
)


def boot_options(command: Command) -> Command:
    """Give a command the options of `--boot`; it takes them as keyword arguments and hands them to `boot_of`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def boot_of(given: dict[str, Any]) -> Boot | None:
    """Read the options; None where nothing is to be started."""
    if not given["boot"]:
        return None
    accelerator = Accelerator(given["accelerator"])
    machine = Machine(given["vcpus"], given["memory"], given["network"], accelerator)
    return Boot(given["within"], given["pool"], machine, given["host"])


def boot_findings(ctx: click.Context, source: Path | Image, boot: Boot) -> Iterator[Finding]:
    """Start two guests of a file or a volume, remove them, and tell what they were like.

    Raises HypervisorError and StoreError where that cannot be done at all.
    """
    # What talks to libvirt is loaded when needed.
    from autoscaler.workshop.bench import open_bench  # noqa: PLC0415
    from autoscaler.workshop.canaries import Canaries, Trial  # noqa: PLC0415
    from autoscaler.workshop.interrupts import ended_as_interrupted  # noqa: PLC0415

    log.configure(level="critical")
    uri = libvirt_uri(ctx, boot.host)
    said = Console(stderr=True, highlight=False, markup=False, emoji=False)
    with ended_as_interrupted():
        journal = open_bench(state_dir(ctx), "canaries")
        canaries = Canaries(journal, uri)
        try:
            left = canaries.clear()
            if left:
                said.print(f"removed what a killed try left: {', '.join(left)}")
            with _clock(said):
                seen = canaries.run(source, boot.pool, Trial(uri, boot.machine, boot.within_seconds))
        finally:
            canaries.close()
            journal.close()
    yield from judge(seen, boot.within_seconds, compare_addresses=boot.machine.network != USER_NETWORK)


@contextmanager
def _clock(said: Console) -> Iterator[None]:
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=said, transient=True, disable=not said.is_terminal) as bar:
        bar.add_task("two guests of it are started, looked at, and removed", total=None)
        yield
