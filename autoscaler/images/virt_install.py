"""virt-install as it runs: on a terminal of its own, where it also connects the installer's serial console."""

import difflib
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from autoscaler.core.errors import AutoscalerError
from autoscaler.images.installation import PROGRAM

_END_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_LIST_SECONDS = 60
_LONGEST_LINE = 4096
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_()][A-Z0-9]?)")
# Its session ends with its terminal: virt-install does not outlive whoever reads it, however that ended.
_ON_ITS_TERMINAL = ("setsid", "--ctty")
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "TERM": "dumb"}


class InstallationError(AutoscalerError):
    """The image could not be installed; says what virt-install or the installer said last."""


def require() -> None:
    """Raise InstallationError where virt-install is not installed."""
    if shutil.which(PROGRAM) is None:
        raise InstallationError(
            f"{PROGRAM} is not installed, and it is what builds images. Install the package virtinst "
            "(virt-install in other distributions)"
        )


def check_os_variant(name: str) -> None:
    """Raise InstallationError unless virt-install knows the system by this name; near names are told."""
    try:
        listed = subprocess.run(  # noqa: S603 - an argument list, no shell
            [PROGRAM, "--osinfo", "list"], capture_output=True, text=True, timeout=_LIST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InstallationError(f"{PROGRAM} did not list the systems it knows within {_LIST_SECONDS} s") from error
    if listed.returncode != 0:
        raise InstallationError(
            f"{PROGRAM} cannot list the systems it knows: {_last_of(listed.stderr)}. Install the package osinfo-db"
        )
    known = [each for line in listed.stdout.splitlines() for each in line.split(", ")]
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=3)
    raise InstallationError(
        f"--os-variant: {name!r} is not known to {PROGRAM}"
        + (f"; near it are: {', '.join(near)}" if near else "")
        + f". See them all with: {PROGRAM} --osinfo list. A system newer than the host's osinfo-db can go by the name "
        "of the one before"
    )


def run(command: Sequence[str], within_seconds: float, hear: Callable[[str], None]) -> str:
    """Run it to its end and give its last line; `hear` is told each one that it or the installer prints.

    Raises InstallationError when it fails, or has not ended in time. Whatever ends this ends virt-install, too, but
    not the domain that it started.
    """
    ear, terminal = pty.openpty()
    try:
        process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
            [*_ON_ITS_TERMINAL, *command],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, **_ENVIRONMENT},
        )
        os.close(terminal)
        try:
            return _listen(process, ear, command[0], within_seconds, hear)
        finally:
            _end(process)
    finally:
        os.close(ear)


def _listen(
    process: subprocess.Popen[bytes], ear: int, program: str, within_seconds: float, hear: Callable[[str], None]
) -> str:
    end = time.monotonic() + within_seconds
    last = error = ""
    for line in _lines(process, ear, end):
        if line.startswith("ERROR"):
            error = error or line.removeprefix("ERROR").strip()
        last = line
        hear(line)
    code = process.poll()
    if code is None:
        raise InstallationError(
            f"the installation had not ended after {within_seconds:.0f} s; the last that was said: "
            f"{last or 'nothing'}. Does it ask something, or wait for the network? Allow it more time with --within; "
            "where it never said a word, KVM may hang: try --accelerator tcg"
        )
    if code != 0:
        raise InstallationError(f"{program} failed: {error or last or f'it ended with {code} and said nothing'}")
    return last


def _lines(process: subprocess.Popen[bytes], ear: int, end: float) -> Iterator[str]:
    """Give each line as it comes, until the process has ended and all it said was read, or the time is over."""
    heard = b""
    while time.monotonic() < end:
        ready, _, _ = select.select([ear], [], [], _LOOK_SECONDS)
        if not ready:
            if process.poll() is not None:
                break
            continue
        try:
            said = os.read(ear, 65536)
        except OSError:  # nobody holds the other end any more
            process.wait(_END_SECONDS)
            break
        *whole, heard = re.split(rb"[\r\n]+", heard + said)
        heard = heard[-_LONGEST_LINE:]
        yield from filter(None, map(_readable, whole))
    yield from filter(None, [_readable(heard)])


def _readable(line: bytes) -> str:
    """Make text of what a guest wrote: nothing in it moves a cursor or changes a colour."""
    text = _ESCAPES.sub("", line.decode(errors="replace"))
    return "".join(character for character in text if character.isprintable()).strip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it and the console it may have open: both are of its session."""
    for number in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            continue


def _last_of(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
