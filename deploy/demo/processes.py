"""The demo's processes: started apart from the terminal, and found again by a mark in their environment.

The mark survives whatever happens to the demo itself, so that the next run finds what a killed one left, and a demo
that was left running can be stopped by another process than the one that started it.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MARK = "AUTOSCALER_DEMO_PART"


def start(part: str, command: Sequence[str | Path], log: Path) -> int:
    """Start a program that outlives this process and its terminal, and return its process id."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        return os.posix_spawnp(
            str(command[0]),
            [str(word) for word in command],
            {**os.environ, MARK: part},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigmask=[],  # while the demo clears away, signals wait: they must not for what it starts meanwhile
        )
    finally:
        os.close(output)


def find(part: str) -> list[int]:
    """List this user's running processes with this mark that are no children of another such process.

    What lives in another network namespace is another demo's.
    """
    mark = f"{MARK}={part}".encode()
    marked = {pid: parent for pid, parent in _running().items() if _is_ours(pid) and mark in _environment(pid)}
    return [pid for pid, parent in marked.items() if parent not in marked]


def is_running(pid: int) -> bool:
    """Whether the process has not ended; an ended child of this process is taken off the process table."""
    with suppress(ChildProcessError):  # another process started it
        os.waitpid(pid, os.WNOHANG)
    return _parent(pid) is not None


def end(part: str, seconds: float) -> None:
    """Ask the processes of this part to end, and kill them when they have not after `seconds`."""
    for pid in find(part):
        _signal(pid, signal.SIGTERM)
        if not _ended_within(pid, seconds):
            _signal(pid, signal.SIGKILL)
            _ended_within(pid, 5)


def _ended_within(pid: int, seconds: float) -> bool:
    end_at = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > end_at:
            return False
        time.sleep(0.05)
    return True


def _signal(pid: int, which: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it ended by itself meanwhile
        os.kill(pid, which)


def _running() -> dict[int, int]:
    """Map every running process to its parent."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {pid: parent for pid in pids if (parent := _parent(pid)) is not None}


def _parent(pid: int) -> int | None:
    """Return the parent's id, None for a process that ended."""
    try:
        state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state == "Z" else int(parent)


def _is_ours(pid: int) -> bool:
    entry = Path(f"/proc/{pid}")
    try:
        return (
            entry.stat().st_uid == os.geteuid()
            and (entry / "ns/net").readlink() == Path("/proc/self/ns/net").readlink()
        )
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # gone, or somebody else's


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # gone, or somebody else's
