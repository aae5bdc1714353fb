"""The command that shows what instances take of their hosts."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from autoscaler.cli import arguments, complete
from autoscaler.cli.command import config_option, json_option, print_json, settings
from autoscaler.cli.live import show_live
from autoscaler.cli.output import Picture, console, is_live, show
from autoscaler.cli.show_top import SORTS, in_order, top_picture
from autoscaler.codec import encode
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.observation import Unknown
from autoscaler.core.usage import Look, Usage, usages
from autoscaler.core.words import nearest

if TYPE_CHECKING:
    from autoscaler.top import Top


@click.command()
@click.option("--group", metavar="GROUP", shell_complete=complete.groups, help="Only instances of this group.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="cpu", show_default=True, help="The greediest first.")
@arguments.duration_option(
    "--interval",
    "interval_seconds",
    default="2s",
    help="Between two looks; rates are over this time.",
)
@click.option("--once", is_flag=True, help="Print one table and end; so it does without a terminal, and with --json.")
@json_option
@config_option
@click.pass_context
def top(ctx: click.Context, group: str | None, sort: str, interval_seconds: float, once: bool, as_json: bool) -> None:
    """Show what each instance takes of its host, until Ctrl-C.

    For each its QEMU process and its vCPUs' threads: the CPU time they took and
    wanted in vain (STEAL), the processor they ran on last (ON), memory in the
    host (RSS) and as the guest tells it (USED, OF), disk and network rates.

    Needs no daemon: it reads libvirt, by read-only connections, and /proc. What
    may not be read is shown as -, with the reason.

    Example: autoscaler top --group web --sort memory

    Example: autoscaler top --once --json
    """
    from autoscaler.top import Top  # noqa: PLC0415 - what talks to libvirt is loaded when needed

    out = console()
    hosts = Top({name: host.uri for name, host in settings(ctx).hosts.items()})
    try:
        readings = _readings(hosts, group, sort, interval_seconds)
        if as_json:
            print_json(_data(*_with_rates(readings), interval_seconds))
        elif once or not is_live(out):
            show(out, _picture(*_with_rates(readings), out.width, interval_seconds))
        else:
            show_live(out, (_picture(looks, used, out.width, interval_seconds) for looks, used in readings))
    finally:
        hosts.close()


Reading = tuple[tuple[Look, ...], tuple[Usage, ...]]


def _readings(hosts: "Top", group: str | None, sort: str, interval_seconds: float) -> Iterator[Reading]:
    """Look for ever; the first reading has no rates yet. Raises AutoscalerError where there is nothing to look at."""
    looks = hosts.look()
    _refuse_blind(looks)
    if group is not None:
        _refuse_unknown(group, usages((), looks))
    before: tuple[Look, ...] = ()
    while True:
        used = [usage for usage in usages(before, looks) if group in {None, usage.group}]
        yield looks, in_order(used, sort)
        before = looks
        time.sleep(interval_seconds)
        looks = hosts.look()


def _with_rates(readings: Iterator[Reading]) -> Reading:
    next(readings)
    return next(readings)


def _refuse_blind(looks: tuple[Look, ...]) -> None:
    unread = [look.running.why for look in looks if isinstance(look.running, Unknown)]
    if len(unread) == len(looks):
        raise AutoscalerError("\n".join(unread))


def _refuse_unknown(group: str, found: tuple[Usage, ...]) -> None:
    known = {usage.group for usage in found}
    if group not in known:
        raise AutoscalerError(
            f"no instance of group {group} runs; {nearest(group, known, 'groups with instances that run')}"
        )


def _picture(looks: tuple[Look, ...], used: tuple[Usage, ...], width: int, interval_seconds: float) -> Picture:
    return tuple(top_picture(looks, used, width, interval_seconds))


def _data(looks: tuple[Look, ...], used: tuple[Usage, ...], interval_seconds: float) -> dict[str, Any]:
    why = {look.host: look.running.why if isinstance(look.running, Unknown) else None for look in looks}
    return {
        "interval_seconds": interval_seconds,
        "hosts": [{"host": host, "why": reason} for host, reason in why.items()],
        "instances": encode(used, as_type=tuple),
    }


COMMANDS: tuple[click.Command, ...] = (top,)
