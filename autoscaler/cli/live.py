"""Pictures that are drawn anew: in place on a terminal, one below the other elsewhere."""

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

Picture = Iterable[RenderableType]
"""What is printed line by line: texts, and tables."""


def is_live(console: Console) -> bool:
    """Whether the console can be drawn anew: not a pipe or a file, nor a terminal that knows no control codes."""
    return console.is_terminal and not console.is_dumb_terminal


def show(console: Console, picture: Picture) -> None:
    """Print one picture; a pipe gets its lines as long as they are."""
    for part in picture:
        if not isinstance(part, Text):
            console.print(part)
        elif console.is_terminal:
            console.print(_hanging(console, part))
        else:
            console.print(part, soft_wrap=True)


def _hanging(console: Console, text: Text) -> Text:
    """Wrap a line so that what goes on below it is seen to belong to it."""
    first, *more = text.wrap(console, console.width)
    if not more:
        return text
    indent = len(text.plain) - len(text.plain.lstrip()) + 2
    rest = Text(" ").join(more).wrap(console, console.width - indent)
    for line in rest:
        line.pad_left(indent)
    return Text("\n").join((first, *rest))


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
            parts = (_hanging(console, part) if isinstance(part, Text) else part for part in picture)
            live.update(Group(*parts), refresh=True)
