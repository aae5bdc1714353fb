"""The command that replaces a group's instances by a new version of its golden image."""

import time

import click

from autoscaler.cli.command import ask, config_option, confirm, group_argument, json_option, print_json
from autoscaler.cli.output import console, show
from autoscaler.cli.show_refresh import refresh_data, refresh_picture
from autoscaler.codec import decode
from autoscaler.core.errors import ControlError
from autoscaler.core.snapshot import GroupStatus, Snapshot


@click.command()
@group_argument
@click.option("--status", "looks", is_flag=True, help="Show how far it is, and what it waits for.")
@click.option("--cancel", is_flag=True, help="Stop it where it is.")
@click.option("--rollback", is_flag=True, help="Go back to the image that was in service before.")
@json_option
@config_option
@click.pass_context
def refresh(ctx: click.Context, group: str, looks: bool, cancel: bool, rollback: bool, as_json: bool) -> None:
    """Replace what does not stand on the image that the policy names.

    First a canary, then batches, as the policy's section refresh has it. To
    bring out a new version change image in the policy, reload, and refresh.

    Example: autoscaler refresh web
    """
    if looks + cancel + rollback > 1:
        raise click.UsageError("--status, --cancel and --rollback exclude each other")
    if looks:
        status = _group(ctx, group)
        if as_json:
            print_json(refresh_data(status))
        else:
            show(console(), refresh_picture(status, time.time()))
        return
    more = f"`autoscaler refresh {group} --status` shows how far it is"
    if cancel:
        data = ask(ctx, "cancel_refresh", group=group)
        confirm(data, f"the refresh of {group} stops where it is", as_json)
    elif rollback:
        confirm(ask(ctx, "roll_back", group=group), f"{group} goes back to its previous image; {more}", as_json)
    else:
        confirm(ask(ctx, "refresh", group=group), f"{group} is refreshed to the image of its policy; {more}", as_json)


def _group(ctx: click.Context, name: str) -> GroupStatus:
    snapshot = decode(ask(ctx, "status"), Snapshot)
    for status in snapshot.groups:
        if status.group == name and status.image is not None:
            return status
    known = ", ".join(status.group for status in snapshot.groups if status.image is not None) or "none"
    raise ControlError(f"no policy for group {name}; groups with a policy: {known}")


COMMANDS: tuple[click.Command, ...] = (refresh,)
