"""The report on elasticity, made of seeded synthetic load."""

import math
from pathlib import Path

import pytest

from benchmarks.elasticity import cheapest, judge, plot, read_traces, report


def write_trace(folder: Path, name: str, level: float) -> None:
    rows = [
        f"{minute * 60},{level * (4 - 3 * math.cos(minute / 720 * math.tau) + (minute * 7919 % 101) / 200)}\n"
        for minute in range(720)
    ]
    (folder / f"{name}.csv").write_text("timestamp,value\n" + "".join(rows))
    (folder / f"{name}.md").write_text(f"# {name}\n\n- What: Made up.\n- Source repository: none\n- Licence: none\n")


def test_the_report_has_every_algorithm_for_every_trace(tmp_path: Path) -> None:
    write_trace(tmp_path, "small", 1.0)
    write_trace(tmp_path, "large", 500.0)
    results = [judge(trace) for trace in read_traces(tmp_path)]
    text = report(results)
    assert [result.trace.name for result in results] == ["large", "small"]
    for name in ("hpa", "aws", "nomad", "react", "cloudstack", "static", "oracle", "**target-tracking**"):
        assert text.count(f"\n| {name} | ") == 2
    assert "Made up.\n\nSource repository: none  \nLicence: none  \n" in text
    assert "](elasticity/small.svg)" in text
    # Only the shape of a load counts: its unit is scaled away.
    assert results[0].ours.best.measures.cost == pytest.approx(results[1].ours.best.measures.cost, rel=0.01)
    assert all(cheapest(result) for result in results)
    assert plot(results[0]).startswith("<svg ")
