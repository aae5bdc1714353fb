"""Servers on loopback, to be asked and to be told things: good ones, slow ones and bad ones."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

Talk = Callable[[socket.socket], None]


@contextlib.contextmanager
def serving(talk: Talk) -> Iterator[int]:
    """Give the port of a server that treats each connection in a thread of its own, and lets go of all at the end."""
    lines: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def treat(line: socket.socket) -> None:
        with line, contextlib.suppress(OSError):
            talk(line)

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            lines.append(line)
            threading.Thread(target=treat, args=(line,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for line in lines:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """Give a port nobody listens on, kept from others."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def read_request(line: socket.socket) -> tuple[dict[str, str], bytes]:
    """Read a request whole: its headers, with the first line under an empty name, and its body."""
    with line.makefile("rb") as file:
        headers = {"": file.readline().decode().strip()}
        while text := file.readline().decode().strip():
            name, _, value = text.partition(": ")
            headers[name.lower()] = value
        return headers, file.read(int(headers.get("content-length", 0)))


def answering(status: int, extra: bytes = b"", after: Callable[[socket.socket], None] | None = None) -> Talk:
    """Answer every request with this status."""

    def talk(line: socket.socket) -> None:
        read_request(line)
        line.sendall(b"HTTP/1.1 %d Whatever\r\n%s\r\n" % (status, extra))
        if after is not None:
            after(line)

    return talk


def for_ever(part: bytes, pause_seconds: float = 0.0) -> Talk:
    """Send the same part over and over until the other side has enough."""

    def talk(line: socket.socket) -> None:
        pause = threading.Event()
        while True:
            line.sendall(part)
            pause.wait(pause_seconds)

    return talk


def silent(line: socket.socket) -> None:
    """Read and never answer."""
    while line.recv(4096):
        pass
