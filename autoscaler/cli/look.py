"""Commands that show what is, what was, and why."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from autoscaler.cli import arguments, complete
from autoscaler.cli.command import ask, config_option, group_argument, json_option, print_json, understand
from autoscaler.cli.hosts import foresee, hosts_data, hosts_picture
from autoscaler.cli.live import show_live
from autoscaler.cli.output import Picture, console, say, show
from autoscaler.cli.show_decision import decision_picture
from autoscaler.cli.show_events import event_line
from autoscaler.cli.show_history import history_picture
from autoscaler.cli.show_status import status_picture
from autoscaler.cli.show_traffic import traffic_picture
from autoscaler.codec import encode
from autoscaler.core.decision import Decision
from autoscaler.core.errors import AutoscalerError, DaemonUnreachableError
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.words import nearest
from autoscaler.reasons import clock
from autoscaler.store import Event, History

_FOLLOW_SECONDS = 1.0
_WIDEST = 200


@click.command()
@arguments.duration_option(
    "--watch",
    "watch_seconds",
    is_flag=False,
    flag_value="2s",
    help="Show it anew, every 2s or as often as said, until Ctrl-C.",
)
@json_option
@config_option
@click.pass_context
def status(ctx: click.Context, watch_seconds: float | None, as_json: bool) -> None:
    """Show hosts, groups and instances as the last tick left them.

    With --watch, --json prints one answer per line. A daemon that stops while
    it is watched is waited for.

    Example: autoscaler status --json

    Example: autoscaler status --watch 5s
    """
    data = ask(ctx, "status")
    if watch_seconds is None:
        print_json(data) if as_json else show(console(), _status(data))
    elif as_json:
        for answer in _again(ctx, data, watch_seconds):
            click.echo(json.dumps({"error": str(answer)} if isinstance(answer, AutoscalerError) else answer))
    else:
        show_live(console(), map(_status, _again(ctx, data, watch_seconds)))


def _status(answer: Any) -> Picture:
    if isinstance(answer, AutoscalerError):
        return (Text(f"{clock(time.time())}: {answer}", "bold red"),)
    return status_picture(understand(answer, Snapshot), time.time())


def _again(ctx: click.Context, first: Any, seconds: float) -> Iterator[Any]:
    """Ask for what there is, again and again; gives answers, and errors where there was none."""
    answer = first
    while True:
        yield answer
        time.sleep(seconds)
        try:
            answer = ask(ctx, "status")
        except AutoscalerError as error:
            answer = error


@click.command()
@json_option
@config_option
@click.pass_context
def hosts(ctx: click.Context, as_json: bool) -> None:
    """Show what each host has, what is committed, what still fits.

    Example: autoscaler hosts
    """
    rooms = understand(ask(ctx, "status"), Snapshot).room
    if as_json:
        print_json(hosts_data(rooms))
    else:
        out = console()
        show(out, hosts_picture(rooms, out.width))


@click.command()
@group_argument
@click.option("--to", metavar="N", type=click.IntRange(1, 1000), required=True, help="The number of instances.")
@json_option
@config_option
@click.pass_context
def capacity(ctx: click.Context, group: str, to: int, as_json: bool) -> None:
    """Say whether N instances of a group would fit.

    Asks for what there is now, and starts nothing. Ends with 1 if they do not.

    Example: autoscaler capacity web --to 8
    """
    answer = foresee(understand(ask(ctx, "status"), Snapshot).room, group, to)
    if as_json:
        print_json(encode(answer))
    else:
        say(answer.sentence)
    ctx.exit(0 if answer.fits else 1)


@click.command()
@group_argument
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
        show(console(), decision_picture(understand(data, Decision), time.time()))


@click.command()
@click.option("--group", metavar="GROUP", shell_complete=complete.groups, help="Only what happened to this group.")
@arguments.duration_option(
    "--since",
    "since_seconds",
    default="1h",
    help="How far back: 90s, 5m, 2h, 3d.",
)
@click.option("--follow", is_flag=True, help="Go on with what happens next, until Ctrl-C.")
@json_option
@config_option
@click.pass_context
def events(ctx: click.Context, group: str | None, since_seconds: float, follow: bool, as_json: bool) -> None:
    """Show what happened: scalings, requests, reloads, alarms.

    At most the newest 500. With --follow, --json prints one event per line, and
    a daemon that stops is waited for.

    Example: autoscaler events --group web --since 2h
    """

    def look(after: int | None = None) -> Any:
        return ask(ctx, "events", group=group, since=time.time() - since_seconds, after=after)

    out, data = console(), look()
    if as_json and not follow:
        print_json(data)
        return
    last = 0
    while True:
        for event in understand(data, tuple[Event, ...]):
            _show_event(out, event, as_json)
            last = max(last, event.id)
        if not follow:
            return
        time.sleep(_FOLLOW_SECONDS)
        data = _awaited(partial(look, last))


def _awaited(look: Callable[[], Any]) -> Any:
    """Give what a look gives, once there is a daemon again; the journal keeps what happens meanwhile."""
    told = False
    while True:
        try:
            return look()
        except DaemonUnreachableError as error:
            if not told:
                say(f"{error} Waiting for it.", err=True)
                told = True
            time.sleep(_FOLLOW_SECONDS)


def _show_event(out: Console, event: Event, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(encode(event)))
    else:
        show(out, (event_line(event),))


@click.command()
@group_argument
@arguments.duration_option(
    "--since",
    "since_seconds",
    default="6h",
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
        out = console()
        show(out, history_picture(understand(data, History), min(out.width, _WIDEST) if out.is_terminal else 80))


@click.command()
@group_argument
@json_option
@config_option
@click.pass_context
def traffic(ctx: click.Context, group: str, as_json: bool) -> None:
    """Show whom a group's load balancer serves.

    Example: autoscaler traffic web
    """
    snapshot = understand(ask(ctx, "status"), Snapshot)
    found = [status for status in snapshot.groups if status.group == group]
    if not found:
        raise AutoscalerError(f"no group {group}; {nearest(group, (it.group for it in snapshot.groups), 'groups')}")
    status = found[0].traffic
    if status is None:
        raise AutoscalerError(f"the policy of group {group} has no traffic section, so nobody is told of its instances")
    if as_json:
        print_json(encode(status))
    else:
        out = console()
        show(out, traffic_picture(group, status, time.time(), out.width))


COMMANDS: tuple[click.Command, ...] = (status, hosts, capacity, explain, events, history, traffic)
