"""A group's past for people: a chart of each load, its sizes, and the decisions that changed."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from textwrap import shorten

from rich.text import Text

from autoscaler.core.decision import Decision, decisive
from autoscaler.core.metrics import METRICS, Unit
from autoscaler.reasons import describe, duration, figure, moment
from autoscaler.store import History, Rollup

_MARGIN = 12
_ROWS = 6
_EIGHTHS = " ▁▂▃▄▅▆▇█"
_GAP = "·"


def history_picture(history: History, width: int) -> Iterator[Text]:
    """Give charts no wider than `width` columns, and one line for each change of the decision."""
    title = Text(history.group, "bold")
    yield title.append(f" from {moment(history.since)} to {moment(history.until)}", "not bold")
    for metric, rollups in history.loads.items():
        yield Text()
        yield from _chart(metric, rollups, history, width - _MARGIN)
    if not history.loads:
        yield Text("\nno load was measured in this time")
    yield Text()
    yield Text("Decisions that changed:", "bold")
    yield from (_change(before, decision) for before, decision in pairwise((None, *history.decisions)) if decision)
    if not history.decisions:
        yield Text("  none")


def _change(before: Decision | None, decision: Decision) -> Text:
    why = "; ".join(describe(reason) for reason in decisive(decision))
    was = decision.current if before is None else before.admitted
    size = f"{decision.admitted}" if decision.admitted == was else f"{was} → {decision.admitted}"
    return Text(f"  {moment(decision.at)}  {size:<8}{why}")


def _chart(metric: str, rollups: Sequence[Rollup], history: History, columns: int) -> Iterator[Text]:
    """Draw the highest load of each column's time, and below it the size the group had then."""
    parts = _columns(rollups, history, columns)
    top = max((each.max for each in rollups), default=0.0) or 1.0
    # One that this program no longer knows is shown as a plain number.
    known = METRICS.get(metric.split(maxsplit=1)[0])
    unit = Unit.NUMBER if known is None else known.unit
    per_column = (history.until - history.since) / columns
    title = f", the highest in each {duration(per_column)}"
    yield Text(f"{shorten(metric, _MARGIN + columns - len(title), placeholder='...')}{title}", "bold")
    for row in range(_ROWS, 0, -1):
        label = figure(top, unit) if row == _ROWS else figure(0.0, unit) if row == 1 else ""
        bars = "".join(_bar(part, top, row) for part in parts)
        yield Text(f"{label:>{_MARGIN - 2}} ┤{bars}".rstrip())
    largest = max((each.admitted for each in rollups), default=0)
    sizes = "".join(_size(part, largest) for part in parts)
    label = "size" if largest < 10 else f"to {largest}"
    yield Text(f"{label:>{_MARGIN - 2}} │{sizes}".rstrip())
    begin, end = moment(history.since), moment(history.until)
    yield Text(f"{'':{_MARGIN}}{begin}{end:>{columns - len(begin)}}")


def _columns(rollups: Sequence[Rollup], history: History, columns: int) -> list[list[Rollup]]:
    parts: list[list[Rollup]] = [[] for _ in range(columns)]
    whole = max(history.until - history.since, 1.0)
    for each in rollups:
        # A span may begin before the time asked for; it belongs to every column it covers.
        first = (each.minute - history.since) / whole * columns
        last = (each.minute + history.span_seconds - history.since) / whole * columns
        for column in range(max(int(first), 0), min(max(int(last), int(first) + 1), columns)):
            parts[column].append(each)
    return parts


def _bar(part: Sequence[Rollup], top: float, row: int) -> str:
    if not part:
        return _GAP if row == 1 else " "
    height = max(each.max for each in part) / top * _ROWS
    eighths = round((height - (row - 1)) * 8)
    # A load of next to nothing is still a load that was measured.
    return _EIGHTHS[min(max(eighths, 1 if row == 1 else 0), 8)]


def _size(part: Sequence[Rollup], largest: int) -> str:
    """Give the last size in a column: as a digit where all are, else as a bar."""
    if not part:
        return _GAP
    size = part[-1].admitted
    return str(size) if largest < 10 else _EIGHTHS[round(size / largest * 8)]
