"""What the doctor found, for people."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn

import click
from rich.console import Console
from rich.text import Text

from autoscaler.cli.command import print_json
from autoscaler.cli.output import console, harmless
from autoscaler.codec import encode
from autoscaler.core.finding import Finding, Level

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "bold red"}
_INDENT = " " * 9


def report(ctx: click.Context, findings: Iterable[Finding], *, as_json: bool) -> NoReturn:
    """Print findings and end the command: with 1 where something has to be mended."""
    if as_json:
        found = tuple(findings)
        print_json({"ok": not _has_errors(found), "findings": encode(found)})
    else:
        found = show_findings(console(), findings)
    ctx.exit(1 if _has_errors(found) else 0)


def _has_errors(findings: Iterable[Finding]) -> bool:
    return any(finding.level is Level.ERROR for finding in findings)


def show_findings(console: Console, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Print each finding as it comes, then how many there were of each level; gives them all."""
    shown = []
    for finding in findings:
        for line in _lines(finding, console.width):
            # Wrapped already; a path that is longer than a line is left whole, to be copied.
            console.print(line, soft_wrap=True)
        shown.append(finding)
    console.print()
    console.print(_sum(shown))
    return tuple(shown)


def _lines(finding: Finding, width: int) -> Iterator[Text]:
    first, *paragraphs = harmless(finding.found).split("\n")
    # The code stands before the first line, which has less room by as much.
    begin, *rest = _wrap(" " * (len(finding.code) + 2) + first, width)
    text = Text(f"{finding.level.value:<9}", _STYLES[finding.level]).append(f"{finding.code}: ", "bold")
    yield text.append(begin.strip(), "default")
    for line in (*rest, *(line for paragraph in paragraphs for line in _wrap(paragraph, width))):
        yield Text(f"{_INDENT}{line}")
    if finding.remedy is not None:
        for number, line in enumerate(_wrap(harmless(finding.remedy), width - 2)):
            yield Text(f"{_INDENT}{'  ' if number else '→ '}{line}")


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        text,
        width - len(_INDENT),
        drop_whitespace=True,
        replace_whitespace=False,
        break_on_hyphens=False,
        break_long_words=False,
    )


def _sum(findings: Sequence[Finding]) -> Text:
    counts = Counter(finding.level for finding in findings)
    return Text(
        f"{counts[Level.OK]} ok, {_plural(counts[Level.WARNING], 'warning')}, {_plural(counts[Level.ERROR], 'error')}"
    )


def _plural(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
