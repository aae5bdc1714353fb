"""A rehearsal on a terminal: a chart of 80 columns, the figures, and how others fare."""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoscaler.reasons import duration, percent
from autoscaler.simulate.against import Entry, Row
from autoscaler.simulate.measures import WITHIN
from autoscaler.simulate.report import Rehearsal

_COLUMNS = 72
_ROWS = 10


def show_rehearsals(console: Console, rehearsals: Sequence[Rehearsal]) -> None:
    """Print the chart of the first, and the figures of all."""
    first = rehearsals[0]
    scenario = first.scenario
    for line in _chart(scenario.demand, first.course.ready):
        console.print(Text(line))
    span = len(scenario.demand) * scenario.step_seconds
    console.print(
        Text(f"      {duration(span)} in steps of {duration(scenario.step_seconds)}; ▒ load, ━ instances ready"),
    )
    console.print()
    table = _table("", *(each.policy.group for each in rehearsals))
    for name, cells in _figures(rehearsals):
        table.add_row(name, *cells)
    console.print(table)


def _figures(rehearsals: Sequence[Rehearsal]) -> Iterator[tuple[str, Iterator[str]]]:
    every = [each.measures for each in rehearsals]
    line = percent(rehearsals[0].scenario.line)
    yield f"time above the line of {line}", (f"{each.above_line:.2%}" for each in every)
    yield "time saturated", (f"{each.saturated:.2%}" for each in every)
    yield "instance hours", (f"{each.instance_hours:,.1f}" for each in every)
    yield "cost, relative to the oracle's", (f"{each.cost:.3f}" for each in every)
    yield "accuracy θU / θO", (f"{each.theta_under:.2f} / {each.theta_over:.2f}" for each in every)
    yield "time under and over, τU / τO", (f"{each.tau_under:.2f} / {each.tau_over:.2f}" for each in every)
    yield "instability", (f"{each.upsilon:.2f}" for each in every)
    yield "changes of the count", (f"{each.changes}" for each in every)
    yield "failed launches", (f"{each.course.failed_launches}" for each in rehearsals)


def show_contest(console: Console, rows: Iterable[Row], within: float = WITHIN) -> None:
    """Print how others fare, the cheapest that keep the line first."""
    table = _table("", "as it comes", "above", "cost", "at best", "above", "cost", f"within {within:.0%}")
    for row in ordered(rows, within):
        keeps = "yes" if row.best.measures.keeps(within) else "no"
        table.add_row(row.name, *_entry(row.default), *_entry(row.best), keeps)
    console.print(table)


def ordered(rows: Iterable[Row], within: float = WITHIN) -> list[Row]:
    """Sort contestants: those that keep the line by cost, then the others by their time above it."""
    return sorted(
        rows,
        key=lambda row: (
            (0, row.best.measures.cost, row.name)
            if row.best.measures.keeps(within)
            else (1, row.best.measures.above_line, row.name)
        ),
    )


def _entry(entry: Entry) -> tuple[str, str, str]:
    return entry.setting, f"{entry.measures.above_line:.2%}", f"{entry.measures.cost:.3f}"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _chart(demand: Sequence[float], ready: Sequence[int]) -> Iterator[str]:
    """Draw the highest load and the fewest instances of each column's span."""
    columns = min(_COLUMNS, len(demand))
    spans = [slice(len(demand) * c // columns, len(demand) * (c + 1) // columns) for c in range(columns)]
    loads = [max(demand[span]) for span in spans]
    counts = [min(ready[span]) for span in spans]
    top = max(*loads, *counts, 1)
    height = top / _ROWS
    for row in range(_ROWS, 0, -1):
        cells = "".join(_cell(row, load / height, count / height) for load, count in zip(loads, counts, strict=True))
        yield f"{row * height:5.1f} {cells}".rstrip()


def _cell(row: int, load: float, count: float) -> str:
    if ceil(count) == row:
        return "━"
    return "▒" if load > row - 0.5 else " "
