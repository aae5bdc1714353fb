"""`autoscaler simulate` and `record`: what they print and write, and every fault of what they are given."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.core.action import Clone
from autoscaler.core.decision import Decision
from autoscaler.core.observation import Domain, DomainCounters, DomainState, HostInventory, Observation, Ownership
from autoscaler.core.policy import Image, Policy, Ready, Size, TargetTracking
from autoscaler.core.step import step
from autoscaler.simulate.load import Load, read_load, write_load
from autoscaler.simulate.page import thin
from autoscaler.store import Journal, TickRecord
from tests.support.commands import golden

POLICY = """\
version: 1
group: web
image: {pool: default, volume: golden.qcow2}
size: {min: 1, max: 10}
scaling:
  - {type: target_tracking, metric: guest.cpu, target: 60%, over: 30s}
"""
BAD_LOADS = {
    "text": "timestamp,value\n0,1\n15,much\nnoon,2\n30,nan\n45,2\n",
    "negative": "0,1\n15,-0.5\n",
    "twice": "timestamp,value\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:00+00:00,1\n",
    "back": "0,1\n30,1\n15,1\n",
    "gap": "0,1\n15,1\n30,1\n75,1\n90,1\n",
    "cells": "0,1\n15\n30,1,1\n",
    "range": "0,1\n1e300,1\n-5,1\n0001-01-01T00:00:00,1\n",
    "empty": "",
    "header_only": "timestamp,value\n",
    "one_row": "timestamp,value\n0,1\n",
    "many": "timestamp,value\n" + "x,1\n" * 30,
    "binary": "\x00\x01,\x1b[31m\n",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("web.yaml").write_text(POLICY)
    Path("load.csv").write_text(
        "timestamp,value\n" + "".join(f"{at},{1 + (at >= 1800) * 3}\n" for at in range(0, 7200, 60))
    )
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words), env={"COLUMNS": "80"})


def test_every_fault_of_a_load_is_located(place: Path) -> None:
    shown = []
    for name, text in BAD_LOADS.items():
        Path(f"{name}.csv").write_text(text)
        result = run("simulate", "--policy", "web.yaml", "--load", f"{name}.csv")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert all(line.startswith(f"{name}.csv:") for line in result.stderr.splitlines())
        shown.append(result.stderr)
    Path("latin.csv").write_bytes(b"0,1\n15,\xff\n")
    for missing in ("latin.csv", "nowhere.csv"):
        result = run("simulate", "--policy", "web.yaml", "--load", missing)
        assert result.exit_code == 1
        shown.append(result.stderr)
    golden("load_errors.txt", "\n".join(shown))


def test_a_policy_whose_signal_the_load_does_not_give_is_refused(place: Path) -> None:
    Path("web.yaml").write_text(POLICY.replace("guest.cpu", "guest.memory"))
    result = run("simulate", "--policy", "web.yaml", "--load", "load.csv")
    assert result.exit_code == 1
    assert result.stderr == (
        "web.yaml:6:37: scaling[0].metric: the load does not give guest.memory; a rehearsal has guest.cpu only\n"
    )


def test_a_gap_can_be_drawn_across(place: Path) -> None:
    Path("gap.csv").write_text(BAD_LOADS["gap"])
    assert run("simulate", "--policy", "web.yaml", "--load", "gap.csv", "--allow-gaps").exit_code == 0


def test_the_summary_fits_a_terminal(place: Path) -> None:
    result = run("simulate", "--policy", "web.yaml", "--load", "load.csv", "--against", "hpa,oracle,static")
    assert result.exit_code == 0, result.output
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    golden("cli_simulate.txt", result.stdout)


def test_json_and_page(place: Path) -> None:
    words = ("--policy", "web.yaml", "--load", "load.csv", "--compare", "other.yaml")
    Path("other.yaml").write_text(POLICY.replace("web", "other").replace("60%", "30%"))
    result = run("simulate", *words, "--json", "out.json", "--html", "out.html", "--boot-delay", "60s")
    assert result.exit_code == 0, result.output
    data = json.loads(Path("out.json").read_text())
    assert {len(data[name]) for name in ("t", "demand", "ready", "desired", "oracle")} == {477}
    assert data["t"][:2] == [0, 15]
    assert data["desired"][-1] == 7
    assert data["compared"]["metrics"]["cost"] > data["metrics"]["cost"] > 1
    page = Path("out.html").read_text()
    assert "uPlot" in page
    assert "Permission is hereby granted" in page
    assert "$" not in page.partition("<script>")[0]
    printed = run("simulate", *words[:4], "--json", "-")
    assert json.loads(printed.stdout)["metrics"].keys() == data["metrics"].keys()


def test_chance_is_seeded(place: Path) -> None:
    plant = ("--failures", "40%", "--slow-boots")
    words = (
        "simulate",
        "--policy",
        "web.yaml",
        "--load",
        "load.csv",
        *plant,
        "--hosts-capacity",
        "6",
        "--json",
        "-",
        "--seed",
    )
    first, again, other = (run(*words, seed).stdout for seed in ("1", "1", "3"))
    assert first == again != other
    assert max(json.loads(first)["ready"]) <= 6
    assert json.loads(first)["failed_launches"] + json.loads(other)["failed_launches"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--policy", "web.yaml"), "give either --load or --recording"),
        (("--load", "load.csv"), "wants a --policy"),
        (("--policy", "web.yaml", "--load", "load.csv", "--boot-delay", "measured"), "wants a --recording"),
        (("--policy", "web.yaml", "--load", "load.csv", "--boot-delay", "soon"), "no duration"),
        (("--policy", "web.yaml", "--load", "load.csv", "--against", "hpa,magic"), "'magic' is not known; allowed: "),
        (("--policy", "web.yaml", "--load", "load.csv", "--failures", "101%"), "no share"),
        (("--policy", "web.yaml", "--load", "load.csv", "--line", "0%"), "above 0%"),
        (("--policy", "web.yaml", "--load", "load.csv", "--step", "0.0001s"), "make them longer"),
    ],
)
def test_wrong_usage(place: Path, words: tuple[str, ...], message: str) -> None:
    result = run("simulate", *words)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    load = Load((1_700_000_000.0, 1_700_000_010.25, 1_700_000_020.5), (0.0, 1.25, 3.0))
    write_load(tmp_path / "load.csv", load)
    assert read_load(tmp_path / "load.csv") == load


def test_a_load_is_linear_between_its_samples() -> None:
    assert Load((0.0, 10.0, 30.0), (0.0, 1.0, 5.0)).at_steps(5.0) == (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert Load((7.0, 17.0), (2.0, 4.0)).at_steps(15.0) == (2.0,)


LOCAL = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 4),
    scaling=(TargetTracking("guest.cpu", 0.5, over_seconds=10.0),),
    warm_up_seconds=0.0,
    ready=Ready(agent=False),
)
BEGIN = 1_700_000_000.0


def journal_of(state_dir: Path, busy: list[float], *, tampered: bool = False) -> None:
    """A journal of one group: every clone is listed, running, at the next tick; each instance has a tick's own load."""
    journal = Journal.open(state_dir)
    memory = journal.load_memory()
    domains: dict[str, tuple[Domain, float]] = {}
    for tick, load in enumerate(busy):
        at = BEGIN + 10.0 * tick
        domains = {name: (domain, ran + 10.0 * load) for name, (domain, ran) in domains.items()}
        observation = Observation(
            at,
            10.0,
            inventory={"local": HostInventory("local", tuple(domain for domain, _ in domains.values()))},
            domains={d.uuid: DomainCounters(d.uuid, at, 1, ran, 0.0) for d, ran in domains.values()},
        )
        result = step((LOCAL,), observation, memory)
        decisions = result.decisions
        if tampered and tick == 5:
            (decision,) = decisions
            decisions = (Decision(**{n: getattr(decision, n) for n in Decision.__slots__} | {"admitted": 9}),)
        journal.commit_tick(TickRecord(observation, (LOCAL,), decisions, result.memory), ())
        memory = result.memory
        for action in result.actions:
            if isinstance(action, Clone):
                owner = Ownership(memory.controller, "web", action.instance, "", at)
                name = action.instance
                domains[name] = (Domain("local", f"uuid-{name}", name, DomainState.RUNNING, owner), 0.0)
            else:
                domains.pop(action.instance)
    journal.close()


BUSY = [0.3] * 10 + [1.0] * 10 + [0.6] * 20


def test_a_recording_is_decided_again(place: Path) -> None:
    journal_of(Path("state"), BUSY)
    result = run("simulate", "--recording", "state")
    assert result.exit_code == 0, result.output
    assert "40 decisions, all identical" in result.stdout
    assert "full, and what they could not carry is hidden" in result.stdout
    data = json.loads(run("simulate", "--recording", "state", "--json", "-").stdout)
    assert data == {"ticks": 40, "decisions": 40, "identical": True, "difference": None}


def test_the_first_difference_is_told(place: Path) -> None:
    journal_of(Path("state"), BUSY, tampered=True)
    result = run("simulate", "--recording", "state")
    assert result.exit_code == 1
    assert "the decisions differ at tick 6 (at 1700000050.000): recorded web: " in result.stderr
    assert "9 admitted" in result.stderr


def test_a_recording_is_a_load_for_another_policy(place: Path) -> None:
    journal_of(Path("state"), BUSY)
    result = run(
        "simulate", "--recording", "state", "--policy", "web.yaml", "--boot-delay", "measured", "--step", "10s"
    )
    assert result.exit_code == 0, result.output
    assert "boot delays of 4 launches: 10 to 10 s" in result.stderr
    assert "time above the line" in result.stdout
    refused = run("simulate", "--recording", "state", "--policy", "web.yaml", "--group", "db")
    assert refused.exit_code == 1
    assert "there is no group db in the journal; it has these: web" in refused.stderr


def test_record_writes_the_load_that_was_seen(place: Path) -> None:
    journal_of(Path("state"), BUSY)
    Path("config.yaml").write_text("state_dir: state\npolicies_dir: policies\ncontrol_socket: control.sock\n")
    result = run("record", "--config", "config.yaml", "--out", "out.csv")
    assert result.exit_code == 0, result.output
    assert "rows of group web" in result.stdout
    load = read_load(Path("out.csv"))
    assert load.times[0] >= BEGIN
    assert load.values[0] == pytest.approx(0.3)
    assert load.values[-1] == pytest.approx(0.6 * 4)
    # The first tick has no instance yet, the second none with an earlier sample; at ten all instances are full.
    told = json.loads(run("record", "--config", "config.yaml", "--out", "out.csv", "--json").stdout)
    assert told == {"group": "web", "rows": 38, "from": load.times[0], "to": BEGIN + 390, "saturated": 10, "unseen": 2}
    later = run("record", "--config", "config.yaml", "--out", "later.csv", "--since", "2023-11-14T22:15:00+00:00")
    assert later.exit_code == 0, later.output
    assert read_load(Path("later.csv")).times[0] == BEGIN + 100
    assert run("record", "--config", "config.yaml", "--out", "nowhere/out.csv").exit_code == 1
    assert (
        "holds no measured load" in run("record", "--config", "config.yaml", "--out", "x.csv", "--since", "1s").stderr
    )


def test_a_journal_that_is_not_there(place: Path) -> None:
    result = run("simulate", "--recording", "state")
    assert result.exit_code == 1
    assert "there is no journal" in result.stderr


def test_schedules_and_steps_are_rehearsed(place: Path) -> None:
    Path("web.yaml").write_text(
        POLICY.partition("scaling:")[0]
        + """\
scaling:
  - {type: schedule, cron: "0 1 * * *", timezone: UTC, for: 10m, desired: 8}
  - {type: threshold, metric: guest.cpu, above: 80%, below: 20%, for: 1m}
behavior: {scale_in: {cooldown: 0s, stabilization: 0s}}
"""
    )
    result = run("simulate", "--policy", "web.yaml", "--load", "load.csv", "--json", "-")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    desired = dict(zip(data["t"], data["desired"], strict=True))
    assert desired[3600] == 8 > desired[3585]


def test_a_long_load_is_thinned_for_the_page_and_keeps_its_peaks() -> None:
    demand = [float(tick * 7919 % 10007) for tick in range(100_000)]
    kept = thin(demand, 1000)
    assert len(kept) == 1000
    assert kept == sorted(set(kept))
    assert all(
        demand[step] == max(demand[at : at + 100]) for step, at in zip(kept, range(0, 100_000, 100), strict=True)
    )
    assert thin(demand[:50], 1000) == list(range(50))
