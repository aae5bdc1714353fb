"""Commands that show what is, what was, and why."""

import json
import time

import click
from rich.console import Console

from autoscaler.cli import arguments
from autoscaler.cli.command import ask, config_option, json_option, print_json
from autoscaler.cli.hosts import foresee, hosts_data, show_hosts
from autoscaler.cli.output import console
from autoscaler.cli.show_decision import show_decision
from autoscaler.cli.show_events import show_event
from autoscaler.cli.show_history import show_history
from autoscaler.cli.show_status import show_status
from autoscaler.cli.show_traffic import show_traffic
from autoscaler.codec import decode, encode
from autoscaler.core.decision import Decision
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.snapshot import Snapshot
from autoscaler.store import Event, History

_FOLLOW_SECONDS = 1.0


@click.command()
@json_option
@config_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show hosts, groups and instances as the last tick left them.

    Example: autoscaler status --json
    """
    data = ask(ctx, "status")
    if as_json:
        print_json(data)
    else:
        show_status(console(), decode(data, Snapshot), time.time())


@click.command()
@json_option
@config_option
@click.pass_context
def hosts(ctx: click.Context, as_json: bool) -> None:
    """Show what each host has, what is committed, and what still fits.

    Example: autoscaler hosts
    """
    rooms = decode(ask(ctx, "status"), Snapshot).room
    if as_json:
        print_json(hosts_data(rooms))
    else:
        show_hosts(console(), rooms)


@click.command()
@click.argument("group")
@click.option("--to", metavar="N", type=click.IntRange(1, 1000), required=True, help="The number of instances.")
@json_option
@config_option
@click.pass_context
def capacity(ctx: click.Context, group: str, to: int, as_json: bool) -> None:
    """Say whether N instances of a group would fit.

    Asks for what there is now, and starts nothing. Ends with 1 if they do not.

    Example: autoscaler capacity web --to 8
    """
    answer = foresee(decode(ask(ctx, "status"), Snapshot).room, group, to)
    if as_json:
        print_json(encode(answer))
    else:
        click.echo(answer.sentence)
    ctx.exit(0 if answer.fits else 1)


@click.command()
@click.argument("group")
@click.option(
    "--at",
    metavar="TIME",
    callback=arguments.moment,
    help="The decision that held at this time: 14:05, or 2026-11-23T14:05.",
)
@json_option
@config_option
@click.pass_context
def explain(ctx: click.Context, group: str, at: float | None, as_json: bool) -> None:
    """Say why a group has the size it has.

    Example: autoscaler explain web --at 14:05
    """
    data = ask(ctx, "explain", group=group, at=at)
    if as_json:
        print_json(data)
    else:
        show_decision(console(), decode(data, Decision), time.time())


@click.command()
@click.option("--group", metavar="GROUP", help="Only what happened to this group.")
@click.option(
    "--since",
    "since_seconds",
    metavar="DURATION",
    default="1h",
    show_default=True,
    callback=arguments.duration,
    help="How far back: 90s, 5m, 2h, 3d.",
)
@click.option("--follow", is_flag=True, help="Go on with what happens next, until Ctrl-C.")
@json_option
@config_option
@click.pass_context
def events(ctx: click.Context, group: str | None, since_seconds: float, follow: bool, as_json: bool) -> None:
    """Show what happened: scalings, transitions, requests, reloads, alarms.

    At most the newest 500. With --follow, --json prints one event per line.

    Example: autoscaler events --group web --since 2h
    """
    out = console()
    data = ask(ctx, "events", group=group, since=time.time() - since_seconds)
    if as_json and not follow:
        print_json(data)
        return
    last = 0
    while True:
        for event in decode(data, tuple[Event, ...]):
            _show_event(out, event, as_json)
            last = max(last, event.id)
        if not follow:
            return
        time.sleep(_FOLLOW_SECONDS)
        data = ask(ctx, "events", group=group, since=time.time() - since_seconds, after=last)


def _show_event(out: Console, event: Event, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(encode(event)))
    else:
        show_event(out, event)


@click.command()
@click.argument("group")
@click.option(
    "--since",
    "since_seconds",
    metavar="DURATION",
    default="6h",
    show_default=True,
    callback=arguments.duration,
    help="How far back: 90m, 12h, 8d.",
)
@json_option
@config_option
@click.pass_context
def history(ctx: click.Context, group: str, since_seconds: float, as_json: bool) -> None:
    """Show a group's load, its size, and the decisions that changed.

    Example: autoscaler history web --since 12h
    """
    data = ask(ctx, "history", group=group, since=time.time() - since_seconds)
    if as_json:
        print_json(data)
    else:
        show_history(console(), decode(data, History))


@click.command()
@click.argument("group")
@json_option
@config_option
@click.pass_context
def traffic(ctx: click.Context, group: str, as_json: bool) -> None:
    """Show whom a group's load balancer serves, with how many sessions.

    Example: autoscaler traffic web
    """
    snapshot = decode(ask(ctx, "status"), Snapshot)
    found = [status for status in snapshot.groups if status.group == group]
    if not found:
        raise AutoscalerError(f"no group {group}; groups: {', '.join(s.group for s in snapshot.groups) or 'none'}")
    status = found[0].traffic
    if status is None:
        raise AutoscalerError(f"the policy of group {group} has no traffic section, so nobody is told of its instances")
    if as_json:
        print_json(encode(status))
    else:
        show_traffic(console(), group, status, time.time())


COMMANDS: tuple[click.Command, ...] = (status, hosts, capacity, explain, events, history, traffic)
