"""Where commands print to, and how: wrapped on a terminal, whole lines elsewhere, and only what the locale has."""

import codecs
import io
import sys
from collections.abc import Container, Iterable, Iterator, Mapping

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

Picture = Iterable[RenderableType]
"""What is printed line by line: texts, and tables."""

_PIPE_WIDTH = 1000
_SIGNS = str.maketrans(
    {"→": "->", "…": "...", "·": ".", "┤": "|", "│": "|"} | dict(zip("▁▂▃▄▅▆▇█", "__..--##", strict=True))
)
_HANDLER = "autoscaler.likeness"


def _likeness(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks as what comes near to it, or escaped."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return lacking.translate(_SIGNS).encode("ascii", "backslashreplace").decode("ascii"), error.end


def write_what_the_locale_has() -> None:
    """Let standard output and error end no command for a sign that their encoding lacks, or that is none."""
    codecs.register_error(_HANDLER, _likeness)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def console(*, err: bool = False, pipe_width: int = _PIPE_WIDTH) -> Console:
    """Make a console for plain text: what is shown is data, never markup. A pipe gets lines as long as they are."""
    stream = sys.stderr if err else sys.stdout
    width = None if stream is not None and stream.isatty() else pipe_width
    return Console(highlight=False, markup=False, emoji=False, width=width, stderr=err)


def is_live(console: Console) -> bool:
    """Whether the console can be drawn anew: no pipe or file, nor a terminal that knows no control codes."""
    return console.is_terminal and not console.is_dumb_terminal


def say(sentence: str, *, err: bool = False) -> None:
    """Print a message, line by line."""
    show(console(err=err), map(Text, sentence.split("\n")))


def table(
    columns: Mapping[str, JustifyMethod], rows: Iterable[Iterable[str | Text]], without: Container[str] = frozenset()
) -> Table:
    """Make a table that stands under its title; words are folded where they must be, figures and headings never.

    Columns `without` which it has to do, for lack of width, are in the rows all the same.
    """
    made = Table(box=None, padding=(0, 0, 0, 2), header_style="dim")
    for name, justify in columns.items():
        if name not in without:
            figures = justify == "right"
            made.add_column(name, justify=justify, overflow="fold", no_wrap=figures, min_width=len(name))
    for row in rows:
        made.add_row(*(cell for name, cell in zip(columns, row, strict=True) if name not in without))
    return made


def harmless(text: str) -> str:
    """Escape what would do something to a terminal instead of being shown."""
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def show(console: Console, picture: Picture) -> None:
    """Print one picture; a pipe gets its lines as long as they are."""
    for part in picture:
        console.print(fitted(console, part), soft_wrap=isinstance(part, Text) and not console.is_terminal)


def fitted(console: Console, part: RenderableType) -> RenderableType:
    """Make a part of a picture fit a terminal, and do nothing to it: much of what is shown was said by guests."""
    return _Harmless(_hanging(console, part) if isinstance(part, Text) and console.is_terminal else part)


class _Harmless:
    """A part of a picture, of which nothing steers the terminal."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._part, options):
            yield segment if segment.control else Segment(harmless(segment.text), segment.style)


def _hanging(console: Console, text: Text) -> Text:
    """Wrap a line so that what goes on below it is seen to belong to it."""
    first, *more = text.wrap(console, console.width)
    if not more:
        return text
    indent = len(text.plain) - len(text.plain.lstrip()) + 2
    left = text.plain[len(first.plain) :]
    rest = text[len(text.plain) - len(left.lstrip()) :].wrap(console, console.width - indent)
    first.rstrip()
    for line in rest:
        line.rstrip()
        line.pad_left(indent)
    return Text("\n").join((first, *rest))
