"""What ends a command waits while it clears up, whichever thread it reaches."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from autoscaler.workshop.interrupts import ended_as_interrupted, held_back

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def another_thread() -> Iterator[None]:
    """One that takes signals, too."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    yield
    done.set()
    thread.join()


@pytest.mark.parametrize("number", ALL)
def test_an_interrupt_waits_until_all_is_cleared_up(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in ALL]
    cleared: list[int] = []
    with pytest.raises(KeyboardInterrupt), held_back():
        _clear_up_under(number, cleared)
    assert len(cleared) == 100
    assert [signal.getsignal(each) for each in ALL] == before


def _clear_up_under(number: signal.Signals, cleared: list[int]) -> None:
    for each in range(100):
        os.kill(os.getpid(), number)
        cleared.append(each)


def test_without_one_nothing_is_raised() -> None:
    with held_back():
        pass


@pytest.mark.parametrize("number", ALL)
def test_a_request_to_end_is_an_interrupt(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in ALL]
    with pytest.raises(KeyboardInterrupt), ended_as_interrupted():
        _clear_up_under(number, [])
    assert [signal.getsignal(each) for each in ALL] == before


def test_what_fails_meanwhile_is_told() -> None:
    with pytest.raises(OSError, match="first"), held_back():
        raise OSError("first")
