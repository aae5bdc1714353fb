"""Commands as people see them, and the golden files of what they print."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import click
import pytest
from rich.console import Console, RenderableType

from autoscaler.cli import main
from autoscaler.cli.output import show

GOLDEN = Path(__file__).parent.parent / "golden"
WRITE = "REGENERATE_GOLDEN"


def golden(name: str, text: str) -> None:
    """Compare with a golden file; `REGENERATE_GOLDEN=1` writes it instead, for a look at the difference."""
    path = GOLDEN / name
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get(WRITE):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    if not path.exists():
        pytest.fail(f"there is no golden file {path}: run this test with {WRITE}=1, and read what it wrote")
    assert text == path.read_text()


def shown(picture: Iterable[RenderableType], width: int = 80) -> str:
    """Give what a terminal without colours shows of a picture."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, highlight=False)
    show(console, tuple(picture))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def every_command(group: click.Group = main, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give each command with the words that call it; groups come before their commands, the program itself first."""
    yield before, group
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from every_command(command, *before, name)
        else:
            yield (*before, name), command


def leaf_commands() -> dict[tuple[str, ...], click.Command]:
    """Give those that do something."""
    return {path: command for path, command in every_command() if not isinstance(command, click.Group)}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def at_terminal(*words: str) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns that knows no control codes; give its exit code and what it shows.

    TERM must be dumb.
    """
    assert os.environ["TERM"] == "dumb"
    screen = _Terminal()
    with redirect_stdout(screen), redirect_stderr(screen):
        try:
            main(list(words), prog_name="autoscaler")
        except SystemExit as ended:
            return int(ended.code or 0), screen.getvalue()
    raise AssertionError("a command ends by SystemExit")
