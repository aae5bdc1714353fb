"""Commands as people see them: run against a daemon of the samples, and compared with golden files."""

import io
import os
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, RenderableType

from autoscaler.cli.live import show

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name: str, text: str) -> None:
    """Compare with a golden file; `REGENERATE_GOLDEN=1` writes it instead, for a look at the difference."""
    path = GOLDEN / name
    text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    if os.environ.get("REGENERATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def shown(picture: Iterable[RenderableType], width: int = 80) -> str:
    """Give what a terminal without colours shows of a picture."""
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None, highlight=False)
    show(console, tuple(picture))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
