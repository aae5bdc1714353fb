"""Draw the pictures of the README and the documentation: `make pictures`.

What the terminal shows is drawn by the code that prints it, from what docs/pictures holds: a recording of the demo, of
real guests, up to the moment when the group had grown. `make pictures RECORD=1` plays and records the demo anew.
"""

import argparse
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from autoscaler import simulate
from autoscaler.cli.output import show
from autoscaler.cli.show_decision import decision_picture
from autoscaler.cli.show_status import status_picture
from autoscaler.codec import decode, encode, parse
from autoscaler.core.decision import Decision
from autoscaler.core.snapshot import Snapshot
from autoscaler.core.transition import InstanceState
from deploy.demo import golden, run
from deploy.demo.footprint import DemoError
from deploy.demo.live import Screen, View, view
from deploy.demo.story import GROUP, find_group, is_news, ready_instances
from tests.support.dashboards import panel_queries
from tests.support.prometheus import Prometheus

Panel = dict[str, Any]

DOCS = golden.CHECKOUT / "docs"
TAPE = DOCS / "pictures/demo.json"
ANSWERS = DOCS / "pictures/dashboard.json"
"""What a Prometheus that scraped the demo answered to queries of the dashboard."""
PANELS = ("Size", "Load and target", "Instances by state")
"""Of the dashboard of a group, deploy/grafana/autoscaler-group.json."""
GROWN = 3
"""Recording ends with what the demo does when so many instances were ready."""
ADDRESS = f"http://127.0.0.1:{run.PORT}/metrics"
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
    <!-- Generated with Rich https://www.textualize.io -->
    <style>
    .{unique_id}-matrix {{
        font-family: Fira Code, DejaVu Sans Mono, Menlo, Consolas, monospace;
        font-size: {char_height}px; line-height: {line_height}px;
    }}
    .{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
    {styles}
    </style>
    <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
    </defs>
    {chrome}
    <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
    </g>
</svg>
"""
"""Rich's own, without the fonts that it would load from elsewhere."""
POLICY = """\
version: 1
group: web
image: {pool: default, volume: golden.qcow2}
size: {min: 1, max: 20}
scaling:
  - {type: target_tracking, metric: guest.cpu, target: 60%}
behavior:
  scale_in: {cooldown: 0s, stabilization: 5m}
"""
"""What is rehearsed, beside one that is careful."""
BROWSER = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--window-size=1100,700",
)


class Recorder:
    """Passes on what the demo shows, and keeps what is new in it."""

    def __init__(self, shown: View) -> None:
        self._shown = shown
        self._last: tuple[dict[str, InstanceState], Decision | None] = ({}, None)
        self._grown = self._ended = False
        self.frames: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        """Keep what the demo does."""
        self._shown.say(text)
        self._ended = self._ended or self._grown
        if not self._ended:
            self.frames.append({"say": text})

    def warn(self, at: float, text: str) -> None:
        """Leave the daemon's warnings out of the picture: they are about the machine it was drawn on."""
        self._shown.warn(at, text)

    def show(self, snapshot: Snapshot, burning: float) -> None:
        """Keep a snapshot that has other instances or another decision than the one before."""
        self._shown.show(snapshot, burning)
        group = find_group(snapshot)
        if group is None or self._ended:
            return
        states, decision = {each.instance: each.state for each in group.instances}, group.decision
        last_states, last_decision = self._last
        if states != last_states or (decision is not None and is_news(decision, last_decision)):
            self.frames.append({"snapshot": encode(snapshot), "burning": burning})
        self._last = (states, decision)
        self._grown = self._grown or len(ready_instances(group)) >= GROWN


def record(console: Console) -> None:
    """Play the demo, and write what it showed. Raises `DemoError` when it did not end well."""
    recorders: list[Recorder] = []
    asked: list[Panel] = []

    @contextmanager
    def recorded(console: Console, address: str) -> Iterator[View]:
        begin, port = time.time(), urlsplit(address).port
        assert port is not None
        with (
            tempfile.TemporaryDirectory() as folder,
            Prometheus(Path(folder) / "prometheus", port) as prometheus,
            view(console, address) as shown,
        ):
            recorders.append(Recorder(shown))
            yield recorders[-1]
            asked.extend(ask(prometheus, begin, time.time()))

    run.run(console, keep=False, show=recorded)
    (recorder,) = recorders
    ANSWERS.write_text(json.dumps(asked, indent=1) + "\n")
    TAPE.write_text("".join(f"{json.dumps(frame, separators=(',', ':'))}\n" for frame in recorder.frames))


@contextmanager
def in_utc() -> Iterator[None]:
    """Print times as UTC, wherever the pictures are drawn."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


@in_utc()
def pictures() -> dict[str, str]:
    """Draw what the terminal showed: SVG by the name of its file in docs."""
    screen = Screen(ADDRESS)
    for frame in map(json.loads, TAPE.read_text().splitlines()):
        if "say" in frame:
            screen.say(frame["say"])
        else:
            last = decode(frame["snapshot"], Snapshot)
            screen.show(last, frame["burning"])
    decision = explained()
    return {
        "demo.svg": draw("make demo", 106, lambda console: console.print(screen.render())),
        "status.svg": draw("autoscaler status", 80, lambda console: show(console, status_picture(last, last.at))),
        "explain.svg": draw("autoscaler explain demo", 80, lambda console: explain(console, decision)),
    }


def explained() -> Decision:
    """Give a decision of an earlier demo, which docs/decisions.md goes through."""
    return parse((DOCS / "pictures/explained.json").read_text(), Decision)


def explain(console: Console, decision: Decision) -> None:
    """Print a decision as it was printed two seconds after it was made."""
    show(console, decision_picture(decision, decision.at + 2))


def draw(title: str, columns: int, print_to: Callable[[Console], None]) -> str:
    """Draw what is printed on a terminal."""
    console = Console(
        file=io.StringIO(),
        record=True,
        width=columns,
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
        legacy_windows=False,
    )
    print_to(console)
    name = title.replace(" ", "-")
    return console.export_svg(title=title, theme=SVG_EXPORT_THEME, code_format=SVG, unique_id=name)


def ask(prometheus: Prometheus, begin: float, end: float) -> Iterator[Panel]:
    """Ask for every second of a time; gives each panel's queries and lines, with null where there was nothing."""
    seconds = range(int(begin), int(end) + 1)
    span = {"start": str(seconds[0]), "end": str(seconds[-1]), "step": "1"}
    for title in PANELS:
        lines: dict[str, list[float | None]] = {}
        asked = [query for query in panel_queries("autoscaler-group") if query.panel == title]
        for query in asked:
            for series in prometheus.get("query_range", query=_of_demo(query.expression), **span)["result"]:
                told = {int(at): float(value) for at, value in series["values"]}
                name = _named(query.legend, series["metric"])
                if any(told.values()):
                    lines[name] = [told.get(at) for at in seconds]
        yield {"title": title, "queries": [_of_demo(query.expression) for query in asked], "lines": lines}


def _named(legend: str, labels: Mapping[str, str]) -> str:
    """Fill a dashboard's legend with the labels of a series."""
    return re.sub(r"\{\{(\w+)\}\}", lambda name: labels[name[1]], legend)


def _of_demo(expression: str) -> str:
    """Ask about the demo's group, of the only daemon there is."""
    return expression.replace('instance=~".*", ', "").replace('group="web"', f'group="{GROUP}"')


DASHBOARD = """\
<!doctype html><meta charset="utf-8"><title>Dashboard</title>
<style>$style</style>
<style>
body { font: 13px/1.4 system-ui, sans-serif; margin: 12px; color: #1d2733; } h2 { font-size: 14px; margin: 8px 0 0; }
code { color: #55606e; font-size: 12px; } .u-legend { font-size: 12px; text-align: left; }
</style>
<body>
<script>$uplot</script>
<script>
"use strict";
const colours = ["#0b6bcb", "#b5179e", "#2a9d3a", "#c77700", "#d62828", "#8a94a0"];
for (const panel of $panels) {
  const heading = document.createElement("h2"), queries = document.createElement("code");
  heading.textContent = panel.title;
  queries.textContent = panel.queries.join("   ");
  document.body.append(heading, queries);
  const names = Object.keys(panel.lines), lines = Object.values(panel.lines);
  const series = names.map((label, i) => ({label, stroke: colours[i % colours.length], width: 2,
    paths: uPlot.paths.stepped({align: 1}), points: {show: false}}));
  new uPlot({width: 1070, height: 190, legend: {live: false},
    scales: {x: {time: false}, y: {range: (u, low, high) => [0, high * 1.1]}},
    axes: [{values: (u, at) => at.map(t => t + " s")}, {size: 50, incrs: [0.1, 0.2, 0.5, 1, 2, 5, 10]}],
    series: [{}, ...series]},
    [lines[0].map((_, at) => at), ...lines], document.body);
}
</script>
"""


def dashboard(folder: Path) -> Path:
    """Draw what was answered as a page in a folder."""
    assets = Path(simulate.__file__).parent / "assets"
    parts = {
        "style": (assets / "uPlot.min.css").read_text(),
        "uplot": (assets / "uPlot.iife.min.js").read_text(),
        "panels": ANSWERS.read_text(),
    }
    page = folder / "dashboard.html"
    page.write_text(Template(DASHBOARD).substitute(parts))
    return page


def load(at: int) -> float:
    """Give a load of two days with a morning rush, in busy instances; `at` is in seconds."""
    rush = 5 * math.exp(-(((at % 86400 - 9.5 * 3600) / 2500) ** 2))
    return 3.2 - 2.4 * math.cos(at / 86400 * math.tau - 0.6) + rush + (at // 60 * 7919 % 101) / 160


def rehearse(folder: Path) -> Path:
    """Rehearse two policies on two days in an empty folder; gives the page."""
    (folder / "web.yaml").write_text(POLICY)
    (folder / "careful.yaml").write_text(POLICY.replace("web", "careful").replace("60%", "45%"))
    begin = 1_767_225_600  # 1 January 2026
    rows = [f"{begin + at},{load(at):.3f}\n" for at in range(0, 2 * 86400 + 1, 60)]
    (folder / "load.csv").write_text("timestamp,value\n" + "".join(rows))
    words = ["simulate", "--policy", "web.yaml", "--compare", "careful.yaml", "--load", "load.csv"]
    program = Path(sys.executable).parent / "autoscaler"
    subprocess.run([program, *words, "--html", "page.html"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "page.html"


def photograph(page: Path, picture: Path, *flags: str) -> None:
    """Take a picture of a page with Chromium, which asks nobody for anything."""
    browser = shutil.which("chromium")
    if browser is None:
        raise DemoError("chromium is missing: deploy/demo/bootstrap dev installs it")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *BROWSER, f"--user-data-dir={profile}", *flags, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


def main() -> int:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("--record", action="store_true", help="play the demo and record it first")
    console = Console()
    try:
        if parser.parse_args().record:
            record(console)
        for name, drawn in pictures().items():
            (DOCS / name).write_text(drawn)
        with tempfile.TemporaryDirectory() as folder:
            photograph(rehearse(Path(folder)), DOCS / "simulate.png")
            photograph(dashboard(Path(folder)), DOCS / "dashboard.png", "--window-size=1100,810")
    except (DemoError, golden.BuildError) as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
