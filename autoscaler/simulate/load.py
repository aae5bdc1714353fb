"""A recorded load: read from a CSV file with every fault located, linear between its samples."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median_high

from autoscaler.core.errors import PolicyError, Problem
from autoscaler.policy.yaml_reader import printable
from autoscaler.reasons import duration

HEADER = ["timestamp", "value"]
MAX_GAP_INTERVALS = 2.0
_MAX_PROBLEMS = 20
_LAST_SECONDS = 253_402_300_799.0
MAX_STEPS = 10_000_000
_MAX_BYTES = 64 << 20


class LoadError(PolicyError):
    """A load's file is wrong; carries every problem found, up to a limit."""


@dataclass(frozen=True, slots=True)
class Load:
    """Demand in busy instances at ascending times, in seconds; linear between them."""

    times: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def duration_seconds(self) -> float:
        """From the first sample to the last."""
        return self.times[-1] - self.times[0]

    def at_steps(self, step_seconds: float) -> tuple[float, ...]:
        """Give the demand at the first sample's time and every `step_seconds` after it, to the last sample."""
        demand = []
        position = 0
        last = len(self.times) - 2
        for tick in range(math.floor(self.duration_seconds / step_seconds + 1e-9) + 1):
            at = self.times[0] + tick * step_seconds
            while position < last and self.times[position + 1] <= at:
                position += 1
            begin, end = self.times[position], self.times[position + 1]
            share = min((at - begin) / (end - begin), 1.0)
            demand.append(self.values[position] + share * (self.values[position + 1] - self.values[position]))
        return tuple(demand)

    def scaled(self, instance_capacity: float) -> "Load":
        """Turn values into busy instances, each of which carries `instance_capacity`."""
        return Load(self.times, tuple(value / instance_capacity for value in self.values))


def read_load(path: Path, *, allow_gaps: bool = False) -> Load:
    """Read `timestamp,value` rows; stamps are ISO-8601 (UTC where they name no offset) or seconds.

    Raises LoadError with every fault located. A gap is a distance of over two usual intervals between rows.
    """
    file = str(path)
    try:
        text = _read(path)
    except (OSError, ValueError) as error:
        raise LoadError((Problem(file, 1, 1, f"the load cannot be read: {error}"),)) from error
    rows: list[_Row] = []
    problems: list[Problem] = []
    for line, cells in _rows(text):
        try:
            rows.append(_read_row(line, cells, rows[-1] if rows else None))
        except _FaultError as fault:
            problems.append(Problem(file, line, fault.column, str(fault)))
    if not problems:
        problems = _too_short(file, rows) or ([] if allow_gaps else _gaps(file, rows))
    if problems:
        raise LoadError(_first(problems))
    return Load(tuple(row.at for row in rows), tuple(row.value for row in rows))


def _read(path: Path) -> str:
    """Read a file, or what a pipe gives. Raises OSError, ValueError."""
    with path.open("rb") as stream:
        content = stream.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is longer than {_MAX_BYTES >> 20} MiB")
    return content.decode("utf-8-sig")


def write_load(path: Path, load: Load) -> None:
    """Write what `read_load` reads, stamps in UTC."""
    rows = (
        f"{datetime.fromtimestamp(at, UTC).isoformat()},{value:.6g}\n"
        for at, value in zip(load.times, load.values, strict=True)
    )
    path.write_text("timestamp,value\n" + "".join(rows))


class _FaultError(Exception):
    """What is wrong with a row, and in which column of the text."""

    def __init__(self, message: str, column: int = 1) -> None:
        self.column = column
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    at: float
    value: float


def _first(problems: list[Problem]) -> tuple[Problem, ...]:
    if len(problems) <= _MAX_PROBLEMS:
        return tuple(problems)
    rest = problems[_MAX_PROBLEMS]
    message = f"and more from here on: {len(problems) - _MAX_PROBLEMS} rows are not listed"
    return (*problems[:_MAX_PROBLEMS], Problem(rest.file, rest.line, 1, message))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for line, row in enumerate(text.splitlines(), 1):
        header = line == 1 and [cell.strip().lower() for cell in row.split(",")] == HEADER
        if row.strip() and not header:
            yield line, row.split(",")


def _read_row(line: int, cells: list[str], before: _Row | None) -> _Row:
    if len(cells) != 2:
        raise _FaultError(f"a row has two cells, timestamp and value; this one has {len(cells)}")
    at, value = _time(cells[0].strip()), _value(cells[1].strip(), len(cells[0]) + 2)
    if before is not None and at <= before.at:
        what = "stands there twice" if at == before.at else f"goes back behind line {before.line}"
        raise _FaultError(f"the timestamp {cells[0].strip()} {what}; sort the rows, and keep one for each time")
    return _Row(line, at, value)


def _value(text: str, column: int) -> float:
    value = _number(text)
    if value is None:
        raise _FaultError(f"the value {printable(text)!r} is no number", column)
    if value < 0:
        raise _FaultError(f"the value {text} is negative; a load is 0 or more", column)
    return value


def _time(text: str) -> float:
    seconds = _number(text)
    if seconds is None:
        try:
            moment = datetime.fromisoformat(text)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            raise _FaultError(
                f"the timestamp {printable(text)!r} is neither seconds nor a date like 2026-11-23T14:05:00Z"
            ) from None
    if not 0 <= seconds <= _LAST_SECONDS:
        raise _FaultError(f"the timestamp {text} is outside the years 1970 to 9999")
    return seconds


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _too_short(file: str, rows: list[_Row]) -> list[Problem]:
    if len(rows) > 1:
        return []
    found = "one row only" if rows else "no row"
    line = rows[0].line if rows else 1
    return [Problem(file, line, 1, f"there is {found}; a load has at least two rows of timestamp,value")]


def _gaps(file: str, rows: list[_Row]) -> list[Problem]:
    usual = median_high(later.at - earlier.at for earlier, later in pairwise(rows))
    return [
        Problem(
            file,
            later.line,
            1,
            f"a gap of {duration(later.at - earlier.at)} lies before this row, where {duration(usual)} are usual; "
            "fill it in, or draw a line across it with --allow-gaps",
        )
        for earlier, later in pairwise(rows)
        if later.at - earlier.at > MAX_GAP_INTERVALS * usual
    ]
