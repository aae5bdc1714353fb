"""Pictures that are drawn anew: in place on a terminal, one below the other elsewhere."""

from collections.abc import Iterable

from rich.console import Console, Group
from rich.live import Live

from autoscaler.cli.output import Picture, fitted, is_live, show


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
            live.update(Group(*(fitted(console, part) for part in picture)), refresh=True)
