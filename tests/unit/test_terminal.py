"""Commands on terminals, in pipes, in other locales: what of colours, widths and signs each is given."""

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from autoscaler.cli.hosts import hosts_picture
from autoscaler.cli.output import harmless
from autoscaler.cli.show_history import history_picture
from autoscaler.cli.show_status import status_picture
from autoscaler.cli.show_traffic import traffic_picture
from autoscaler.control.server import ControlServer
from tests.samples import EVENTS, HISTORY, NOW, ROOM, SNAPSHOT, TRAFFIC
from tests.support.commands import at_terminal, shown
from tests.support.desk import Desk
from tests.support.terminal import COMMAND, CONTROL, on_a_terminal, rest, terminal
from tests.unit.conftest import Run


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize(
    ("environment", "coloured", "controlled"),
    [
        pytest.param({}, True, True, id="colours"),
        pytest.param({"NO_COLOR": "1"}, False, True, id="NO_COLOR"),
        pytest.param({"TERM": "dumb"}, False, False, id="a dumb terminal"),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    config: Path, environment: dict[str, str], coloured: bool, controlled: bool
) -> None:
    code, written = on_a_terminal(config, "status", environment=environment)
    assert code == 0
    assert (b"\x1b[32m" in written or b"\x1b[1;31m" in written) is coloured
    assert bool(CONTROL.search(written)) is controlled
    assert "web: 2 ready of 4, from 1 to 4" in CONTROL.sub(b"", written).decode().replace("\r\n", "\n")


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("command", ["status", "hosts", "events", "history web --since 1h", "explain web", "--help"])
def test_a_pipe_is_given_no_control_codes(config: Path, command: str) -> None:
    env = {**os.environ, "AUTOSCALER_CONFIG": str(config), "TERM": "xterm-256color"}
    done = subprocess.run([*COMMAND, *command.split()], capture_output=True, env=env, check=True)
    assert not CONTROL.search(done.stdout)
    assert b"\x1b" not in done.stdout
    assert done.stderr == b""


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("command", ["status", "hosts", "history web --since 1h", "traffic web", "capacity web --to 9"])
def test_lines_are_no_longer_than_a_narrow_terminal(config: Path, command: str) -> None:
    _, written = on_a_terminal(config, *command.split(), columns=60)
    lines = CONTROL.sub(b"", written).decode().splitlines()
    assert max(map(len, lines)) <= 60


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_clipped_on_a_narrow_terminal(width: int) -> None:
    for picture in (
        status_picture(SNAPSHOT, NOW),
        traffic_picture("web", TRAFFIC, NOW, width),
        hosts_picture((ROOM,), width),
    ):
        text = shown(picture, width)
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= width
    assert "192.0.2.1:80" in shown(traffic_picture("web", TRAFFIC, NOW, width), width)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_chart_is_as_wide_as_the_terminal(width: int) -> None:
    lines = shown(history_picture(HISTORY, width), width).splitlines()
    assert max(map(len, lines[:10])) == width


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("locale", ["de_DE.ISO-8859-1", "en_US.ISO-8859-1"])
def test_a_locale_without_the_signs_gets_others(config: Path, locale: str) -> None:
    """The interpreter is told the encoding itself: the machine need not have such a locale."""
    env = {**os.environ, "AUTOSCALER_CONFIG": str(config), "LC_ALL": locale, "PYTHONIOENCODING": "iso-8859-1"}
    done = subprocess.run([*COMMAND, "history", "web", "--since", "1h"], capture_output=True, env=env, check=True)
    assert done.stderr == b""
    text = done.stdout.decode("iso-8859-1")
    assert "2 -> 4" in text
    assert "######" in text
    assert not set(text) & set("→▁▂▃▄▅▆▇█┤")
    ascii_only = subprocess.run(
        [*COMMAND, "history", "web", "--since", "1h"],
        capture_output=True,
        env={**env, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert ascii_only.stdout.isascii()


@given(st.text(st.sampled_from("ab .→é/"), max_size=300), st.integers(20, 100))
def test_wrapping_changes_nothing_but_white_space(text: str, width: int) -> None:
    lines = shown((Text(text, "bold"),), width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert not text.strip() or lines[0].strip()


def test_what_would_steer_a_terminal_is_escaped() -> None:
    assert (
        harmless("red \x1b[31m\r\x07 caf\u00e9 \u202e\n\udcff") == r"red \x1b[31m\r\x07 café \u202e" + "\n" + r"\udcff"
    )


@pytest.mark.usefixtures("daemon")
def test_what_guests_and_others_say_cannot_steer_the_terminal(config: Path, run: Run, desk: Desk) -> None:
    evil = "evil \x1b]0;title\x07\x1b[2J\x9b1m\udcff"
    web, *others = SNAPSHOT.groups
    said = replace(web.instances[0], complaint=evil)
    desk.shown = replace(SNAPSHOT, groups=(replace(web, instances=(said, *web.instances[1:])), *others))
    shown_as = r"evil \x1b]0;title\x1b[2J\x9b1m\udcff"
    assert shown_as in run("status").stdout
    _, written = on_a_terminal(config, "status", columns=200)
    assert shown_as in written.decode()
    assert evil in json.loads(run("status", "--json").stdout)["groups"][0]["instances"][0]["complaint"]


@pytest.mark.usefixtures("daemon")
def test_an_error_cannot_steer_the_terminal(run: Run) -> None:
    result = run("pause", "w\x1b[31meb")
    assert result.exit_code == 1
    assert "\x1b" not in result.output


@pytest.mark.usefixtures("daemon", "berlin")
def test_status_is_shown_anew_until_ctrl_c(run: Run, config: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", wait)
    result = run("status", "--watch", "5s", "--json")
    assert result.exit_code == 130
    assert [json.loads(line)["version"] for line in result.stdout.splitlines()] == ["0.1.0", "0.1.0"]
    assert waited == [5.0, 5.0]
    waited.clear()
    result = run("status", "--watch")
    assert (result.exit_code, waited) == (130, [2.0, 2.0])
    assert result.stdout.count("autoscaler 0.1.0, running for") == 2
    waited.clear()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("AUTOSCALER_CONFIG", str(config))
    code, text = at_terminal("status", "--watch", "1m")
    assert (code, waited) == (130, [60.0, 60.0])
    assert "\x1b" not in text


@pytest.mark.usefixtures("berlin")
def test_a_daemon_that_stops_while_it_is_watched_is_waited_for(
    run: Run, daemon: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter((daemon.stop, lambda: None, daemon.start, lambda: None))

    def wait(_seconds: float) -> None:
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(time, "sleep", wait)
    result = run("status", "--watch", "--json")
    assert result.exit_code == 130
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["version" in answer for answer in answers] == [True, False, False, True, True]
    assert answers[1]["error"].startswith("no daemon answers: there is no socket at ")
    steps = iter((daemon.stop,))
    assert "23:13:24: no daemon answers" in run("status", "--watch").stdout
    daemon.start()


@pytest.mark.usefixtures("berlin")
def test_events_are_followed_across_a_restart_of_the_daemon(
    run: Run, desk: Desk, daemon: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter((daemon.stop, lambda: None, daemon.start))
    asked: list[tuple[str | None, float | None, int] | None] = []

    def wait(_seconds: float) -> None:
        asked.append(desk.asked_events)
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        step()

    monkeypatch.setattr(time, "sleep", wait)
    result = run("events", "--follow", "--json", "--since", "1h")
    assert result.exit_code == 130
    assert len(result.stdout.splitlines()) == len(EVENTS)
    assert result.stderr.count("no daemon answers") == 1
    assert "Waiting for it." in result.stderr
    assert asked[-1] == (None, NOW + 4 - 3600, EVENTS[-1].id)


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
def test_words_that_are_no_utf_8_are_named_all_the_same(locale: str) -> None:
    env = {**os.environ, "LC_ALL": locale}
    done = subprocess.run([*COMMAND, "image", "lint", b"\xff\xfe"], capture_output=True, env=env, check=False)
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"there is no file" in done.stdout
    assert b"\\udcff" in done.stdout


@pytest.mark.parametrize(
    "command", ["status", "hosts", "explain web", "events", "history web", "scale web 2", "reload"]
)
def test_a_daemon_of_another_version_is_told_from_a_fault(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("autoscaler.cli.command.request", lambda *_, **__: {"of": ["another", "release"]})
    result = run(*command.split())
    assert result.exit_code == 3
    assert result.stderr.startswith("error: the daemon's answer is not understood: it is of another version")


def test_a_terminal_is_drawn_anew_in_place(config: Path, daemon: ControlServer) -> None:
    """The first picture is on an alternate screen, which ends with the command."""
    ours, theirs = terminal(80)
    env = {**os.environ, "AUTOSCALER_CONFIG": str(config), "TERM": "xterm-256color"}
    command = [*COMMAND, "status", "--watch", "1s"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        written = bytearray()
        while written.count(b"running for") < 2:
            written += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        written += rest(ours)
    assert process.returncode == 130
    assert written.startswith(b"\x1b[?1049h")
    assert b"\x1b[?1049l" in written
    assert b"Traceback" not in written
