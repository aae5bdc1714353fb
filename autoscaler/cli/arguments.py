"""What people write on the command line: sizes, durations, times. Each is a click callback."""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

from autoscaler.images.lint import LARGEST_BYTES
from autoscaler.policy.image import read_image_name
from autoscaler.policy.values import WrongValueError, read_name, read_size, write_size

F = TypeVar("F", bound=Callable[..., Any])
_LONGEST_SECONDS = 365 * 86400.0
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def count_or_auto(_: click.Context, __: click.Parameter, value: str) -> int | str:
    """Read a whole number of 0 or more; ``auto`` stays as it is. Raises click's BadParameter for anything else."""
    if value == "auto":
        return value
    if re.fullmatch(r"[0-9]{1,9}", value) is None:
        raise click.BadParameter(f"{value!r} is neither a whole number of 0 or more nor auto")
    return int(value)


def duration(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Read ``90s``, ``5m``, ``1h`` or ``1d`` as seconds. Raises click's BadParameter for anything else."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhd])", value)
    if found is None or float(found[1]) == 0:
        raise click.BadParameter(f"{value!r} is no duration above 0; write for example 90s, 5m, 1h or 1d")
    seconds = float(found[1]) * _UNIT_SECONDS[found[2]]
    if seconds > _LONGEST_SECONDS:
        raise click.BadParameter(f"{value!r} is longer than the 365d that can be held")
    return seconds


def duration_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes a duration, and gives seconds."""
    return _option(duration, "DURATION", names, more)


def share_option(*names: str, **more: Any) -> Callable[[F], F]:
    """Make an option that takes a share, and gives a fraction of one."""
    return _option(share, "SHARE", names, more)


def _option(reads: Any, metavar: str, names: tuple[str, ...], more: dict[str, Any]) -> Callable[[F], F]:
    return click.option(*names, metavar=metavar, callback=reads, show_default="default" in more, **more)


def size(_: click.Context, __: click.Parameter, value: str) -> int:
    """Read ``192MiB``, ``2GiB`` or ``1GB`` as bytes. Raises click's BadParameter for anything else."""
    try:
        return read_size(value)
    except WrongValueError as error:
        raise click.BadParameter(str(error)) from error


largest_option = _option(
    size,
    "SIZE",
    ("--largest", "largest_bytes"),
    {"default": write_size(LARGEST_BYTES), "help": "The largest virtual disk that is taken for meant."},
)
"""The option of commands that look at an image file."""


def name(_: click.Context, __: click.Parameter, value: str) -> str:
    """Read the name of a pool. Raises click's BadParameter for what cannot be one."""
    try:
        return read_name(value)
    except WrongValueError as error:
        raise click.BadParameter(str(error)) from error


def image_name(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Read the name of an image. Raises click's BadParameter for what cannot be one."""
    try:
        return None if value is None else read_image_name(value)
    except WrongValueError as error:
        raise click.BadParameter(str(error)) from error


def is_there(path: Path) -> bool:
    """Tell whether there is something at a path that may be any word."""
    try:
        return path.exists()
    except OSError:  # too long to be one
        return False


def moment(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Read a time of day (the last such one) or a date with time as seconds since the epoch.

    It is local time unless it names an offset. Raises click's BadParameter for anything else.
    """
    if value is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?", value):
            return _last(value, time.time())
        return datetime.fromisoformat(value).astimezone().timestamp()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is no time; write for example 14:05, 14:05:30 or 2026-11-23T14:05"
        ) from error


def _last(time_of_day: str, now: float) -> float:
    today = datetime.fromisoformat(f"{datetime.fromtimestamp(now).astimezone().date()}T{time_of_day}")
    # In autumn an hour comes twice.
    such = (day.replace(fold=fold).timestamp() for day in (today, today - timedelta(days=1)) for fold in (1, 0))
    return next(at for at in such if at <= now)


def since(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Read a time as `moment` does, or a duration back from now. Raises click's BadParameter for anything else."""
    if value is not None and re.fullmatch(r"[0-9.]+[smhd]", value):
        return time.time() - (duration(context, parameter, value) or 0)
    return moment(context, parameter, value)


def share(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """Read ``5%`` as a fraction of one. Raises click's BadParameter for anything that is not from 0 to 100 percent."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", value)
    if found is None or float(found[1]) > 100:
        raise click.BadParameter(f"{value!r} is no share; write for example 5%")
    return float(found[1]) / 100
