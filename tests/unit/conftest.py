"""A daemon's answering side with nothing behind it but samples, and commands that ask it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from autoscaler.cli import main
from autoscaler.control.server import ControlServer
from tests.samples import NOW
from tests.support.desk import Desk

Run = Callable[..., Result]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"control_socket: {tmp_path / 'control.sock'}\nhosts: {{local: {{uri: qemu:///system}}}}\n")
    return path


@pytest.fixture
def run(config: Path) -> Run:
    """Run a command with this configuration, in this process."""

    def run(*arguments: str) -> Result:
        return CliRunner(env={"AUTOSCALER_CONFIG": str(config)}).invoke(main, arguments)

    return run


@pytest.fixture
def daemon(tmp_path: Path, desk: Desk) -> Iterator[ControlServer]:
    server = ControlServer(tmp_path / "control.sock", desk)
    with capture_logs():  # its log would come between the lines of the command, which runs in the same process here
        server.start()
        yield server
        server.stop()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in Berlin, an hour or two before Greenwich, on the evening of the samples."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    monkeypatch.setattr(time, "time", lambda: NOW + 4)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
