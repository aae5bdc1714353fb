"""What holds for every command there is: its help, an example in it, its output, and no traceback on any argument."""

import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from autoscaler.cli import main
from autoscaler.control.server import ControlServer
from tests.samples import BOB, SNAPSHOT, TRAFFIC
from tests.support.command_cases import CASES, Case
from tests.support.commands import at_terminal, every_command, golden, leaf_commands
from tests.support.desk import Desk
from tests.unit.test_doctor import FINDINGS
from tests.unit.test_simulate_cli import BUSY, POLICY, journal_of
from tests.unit.test_top import LOOKS, Hosts

ALL = tuple(every_command())
ALL_IDS = ["_".join(path) or "main" for path, _ in ALL]
LEAVES = leaf_commands()
CONFIG = """\
hosts: {local: {uri: "qemu+unix:///system?socket=/nonexistent/libvirt-sock"}}
policies_dir: policies
state_dir: state
control_socket: control.sock
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, berlin: None) -> Path:
    """A folder with a configuration and something of every kind that commands take, at a known time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTOSCALER_CONFIG", "config.yaml")
    monkeypatch.setenv("TERM", "dumb")
    Path("policies").mkdir()
    Path("config.yaml").write_text(CONFIG)
    Path("web.yaml").write_text(POLICY)
    Path("bad.yaml").write_text(POLICY.replace("size:", "szie:").replace("guest.cpu", "guest.cpus"))
    Path("load.csv").write_text("".join(f"{at},{1 + (at >= 1800) * 3}\n" for at in range(0, 7200, 60)))
    Path("text.qcow2").write_text("not an image\n")
    Path("empty").touch()
    Path("binary").write_bytes(bytes(range(256)) * 20)
    Path("loop").symlink_to("loop")
    return tmp_path


@pytest.fixture
def staged(place: Path, desk: Desk, daemon: ControlServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That, with a daemon that answers, a journal, and hosts that can be looked at."""
    journal_of(Path("state"), BUSY)
    web, *others = SNAPSHOT.groups
    desk.shown = replace(SNAPSHOT, groups=(replace(web, traffic=TRAFFIC), *others))
    monkeypatch.setattr("autoscaler.doctor.examine", lambda _: FINDINGS)
    monkeypatch.setattr("autoscaler.top.Top", lambda _: Hosts(*LOOKS))
    monkeypatch.setattr("autoscaler.control.server.caller", lambda _: BOB)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return place


def test_every_command_has_a_case() -> None:
    lacking = {" ".join(path) for path in LEAVES} - CASES.keys()
    assert not lacking, f"add a line to CASES in tests/support/command_cases.py for each of these commands: {lacking}"
    assert not CASES.keys() - {" ".join(path) for path in LEAVES}, (
        "CASES in command_cases.py has commands that are gone"
    )


@pytest.mark.parametrize(("path", "command"), ALL, ids=ALL_IDS)
def test_help(path: tuple[str, ...], command: click.Command) -> None:
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="autoscaler", terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.output.splitlines())) <= 80
    listed = result.output.partition("\nCommands:\n")[2].splitlines()
    assert not [line for line in listed if line.endswith("...")], "make the first lines of their docstrings shorter"
    golden(f"cli_help_{'_'.join(path) or 'main'}.txt", result.output)


def _examples(command: click.Command) -> list[str]:
    lines = (command.help or "").splitlines()
    return [line.strip().removeprefix("Example: ") for line in lines if line.strip().startswith("Example: ")]


@pytest.mark.parametrize(("path", "command"), ALL, ids=ALL_IDS)
def test_every_help_has_an_example_that_is_understood(
    path: tuple[str, ...], command: click.Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = _examples(command)
    assert examples, f"the docstring of `{' '.join(path)}` needs a last line like: Example: autoscaler status --json"
    # The files that an example names are the reader's.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, _parameter, _context: self.coerce_path_result(value))
    for example in examples:
        assert len(example) <= 80 - len("  Example: "), f"too long for 80 columns: {example}"
        program, *words = shlex.split(example.partition(" > ")[0].partition(" | ")[0])
        assert program == "autoscaler", example
        called, understood = _parse(words)
        assert called[: len(path)] == path, f"{example} is an example of another command"
        assert understood


def _parse(words: list[str]) -> tuple[tuple[str, ...], click.Context]:
    """Run the parser, and callbacks that read values, over a command line; raises click's UsageError."""
    command: click.Command = main
    context = command.make_context("autoscaler", list(words))
    called: tuple[str, ...] = ()
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        assert name is not None
        command, called = found, (*called, name)
        context = command.make_context(name, rest, parent=context)
    return called, context


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=[name.replace(" ", "_") for name in CASES])
def test_output(staged: Path, name: str, case: Case) -> None:
    code, text = at_terminal(*name.split(), *case.words.split())
    assert code == case.code, text
    if not case.wide:
        # A located error stays on its line, as editors and compilers have it.
        assert all(len(line) <= 80 or re.match(r"\S+:\d+:\d+: ", line) for line in text.splitlines())
    golden(f"commands/{name.replace(' ', '_')}.txt", text)


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, case in CASES.items() if case.json is not None],
    ids=[name.replace(" ", "_") for name, case in CASES.items() if case.json is not None],
)
def test_json(staged: Path, name: str, case: Case) -> None:
    code, text = at_terminal(*name.split(), *case.words.split(), *(case.json or "").split())
    assert code == case.code, text
    golden(f"commands/{name.replace(' ', '_')}.json", text)


def test_every_command_that_prints_has_json() -> None:
    without = {" ".join(path) for path, command in LEAVES.items() if "--json" not in _options(command)}
    assert without == {"completion", "run", "schema"}


def _options(command: click.Command) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


NASTY = (
    "", " ", "-", "--", "---", "-1", "0", "1", "2", "1.5", "1e309", "nan", "inf", "0x10", "9" * 5000, "x" * 100_000,
    "\x1b[31mred", "a\nb", "\t", "\x7f", "\x01", "ünïcødé 💥", "\u202e", "e\u0301", "\u2028", "\udcff", "a\udc80b",
    "'; DROP", "{}", "%s%n", "../../etc", ".", "/", "/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "nowhere",
    "nowhere/x", "web.yaml/x", "loop", "empty", "binary", "text.qcow2", "state", "x" * 300, "1s", "60%", "150%",
    "12:00", "2026-02-30T00:00", "9999-12-31T23:59", "0001-01-01T00:00", "1TiB", "9" * 18 + "TiB", "web", "cpu", "auto",
)  # fmt: skip
"""Words of the wrong type, empty, huge, with control characters, no UTF-8; files of every kind but good ones."""
SENSIBLE = {"count": "2", "to": "2", "out": "out.csv", "file": "web.yaml", "paths": "web.yaml", "instance": "web-1"}
"""What parameters that a command must have are given while another is spoiled; others get the name of a group."""
INTERRUPTED = 130


def _word(parameter: click.Parameter) -> str:
    return SENSIBLE.get(parameter.name or "", "web")


def _spoiled(command: click.Command) -> Iterator[list[str]]:
    """Give the arguments of a command, one of which is wrong in some way."""
    for parameter in command.params:
        others = [each for each in command.params if each is not parameter and each.required]
        options = [word for each in others if isinstance(each, click.Option) for word in (each.opts[0], _word(each))]
        before = [_word(each) for each in others if isinstance(each, click.Argument)]
        if isinstance(parameter, click.Argument):
            position = [each for each in command.params if isinstance(each, click.Argument)].index(parameter)
            for word in NASTY:
                yield [*options, *before[:position], word, *before[position:]]
                yield [*options, "--", *before[:position], word, *before[position:]]
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            yield [*options, parameter.opts[0], *before]
            yield [*options, f"{parameter.opts[0]}=yes", *before]
        else:
            yield from ([*options, f"{parameter.opts[0]}={word}", *before] for word in NASTY)
            yield [*options, *before, parameter.opts[0]]
    yield []
    yield ["surplus"] * 9
    yield ["--no-such-option"]


@pytest.mark.parametrize(
    ("path", "daemon_answers"),
    [
        pytest.param(
            *(path, up), marks=() if up else pytest.mark.slow, id=f"{'_'.join(path)}-{'daemon' if up else 'no_daemon'}"
        )
        for path, up in product(LEAVES, (False, True))
    ],
)
def test_no_argument_ends_in_a_traceback(
    place: Path,
    desk: Desk,
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str, ...],
    daemon_answers: bool,
    request: pytest.FixtureRequest,
) -> None:
    if daemon_answers:
        request.getfixturevalue("daemon")

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    # What goes on for ever is ended as by Ctrl-C; what starts for good is not begun.
    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setattr("autoscaler.daemon.run", lambda _: 0)
    tried = 0
    for words in _spoiled(LEAVES[path]):
        result = CliRunner().invoke(main, [*path, *words], input="y\n")
        shown = [word if len(word) < 200 else f"{word[:20]}... ({len(word)})" for word in (*path, *words)]
        assert result.exception is None or isinstance(result.exception, SystemExit), (shown, result.exception)
        assert result.exit_code in {0, 1, 2, 3, INTERRUPTED}, (shown, result.output)
        assert "Traceback" not in result.output, shown
        if result.exit_code in {1, 2, 3}:
            assert result.output.strip(), f"{shown} ended with {result.exit_code} and said nothing"
        tried += 1
    assert tried >= 3
    assert os.getcwd() == str(place)  # noqa: PTH109 - nothing went elsewhere
