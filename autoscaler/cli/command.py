"""What all commands share: how they end, how they find the daemon, what they print."""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

import click

from autoscaler import config
from autoscaler.cli import complete
from autoscaler.cli.output import harmless, say, write_what_the_locale_has
from autoscaler.codec import MISFITS, decode
from autoscaler.control.client import request
from autoscaler.core.errors import AutoscalerError, DaemonUnreachableError, PolicyError

T = TypeVar("T")

DEFAULT_HOLD = "1h"
_OUTPUT_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EBADF})


class Commands(click.Group):
    """Turns what an operator can act upon into one message and an exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # as click declares it
        """Run the command and end as its outcome says."""
        write_what_the_locale_has()
        try:
            result = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
        except AutoscalerError as error:
            # A located error is left on its line, as editors and compilers have it.
            if isinstance(error, PolicyError):
                click.echo(harmless(str(error)), err=True)
            else:
                say(f"error: {error}", err=True)
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
group_argument = click.argument("group", shell_complete=complete.groups)
instance_argument = click.argument("instance", shell_complete=complete.instances)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def settings(ctx: click.Context) -> config.Config:
    """Read the configuration that the command line names. Raises PolicyError."""
    return config.load(ctx.find_root().obj)


def ask(ctx: click.Context, command: str, **given: Any) -> Any:
    """Ask the daemon. Raises AutoscalerError where it refuses or does not answer."""
    return request(settings(ctx).control_socket, command, **given)


def understand(data: object, as_type: type[T]) -> T:
    """Turn what the daemon answered into a core value. Raises DaemonUnreachableError where it cannot be understood."""
    try:
        return decode(data, as_type)
    except MISFITS as error:
        raise DaemonUnreachableError(
            "the daemon's answer is not understood: it is of another version than this command. "
            "Restart it, so that both are of the same release."
        ) from error


def print_json(data: object) -> None:
    """Print data as JSON, indented."""
    click.echo(json.dumps(data, indent=2))


def confirm(data: object, sentence: str, as_json: bool) -> None:
    """Print what was accepted: as a sentence, or the daemon's answer."""
    if as_json:
        print_json(data)
    else:
        say(sentence)
