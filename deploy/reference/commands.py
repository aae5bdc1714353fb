"""Writes docs/commands.md and the man pages from the commands themselves.

usage: commands.py markdown        prints the reference
       commands.py man FOLDER      writes one page per command into the folder
"""

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import click

from autoscaler.cli import main

PROGRAM = "autoscaler"
EXIT_CODES = (
    ("0", "It is done."),
    ("1", "It was refused, or something was found wrong."),
    ("2", "The command line is wrong."),
    ("3", "The daemon does not answer."),
    ("130", "It was ended by Ctrl-C."),
)
ENVIRONMENT = (
    ("AUTOSCALER_CONFIG", "The configuration, where --config names none."),
    ("NO_COLOR", "Where this is set, nothing is coloured."),
    ("TZ", "The zone that times are shown in and read as; else the machine's."),
)
FILES = (
    ("/etc/autoscaler/config.yaml", "The configuration, where neither --config nor AUTOSCALER_CONFIG names one."),
    ("/etc/autoscaler/policies", "The policies."),
)


@dataclass(frozen=True)
class Page:
    """What there is to say of one command."""

    path: tuple[str, ...]
    summary: str
    synopsis: str
    paragraphs: tuple[str, ...]
    examples: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    """What is written, and what it does."""
    commands: tuple[tuple[str, str], ...]
    """The commands of a group, each with its summary."""

    @property
    def title(self) -> str:
        """The words that call it."""
        return " ".join((PROGRAM, *self.path))


def pages(command: click.Command = main, *path: str) -> Iterator[Page]:
    """Give a page for each command, groups before their commands."""
    context = click.Context(command, info_name=" ".join((PROGRAM, *path)), **main.context_settings)
    text = [" ".join(part.split()) for part in re.split(r"\n\s*\n", command.help or "")]
    members = sorted(command.commands.items()) if isinstance(command, click.Group) else []
    yield Page(
        path,
        summary=text[0],
        synopsis=" ".join(command.collect_usage_pieces(context)),
        paragraphs=tuple(part for part in text[1:] if not part.startswith("Example: ")),
        examples=tuple(part.removeprefix("Example: ") for part in text if part.startswith("Example: ")),
        options=tuple(_options(command, context)),
        commands=tuple((name, (member.help or "").partition("\n")[0]) for name, member in members),
    )
    for name, member in members:
        yield from pages(member, *path, name)


def _options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        # Arguments are in the synopsis, and say by their names what they are.
        if record is not None and record[1]:
            yield record


# --- Markdown --------------------------------------------------------------------------------------------------------


def markdown() -> str:
    """Write the reference of all commands."""
    lines = [
        "# Commands",
        "",
        "Made from the commands by `make reference`. `autoscaler COMMAND --help` and `man autoscaler-COMMAND` say the",
        "same.",
        "",
        "| exit code | means |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES),
        "",
        "| variable of the environment | means |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT),
    ]
    for page in pages():
        lines += ["", *_section(page)]
    return "\n".join(lines) + "\n"


def _section(page: Page) -> Iterator[str]:
    yield f"## {page.title}"
    yield ""
    yield page.summary
    for paragraph in page.paragraphs:
        yield ""
        yield paragraph
    yield ""
    yield "```sh"
    yield from page.examples
    yield "```"
    yield ""
    yield f"Usage: `{page.title} {page.synopsis}`"
    yield ""
    yield "| option | does |"
    yield "|---|---|"
    yield from (f"| `{_cell(option)}` | {_cell(what)} |" for option, what in page.options)
    if page.commands:
        yield ""
        yield "| command | does |"
        yield "|---|---|"
        for name, summary in page.commands:
            title = f"{page.title} {name}"
            yield f"| [`{title}`](#{title.replace(' ', '-')}) | {summary} |"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


# --- man pages -------------------------------------------------------------------------------------------------------


def write_man_pages(folder: Path) -> list[Path]:
    """Write a page per command into a folder, which is made; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for page in pages():
        path = folder / f"{_man_name(page.path)}.1"
        path.write_text(_man(page), encoding="utf-8")
        written.append(path)
    return written


def _man_name(path: tuple[str, ...]) -> str:
    return "-".join((PROGRAM, *path))


def _man(page: Page) -> str:
    name = _man_name(page.path)
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    lines = [f'.TH "{name.upper()}" "1" "{date}" "{PROGRAM} {version("kvm-autoscaler")}" "kvm-autoscaler"']
    lines += [".SH NAME", *_filled(f"{name} - {page.summary.rstrip('.')}")]
    lines += [".SH SYNOPSIS", rf"\fB{_roff(page.title)}\fR {_roff(page.synopsis)}"]
    lines += [".SH DESCRIPTION", *_filled(page.summary)]
    for paragraph in page.paragraphs:
        lines += [".PP", *_filled(paragraph)]
    lines += [".SH OPTIONS", *_tagged(page.options)]
    if page.commands:
        full = ((f"{name}", summary, _man_name((*page.path, name))) for name, summary in page.commands)
        lines += [".SH COMMANDS", *_tagged(tuple((name, f"{what} See {see}(1).") for name, what, see in full))]
    lines += [".SH EXAMPLES"]
    lines += [".nf", "\n\n".join(map(_roff, page.examples)), ".fi"]
    lines += [".SH EXIT STATUS", *_tagged(EXIT_CODES)]
    lines += [".SH ENVIRONMENT", *_tagged(ENVIRONMENT)]
    lines += [".SH FILES", *_tagged(FILES)]
    lines += [".SH SEE ALSO", *_see_also(page)]
    return "\n".join(lines) + "\n"


def _tagged(entries: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for tag, text in entries:
        yield ".TP"
        yield rf"\fB{_roff(tag)}\fR"
        yield from _filled(text)


def _see_also(page: Page) -> Iterator[str]:
    above = [page.path[:length] for length in range(len(page.path))]
    below = [(*page.path, name) for name, _ in page.commands]
    seen = [f"{_roff(_man_name(path))}(1)" for path in (*above, *below)] + [r"virsh(1)"]
    yield ",\n".join(rf"\fB{name.removesuffix('(1)')}\fR(1)" for name in seen)


def _filled(text: str) -> Iterator[str]:
    """Write running text in lines of a length that roff's own checks like."""
    return map(_roff, textwrap.wrap(text, 60, break_long_words=False, break_on_hyphens=False))


def _roff(text: str) -> str:
    r"""Write text for roff: a backslash, hyphens and quotes as themselves, and no line that begins with a request."""
    signs = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", "→": r"\(->"}
    written = "".join(signs.get(sign, sign) for sign in text)
    return rf"\&{written}" if written.startswith(".") else written


def run(arguments: list[str]) -> int:
    """Do what the command line asks for."""
    match arguments:
        case ["markdown"]:
            print(markdown(), end="")
        case ["man", folder]:
            write_man_pages(Path(folder))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
