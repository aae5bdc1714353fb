"""Writes docs/metrics.md from the daemon's own table of metrics: `make generate`."""

import textwrap
from pathlib import Path

from autoscaler.exporter.families import FAMILIES
from autoscaler.exporter.family import Family, series_per_entity

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
ENTITIES = {
    "": "the daemon itself",
    "image": "golden image that policies name",
    "host": "host",
    "group": "group, and each that was removed since the daemon started",
    "metric": "metric that a policy scales by",
    "network": "network that policies use, on each host",
    "pool": "storage pool that policies use, on each host",
    "instance": "instance",
}
TEXT = """\
# Metrics

<!-- Written by `make generate` from autoscaler/exporter; a test compares. -->

The daemon serves these at `/metrics` on its `listen` address (`127.0.0.1:10177` unless configured otherwise), as plain
text, as OpenMetrics, and compressed for who accepts gzip. All of them come from what the last tick left, and are
rendered once per tick, however many scrape: a figure that could not be read has no sample, never a zero, and the series
of an instance end with it. Counters begin anew with the daemon. [monitoring.md](monitoring.md) has queries, alerts and
dashboards.

Beside it the same address answers `/healthz` (200 while ticks finish, else 503 with a line that says why),
`/api/v1/status` (everything here and more, as JSON) and `/sd/GROUP` (a group's ready instances, as targets for
Prometheus). Nothing can be changed over it.

## How many series there are

Only one family has a series for each instance; nothing has a label whose values come from outside the configuration.
There are never more than:

| for each | series at most |
|---|---|
{bounds}

{example}

## All of them

A ratio is a fraction of one; a time stamp is in seconds since the epoch. *Series* is how many there are at most, and
for each of what.

| metric | type | labels | unit | series | meaning |
|---|---|---|---|---|---|
{rows}
"""
EXAMPLE = {"": 1, "image": 2, "host": 4, "group": 20, "metric": 30, "network": 4, "pool": 4, "instance": 200}


def render() -> str:
    """Give the page."""
    bounds = series_per_entity(FAMILIES)
    return TEXT.format(
        bounds="\n".join(f"| {ENTITIES[entity]} | {count} |" for entity, count in bounds.items() if count),
        example=_example(sum(EXAMPLE[entity] * count for entity, count in bounds.items())),
        rows="\n".join(map(_row, FAMILIES)),
    )


def _example(total: int) -> str:
    counted = ", ".join(f"{count} {entity}s" for entity, count in EXAMPLE.items() if entity)
    text = (
        f"So a daemon with {counted} exports at most {total:,} series. Most of these are codes of reasons, of which "
        "a group meets few: [monitoring.md](monitoring.md) has what was measured."
    )
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _row(family: Family) -> str:
    labels = ", ".join(f"`{label}`" for label in family.labels) or "-"
    series = f"{family.series} per {family.per}" if family.per else str(family.series)
    return f"| `{family.name}` | {family.kind} | {labels} | {family.measured_in} | {series} | {family.meaning} |"


if __name__ == "__main__":
    PAGE.write_text(render())
