import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.notify import lengthen_watchdog, notify


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_assignments_come_in_one_message(manager: socket.socket) -> None:
    notify("WATCHDOG=1", "READY=1")
    assert manager.recv(100) == b"WATCHDOG=1\nREADY=1"


def test_a_watchdog_that_is_too_short_is_lengthened(manager: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "90000000")
    lengthen_watchdog(120.5)
    assert manager.recv(100) == b"WATCHDOG_USEC=120500000"


@pytest.mark.parametrize("given", ["90000000", ""])
def test_a_longer_watchdog_and_none_are_left_alone(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", given)
    lengthen_watchdog(90.0)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
