"""A rehearsal as one HTML file that needs nothing else: uPlot (MIT, its licence beside it) and the data are inside."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from autoscaler.reasons import describe
from autoscaler.simulate.measures import Measures
from autoscaler.simulate.report import Rehearsal

POINTS = 8000
"""At most so many points are drawn; a span between them shows its highest demand and its fewest instances."""
DECISIONS = 2000
"""At most so many decisions are listed, evenly thinned."""


def render(rehearsals: tuple[Rehearsal, ...], title: str) -> str:
    """Render rehearsals of one scenario, the first with its decisions."""
    first = rehearsals[0]
    assets = files("autoscaler.simulate") / "assets"
    texts = {name: (assets / name).read_text(encoding="utf-8") for name in _ASSETS}
    return Template(texts["page.html"]).substitute(
        title=escape(title),
        style=texts["uPlot.min.css"],
        uplot=texts["uPlot.iife.min.js"],
        licence=escape(texts["uPlot.LICENSE"]),
        # "</" must not end the script element.
        data=json.dumps(_data(rehearsals), separators=(",", ":")).replace("</", "<\\/"),
        figures="".join(_figures(each.policy.group, each.measures) for each in rehearsals),
        count=len(first.course.changes),
    )


_ASSETS = ("page.html", "uPlot.min.css", "uPlot.iife.min.js", "uPlot.LICENSE")


def _data(rehearsals: tuple[Rehearsal, ...]) -> dict[str, Any]:
    first = rehearsals[0]
    scenario = first.scenario
    kept = thin(scenario.demand, POINTS)
    oracle = scenario.oracle
    return {
        "t": [scenario.start + step * scenario.step_seconds for step in kept],
        "dated": scenario.start > 1e8,
        "demand": [round(scenario.demand[step], 3) for step in kept],
        "oracle": [oracle[step] for step in kept],
        "names": [each.policy.group for each in rehearsals],
        "ready": [[each.course.ready[step] for step in kept] for each in rehearsals],
        "line": scenario.line,
        "decisions": _decisions(first),
    }


def thin(demand: Sequence[float], points: int) -> list[int]:
    """Choose steps to be drawn: of each of `points` spans the one with the highest demand; all where they are few."""
    if len(demand) <= points:
        return list(range(len(demand)))
    spans = [(len(demand) * point // points, len(demand) * (point + 1) // points) for point in range(points)]
    return [max(range(begin, end), key=demand.__getitem__) for begin, end in spans]


def _decisions(rehearsal: Rehearsal) -> list[dict[str, Any]]:
    changes = rehearsal.course.changes
    stride = max(1, -(-len(changes) // DECISIONS))
    scenario = rehearsal.scenario
    return [
        {
            "t": scenario.start + change.step * scenario.step_seconds,
            "from": change.before,
            "to": change.after,
            "why": "; ".join(describe(reason) for reason in change.reasons),
        }
        for change in changes[::stride]
    ]


def _figures(name: str, measures: Measures) -> str:
    cells = (
        name,
        f"{measures.above_line:.2%}",
        f"{measures.saturated:.2%}",
        f"{measures.instance_hours:,.1f}",
        f"{measures.cost:.3f}",
        *(f"{value:.2f}" for value in (measures.theta_under, measures.theta_over)),
        *(f"{value:.2f}" for value in (measures.tau_under, measures.tau_over, measures.upsilon)),
        f"{measures.changes}",
    )
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
