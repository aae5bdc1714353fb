"""What a shell offers for names: those a running daemon knows, quickly, or none without a word."""

from collections.abc import Iterator
from typing import Any

import click

from autoscaler import config
from autoscaler.control.client import request
from autoscaler.core.errors import AutoscalerError

_SECONDS = 1.0
VARIABLE = "_AUTOSCALER_COMPLETE"


def groups(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Give the names of groups that begin so."""
    listed = (group["group"] for group in _groups(ctx))
    return [name for name in listed if name.startswith(begun)]


def instances(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Give the names of instances that begin so."""
    listed = (each["instance"] for group in _groups(ctx) for each in group["instances"])
    return [name for name in listed if name.startswith(begun)]


def images(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Give the names of images that begin so."""
    listed = {stored["name"] for view in _asked(ctx, "images") for stored in view["catalog"]["versions"]}
    return sorted(name for name in listed if name.startswith(begun))


def hosts(ctx: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Give the names of the configuration's hosts that begin so."""
    try:
        return [name for name in config.load(ctx.find_root().obj).hosts if name.startswith(begun)]
    except AutoscalerError:
        return []


def auto(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Give the word that may stand for a number."""
    return ["auto"] if "auto".startswith(begun) else []


def _groups(ctx: click.Context) -> Iterator[dict[str, Any]]:
    for status in _asked(ctx, "status"):
        yield from status["groups"]


def _asked(ctx: click.Context, command: str) -> Iterator[dict[str, Any]]:
    try:
        socket = config.load(ctx.find_root().obj).control_socket
        yield request(socket, command, timeout_seconds=_SECONDS)
    except AutoscalerError:
        # In the middle of somebody's line is no place for messages; the command itself will tell.
        return
