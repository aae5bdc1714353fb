"""Commands that change the life of instances and groups."""

from typing import Any

import click

from autoscaler.cli import arguments
from autoscaler.cli.main import DEFAULT_HOLD, ask, config_option, confirm, json_option
from autoscaler.codec import decode
from autoscaler.core.observation import Request
from autoscaler.core.snapshot import Snapshot
from autoscaler.reasons import duration, moment


@click.command()
@click.argument("instance")
@click.option(
    "--for",
    "for_seconds",
    metavar="DURATION",
    callback=arguments.duration,
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
    accepted = decode(data, Request)
    held = accepted.for_seconds or 0
    until = f"{moment(accepted.at + held)} (for {duration(held)})"
    confirm(data, f"{instance} is not removed until {until}; `autoscaler unprotect {instance}` ends it sooner", as_json)


@click.command()
@click.argument("instance")
@json_option
@config_option
@click.pass_context
def unprotect(ctx: click.Context, instance: str, as_json: bool) -> None:
    """Let an instance be removed again.

    Example: autoscaler unprotect web-1aa9ee6f
    """
    confirm(ask(ctx, "unprotect", instance=instance), f"{instance} may be removed again", as_json)


@click.command()
@click.argument("instance")
@json_option
@config_option
@click.pass_context
def detach(ctx: click.Context, instance: str, as_json: bool) -> None:
    """Take an instance out of its group; it runs on.

    It is neither counted, measured nor removed, and another takes its place.

    Example: autoscaler detach web-1aa9ee6f
    """
    data = ask(ctx, "detach", instance=instance)
    said = f"{instance} is detached: neither counted, measured nor removed until `autoscaler attach {instance}`"
    confirm(data, said, as_json)


@click.command()
@click.argument("instance")
@json_option
@config_option
@click.pass_context
def attach(ctx: click.Context, instance: str, as_json: bool) -> None:
    """Take a detached instance back, where the maximum allows.

    Example: autoscaler attach web-1aa9ee6f
    """
    confirm(ask(ctx, "attach", instance=instance), f"{instance} belongs to its group again", as_json)


@click.command()
@click.argument("group")
@json_option
@config_option
@click.pass_context
def reset(ctx: click.Context, group: str, as_json: bool) -> None:
    """Try launches again that were stopped after too many had failed.

    Example: autoscaler reset web
    """
    confirm(ask(ctx, "reset", group=group), f"launches of {group} are tried again", as_json)


@click.group(name="group")
@config_option
def group_commands() -> None:
    """Act on whole groups.

    Example: autoscaler group delete old
    """


@group_commands.command()
@click.argument("name", metavar="GROUP")
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
    snapshot = decode(ask(ctx, "status"), Snapshot)
    listed: list[Any] = [each for status in snapshot.groups if status.group == name for each in status.instances]
    return f"{len(listed)} instance{'' if len(listed) == 1 else 's'}"


COMMANDS: tuple[click.Command, ...] = (protect, unprotect, detach, attach, reset, group_commands)
