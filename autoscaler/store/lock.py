"""The state directory: one daemon at a time, and the controller's identity, which outlives a lost journal."""

import fcntl
import os
import uuid
from pathlib import Path
from typing import TextIO

from autoscaler.core.errors import StateInUseError, StoreError

LOCK = "lock"
CONTROLLER = "controller"


def make_directory(state_dir: Path) -> None:
    """Make the state directory, for its owner only, unless it is there. Raises StoreError."""
    try:
        state_dir.mkdir(mode=0o700)
    except FileExistsError:
        if not state_dir.is_dir():
            raise StoreError(
                f"{state_dir}: not a directory. Set state_dir to a directory of the daemon's own."
            ) from None
    except OSError as error:
        raise unusable(state_dir, error) from error


def unusable(path: Path, error: OSError) -> StoreError:
    """Say that a file or directory of the state cannot be used, and what to do about it."""
    why = error.strerror or str(error)
    return StoreError(
        f"{path}: {why}. Create the state directory so that the daemon's user may write in it, "
        "or set state_dir in the configuration to one where it may."
    )


class StateLock:
    """An exclusive lock on a state directory; the kernel gives it back however the process ends."""

    def __init__(self, state_dir: Path) -> None:
        """Take the lock. Raises StoreError naming the holder's pid when another process has it."""
        path = state_dir / LOCK
        try:
            self._file = path.open("a+", encoding="ascii")
        except OSError as error:
            raise unusable(path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(0)
            self._file.write(f"{os.getpid()}\n")
            self._file.flush()
        except BlockingIOError:
            holder = _holder(self._file)
            self._file.close()
            raise StateInUseError(
                f"{state_dir}: another daemon uses this state directory (pid {holder}). "
                "Stop it first, or give this one a state_dir of its own.",
                holder,
            ) from None
        except OSError as error:
            self._file.close()
            raise unusable(path, error) from error

    def release(self) -> None:
        """Give the directory free. The file stays: removing it would let two daemons lock two files."""
        self._file.close()


def _holder(file: TextIO) -> str:
    file.seek(0)
    return file.read().strip() or "not written yet"


def read_controller(state_dir: Path) -> str | None:
    """Read the controller's UUID; None where none was made yet. Raises StoreError when the file holds no UUID."""
    path = state_dir / CONTROLLER
    try:
        text = path.read_text(encoding="ascii").strip()
        return str(uuid.UUID(text))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unusable(path, error) from error
    except ValueError as error:
        raise StoreError(
            f"{path}: holds no UUID. Put back the controller's UUID from a backup or from the metadata of one of its "
            "guests; with another one its guests would count as somebody else's."
        ) from error


def write_controller(state_dir: Path, controller: str) -> None:
    """Write the controller's UUID so that it is there whole, or not at all, after a crash. Raises StoreError."""
    path = state_dir / CONTROLLER
    unfinished = state_dir / f"{CONTROLLER}.new"
    try:
        with unfinished.open("w", encoding="ascii") as file:
            file.write(f"{controller}\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        directory = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise unusable(path, error) from error
