"""Rules, alerts, runbook and dashboards: checked by promtool, and against what the daemon exports."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from autoscaler.cli import main
from autoscaler.exporter.families import FAMILIES
from deploy.grafana.dashboards import DASHBOARDS, render
from tests.support.dashboards import (
    BOARDS,
    FAMILY,
    FOLDER,
    load,
    marks,
    panel_queries,
    panels,
    variables,
    written_queries,
)

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy" / "prometheus"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS: list[dict[str, Any]] = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
RECORDED: list[dict[str, Any]] = yaml.safe_load((RULES / "recording.yml").read_text())["groups"][0]["rules"]
NAMES = [alert["alert"] for alert in ALERTS]
SUFFIXES = ("_bucket", "_sum", "_count")


def exported() -> set[str]:
    """Every name that a query may ask for."""
    names = {family.name for family in FAMILIES}
    return names | {family.name + suffix for family in FAMILIES if family.kind == "histogram" for suffix in SUFFIXES}


def asked(expression: str) -> set[str]:
    """The families that an expression names; what the recording rules make is not among them."""
    return set(FAMILY.findall(re.sub(r"\b\w+:\w+:\w+\b", "", expression)))


def labels(family: str) -> set[str]:
    """The labels of a family, as Prometheus shows them."""
    found = next(each for each in FAMILIES if family.removesuffix("_bucket") == each.name)
    own = {"exported_instance" if label == "instance" else label for label in found.labels}
    return own | {"instance", "job"} | ({"le"} if found.kind == "histogram" else set())


def promtool(*arguments: str | Path) -> str:
    """Run it; gives what it said."""
    said = subprocess.run(["promtool", *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def test_promtool_accepts_the_example_and_all_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    assert f"{len(ALERTS)} rules found" in promtool("check", "rules", "alerts.yml")
    assert f"{len(RECORDED)} rules found" in promtool("check", "rules", "recording.yml")


@pytest.mark.parametrize("alert", NAMES)
def test_an_alert_fires_and_does_not(alert: str) -> None:
    path = RULES / "tests" / f"{alert}.yml"
    cases = [
        bool(case["exp_alerts"])
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert True in cases
    assert False in cases
    promtool("test", "rules", path)


def test_the_recording_rules_give_what_they_should() -> None:
    path = RULES / "tests" / "recording.yml"
    tried = {case["expr"] for test in yaml.safe_load(path.read_text())["tests"] for case in test["promql_expr_test"]}
    assert tried == {rule["record"] for rule in RECORDED}
    promtool("test", "rules", path)


def test_every_file_with_tests_is_about_a_rule() -> None:
    assert {path.stem for path in (RULES / "tests").iterdir()} == {*NAMES, "recording"}


@pytest.mark.parametrize("rule", ALERTS + RECORDED, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    assert asked(rule["expr"]) <= exported()
    made = set(re.findall(r"\b\w+:\w+:\w+\b", rule["expr"]))
    assert made <= {each["record"] for each in RECORDED}
    assert asked(rule["expr"]) or made or "up{" in rule["expr"]


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_says_how_bad_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert {*alert["annotations"]} == {"summary", "description", "runbook_url"}
    anchor = alert["annotations"]["runbook_url"].partition("#")[2]
    assert anchor == alert["alert"].lower()


def section(alert: str) -> str:
    """What the runbook says of an alert."""
    found = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/runbook.md has no section {alert}"
    return found[1]


@pytest.mark.parametrize("alert", NAMES)
def test_the_runbook_says_what_it_means_how_to_see_it_and_what_to_do(alert: str) -> None:
    text = section(alert)
    parts = [text.find(f"**{part}**") for part in ("What it means.", "How to see it.", "What to do.")]
    assert -1 < parts[0] < parts[1] < parts[2]
    assert "```sh" in text


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    assert re.findall(r"^## (Autoscaler\w+)$", RUNBOOK, re.MULTILINE) == NAMES


def commands() -> Iterator[str]:
    """Yield each line of the runbook's and the monitoring page's shell blocks that begins with our command."""
    for page in ("runbook.md", "monitoring.md"):
        for block in re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL):
            yield from (line for line in block.splitlines() if re.match(r"(sudo )?autoscaler ", line))


@pytest.mark.parametrize("line", sorted({*commands()}))
def test_a_command_of_the_runbook_is_one(line: str) -> None:
    words = shlex.split(line, comments=True)
    command: click.Command = main
    # What a command knows of its context it keeps: the names of its help option, say.
    context = click.Context(main, **main.context_settings)
    rest = words[words.index("autoscaler") + 1 :]
    while isinstance(command, click.Group):
        name = rest.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command = found
    _, left, _ = command.make_parser(click.Context(command, parent=context)).parse_args(rest)
    assert left == []


def metric_names(board: str) -> Iterator[str]:
    """Yield every name that a dashboard asks for."""
    for query in (*panel_queries(board), *marks(board)):
        yield from asked(query.expression)
    yield from (series for _, series, _ in variables(board))


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_is_what_the_program_gives(board: str) -> None:
    assert (FOLDER / f"{board}.json").read_text() == render(DASHBOARDS[board]()), "run `make generate`"
    assert set(BOARDS) == {*DASHBOARDS}


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_asks_for_what_there_is(board: str) -> None:
    assert {*metric_names(board)} <= exported()
    for query in panel_queries(board):
        known = set().union(*(labels(name) for name in asked(query.expression)))
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= known, f"{query} names a label that is not there"


@pytest.mark.parametrize("expression", written_queries())
def test_a_query_of_the_pages_asks_for_what_there_is(expression: str) -> None:
    assert asked(expression)
    assert asked(expression) <= exported()


@pytest.mark.parametrize("board", BOARDS)
def test_a_dashboard_can_be_imported_and_read(board: str) -> None:
    data = load(board)
    assert data["uid"] == board
    titles = [panel["title"] for panel in panels(board)]
    assert len(set(titles)) == len(titles)
    assert all(panel["description"] for panel in panels(board))
    assert all(panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for panel in panels(board))
    for panel in data["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels(board)]
    assert len(set(places)) == len(places), "no panel hides another"
