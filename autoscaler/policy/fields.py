"""The kinds of fields that the sections of a policy file are made of."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema

from autoscaler.policy.values import (
    GROUP_PATTERN,
    WrongValueError,
    between,
    found,
    read_duration,
    read_flag,
    read_group,
    read_name,
    read_share,
    read_size,
    read_text,
    read_whole,
    write_duration,
    write_share,
)

HOUR = 3600.0
DAY = 24 * HOUR
FOLDER = "folder"
"""The key of the validation context under which the folder of relative paths is given."""


def read_path(value: object, info: ValidationInfo) -> Path:
    """Read a path; a relative one is taken from the folder in the context."""
    if not isinstance(value, str):
        raise WrongValueError(f"must be a path, not {found(value)}")
    if not value or not value.isprintable():
        raise WrongValueError(f"{found(value)} is no path")
    if value.startswith("~"):
        raise WrongValueError(f"{found(value)} would not be expanded; write the folder out")
    assert info.context is not None
    folder: Path = info.context[FOLDER]
    return folder / value


Group = Annotated[str, BeforeValidator(read_group), WithJsonSchema({"type": "string", "pattern": GROUP_PATTERN})]
Name = Annotated[str, BeforeValidator(read_name)]
Text = Annotated[str, BeforeValidator(read_text)]
Flag = Annotated[bool, BeforeValidator(read_flag)]
Whole = Annotated[int, BeforeValidator(read_whole)]
FilePath = Annotated[Path, BeforeValidator(read_path)]
DURATION_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$", "minLength": 2},
        {"type": "integer", "const": 0},
    ],
    "examples": ["90s", "5m", "1h30m", "500ms"],
}
Duration = Annotated[float, BeforeValidator(read_duration), WithJsonSchema(DURATION_SCHEMA)]
Share = Annotated[
    float, BeforeValidator(read_share), WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"})
]
Bytes = Annotated[
    int, BeforeValidator(read_size), WithJsonSchema({"type": "string", "examples": ["192MiB", "2GiB", "1GB"]})
]


def duration_or(word: str) -> WithJsonSchema:
    """Let the schema tell of a duration in whose place a word may stand."""
    pattern = f"^({word}|([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$"
    choices = [{"type": "string", "pattern": pattern, "minLength": 2}, {"type": "integer", "const": 0}]
    return WithJsonSchema({"anyOf": choices, "examples": [word, "90s", "24h"]})


def seconds(low: float, high: float) -> AfterValidator:
    """Make a check of a duration's bounds."""
    return AfterValidator(between(low, high, write_duration))


def count(low: int, high: int) -> AfterValidator:
    """Make a check of a whole number's bounds."""
    return AfterValidator(between(low, high, str))


def written(value: object, text: str) -> Any:
    """Give a field its default, and let the schema show it as people write it."""
    return Field(default=value, json_schema_extra={"default": text})


def duration(value: float) -> Any:
    """Give a field a default in seconds."""
    return written(value, write_duration(value))


def tolerable(value: float) -> float:
    """Check a tolerance."""
    if value >= 1:
        raise WrongValueError(f"{write_share(value)} is out of bounds; allowed: 0% to below 100%")
    return value
