"""Commands that change what the daemon does: for it all, for groups, for single instances."""

from collections.abc import Callable
from typing import Any

import click

from autoscaler.cli import arguments, complete
from autoscaler.cli.command import (
    DEFAULT_HOLD,
    ask,
    config_option,
    confirm,
    group_argument,
    instance_argument,
    json_option,
    print_json,
    understand,
)
from autoscaler.cli.output import harmless, say
from autoscaler.core.observation import Request
from autoscaler.core.snapshot import ReloadStatus, Snapshot
from autoscaler.reasons import clock, duration, moment


@click.command()
@group_argument
@click.argument("count", metavar="N|auto", shell_complete=complete.auto, callback=arguments.count_or_auto)
@arguments.duration_option(
    "--for",
    "for_seconds",
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
    confirm(data, _scaled(understand(data, Request)), as_json)


def _scaled(accepted: Request) -> str:
    if accepted.count is None:
        return f"{accepted.group} follows its policy again"
    held = accepted.for_seconds or 0
    return (
        f"{accepted.group} is held at {accepted.count} until {clock(accepted.at + held)} (for {duration(held)}); "
        f"`autoscaler scale {accepted.group} auto` ends it sooner"
    )


def _change(command: str, of: Callable[[Any], Any], said: str, text: str) -> click.Command:
    """Make a command that asks for one change of a group or an instance; `said` confirms it by its name."""

    @click.command(command, help=text)
    @of
    @json_option
    @config_option
    @click.pass_context
    def change(ctx: click.Context, /, as_json: bool, **named: str) -> None:
        (name,) = named.values()
        confirm(ask(ctx, command, **named), said.format(name), as_json)

    return change


pause = _change(
    "pause",
    group_argument,
    "{0} is paused: nothing is done for it until `autoscaler resume {0}`",
    """Stop acting for a group; its instances run on.

    Example: autoscaler pause web
    """,
)
resume = _change(
    "resume",
    group_argument,
    "{0} is acted for again",
    """Act for a paused group again.

    Example: autoscaler resume web
    """,
)
reset = _change(
    "reset",
    group_argument,
    "launches of {0} are tried again",
    """Try launches again that were stopped for too many failures.

    Example: autoscaler reset web
    """,
)
unprotect = _change(
    "unprotect",
    instance_argument,
    "{0} may be removed again",
    """Let an instance be removed again.

    Example: autoscaler unprotect web-1aa9ee6f
    """,
)
detach = _change(
    "detach",
    instance_argument,
    "{0} is detached: neither counted, measured nor removed until `autoscaler attach {0}`",
    """Take an instance out of its group; it runs on.

    It is neither counted, measured nor removed, and another takes its place.

    Example: autoscaler detach web-1aa9ee6f
    """,
)
attach = _change(
    "attach",
    instance_argument,
    "{0} belongs to its group again",
    """Take a detached instance back, where the maximum allows.

    Example: autoscaler attach web-1aa9ee6f
    """,
)


@click.command()
@json_option
@config_option
@click.pass_context
def reload(ctx: click.Context, as_json: bool) -> None:
    """Read the policy files again, and wait for the answer.

    Wrong files are refused as a whole, and the policies it has run on.

    Example: autoscaler reload
    """
    data = ask(ctx, "reload")
    result = understand(data, ReloadStatus)
    if as_json:
        print_json(data)
    elif result.ok:
        say(f"policies read again at {clock(result.at)}")
    else:
        click.echo(f"{harmless(result.error or '')}\nreload refused: the earlier policies run on", err=True)
    ctx.exit(0 if result.ok else 1)


@click.group()
def ledger() -> None:
    """Deal with the ledger of the volumes that are the autoscaler's.

    Example: autoscaler ledger accept
    """


@ledger.command()
@json_option
@config_option
@click.pass_context
def accept(ctx: click.Context, as_json: bool) -> None:
    """Let left-over volumes be deleted again, after a journal was lost.

    The instances that are there, adopted by their metadata, are written into it
    with their volumes; every host has to answer for that. Volumes of the lost
    ledger that no instance uses are not known any more, and never deleted: look
    for them in the pools.

    Example: autoscaler ledger accept
    """
    data = ask(ctx, "accept_ledger")
    confirm(data, "the ledger is taken as it is: what is left over is collected again", as_json)


@click.command()
@instance_argument
@arguments.duration_option(
    "--for",
    "for_seconds",
    help=f"How long to protect it: 90s, 5m, 2h, 30d.  [default: {DEFAULT_HOLD}]",
)
@json_option
@config_option
@click.pass_context
def protect(ctx: click.Context, instance: str, for_seconds: float | None, as_json: bool) -> None:
    """Keep an instance from being removed, whatever becomes of it.

    Example: autoscaler protect web-1aa9ee6f --for 2h
    """
    data = ask(ctx, "protect", instance=instance, for_seconds=for_seconds)
    accepted = understand(data, Request)
    held = accepted.for_seconds or 0
    until = f"{moment(accepted.at + held)} (for {duration(held)})"
    confirm(data, f"{instance} is not removed until {until}; `autoscaler unprotect {instance}` ends it sooner", as_json)


@click.group(name="group")
@config_option
def group_commands() -> None:
    """Act on whole groups.

    Example: autoscaler group delete old
    """


@group_commands.command()
@click.argument("name", metavar="GROUP", shell_complete=complete.groups)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@config_option
@click.pass_context
def delete(ctx: click.Context, name: str, yes: bool, as_json: bool) -> None:
    """Remove every instance of a group that has no policy file any more.

    What is protected or detached stays.

    Example: autoscaler group delete old --yes
    """
    if not yes:
        question = f"Remove {_instances(ctx, name)} of {name} and their disks?"
        if not click.confirm(question, err=True):
            raise click.exceptions.Exit(1)
    confirm(ask(ctx, "delete", group=name), f"the instances of {name} are being removed", as_json)


def _instances(ctx: click.Context, name: str) -> str:
    snapshot = understand(ask(ctx, "status"), Snapshot)
    listed: list[Any] = [each for status in snapshot.groups if status.group == name for each in status.instances]
    return f"{len(listed)} instance{'' if len(listed) == 1 else 's'}"


COMMANDS: tuple[click.Command, ...] = (
    scale,
    pause,
    resume,
    reload,
    protect,
    unprotect,
    detach,
    attach,
    reset,
    group_commands,
    ledger,
)
