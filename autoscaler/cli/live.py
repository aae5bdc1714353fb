"""Pictures that are drawn anew: in place on a terminal, one below the other elsewhere."""

from collections.abc import Iterable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

Picture = Sequence[RenderableType]
"""What is printed line by line: texts, and tables."""


def is_live(console: Console) -> bool:
    """Whether the console can be drawn anew: not a pipe or a file, nor a terminal that knows no control codes."""
    return console.is_terminal and not console.is_dumb_terminal


def show(console: Console, picture: Picture) -> None:
    """Print one picture; a pipe gets its lines as long as they are."""
    for part in picture:
        if isinstance(part, Text):
            console.print(part, soft_wrap=not console.is_terminal)
        else:
            console.print(part)


def show_live(console: Console, pictures: Iterable[Picture]) -> None:
    """Show one picture after the other for as long as they come."""
    if not is_live(console):
        for number, picture in enumerate(pictures):
            if number:
                console.print()
            show(console, picture)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for picture in pictures:
            live.update(Group(*picture), refresh=True)
