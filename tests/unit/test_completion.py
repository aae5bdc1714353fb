"""Completion in the shells themselves, asking a daemon of the samples."""

import os
import pty
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoscaler.control.server import ControlServer
from tests.support.daemon import COMMAND

BASH = """
source "$1"
complete -p autoscaler > /dev/null || exit 9
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_autoscaler_completion autoscaler "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = 'source $argv[1]; set words $argv[2..]; complete -C "$words" | string replace -r "\\t.*" ""; true'


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def script(shell: str) -> Path:
        path = tmp_path / f"_autoscaler.{shell}"
        done = subprocess.run([COMMAND, "completion", shell], capture_output=True, check=True)
        assert done.stderr == b""
        path.write_bytes(done.stdout)
        return path

    return script


def environment(config: Path) -> dict[str, str]:
    path = f"{COMMAND.parent}:{os.environ['PATH']}"
    return {"PATH": path, "AUTOSCALER_CONFIG": str(config), "HOME": str(config.parent), "LC_ALL": "C.UTF-8"}


def offered(shell: str, script: Path, config: Path, *words: str) -> list[str]:
    command = {
        "bash": ["bash", "--norc", "-c", BASH, "bash", str(script), *words],
        "fish": ["fish", "--no-config", "-c", FISH, str(script), *words],
    }[shell]
    done = subprocess.run(command, env=environment(config), capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("shell", [pytest.param("bash", marks=pytest.mark.slow), "fish"])
def test_commands_options_names_and_choices_are_completed(
    shell: str, script: Callable[[str], Path], config: Path, daemon: ControlServer
) -> None:
    made = script(shell)
    for words, wanted in (
        (("autoscaler", "sta"), {"status"}),
        (("autoscaler", "image", "lin"), {"lint"}),
        (("autoscaler", "image", "publish", "w"), {"web"}),
        (("autoscaler", "top", "--so"), {"--sort"}),
        (("autoscaler", "top", "--sort", "me"), {"memory"}),
        (("autoscaler", "pause", ""), {"web", "db", "old"}),
        (("autoscaler", "events", "--group", "w"), {"web"}),
        (("autoscaler", "protect", "web-"), {"web-1", "web-2", "web-3", "web-4"}),
        (("autoscaler", "scale", "web", "a"), {"auto"}),
        (("autoscaler", "image", "import", "--host", "l"), {"local"}),
    ):
        assert set(offered(shell, made, config, *words)) == wanted, words


@pytest.mark.parametrize("shell", ["bash"])
def test_without_a_daemon_no_name_is_offered_and_nothing_is_said(
    shell: str, script: Callable[[str], Path], config: Path
) -> None:
    made = script(shell)
    assert not {"web", "db"} & set(offered(shell, made, config, "autoscaler", "pause", ""))
    config.write_text("control_socket: [no, path]\n")
    assert not {"web", "db"} & set(offered(shell, made, config, "autoscaler", "pause", ""))


def test_zsh_completes_on_a_terminal(
    script: Callable[[str], Path], config: Path, daemon: ControlServer, tmp_path: Path
) -> None:
    """As people have it: the script is where zsh looks for it, and TAB is pressed."""
    functions = tmp_path / "site-functions"
    functions.mkdir()
    script("zsh").rename(functions / "_autoscaler")
    ours, theirs = pty.openpty()
    env = {**environment(config), "TERM": "dumb", "PS1": "$ "}
    with subprocess.Popen(
        ["zsh", "-f", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=env,
        start_new_session=True,
    ) as shell:
        os.close(theirs)
        seen = bytearray()

        def type_until(keys: str, shown: bytes) -> None:
            del seen[:]
            os.write(ours, keys.encode())
            end = time.monotonic() + 30
            while shown not in seen:
                assert time.monotonic() < end, bytes(seen)
                seen.extend(os.read(ours, 65536))

        try:
            type_until(f"fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; print re''ady\n", b"ready")
            type_until("autoscaler protect web-\t\t", b"web-4")
            type_until("\x15autoscaler pau\t", b"autoscaler pause ")
            type_until("ol\t", b"old ")
        finally:
            shell.kill()
            os.close(ours)
