"""The values people write in policies and in the configuration: durations, shares, sizes, names and choices.

Every reader takes what YAML gave, whatever it is, and raises WrongValueError with a sentence for the operator.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from math import isfinite
from typing import TypeVar
from urllib.parse import urlsplit

from autoscaler.core.words import nearest
from autoscaler.policy.yaml_reader import printable

_DURATION = re.compile(r"(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m(?!s))?(?:([0-9]{1,9})s)?(?:([0-9]{1,9})ms)?")
_MILLISECONDS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SHARE = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,30})?)%")
_PERCENTILE = re.compile(r"p[1-9][0-9]?")
_SIZE = re.compile(r"([0-9]{1,18})([A-Za-z]+)")
SIZE_UNITS = {
    "TiB": 1024**4, "GiB": 1024**3, "MiB": 1024**2, "KiB": 1024,
    "TB": 1000**4, "GB": 1000**3, "MB": 1000**2, "kB": 1000, "B": 1,
}  # fmt: skip
GROUP_PATTERN = "^[a-z][a-z0-9-]{0,39}$"
_NAME_LENGTH = 200

N = TypeVar("N", int, float)
E = TypeVar("E", bound=StrEnum)


class WrongValueError(ValueError):
    """What is wrong with a value.

    `loc` leads from the document's top to the one to change, if it is another; `below` from the value that was read.
    """

    def __init__(
        self, message: str, loc: Sequence[int | str] | None = None, *, below: Sequence[int | str] = ()
    ) -> None:
        self.loc = loc
        self.below = tuple(below)
        super().__init__(message)


class BrokenRulesError(ValueError):
    """Several keys do not go together, in one or more ways."""

    def __init__(self, errors: Iterable[WrongValueError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(str(error) for error in self.errors))


def found(value: object) -> str:
    """Say what was found where something else was expected."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"
        case str():
            return f"'{printable(value)}'"
        case list():
            return "a list"
    return "a mapping"


def read_duration(value: object) -> float:
    """Read `90s`, `5m`, `1h30m`, `500ms` or a bare 0; gives seconds."""
    if value == 0 and isinstance(value, int) and not isinstance(value, bool):
        return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise WrongValueError(
            f"{value} has no unit; write {value}s for seconds, {value}m for minutes or {value}h for hours"
        )
    parts = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if parts is None:
        raise WrongValueError(f"must be a duration such as 90s, 5m, 1h30m or 500ms, not {found(value)}")
    total = sum(int(part or 0) * unit for part, unit in zip(parts.groups(), (3_600_000, 60_000, 1000, 1), strict=True))
    return total / 1000


def write_duration(seconds: float) -> str:
    """Write what `read_duration` reads."""
    total = round(seconds * 1000)
    if total == 0:
        return "0s"
    return next(f"{total // size}{unit}" for unit, size in _MILLISECONDS.items() if total % size == 0)


def read_share(value: object) -> float:
    """Read `60%`; gives a fraction of one."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        meant = f"{value * 100:g}% or {value:g}%" if 0 < value < 1 else f"{value:g}%"
        raise WrongValueError(f"{value} is not clearly a share; write it with a percent sign: {meant}")
    share = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if share is None:
        raise WrongValueError(f"must be a share such as 60%, not {found(value)}")
    return float(Decimal(share[1]) / 100)


def write_share(fraction: float) -> str:
    """Write what `read_share` reads."""
    percent = f"{Decimal(repr(fraction)) * 100:f}"
    return f"{percent.rstrip('0').rstrip('.') if '.' in percent else percent}%"


def read_size(value: object) -> int:
    """Read `192MiB`, `2GiB` or `1GB`; gives bytes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise WrongValueError(f"{value} has no unit; write {value}MiB or {value}GiB")
    size = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if size is None:
        raise WrongValueError(f"must be a size such as 192MiB, 2GiB or 1GB, in whole numbers, not {found(value)}")
    if size[2] not in SIZE_UNITS:
        raise WrongValueError(f"unknown unit '{size[2]}'; {_unit(size[2])}")
    return int(size[1]) * SIZE_UNITS[size[2]]


def _unit(word: str) -> str:
    short = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB"}
    near = next((unit for unit in SIZE_UNITS if unit.lower() == word.lower()), short.get(word.lower()))
    return f"did you mean '{near}'?" if near is not None else f"allowed: {', '.join(SIZE_UNITS)}"


def write_size(size: int) -> str:
    """Write what `read_size` reads, as short as it can be."""
    return min((f"{size // unit}{name}" for name, unit in SIZE_UNITS.items() if size % unit == 0), key=len)


def write_number(value: float) -> float:
    """Write what `read_number` reads: a whole number without a fraction."""
    return int(value) if value == int(value) else value


def read_number(value: object) -> float:
    """Read a plain number, whole or not."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value):
        raise WrongValueError(f"must be a plain number such as 20 or 1.5, not {found(value)}")
    return float(value)


def read_text(value: object) -> str:
    """Read any text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise WrongValueError(f"must be text, not {found(value)}")
    return value


def read_statistic(*words: str) -> Callable[[object], str]:
    """Make a reader of the name of a statistic: one of some words, or a percentile p1 to p99."""

    def read(value: object) -> str:
        if isinstance(value, str) and (value in words or _PERCENTILE.fullmatch(value)):
            return value
        raise WrongValueError(f"must be {', '.join(words)}, or a percentile from p1 to p99, not {found(value)}")

    return read


def read_whole(value: object) -> int:
    """Read a whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise WrongValueError(f"must be a whole number such as 2, not {found(value)}")
    return value


def read_flag(value: object) -> bool:
    """Read true or false."""
    if isinstance(value, bool):
        return value
    words = {"yes": "true", "on": "true", "no": "false", "off": "false"}
    meant = words.get(value.lower()) if isinstance(value, str) else None
    hint = f"; did you mean {meant}?" if meant is not None else ""
    raise WrongValueError(f"must be true or false, not {found(value)}{hint}")


def read_group(value: object) -> str:
    """Read a group's name; it becomes part of the names of domains and volumes, and the guests' host name."""
    if not isinstance(value, str) or not re.fullmatch(GROUP_PATTERN, value):
        rule = "a lowercase letter, then up to 39 lowercase letters, digits and dashes"
        raise WrongValueError(f"must be a name such as web ({rule}), not {found(value)}")
    return value


def read_name(value: object) -> str:
    """Read the name of a host, pool, volume or network."""
    if not isinstance(value, str):
        quoted = "; if that is its name, put it in quotes" if isinstance(value, int | float) else ""
        raise WrongValueError(f"must be a name, not {found(value)}{quoted}")
    if not value or value != value.strip() or value[0] in "-." or "/" in value or not _is_clean(value):
        rule = "no slash or control character, no dash or dot in front, no space at an end"
        raise WrongValueError(f"{found(value)} cannot be a name: {rule}")
    if len(value) > _NAME_LENGTH:
        raise WrongValueError(f"the name is longer than {_NAME_LENGTH} characters")
    return value


def _is_clean(text: str) -> bool:
    return not any(unicodedata.category(character).startswith("C") for character in text)


def http_url(example: str, instead: str) -> Callable[[object], str]:
    """Make a reader of URLs that something may be sent to by HTTP.

    One with a user or a password in it is refused and not repeated; `instead` says what to do.
    """

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise WrongValueError(f"must be a URL such as {example}, not {found(value)}")
        try:
            parts = urlsplit(value)
            whole = bool(parts.hostname) and parts.scheme in {"http", "https"} and (parts.port or 1) > 0
        except ValueError:
            whole = False
        if not whole or not value.isascii() or not value.isprintable() or " " in value:
            raise WrongValueError(f"must be a URL such as {example}, in ASCII and without spaces")
        if parts.username is not None or parts.password is not None:
            raise WrongValueError(f"holds a user or a password; {instead}")
        return value

    return read


read_http_url = http_url("https://HOST/PATH", "they are not sent; write it without them, and change them")


def one_of(known: Iterable[str]) -> Callable[[object], str]:
    """Make a reader of one of several words."""
    words = tuple(known)

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise WrongValueError(f"must be {' or '.join(words)}, not {found(value)}")
        if value not in words:
            raise WrongValueError(f"{found(value)} is not known here; {nearest(value, words)}")
        return value

    return read


def choice(kind: type[E]) -> Callable[[object], E]:
    """Make a reader of one of an enumeration's words."""
    read = one_of(member.value for member in kind)
    return lambda value: kind(read(value))


def between(low: N, high: N, write: Callable[[N], str]) -> Callable[[N], N]:
    """Make a check that a value lies between two bounds, both allowed."""

    def check(value: N) -> N:
        if not low <= value <= high:
            raise WrongValueError(f"{write(value)} is out of bounds; allowed: {write(low)} to {write(high)}")
        return value

    return check
