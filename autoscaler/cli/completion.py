"""The command that prints what a shell needs to complete the others."""

import click
from click.shell_completion import get_completion_class

from autoscaler.cli.complete import VARIABLE

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what a shell needs to complete commands and names.

    Names of groups and instances are those that the running daemon knows.
    `make install` puts it to where each shell looks for it; else, for bash:

    Example: autoscaler completion bash > ~/.bash_completion
    """
    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(ctx.find_root().command, {}, "autoscaler", VARIABLE).source())


COMMANDS: tuple[click.Command, ...] = (completion,)
