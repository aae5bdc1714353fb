"""One HTTP exchange under one deadline, of which only the status is of interest.

The standard library's time-outs are for each read: who sends a byte now and then would hold a thread for hours. Nothing
is followed and no body is read, so that an answer costs the same whatever is behind it.
"""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote, urlsplit

_ASCII = "".join(chr(code) for code in range(33, 127))
PORTS = {"http": 80, "https": 443}


class ExchangeError(Exception):
    """No status came back; the message says why in a few words."""


def exchange(
    method: str, url: str, *, seconds: float, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> int:
    """Send one request and give the status of the answer. Raises ExchangeError when none came within `seconds`.

    Resolving a host's name is the one thing the deadline cannot cut short.
    """
    deadline = time.monotonic() + seconds
    try:
        parts = urlsplit(url)
        with (
            connect(parts.hostname or "", parts.port or PORTS[parts.scheme], seconds) as plain,
            _secured(plain, parts.scheme, parts.hostname or "", deadline) as line,
        ):
            line.settimeout(_left(deadline))
            line.sendall(_request(method, url, body, headers or {}))
            # Of a socket it only wants `makefile`.
            response = http.client.HTTPResponse(cast("socket.socket", _UntilDeadline(line, deadline)), method=method)
            response.begin()
            return response.status
    except TimeoutError:
        raise ExchangeError(f"no answer within {seconds:g} s") from None
    except http.client.HTTPException as error:
        raise ExchangeError(f"no HTTP in the answer ({type(error).__name__})") from error
    except ValueError as error:
        raise ExchangeError("the URL is none that can be asked") from error
    except OSError as error:
        raise ExchangeError(error.strerror or str(error) or type(error).__name__) from error


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Open a TCP connection. Raises OSError."""
    return socket.create_connection((host, port), timeout=seconds)


class _UntilDeadline(io.RawIOBase):
    """A socket to read from whose every read ends at the same deadline."""

    def __init__(self, line: socket.socket, deadline: float) -> None:
        super().__init__()
        self._line = line
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Give the one thing an HTTPResponse asks of a socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """Say that it can be read from."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, at most until the deadline."""
        self._line.settimeout(_left(self._deadline))
        return self._line.recv_into(buffer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _secured(plain: socket.socket, scheme: str, host: str, deadline: float) -> socket.socket:
    if scheme != "https":
        return plain
    plain.settimeout(_left(deadline))
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _request(method: str, url: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=_ASCII)
    lines = {"Host": parts.netloc.rpartition("@")[2], "User-Agent": "kvm-autoscaler", "Connection": "close", **headers}
    if body:
        lines["Content-Length"] = str(len(body))
    head = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in lines.items())]
    return "\r\n".join([*head, "", ""]).encode("ascii") + body
