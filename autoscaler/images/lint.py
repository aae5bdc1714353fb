"""What has to be right with the file of a golden image before clones are made of it. Needs no daemon and no libvirt."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoscaler.core.finding import Finding, error, ok, warning
from autoscaler.images.header import Qcow2Header, read_header
from autoscaler.images.inside import look_inside

LARGEST_BYTES = 2 * 1024**4
"""The largest virtual disk that is taken for meant, unless another limit is given."""

_CONVERT = "Make it self-contained with: qemu-img convert -O qcow2 IMAGE NEW"
_CHECK_SECONDS = 300
# A file made to keep qemu-img busy, or to eat the memory, ends the check instead of the host.
_BOUNDS = ("prlimit", "--as=2147483648", f"--cpu={_CHECK_SECONDS}", "--")
_HAS_ERRORS, _HAS_LEAKS = 2, 3


@dataclass(frozen=True, slots=True)
class Room:
    """Where the clones of an image will stand, and what is free there."""

    where: str
    free_bytes: int


def lint_file(
    path: Path, *, largest_bytes: int = LARGEST_BYTES, shown: str | None = None, room: Room | None = None
) -> Iterator[Finding]:
    """Look at one image file: its format, what it refers to, its size and integrity, whether it is in use, its inside.

    `shown` is what people call it, the path if left out; `room` is where its clones will stand, else its own folder.
    Nothing that it refers to is opened, and nothing of it is changed. What builds on a finding that is an error is
    not looked at.
    """
    shown = shown or str(path)
    try:
        if not path.is_file():
            yield error("image.file", f"there is no file {shown}", "Name the file of a qcow2 image")
            return
        header = read_header(path)
    except OSError as problem:
        yield error("image.file", f"{shown} cannot be read: {problem.strerror}", "Mend its rights, or name another")
        return
    if header is None:
        yield error("image.format", f"{shown} is no qcow2 image", "Convert it with: qemu-img convert -O qcow2 FILE NEW")
        return
    yield ok("image.format", f"qcow2 version {header.version}")
    said = tuple(_of_header(header, largest_bytes))
    yield from said
    if any(finding.remedy is not None and finding.code in _UNSAFE for finding in said):
        return
    yield _room(room or Room("its folder", shutil.disk_usage(path.parent).free), header)
    integrity = _integrity(path)
    yield integrity
    if integrity.remedy is None:
        yield from look_inside(path)


def _room(room: Room, header: Qcow2Header) -> Finding:
    """Compare the image's disk with the room where its clones will stand: one may grow to that."""
    if header.virtual_bytes > room.free_bytes:
        return warning(
            "image.room",
            f"one clone may grow to {_size(header.virtual_bytes)}, and {room.where} has {_size(room.free_bytes)} left",
            "Keep it in a pool with more room, or make its disk smaller",
        )
    return ok(
        "image.room", f"{room.where} has {_size(room.free_bytes)} left, and one clone may grow to its disk's size"
    )


_UNSAFE = frozenset({"image.backing-file", "image.data-file", "image.virtual-size", "image.encrypted"})


def _of_header(header: Qcow2Header, largest_bytes: int) -> Iterator[Finding]:
    if header.backing_file is not None:
        yield error("image.backing-file", f"it is an overlay on another file: {header.backing_file!r}", _CONVERT)
    if header.external_data_file:
        yield error("image.data-file", "it keeps its data in another file of the host", _CONVERT)
    if not header.virtual_bytes or header.virtual_bytes > largest_bytes:
        yield error(
            "image.virtual-size",
            f"its disk has {_size(header.virtual_bytes)}, and at most {_size(largest_bytes)} are taken for meant",
            "Shrink it with: qemu-img resize --shrink IMAGE SIZE, or allow it with --largest",
        )
    else:
        yield ok("image.virtual-size", f"a disk of {_size(header.virtual_bytes)}")
    if header.encrypted:
        yield error("image.encrypted", "it is encrypted, and nobody would give the clones its key", _CONVERT)
    if header.internal_snapshots:
        yield warning(
            "image.snapshots",
            f"it carries {header.internal_snapshots} internal snapshots, which take room and serve no clone",
            "Delete them with: qemu-img snapshot -d NAME IMAGE",
        )


def _integrity(path: Path) -> Finding:
    """Let qemu-img check the file. Without --force-share it also notices that another process has it open to write."""
    if shutil.which("qemu-img") is None:
        return warning("image.integrity", "qemu-img is not installed: not checked", "Install qemu-utils")
    try:
        ended = subprocess.run(  # noqa: S603 - an argument list, no shell
            [*_BOUNDS, "qemu-img", "check", "-f", "qcow2", "--output=json", path.absolute()],
            capture_output=True,
            text=True,
            timeout=_CHECK_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return error(
            "image.integrity", f"the check took more than {_CHECK_SECONDS} s", "Check it by hand: qemu-img check"
        )
    if "lock" in ended.stderr:
        return error(
            "image.in-use",
            "another process has it open to write, so it changes under its clones",
            "Shut down the guest that uses it, or copy the image",
        )
    return _checked(ended.returncode, ended.stdout, ended.stderr)


def _checked(code: int, stdout: str, stderr: str) -> Finding:
    found: dict[str, Any] = json.loads(stdout) if stdout.strip().startswith("{") else {}
    corruptions = int(found.get("corruptions", 0)) + int(found.get("check-errors", 0))
    if code == 0 and not corruptions:
        return ok("image.integrity", "qemu-img finds nothing wrong with it")
    if code == _HAS_LEAKS:
        return warning(
            "image.integrity", f"{found.get('leaks')} clusters are lost", "Mend it with: qemu-img check -r leaks IMAGE"
        )
    what = (
        f"{corruptions} damaged places" if corruptions else (stderr.strip().splitlines() or ["cannot be checked"])[-1]
    )
    return error("image.integrity", f"qemu-img check: {what}", "Get a whole copy of it: it was cut off or damaged")


def _size(size_bytes: int) -> str:
    for unit, bytes_each in (("TiB", 1024**4), ("GiB", 1024**3)):
        if size_bytes >= bytes_each:
            return f"{size_bytes / bytes_each:.3g} {unit}"
    return f"{size_bytes / 1024**2:.3g} MiB"
