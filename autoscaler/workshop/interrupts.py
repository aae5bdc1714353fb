"""What ends a command from outside: taken as an interrupt, so that it clears up, and held back while it does."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)

_Handler = Callable[[int, FrameType | None], object]


@contextmanager
def ended_as_interrupted() -> Iterator[None]:
    """Let a request to end raise KeyboardInterrupt, as Ctrl-C does."""
    with _handled(_ENDING, _interrupt):
        yield


@contextmanager
def held_back() -> Iterator[None]:
    """Let interrupts wait until this is done; raises KeyboardInterrupt then.

    A mask would not do: a signal that another thread takes is handled in the main one all the same.
    """
    held: list[int] = []
    with _handled((signal.SIGINT, *_ENDING), lambda number, _frame: held.append(number)):
        yield
    if held:
        raise KeyboardInterrupt


@contextmanager
def _handled(numbers: tuple[signal.Signals, ...], handler: _Handler) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
