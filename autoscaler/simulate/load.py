"""A recorded load: read from a CSV file with every fault located, linear between its samples."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median_high

from autoscaler.core.errors import AutoscalerError

HEADER = ["timestamp", "value"]
MAX_GAP_INTERVALS = 2.0
_MAX_PROBLEMS = 20


class LoadError(AutoscalerError):
    """A load cannot be used; the message names file and line."""


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

    Raises LoadError with every fault as FILE:LINE. A gap is a distance of over two usual intervals between rows.
    """
    problems: list[str] = []
    times: list[float] = []
    values: list[float] = []
    lines: list[int] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LoadError(f"{path}: the load cannot be read: {error}") from error
    for line, row in _rows(text):
        try:
            at, value = _parse(row)
        except ValueError as error:
            problems.append(f"{path}:{line}: {error}")
            continue
        if times and at <= times[-1]:
            what = "stands there twice" if at == times[-1] else "goes back behind the row before"
            problems.append(f"{path}:{line}: the timestamp {row[0]} {what}; sort the rows and keep one for each time")
            continue
        times.append(at)
        values.append(value)
        lines.append(line)
    if not problems:
        problems += _too_short(path, lines)
    if not problems and not allow_gaps:
        problems += _gaps(path, times, lines)
    if problems:
        more = [f"{path}: and {len(problems) - _MAX_PROBLEMS} more"] if len(problems) > _MAX_PROBLEMS else []
        raise LoadError("\n".join(problems[:_MAX_PROBLEMS] + more))
    return Load(tuple(times), tuple(values))


def write_load(path: Path, load: Load) -> None:
    """Write what `read_load` reads, stamps in UTC."""
    rows = (
        f"{datetime.fromtimestamp(at, UTC).isoformat()},{value:.6g}\n"
        for at, value in zip(load.times, load.values, strict=True)
    )
    path.write_text("timestamp,value\n" + "".join(rows))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(text.splitlines())
    for row in reader:
        if row and not (reader.line_num == 1 and [cell.strip().lower() for cell in row] == HEADER):
            yield reader.line_num, row


def _parse(row: list[str]) -> tuple[float, float]:
    if len(row) != 2:
        raise ValueError(f"a row has two cells, timestamp and value; this one has {len(row)}")
    value = _number(row[1])
    if value is None or not math.isfinite(value):
        raise ValueError(f"the value {row[1]!r} is no number")
    if value < 0:
        raise ValueError(f"the value {row[1]} is negative; a load is 0 or more")
    return _time(row[0]), value


def _time(text: str) -> float:
    seconds = _number(text)
    if seconds is not None and math.isfinite(seconds):
        return seconds
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(
            f"the timestamp {text!r} is neither seconds nor a date like 2026-11-23T14:05:00Z"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _too_short(path: Path, lines: list[int]) -> list[str]:
    if not lines:
        return [f"{path}:1: there is no row; a load has at least two rows of timestamp,value"]
    if len(lines) == 1:
        return [f"{path}:{lines[0]}: there is one row only; a load has at least two rows of timestamp,value"]
    return []


def _gaps(path: Path, times: list[float], lines: list[int]) -> list[str]:
    usual = median_high(later - earlier for earlier, later in pairwise(times))
    return [
        f"{path}:{line}: a gap of {later - earlier:g} s lies before this row, where {usual:g} s are usual; "
        "fill it in, or draw a line across it with --allow-gaps"
        for (earlier, later), line in zip(pairwise(times), lines[1:], strict=True)
        if later - earlier > MAX_GAP_INTERVALS * usual
    ]
