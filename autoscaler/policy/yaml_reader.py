"""YAML with positions: plain data, and where in the file each part of it stands.

Narrower than YAML on purpose: one document, no duplicate keys, no anchors, aliases or tags, and scalars by the core
schema of YAML 1.2, so that `1:30`, `off` and `on` are text and not the number 90 and two booleans.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from autoscaler.core.errors import PolicyError, Problem

MAX_BYTES = 128 * 1024
MAX_DEPTH = 20
_SHOWN = 40

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
# Python refuses to read numbers of thousands of digits; nothing here needs thirty.
_INT = re.compile(r"[-+]?[0-9]{1,30}")
_OCTAL = re.compile(r"0o[0-7]{1,30}")
_HEX = re.compile(r"0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,3})?")
_INFINITY = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")

_BEYOND_UNICODE = re.compile(r"\\U(?!000[0-9a-fA-F]|0010)[0-9a-fA-F]{8}")

_UNCLOSED = "never closed"
# What the YAML parser says, and what it means to the one who wrote the file.
_SYNTAX = (
    ("found character '\\t'", "a tab where spaces are expected; indent with spaces"),
    (
        "mapping values are not allowed",
        "a second ': ' in one entry; check the indentation, and put text that holds one in quotes",
    ),
    ("could not find expected ':'", "a line without ': '; every entry is written KEY: VALUE"),
    ("found unexpected end of stream", "a quote, bracket or brace is opened and never closed"),
    ("found unexpected document separator", "a quote is opened and never closed"),
    ("expected ',' or '}'", "a brace '{' is opened and never closed, or a comma is missing"),
    ("expected ',' or ']'", "a bracket '[' is opened and never closed, or a comma is missing"),
    ("expected <block end>", "does not fit what stands above it; check the indentation and the line before"),
    ("did not find expected <document start>", "does not fit what stands above it; check the indentation"),
    ("expected '<document start>'", "does not fit what stands above it; check the indentation"),
    ("that cannot start any token", "a value cannot start with this character; put it in quotes"),
    ("found unknown escape character", "an unknown escape in double quotes; use single quotes"),
    ("sequence entries are not allowed", "a list entry '- ' cannot stand here; put it on a line of its own"),
)


class _Mark(Protocol):
    """A place in the text, counted from 0."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part of a document stands: `path` in words, the node of its key (if it has one) and of its value."""

    path: str
    key: yaml.Node | None
    value: yaml.Node


@dataclass(frozen=True, slots=True)
class Document:
    """One file, read."""

    file: str
    data: dict[str, object]
    root: yaml.Node

    def find(self, loc: Sequence[int | str]) -> Place:
        """Walk to a part of the document; steps that lead nowhere, such as a union's tag, are skipped."""
        place = Place("", None, self.root)
        for step in loc:
            place = _child(place, step) or place
        return place

    def problem(self, loc: Sequence[int | str], message: str, *, at_key: bool = False) -> Problem:
        """Say what is wrong with a part of the document: at its value, or at its key."""
        place = self.find(loc)
        node = place.key if at_key and place.key is not None else place.value
        text = f"{place.path}: {message}" if place.path else message
        return _problem(self.file, node.start_mark, text)


def read_file(path: Path) -> Document:
    """Read a file. Raises PolicyError if it is missing, unreadable or no YAML of the kind described above."""
    file = str(path)
    try:
        if not path.is_file():
            why = "is not a regular file" if path.exists() else "does not exist"
            raise PolicyError((Problem(file, 1, 1, f"the file {why}"),))
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PolicyError((Problem(file, 1, 1, f"the file cannot be read: {reason(error)}"),)) from error
    return read(content, file)


def reason(error: OSError | ValueError) -> str:
    """Say in a few words why a file could not be opened."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number).lower() if number is not None else str(error)


def read(content: bytes, file: str) -> Document:
    """Read YAML; `file` is its name in messages. Raises PolicyError with every problem of its form."""
    text = _decode(content, file)
    try:
        problems = list(_unsupported(text, file))
        if problems:
            raise PolicyError(tuple(problems))
        root = yaml.compose(text, Loader=yaml.SafeLoader) or _nothing()
    except yaml.MarkedYAMLError as error:
        raise PolicyError((_syntax_problem(error, file),)) from error
    except (ValueError, OverflowError) as error:  # from chr(), for an escape beyond Unicode
        beyond = _BEYOND_UNICODE.search(text)
        line, column = _count(text[: beyond.start()]) if beyond is not None else (1, 1)
        raise PolicyError((Problem(file, line, column, "not YAML: an escape names no character"),)) from error
    if isinstance(root, yaml.ScalarNode) and _is_null(root):
        return Document(file, {}, root)
    if not isinstance(root, yaml.MappingNode):
        raise PolicyError((_problem(file, root.start_mark, "the file must hold keys and values, KEY: VALUE"),))
    problems = list(_bad_keys(root, file))
    if problems:
        raise PolicyError(tuple(problems))
    return Document(file, {key_text(key): _plain(value) for key, value in root.value}, root)


def _decode(content: bytes, file: str) -> str:
    if len(content) > MAX_BYTES:
        raise PolicyError((Problem(file, 1, 1, f"the file is larger than {MAX_BYTES // 1024} KiB"),))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, column = _count(error.object[: error.start].decode("utf-8", "replace"))
        raise PolicyError((Problem(file, line, column, "the file is not UTF-8 text"),)) from error
    unprintable = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if unprintable is not None:
        line, column = _count(text[: unprintable.start()])
        message = f"a character that does not belong in a text file: U+{ord(unprintable[0]):04X}"
        raise PolicyError((Problem(file, line, column, message),))
    return text


def _count(before: str) -> tuple[int, int]:
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _unsupported(text: str, file: str) -> Iterator[Problem]:
    """Find what is YAML but not wanted, before anything recurses over it."""
    documents = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                yield _problem(file, event.start_mark, "a second document begins; a file holds one")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                # The rest would only repeat it, thousands of times in a file made to hurt.
                yield _problem(file, event.start_mark, f"nested more than {MAX_DEPTH} levels deep")
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.NodeEvent):
            message = _unsupported_node(event)
            if message is not None:
                yield _problem(file, event.start_mark, message)


def _unsupported_node(event: yaml.NodeEvent) -> str | None:
    if isinstance(event, yaml.AliasEvent):
        return f"aliases such as *{event.anchor} are not supported; write the value out"
    if event.anchor is not None:
        return f"anchors such as &{event.anchor} are not supported; write the value out where it is needed"
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        tag = printable(event.tag.replace("tag:yaml.org,2002:", "!!"))
        return f"tags such as {tag} are not supported; put text in quotes and write numbers plainly"
    return None


def _syntax_problem(error: yaml.MarkedYAMLError, file: str) -> Problem:
    said = error.problem or error.context or "unreadable"
    meaning = next((meaning for words, meaning in _SYNTAX if words in said), said)
    # What is never closed ends far below; the one to look at is where it was opened.
    marks = (
        (error.context_mark, error.problem_mark) if _UNCLOSED in meaning else (error.problem_mark, error.context_mark)
    )
    mark = marks[0] or marks[1]
    return _problem(file, mark, f"not YAML: {meaning}")


def _nothing() -> yaml.ScalarNode:
    mark = yaml.Mark("", 0, 0, 0, None, 0)
    return yaml.ScalarNode("tag:yaml.org,2002:null", "", mark, mark)


def _is_null(node: yaml.ScalarNode) -> bool:
    return node.style is None and _NULL.fullmatch(node.value) is not None


def _bad_keys(node: yaml.Node, file: str) -> Iterator[Problem]:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _bad_keys(item, file)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        yield from _bad_keys(value, file)
        if not isinstance(key, yaml.ScalarNode):
            yield _problem(file, key.start_mark, "a key must be a word, not a list or a mapping")
            continue
        if not isinstance(_plain(key), str):
            yield _problem(file, key.start_mark, _unnamed(key))
        elif key.value in lines:
            first = lines[key.value]
            yield _problem(
                file, key.start_mark, f"the key '{printable(key.value)}' is given twice, first in line {first}"
            )
        lines.setdefault(key.value, key.start_mark.line + 1)


def _unnamed(key: yaml.ScalarNode) -> str:
    return f'the key {key.value} is no text; put it in quotes: "{key.value}"' if key.value else "a key is missing"


def printable(text: str) -> str:
    """Make text fit into one line of a message: shortened, and without control characters."""
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def key_text(key: yaml.Node) -> str:
    """Give the text of a mapping's key."""
    return str(key.value)


def _plain(node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return {key_text(key): _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    text = str(node.value)
    return resolve(text) if node.style is None else text


def resolve(text: str) -> object:
    """Resolve a plain scalar by YAML 1.2's core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return int(text, 0)
    if _INFINITY.fullmatch(text) or _NAN.fullmatch(text):
        return float(text.replace(".", ""))
    return float(text) if _FLOAT.fullmatch(text) else text


def _child(place: Place, step: int | str) -> Place | None:
    node = place.value
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(step, str) and key_text(key) == step:
                return Place(f"{place.path}.{printable(step)}" if place.path else printable(step), key, value)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return Place(f"{place.path}[{step}]", None, node.value[step])
    return None


def _problem(file: str, mark: _Mark | None, message: str) -> Problem:
    if mark is None:
        return Problem(file, 1, 1, message)
    return Problem(file, mark.line + 1, mark.column + 1, message)
