"""The commands. Exit codes: 0 done, 1 refused or found wrong, 2 wrong usage, 3 the daemon does not answer."""

import errno
import json
import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from autoscaler import config
from autoscaler.cli import arguments
from autoscaler.cli.hosts import foresee, hosts_data, show_hosts
from autoscaler.cli.images import image
from autoscaler.cli.output import console
from autoscaler.cli.show_decision import show_decision
from autoscaler.cli.show_events import show_event
from autoscaler.cli.show_history import show_history
from autoscaler.cli.show_status import show_status
from autoscaler.cli.show_traffic import show_traffic
from autoscaler.codec import decode, encode
from autoscaler.control.client import request
from autoscaler.core.decision import Decision
from autoscaler.core.errors import AutoscalerError, DaemonUnreachableError, PolicyError, Problem
from autoscaler.core.observation import Request
from autoscaler.core.policy import Policy
from autoscaler.core.snapshot import ReloadStatus, Snapshot
from autoscaler.policy import load
from autoscaler.reasons import clock, duration
from autoscaler.store import Event, History

DEFAULT_HOLD = "1h"
_FOLLOW_SECONDS = 1.0
_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EBADF})


class _Commands(click.Group):
    """Turns what an operator can act upon into one message and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # as click declares it
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except AutoscalerError as error:
            label = "" if isinstance(error, PolicyError) else "error: "
            click.echo(f"{label}{error}", err=True)
            ctx.exit(3 if isinstance(error, DaemonUnreachableError) else 1)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(130)
        except OSError as error:
            if error.errno not in _OUTPUT_ERRORS:
                raise
            click.echo(f"error: the output cannot be written: {error.strerror}", err=True)
            # What could not be written is not tried again at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(1)
        return result


def _remember_config(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.find_root().obj = value


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    expose_value=False,
    callback=_remember_config,
    help="The daemon's configuration; else $AUTOSCALER_CONFIG, else /etc/autoscaler/config.yaml.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _settings(ctx: click.Context) -> config.Config:
    return config.load(ctx.find_root().obj)


def ask(ctx: click.Context, command: str, **given: Any) -> Any:
    """Ask the daemon. Raises AutoscalerError where it refuses or does not answer."""
    return request(_settings(ctx).control_socket, command, **given)


def _print_json(data: object) -> None:
    click.echo(json.dumps(data, indent=2))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="kvm-autoscaler", prog_name="autoscaler")
@config_option
def main() -> None:
    """Scale virtual machines on KVM hosts by their load.

    Example: autoscaler status
    """


@main.command()
@config_option
@click.pass_context
def run(ctx: click.Context) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    Example: autoscaler run --config ./config.yaml
    """
    from autoscaler import daemon  # noqa: PLC0415 - what talks to libvirt is loaded for the daemon only

    ctx.exit(daemon.run(_settings(ctx)))


@main.command()
@json_option
@config_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look for what stands in the daemon's way, and say what to do.

    Works with and without a running daemon. To try KVM it boots a guest, which
    is thrown away. Ends with 1 when something has to be mended.

    Example: autoscaler doctor
    """
    from autoscaler.cli.show_findings import show_findings  # noqa: PLC0415 - what talks to libvirt is loaded when needed
    from autoscaler.doctor import Level, examine  # noqa: PLC0415 - as above

    findings = examine(ctx.find_root().obj)
    if as_json:
        found = tuple(findings)
        ok = all(finding.level is not Level.ERROR for finding in found)
        _print_json({"ok": ok, "findings": encode(found)})
    else:
        found = show_findings(console(), findings)
    ctx.exit(1 if any(finding.level is Level.ERROR for finding in found) else 0)


@main.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@json_option
@config_option
@click.pass_context
def validate(ctx: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Check policy files, or folders of them, and print every error.

    Host names are checked when there is a configuration that names them.

    Example: autoscaler validate /etc/autoscaler/policies
    """
    hosts = _known_hosts(ctx)
    files = [path for path in paths if not path.is_dir()]
    reads = [partial(load.load_files, files), *(partial(load.load_directory, path) for path in paths if path.is_dir())]
    policies: list[Policy] = []
    problems: list[Problem] = []
    for read in reads:
        try:
            policies += read(hosts)
        except PolicyError as error:
            problems += error.problems
    if as_json:
        _print_json({"ok": not problems, "problems": encode(problems), "policies": encode(policies)})
    else:
        click.echo("".join(f"{problem}\n" for problem in problems), err=True, nl=False)
        click.echo("".join(f"group {policy.group}: good\n" for policy in policies), nl=False)
    ctx.exit(1 if problems else 0)


def _known_hosts(ctx: click.Context) -> frozenset[str] | None:
    named = ctx.find_root().obj or os.environ.get(config.ENVIRONMENT_VARIABLE)
    if named is None and not config.DEFAULT_PATH.exists():
        return None
    return frozenset(_settings(ctx).hosts)


@main.command()
@json_option
@config_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show hosts, groups and instances as the last tick left them.

    Example: autoscaler status --json
    """
    data = ask(ctx, "status")
    if as_json:
        _print_json(data)
    else:
        show_status(console(), decode(data, Snapshot), time.time())


@main.command()
@json_option
@config_option
@click.pass_context
def hosts(ctx: click.Context, as_json: bool) -> None:
    """Show what each host has, what is committed, and what still fits.

    Example: autoscaler hosts
    """
    rooms = decode(ask(ctx, "status"), Snapshot).room
    if as_json:
        _print_json(hosts_data(rooms))
    else:
        show_hosts(console(), rooms)


@main.command()
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
        _print_json(encode(answer))
    else:
        click.echo(answer.sentence)
    ctx.exit(0 if answer.fits else 1)


@main.command()
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
        _print_json(data)
    else:
        show_decision(console(), decode(data, Decision), time.time())


@main.command()
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
        _print_json(data)
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


@main.command()
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
        _print_json(data)
    else:
        show_history(console(), decode(data, History))


@main.command()
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
        _print_json(encode(status))
    else:
        show_traffic(console(), group, status, time.time())


@main.command()
@click.argument("group")
@click.argument("count", metavar="N|auto", callback=arguments.count_or_auto)
@click.option(
    "--for",
    "for_seconds",
    metavar="DURATION",
    callback=arguments.duration,
    help=f"How long to hold it: 90s, 5m, 2h.  [default: {DEFAULT_HOLD}]",
)
@json_option
@config_option
@click.pass_context
def scale(ctx: click.Context, group: str, count: int | str, for_seconds: float | None, as_json: bool) -> None:
    """Hold a group at N instances, or let its policy decide.

    Example: autoscaler scale web 3 --for 2h
    """
    if count == "auto" and for_seconds is not None:
        raise click.UsageError("--for has no meaning with auto")
    data = ask(ctx, "scale", group=group, count=count, for_seconds=for_seconds)
    confirm(data, _scaled(decode(data, Request)), as_json)


def _scaled(accepted: Request) -> str:
    if accepted.count is None:
        return f"{accepted.group} follows its policy again"
    held = accepted.for_seconds or 0
    return (
        f"{accepted.group} is held at {accepted.count} until {clock(accepted.at + held)} (for {duration(held)}); "
        f"`autoscaler scale {accepted.group} auto` ends it sooner"
    )


@main.command()
@click.argument("group")
@json_option
@config_option
@click.pass_context
def pause(ctx: click.Context, group: str, as_json: bool) -> None:
    """Stop acting for a group; its instances run on.

    Example: autoscaler pause web
    """
    data = ask(ctx, "pause", group=group)
    confirm(data, f"{group} is paused: nothing is done for it until `autoscaler resume {group}`", as_json)


@main.command()
@click.argument("group")
@json_option
@config_option
@click.pass_context
def resume(ctx: click.Context, group: str, as_json: bool) -> None:
    """Act for a paused group again.

    Example: autoscaler resume web
    """
    data = ask(ctx, "resume", group=group)
    confirm(data, f"{group} is acted for again", as_json)


def confirm(data: object, sentence: str, as_json: bool) -> None:
    """Print what was accepted: as a sentence, or the daemon's answer."""
    if as_json:
        _print_json(data)
    else:
        click.echo(sentence)


@main.command()
@json_option
@config_option
@click.pass_context
def reload(ctx: click.Context, as_json: bool) -> None:
    """Read the policy files again, and wait for the answer.

    Wrong files are refused as a whole, and the policies it has run on.

    Example: autoscaler reload
    """
    data = ask(ctx, "reload")
    result = decode(data, ReloadStatus)
    if as_json:
        _print_json(data)
    elif result.ok:
        click.echo(f"policies read again at {clock(result.at)}")
    else:
        click.echo(f"{result.error}\nreload refused: the earlier policies run on", err=True)
    ctx.exit(0 if result.ok else 1)


@main.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors.

    It knows keys and kinds of values; `autoscaler validate` knows the rest.

    Example: autoscaler schema > policy.schema.json
    """
    _print_json(load.schema())


@main.group()
def ledger() -> None:
    """Deal with the ledger of the volumes that are the autoscaler's.

    Example: autoscaler ledger accept
    """


@ledger.command()
@json_option
@config_option
@click.pass_context
def accept(ctx: click.Context, as_json: bool) -> None:
    """Let volumes that are left over be deleted again, after a journal was lost.

    The instances that are there, adopted by their metadata, are written into it
    with their volumes; every host has to answer for that. Volumes of the lost
    ledger that no instance uses are not known any more, and never deleted: look
    for them in the pools.

    Example: autoscaler ledger accept
    """
    data = ask(ctx, "accept_ledger")
    confirm(data, "the ledger is taken as it is: what is left over is collected again", as_json)


@main.group()
def policy() -> None:
    """Look at policy files.

    Example: autoscaler policy show web.yaml
    """


@policy.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@config_option
@click.pass_context
def show(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Print a policy with every default filled in.

    Example: autoscaler policy show web.yaml
    """
    loaded = load.load_file(file, _known_hosts(ctx))
    if as_json:
        _print_json(encode(loaded))
    else:
        click.echo(load.show(loaded), nl=False)


main.add_command(image)
