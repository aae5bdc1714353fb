"""The command line that builds an image, what is refused before it runs, and how it is listened to."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autoscaler.cli import main
from autoscaler.cli.command import Commands
from autoscaler.images import virt_install
from autoscaler.images.virt_install import InstallationError
from autoscaler.store.lock import write_controller
from tests.support.build_options import CASES, PRESEED, TREE
from tests.support.commands import golden

CONTROLLER = "11111111-2222-3333-4444-555555555555"


@pytest.fixture
def preseed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A preseed file in the working directory, and a configuration whose host is libvirt's own test driver."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("hosts: {local: {uri: 'test:///default'}}\nstate_dir: state\n")
    Path("state", "builds").mkdir(parents=True)
    write_controller(Path("state", "builds"), CONTROLLER)
    Path(PRESEED).write_text("d-i debian-installer/locale string en_US\n")
    return Path(PRESEED)


def build(*arguments: str) -> Result:
    assert isinstance(main, Commands)
    given = ("--config", "config.yaml", "image", "build", "web", "--pool", "default-pool", *arguments)
    return CliRunner().invoke(main, given)


def test_every_option_shows_in_virt_installs_command_line(preseed: Path) -> None:
    shown = []
    for name, options in CASES.items():
        ended = build("--print", "--location", TREE, *options)
        assert ended.exit_code == 0, ended.output
        shown.append(f"# {name}\n{ended.stdout}")
    golden("image_build_commands.txt", "\n".join(shown))


def test_what_cannot_be_built_is_refused_with_what_to_do(preseed: Path) -> None:
    inject = ("--location", TREE, "--initrd-inject", PRESEED)
    refused = {
        "nobody answers": build("--location", TREE),
        "an unknown system": build(*inject, "--os-variant", "debain11"),
        "no such file": build("--location", TREE, "--initrd-inject", "absent.cfg"),
        "no such pool": build(*inject, "--pool", "nowhere"),
        "no such network": build(*inject, "--network", "nowhere"),
        "no such host": build(*inject, "--host", "elsewhere"),
        "no name": CliRunner().invoke(main, ["image", "build", "Web Server", *inject]),
        "no size": build(*inject, "--disk", "10"),
    }
    assert all(ended.exit_code in {1, 2} for ended in refused.values())
    golden("image_build_refused.txt", "\n".join(f"# {name}\n{ended.output}" for name, ended in refused.items()))
    assert not list(Path("state", "builds").glob("*.qcow2"))


def test_without_virt_install_it_says_what_to_install(preseed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    ended = build("--location", TREE, "--initrd-inject", PRESEED)
    assert ended.exit_code == 1
    assert "virt-install is not installed" in ended.output
    assert "Install the package virtinst" in ended.output


def listen(script: str, within_seconds: float = 20.0) -> list[str]:
    heard: list[str] = []
    virt_install.run(["sh", "-c", script], within_seconds, heard.append)
    return heard


def test_what_an_installer_writes_is_read_as_lines_of_plain_text() -> None:
    assert listen(r"printf 'one\r\n\033[1;31mred\033[0m\rthree\033]0;title\007\000\n\nlast'") == [
        "one",
        "red",
        "three",
        "last",
    ]
    assert listen("test -t 0 && test -t 1 && echo a terminal") == ["a terminal"]
    (endless,) = listen("head -c 100000 /dev/zero | tr '\\0' x")
    assert set(endless) == {"x"}
    assert len(endless) <= 4096


def test_a_failure_says_what_virt_install_said() -> None:
    with pytest.raises(InstallationError, match="sh failed: no such tree"):
        listen(
            "echo 'ERROR    no such tree'; echo 'Domain installation does not appear to have been successful.'; exit 1"
        )
    with pytest.raises(InstallationError, match="sh failed: it ended with 3 and said nothing"):
        listen("exit 3")


def test_one_that_takes_too_long_is_ended_with_all_it_started() -> None:
    began = time.monotonic()
    with pytest.raises(InstallationError, match="had not ended after 1 s; the last that was said: a question"):
        listen("echo a question; sleep 98765 & wait", within_seconds=1.0)
    assert time.monotonic() - began < 15
    assert not running("sleep 98765")


def test_virt_install_ends_with_whoever_listens() -> None:
    code = (
        "from autoscaler.images import virt_install; "
        "virt_install.run(['sh', '-c', 'echo begun; sleep 98764'], 60, lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    while not running("sleep 98764"):
        assert time.monotonic() < begun + 20
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    end = time.monotonic() + 20
    while running("sleep 98764"):
        assert time.monotonic() < end, "the terminal's end ends what was started on it"
        time.sleep(0.05)


def running(command: str) -> bool:
    assert shutil.which("ps")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return command in listed.splitlines()
