"""Commands on a real terminal."""

import errno
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path

COMMAND = [sys.executable, "-c", "from autoscaler.cli import main; main()"]
CONTROL = re.compile(rb"\x1b[\[\]()][0-9;?]*[A-Za-z]")
"""A code that does something to a terminal."""


def terminal(columns: int) -> tuple[int, int]:
    """Open both ends of a terminal of so many columns: ours, and a command's."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
    return ours, theirs


def rest(ours: int) -> bytes:
    """Read what is written to a terminal until nobody has its other end open any more, and close ours."""
    written = bytearray()
    while part := _read(ours):
        written += part
    os.close(ours)
    return bytes(written)


def _read(ours: int) -> bytes:
    try:
        return os.read(ours, 65536)
    except OSError as end:
        if end.errno != errno.EIO:  # so Linux tells of the end
            raise
    return b""


def on_a_terminal(
    config: Path, *words: str, columns: int = 80, environment: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Run a command on a real terminal, and give its exit code and all that it wrote there."""
    ours, theirs = terminal(columns)
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
    env = {
        **kept,
        "AUTOSCALER_CONFIG": str(config),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
        **(environment or {}),
    }
    with subprocess.Popen([*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        written = rest(ours)
    return process.returncode, written
