"""The commands: what they print, where, and how they end. Golden files are at 80 columns, in Berlin's time."""

import io
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from autoscaler.cli import arguments, main
from autoscaler.cli.hosts import hosts_picture
from autoscaler.cli.output import show
from autoscaler.cli.show_decision import decision_picture
from autoscaler.cli.show_events import event_line
from autoscaler.cli.show_history import history_picture
from autoscaler.cli.show_status import status_picture
from autoscaler.codec import decode
from autoscaler.core.capacity import Account, Key, Ledger, Resource
from autoscaler.core.decision import Decision, Input, Reason, ReasonCode, Recommendation
from autoscaler.core.metrics import Unit
from autoscaler.core.snapshot import HostRoom, ReloadStatus, Snapshot
from autoscaler.store import Event, History
from tests.samples import DB, EVENTS, HISTORY, LOAD, NOW, ROOM, SCALING_OUT, SNAPSHOT, STEADY
from tests.support.commands import GOLDEN, golden, shown
from tests.support.desk import Desk
from tests.unit.conftest import Run

COMMAND = [sys.executable, "-c", "from autoscaler.cli import main; main()"]

pytestmark = pytest.mark.usefixtures("berlin")


HELD = Decision(
    group="web",
    at=NOW,
    current=2,
    inputs=(Input("guest.cpu", 0.12, 0.1, 0.0, 0.6, 2, 0, 0, 60.0, window_full=True),),
    recommendations=(
        Recommendation(
            "target_tracking guest.cpu", 1, Reason(ReasonCode.TARGET_UNDERRUN, LOAD | {"load": 0.12, "count": 1})
        ),
    ),
    recommended=1,
    desired=2,
    admitted=2,
    reasons=(Reason(ReasonCode.HELD_BY_COOLDOWN, {"direction": "in", "wanted": 1, "until": NOW + 120}),),
)
EMPTY = replace(SNAPSHOT, groups=(), hosts=(), reload=None)
FIRST = replace(EMPTY, tick=None)


@pytest.mark.parametrize(
    ("name", "snapshot"), [("status", SNAPSHOT), ("status_before_first_tick", FIRST), ("status_no_groups", EMPTY)]
)
def test_status_reads_as_in_the_golden_file(name: str, snapshot: Snapshot) -> None:
    golden(f"cli_{name}.txt", shown(status_picture(snapshot, NOW + 4)))


BLIND = Decision(
    group="workers",
    at=NOW,
    current=3,
    inputs=(
        Input(
            "prometheus",
            4.25,
            4.0,
            31.0,
            10.0,
            measured=0,
            warming=0,
            missing=1,
            window_seconds=60.0,
            window_full=False,
            unit=Unit.NUMBER,
            take="p95",
            source='prometheus sum(queue_jobs_waiting{queue="mail"})',
            why="the last figure is 31 s old: http://127.0.0.1:9090 does not answer: Connection refused",
        ),
        Input(
            "guest.net.rx_bytes",
            20e6,
            21e6,
            1.0,
            None,
            measured=3,
            warming=0,
            missing=0,
            window_seconds=60.0,
            window_full=True,
            across="max",
            unit=Unit.BYTES_PER_SECOND,
            source="guest.net.rx_bytes",
        ),
    ),
    recommendations=(
        Recommendation("target_tracking prometheus", None, Reason(ReasonCode.NO_SIGNAL, {"metric": "prometheus"})),
        Recommendation(
            "step guest.net.rx_bytes",
            2,
            Reason(
                ReasonCode.STEP_IN,
                {"metric": "guest.net.rx_bytes", "load": 20e6, "unit": "bytes_per_second", "count": 2},
            ),
        ),
    ),
    recommended=2,
    desired=3,
    admitted=3,
    reasons=(Reason(ReasonCode.HELD_BY_MISSING_LOAD, {"missing": 1, "wanted": 2}),),
)


@pytest.mark.parametrize(
    ("name", "decision"), [("grows", SCALING_OUT), ("steady", STEADY), ("held", HELD), ("blind", BLIND)]
)
def test_explain_reads_as_in_the_golden_file(name: str, decision: Decision) -> None:
    golden(f"cli_explain_{name}.txt", shown(decision_picture(decision, NOW + 4)))


BARE = replace(
    ROOM,
    ledger=Ledger("far", (Account(Key(Resource.VCPUS), 8, 0, 9, None),), {"memory": "it hangs"}, 0.3, 0.2),
    groups=ROOM.groups[:1],
    top=(),
)


@pytest.mark.parametrize(("name", "rooms"), [("hosts", (ROOM, BARE)), ("hosts_before_first_tick", ())])
def test_hosts_read_as_in_the_golden_file(name: str, rooms: tuple[HostRoom, ...]) -> None:
    text = shown(hosts_picture(rooms, 80))
    golden(f"cli_{name}.txt", text)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("web --to 5", 0, "fits: host local carries 4 of web and could carry 5; then pool default runs out"),
        ("web --to 6", 1, "does not fit: host local carries 4 of web and could carry 5; then pool default runs out"),
        ("db --to 1", 0, "fits: host local carries 1 of db and could carry 3; then memory runs out"),
        (
            "shop --to 1",
            1,
            "error: no host that could be read has clones of group shop; groups that are known: db, web",
        ),
    ],
)
def test_capacity_answers_before_it_is_needed(run: Run, command: str, code: int, sentence: str) -> None:
    result = run("capacity", *command.split())
    assert result.exit_code == code
    assert sentence in result.output
    assert "size.max is 4" in result.output or "web" not in command.split(maxsplit=1)[0]


@pytest.mark.usefixtures("daemon")
def test_room_as_json(run: Run) -> None:
    (host,) = json.loads(run("hosts", "--json").output)
    assert (host["host"], host["unread"], host["top"][0]["name"]) == ("local", {}, "ffmpeg")
    assert {"group": "web", "live": 4, "max": 4, "fits_more": 1, "runs_out": "pool_space default"} in host["groups"]
    (pool,) = (
        account for account in host["accounts"] if account["key"]["name"] == "default" and account["total"] > 999
    )
    assert pool["free"] == 10752 * 2**20
    answer = json.loads(run("capacity", "web", "--to", "9", "--json").output)
    assert (answer["fits"], answer["most"]) == (False, 5)
    assert run("hosts").output.startswith("host local\n")


def test_events_read_as_in_the_golden_file() -> None:
    golden("cli_events.txt", shown(map(event_line, EVENTS)))


LARGE = replace(
    HISTORY,
    loads={"guest.cpu (max)": tuple(replace(each, admitted=each.admitted * 10) for each in HISTORY.loads["guest.cpu"])},
)


@pytest.mark.parametrize(
    ("name", "history"),
    [("history", HISTORY), ("history_of_many", LARGE), ("history_empty", History("web", NOW - 3600, NOW, (), {}, 60))],
)
def test_history_reads_as_in_the_golden_file(name: str, history: History) -> None:
    text = shown(history_picture(history, 80))
    golden(f"cli_{name}.txt", text)
    assert all(len(line) <= 80 for line in text.partition("Decisions")[0].splitlines())


@pytest.mark.usefixtures("daemon")
def test_events_are_asked_for_since_a_time_and_followed_by_their_ids(
    run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert decode(json.loads(run("events", "--json").output), tuple[Event, ...]) == EVENTS
    assert desk.asked_events == (None, NOW - 3600, 0)

    asked: list[Any] = []

    def pause(_seconds: float) -> None:
        asked.append(desk.asked_events)
        if len(asked) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", pause)
    result = run("events", "--follow", "--json", "--group", "web", "--since", "2h")
    assert result.exit_code == 130
    assert [decode(json.loads(line), Event) for line in result.stdout.splitlines()] == list(EVENTS)
    assert asked == [("web", NOW - 7200, 0), ("web", NOW - 7200, EVENTS[-1].id)]


@pytest.mark.usefixtures("daemon")
def test_history_is_asked_for_since_a_time(run: Run, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    assert decode(json.loads(run("history", "web", "--since", "1d", "--json").output), History) == HISTORY
    assert desk.asked_history == ("web", NOW - 86400)
    assert run("history", "web").output.startswith("web from 2023-11-14 22:13:20 to 2023-11-14 23:13:20\n")


def test_colours_only_where_a_terminal_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")

    def text() -> str:
        console = Console(file=io.StringIO(), force_terminal=True, width=80)
        show(console, status_picture(SNAPSHOT, NOW))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in text() or "\x1b[1;31m" in text()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in text()
    assert "\x1b[1;31m" not in text()


@pytest.mark.usefixtures("daemon")
def test_a_pipe_gets_lines_unwrapped_and_unclipped(run: Run) -> None:
    result = run("status")
    assert result.exit_code == 0
    assert '  web.yaml:3:1: unknown key "szie"; did you mean "size"?\n' in result.output
    assert max(map(len, result.output.splitlines())) < 120
    assert "web grows from 2 to 4: 5 wanted, limited to the maximum of 4.\n" in run("explain", "web").output


@pytest.mark.usefixtures("daemon")
def test_json_is_the_daemons_answer(run: Run) -> None:
    assert decode(json.loads(run("status", "--json").output), Snapshot) == SNAPSHOT
    assert decode(json.loads(run("explain", "web", "--json").output), Decision) == SCALING_OUT
    assert json.loads(run("scale", "web", "3", "--json").output)["count"] == 3
    assert json.loads(run("reload", "--json").output)["ok"] is True


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "scale web 3",
            "web is held at 3 until 2023-11-15 00:13:20 (for 1 h); `autoscaler scale web auto` ends it sooner\n",
        ),
        ("scale web 3 --for 90s", "web is held at 3 until 23:14:50 (for 1 min 30 s)"),
        ("scale web auto", "web follows its policy again\n"),
        ("pause web", "web is paused: nothing is done for it until `autoscaler resume web`\n"),
        ("resume web", "web is acted for again\n"),
        (
            "protect web-1",
            "web-1 is not removed until 2023-11-15 00:13:20 (for 1 h); `autoscaler unprotect web-1` ends it sooner\n",
        ),
        ("protect web-1 --for 2d", "web-1 is not removed until 2023-11-16 23:13:20 (for 2 d)"),
        ("unprotect web-1", "web-1 may be removed again\n"),
        ("detach web-1", "web-1 is detached: neither counted, measured nor removed until `autoscaler attach web-1`\n"),
        ("attach web-1", "web-1 belongs to its group again\n"),
        ("reset web", "launches of web are tried again\n"),
        ("group delete web --yes", "the instances of web are being removed\n"),
        ("reload", "policies read again at 23:13:20\n"),
    ],
)
def test_changes_are_confirmed(run: Run, command: str, sentence: str) -> None:
    result = run(*command.split())
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith(sentence)


@pytest.mark.usefixtures("daemon")
def test_a_group_is_deleted_only_when_that_is_confirmed(config: Path) -> None:
    runner = CliRunner(env={"AUTOSCALER_CONFIG": str(config)})
    asked = "Remove 4 instances of web and their disks? [y/N]: "
    result = runner.invoke(main, ["group", "delete", "web"], input="n\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(asked)
    result = runner.invoke(main, ["group", "delete", "web"], input="y\n")
    assert (result.exit_code, result.stdout) == (0, "the instances of web are being removed\n")


@pytest.mark.usefixtures("daemon")
def test_a_refusal_is_one_message_and_exit_1(run: Run, desk: Desk) -> None:
    result = run("pause", "wbe")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: no policy for group wbe; did you mean 'web'?\n"
    desk.reloaded = ReloadStatus(ok=False, at=NOW, error="web.yaml:3:1: unknown key")
    result = run("reload")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "web.yaml:3:1: unknown key\nreload refused: the earlier policies run on\n"


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "hosts",
        "capacity web --to 2",
        "explain web",
        "scale web 1",
        "pause web",
        "resume web",
        "reload",
        "protect web-1",
        "reset web",
        "group delete web",
        "events",
        "history web",
    ],
)
def test_without_a_daemon_it_is_exit_3(run: Run, command: str) -> None:
    result = run(*command.split())
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr.startswith("error: no daemon answers: there is no socket at ")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("statsu", "Did you mean 'status'?"),
        ("policy shwo x", "Did you mean 'show'?"),
        ("scale web three", "'three' is neither a whole number of 0 or more nor auto"),
        ("scale web 3 --for 1hour", "'1hour' is no duration above 0; write for example 90s"),
        ("scale web 3 --for 0s", "'0s' is no duration above 0"),
        ("scale web auto --for 1h", "--for has no meaning with auto"),
        ("explain web --at noon", "'noon' is no time; write for example 14:05"),
        ("explain", "Missing argument 'GROUP'"),
        ("events --since 1hour", "'1hour' is no duration above 0; write for example 90s"),
        ("history", "Missing argument 'GROUP'"),
        ("validate", "Missing argument 'PATH...'"),
        ("capacity web", "Missing option '--to'"),
        ("capacity web --to 0", "0 is not in the range"),
        ("validate /no/such", "Path '/no/such' does not exist"),
    ],
)
def test_wrong_usage_is_exit_2(run: Run, command: str, message: str) -> None:
    result = run(*command.split())
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


@pytest.mark.usefixtures("daemon")
def test_a_time_reaches_the_daemon_as_epoch_seconds(run: Run, desk: Desk) -> None:
    assert run("explain", "web", "--at", "2023-11-14T23:13:20").exit_code == 0
    assert desk.asked_at == NOW
    assert run("explain", "web", "--at", "2023-11-14T22:13:20+00:00").exit_code == 0
    assert desk.asked_at == NOW


@pytest.mark.parametrize(("text", "before_seconds"), [("23:13:20", 0), ("23:13", 20), ("23:13:21", 86399)])
def test_a_time_of_day_is_the_last_such_one(monkeypatch: pytest.MonkeyPatch, text: str, before_seconds: float) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW)
    context = click.Context(main)
    assert arguments.moment(context, click.Option(["--at"]), text) == NOW - before_seconds


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        pytest.param("2023-10-29T02:45+02:00", "2023-10-29T02:30+02:00", id="before the clock is set back"),
        pytest.param("2023-10-29T02:15+01:00", "2023-10-29T02:30+02:00", id="after, but before that time comes again"),
        pytest.param("2023-10-29T02:45+01:00", "2023-10-29T02:30+01:00", id="when it has come again"),
        pytest.param("2023-10-30T02:15+01:00", "2023-10-29T02:30+01:00", id="on the next day"),
    ],
)
def test_a_time_of_day_that_came_twice_is_the_last_of_them(
    monkeypatch: pytest.MonkeyPatch, now: str, wanted: str
) -> None:
    monkeypatch.setattr(time, "time", lambda: datetime.fromisoformat(now).timestamp())
    read = arguments.moment(click.Context(main), click.Option(["--at"]), "02:30")
    assert read == datetime.fromisoformat(wanted).timestamp()


GOOD = "version: 1\ngroup: web\nimage: {pool: default, volume: golden.qcow2}\nsize: {min: 1, max: 4}\n"


def test_validate_names_every_error_and_exits_1(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "bad.yaml").write_text(GOOD.replace("size:", "szie:").replace("version: 1", "version: 7"))
    good = tmp_path / "good.yaml"
    good.write_text(GOOD)
    result = run("validate", str(good))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "group web: good\n", "")
    result = run("validate", str(good), str(folder))
    assert result.exit_code == 1
    errors = result.stderr.splitlines()
    assert len(errors) >= 2
    assert all(error.startswith(f"{folder / 'bad.yaml'}:") for error in errors)
    data = json.loads(run("validate", "--json", str(good), str(folder)).stdout)
    assert data["ok"] is False
    assert [problem["file"] for problem in data["problems"]] == [str(folder / "bad.yaml")] * len(errors)


def test_validate_checks_hosts_only_with_a_configuration(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "far.yaml"
    path.write_text(GOOD + "hosts: [far]\n")
    assert run("validate", str(path)).exit_code == 1
    monkeypatch.setattr("autoscaler.config.DEFAULT_PATH", tmp_path / "none.yaml")
    assert CliRunner(env={"AUTOSCALER_CONFIG": None}).invoke(main, ["validate", str(path)]).exit_code == 0


def test_policy_show_fills_in_the_defaults(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(GOOD)
    result = run("policy", "show", str(path))
    assert result.exit_code == 0
    assert "warm_up: " in result.stdout
    assert json.loads(run("policy", "show", "--json", str(path)).stdout)["size"] == {"min": 1, "max": 4}
    path.write_text("version: 1\n")
    result = run("policy", "show", str(path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{path}:1:1: ")


@pytest.mark.usefixtures("daemon")
def test_the_configuration_may_be_named_before_or_after_the_command(config: Path, tmp_path: Path) -> None:
    for order in (["--config", str(config), "status"], ["status", "--config", str(config)]):
        assert CliRunner(env={"AUTOSCALER_CONFIG": str(tmp_path / "none")}).invoke(main, order).exit_code == 0


def test_a_configuration_that_is_not_there_is_exit_1(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--config", str(tmp_path / "none.yaml"), "status"])
    assert result.exit_code == 1
    assert "none.yaml" in result.stderr
    assert "Traceback" not in result.output


def test_control_c_ends_without_a_traceback(config: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        silent.settimeout(20)
        command = [*COMMAND, "--config", str(config), "status"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"interrupted\n")


@pytest.mark.usefixtures("daemon")
def test_a_closed_pipe_is_no_traceback(config: Path) -> None:
    command = f"{sys.executable} -c 'from autoscaler.cli import main; main()' --config {config} status | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, timeout=30, check=False)
    assert result.stderr == b""


def test_the_samples_have_a_group_of_each_kind() -> None:
    assert DB.paused
    assert datetime.fromtimestamp(NOW).astimezone().strftime("%H:%M:%S") == "23:13:20"


@pytest.mark.parametrize("arguments", [["policy", "show", "policies/web.yaml"], ["validate", "--json", "policies"]])
def test_output_that_cannot_be_written_is_one_message_and_exit_1(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=GOLDEN.parent.parent,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "error: the output cannot be written: No space left on device\n"
