"""The dashboards as written, with all the queries that Grafana would ask."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
BOARDS = ("autoscaler-overview", "autoscaler-group")
FAMILY = re.compile(r"\bautoscaler_\w+")
CHOSEN = {"$__rate_interval": "10s", "$daemon": ".*", "$host": ".*", "$group": "web"}


@dataclass(frozen=True)
class Query:
    """One query as Prometheus gets it; `panel` is the title of what shows it."""

    board: str
    panel: str
    legend: str
    expression: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.board} / {self.panel} / {self.legend}: {self.expression}"


def written_queries() -> list[str]:
    """Give every PromQL query of the pages, without its comment."""
    root = FOLDER.parents[1]
    texts = [(root / page).read_text() for page in ("README.md", "docs/monitoring.md")]
    blocks = [block for text in texts for block in re.findall(r"^```promql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]


def load(board: str) -> dict[str, Any]:
    """Read a dashboard."""
    data: dict[str, Any] = json.loads((FOLDER / f"{board}.json").read_text())
    return data


def panels(board: str) -> Iterator[dict[str, Any]]:
    """Yield all that shows something."""
    yield from (panel for panel in load(board)["panels"] if panel["type"] != "row")


def panel_queries(board: str) -> Iterator[Query]:
    """Yield every query of every panel."""
    for panel in panels(board):
        for target in panel["targets"]:
            legend = target.get("legendFormat", "") or target["refId"]
            yield Query(board, panel["title"], legend, _chosen(target["expr"]), bool(target.get("instant")))


def marks(board: str) -> Iterator[Query]:
    """Yield the queries of the annotations."""
    for each in load(board)["annotations"]["list"]:
        yield Query(board, each["name"], "", _chosen(each["expr"]), instant=False)


def variables(board: str) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each variable that is asked for, and of which series it takes which label."""
    for each in load(board)["templating"]["list"]:
        if each["type"] == "query":
            found = re.fullmatch(r"label_values\((\w+), (\w+)\)", each["query"])
            assert found is not None, each["query"]
            yield each["name"], found[1], found[2]


def _chosen(expression: str) -> str:
    for name, value in CHOSEN.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that nobody chose: {expression}"
    return expression
