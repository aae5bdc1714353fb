"""Sets published algorithms beside the daemon's target tracking on recorded loads, and writes docs/elasticity.md.

usage: benchmarks/elasticity.py TRACES [OUT]

TRACES is a folder of `*.csv` loads with a `*.md` beside each that says what it is; OUT is the folder of the report.
"""

import math
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from autoscaler.cli.show_simulation import ordered
from autoscaler.core.policy import TargetTracking
from autoscaler.policy.load import load_file
from autoscaler.simulate.against import TARGETS, Row, contest, contest_policy, retargeted
from autoscaler.simulate.baselines import ALGORITHMS
from autoscaler.simulate.load import Load, read_load
from autoscaler.simulate.measures import WITHIN
from autoscaler.simulate.plant import Conditions
from autoscaler.simulate.rehearsal import Course, Scenario, rehearse_policy

POLICY = load_file(Path(__file__).with_suffix(".yaml"))
"""Ours, beside this file; its target is tried like the others'."""
OURS = POLICY.group
AS_IT_COMES = ", ".join(f"{each.target:.0%}" for each in POLICY.signals if isinstance(each, TargetTracking))
SIZE = POLICY.size
PEAK = 20
"""Instances that the highest load of a trace needs at the line: the loads are scaled to it."""
LINE = 0.7
BOOT_DELAY_SECONDS = 180.0
NAMES = (*ALGORITHMS, "static", "oracle")


@dataclass(frozen=True)
class Trace:
    name: str
    load: Load
    facts: dict[str, str]

    @property
    def step_seconds(self) -> float:
        # Much finer steps than the trace has tell nothing: an interpolated line looks the same at each.
        interval = median(later - earlier for earlier, later in pairwise(self.load.times))
        return 15.0 if interval < 60 else 60.0


@dataclass(frozen=True)
class Result:
    trace: Trace
    rows: list[Row]
    scenario: Scenario
    course: Course
    """Of our policy at its best."""
    seconds: float

    @property
    def ours(self) -> Row:
        return next(row for row in self.rows if row.name == OURS)

    @property
    def rivals(self) -> list[Row]:
        """The baselines, the cheapest first; the oracle is a bound and no rival."""
        return [row for row in ordered(self.rows) if row.name not in (OURS, "oracle")]


def scenario_of(trace: Trace) -> Scenario:
    load = trace.load.scaled(max(trace.load.values) / (PEAK * LINE))
    demand = load.at_steps(trace.step_seconds)
    return Scenario(demand, trace.step_seconds, SIZE, LINE, Conditions((BOOT_DELAY_SECONDS,)), load.times[0])


def judge(trace: Trace) -> Result:
    began = time.monotonic()
    scenario = scenario_of(trace)
    ours = contest_policy(scenario, POLICY)
    rows = [ours, *(contest(scenario, name) for name in NAMES)]
    setting = ours.best.setting
    best = POLICY if setting == "as is" else retargeted(POLICY, int(setting.removesuffix("%")) / 100)
    return Result(trace, rows, scenario, rehearse_policy(scenario, best), time.monotonic() - began)


def read_traces(folder: Path) -> list[Trace]:
    traces = []
    for path in sorted(folder.glob("*.csv")):
        beside = path.with_suffix(".md")
        text = beside.read_text() if beside.is_file() else ""
        facts = dict(re.findall(r"^- ([^:\n]+): (.*)$", text, re.MULTILINE))
        reference = re.search(r"following reference: ([^\"]+?)\s*Available", text)
        if reference is not None:
            facts["Reference"] = reference[1]
        traces.append(Trace(path.stem, read_load(path, allow_gaps=True), facts))
    if not traces:
        sys.exit(f"{folder}: there is no *.csv")
    return traces


def report(results: Sequence[Result]) -> str:
    won = [result for result in results if cheapest(result)]
    parts = [
        _INTRODUCTION.format(
            peak=PEAK,
            boot=BOOT_DELAY_SECONDS,
            line=LINE,
            within=WITHIN,
            min=SIZE.min,
            max=SIZE.max,
            low=TARGETS[0] / 100,
            high=TARGETS[-1] / 100,
            won=len(won),
            all=len(results),
        )
    ]
    parts += ["| trace | " + OURS + " | cheapest baseline | difference |\n|---|---|---|---|"]
    parts += ["\n".join(_summary(result) for result in results), ""]
    for result in results:
        parts += [_section(result), ""]
    return "\n".join(parts).rstrip() + "\n"


def cheapest(result: Result) -> bool:
    """Whether ours keeps the line, and no baseline that keeps it costs less."""
    ours = result.ours.best.measures
    return ours.keeps() and all(
        not row.best.measures.keeps() or row.best.measures.cost >= ours.cost for row in result.rivals
    )


def _summary(result: Result) -> str:
    ours, rival = result.ours, result.rivals[0]
    cells = [_cost(ours), f"{_cost(rival)} ({rival.name} at {rival.best.setting})"]
    if ours.best.measures.keeps() and rival.best.measures.keeps():
        cells.append(f"{ours.best.measures.cost / rival.best.measures.cost - 1:+.1%}")
    else:
        cells.append("only ours keeps the line" if ours.best.measures.keeps() else "ours does not keep the line")
    return f"| [{result.trace.name}](#{result.trace.name}) | {' | '.join(cells)} |"


def _cost(row: Row) -> str:
    best = row.best.measures
    return f"{best.cost:.3f}" if best.keeps() else f"not kept ({best.above_line:.1%} above)"


def _section(result: Result) -> str:
    trace = result.trace
    lines = [f"## {trace.name}", ""]
    if "What" in trace.facts:
        lines += [trace.facts["What"], ""]
    lines += [
        f"{key}: {trace.facts[key]}  " for key in ("Source repository", "Licence", "Reference") if key in trace.facts
    ]
    lines += [f"Steps of {trace.step_seconds:g} s; judged in {result.seconds:.0f} s.", ""]
    lines += [f"![{trace.name}](elasticity/{trace.name}.svg)", ""]
    lines += [
        "| algorithm | as it comes | above | cost | at best | above | cost | θU | θO | instability | changes | keeps |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for row in ordered(result.rows):
        m, d = row.best.measures, row.default
        cells = [f"**{row.name}**" if row.name == OURS else row.name]
        cells += [
            AS_IT_COMES if row.name == OURS else d.setting,
            f"{d.measures.above_line:.2%}",
            f"{d.measures.cost:.3f}",
        ]
        cells += [
            AS_IT_COMES if row.best.setting == "as is" else row.best.setting,
            f"{m.above_line:.2%}",
            f"{m.cost:.3f}",
        ]
        cells += [f"{m.theta_under:.2f}", f"{m.theta_over:.2f}", f"{m.upsilon:.2f}", f"{m.changes}"]
        cells += ["yes" if m.keeps() else "no"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(result: Result, width: int = 800, height: int = 160, points: int = 400) -> str:
    """Draw the load (the highest of each span) and what our policy had ready (the fewest)."""
    demand, ready = result.scenario.demand, result.course.ready
    count = min(points, len(demand))
    spans = [slice(len(demand) * p // count, len(demand) * (p + 1) // count) for p in range(count)]
    loads, counts = [max(demand[span]) for span in spans], [min(ready[span]) for span in spans]
    top = max(*loads, *counts)
    x = [p * width / max(count - 1, 1) for p in range(count)]
    area = " ".join(f"{a:.0f},{height - height * v / top:.1f}" for a, v in zip(x, loads, strict=True))
    steps = " ".join(f"H{a:.0f}V{height - height * v / top:.1f}" for a, v in zip(x, counts, strict=True))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -4 {width} {height + 8}" role="img">'
        f"<title>{result.trace.name}: load, and instances ready</title>"
        f'<polygon fill="#8a94a0" fill-opacity=".45" points="0,{height} {area} {width},{height}"/>'
        f'<path fill="none" stroke="#0b6bcb" stroke-width="1.3" d="M0 {height - height * counts[0] / top:.1f}{steps}"/>'
        "</svg>\n"
    )


_INTRODUCTION = """\
# How elastic it is

Made by `make elasticity TRACES=/path` (benchmarks/elasticity.py) on published loads, which are not part of this
project. Each load is scaled so that its peak needs {peak} instances at the line of {line:.0%} utilisation. An instance
is ready {boot:.0f} s after it was asked for; between {min} and {max} instances are allowed. All meet the same plant and
start alike.

The line is *kept* when utilisation is above it for at most {within:.0%} of the time. Cost is instance hours, booting
ones included, relative to an oracle that knows the load one boot delay ahead and that nobody who always keeps the line
can undercut ([simulate.md](simulate.md) has the definitions). Each algorithm stands at its default and at its best: the
highest target of {low:.0%} to {high:.0%} that keeps the line, to the point. `static` is given the fixed count that is
best in hindsight. `target-tracking` is ours, the same for all traces:
[benchmarks/elasticity.yaml](../benchmarks/elasticity.yaml).

Ours keeps the line at no more cost than every baseline at its best on {won} of {all} traces. Where it does not, the
table says so.
"""


def main() -> None:
    began = time.monotonic()
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "docs")
    traces = read_traces(Path(sys.argv[1]))
    # The longest first, so that no worker is left with it at the end.
    longest = sorted(traces, key=lambda trace: -math.ceil(trace.load.duration_seconds / trace.step_seconds))
    results: list[Result] = []
    (out / "elasticity").mkdir(exist_ok=True)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for done in as_completed([pool.submit(judge, trace) for trace in longest]):
            result = done.result()
            results.append(result)
            print(f"{result.trace.name}: {result.seconds:.0f} s", flush=True)
            # Written as it goes: whoever stops a long run keeps what was judged.
            (out / "elasticity" / f"{result.trace.name}.svg").write_text(plot(result))
            (out / "elasticity.md").write_text(report(sorted(results, key=lambda each: each.trace.name)))
    print(f"{out / 'elasticity.md'}: {len(results)} traces in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
