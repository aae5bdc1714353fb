"""What a look at one thing found, and what to do about it: of the doctor, and of the lint of images."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """The daemon runs, but worse than it could."""
    ERROR = "error"
    """Something that was asked for cannot be done, or others could change what is done."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: `code` says what kind of thing, `found` what is so, `remedy` what to do."""

    code: str
    level: Level
    found: str
    remedy: str | None = None


def ok(code: str, found: str) -> Finding:
    """Make a finding that is as it should be."""
    return Finding(code, Level.OK, found)


def warning(code: str, found: str, remedy: str) -> Finding:
    """Make a finding to think about."""
    return Finding(code, Level.WARNING, found, remedy)


def error(code: str, found: str, remedy: str) -> Finding:
    """Make a finding that has to be mended."""
    return Finding(code, Level.ERROR, found, remedy)
