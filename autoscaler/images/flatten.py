"""Makes a self-contained copy of an image, and tells its content by a digest."""

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from autoscaler.core.errors import ImageError

Tell = Callable[[float], None]
"""Is told how far it is, a fraction of one."""

_PERCENT = re.compile(rb"\(([0-9.]+)/100%\)")
_CHUNK_BYTES = 4 * 1024**2


def flatten(source: Path, target: Path, tell: Tell) -> None:
    """Write the qcow2 `source` into `target` as a qcow2 that refers to nothing; equal images give equal files.

    A backing file that the header has come to name since it was looked at is not opened. Raises ImageError.
    """
    read = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(source)}}
    # One request at a time: several at once may come to lie in another order.
    command = ["qemu-img", "convert", "-p", "-m", "1", "-O", "qcow2", f"json:{json.dumps(read)}", str(target)]
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(  # noqa: S603 - an argument list, no shell
                command, stdout=subprocess.PIPE, stderr=complaints, env={**os.environ, "LC_ALL": "C"}
            )
        except FileNotFoundError as error:
            raise ImageError("qemu-img is not installed: install qemu-utils") from error
        try:
            _follow(process, tell)
            code = process.wait()
        finally:
            # Whatever ends this, nobody goes on writing.
            process.kill()
            process.wait()
        if code != 0:
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().splitlines()
            raise ImageError(f"the image could not be flattened: {said[-1] if said else f'qemu-img ended with {code}'}")


def _follow(process: "subprocess.Popen[bytes]", tell: Tell) -> None:
    assert process.stdout is not None
    with process.stdout as output:
        while part := os.read(output.fileno(), 4096):
            found = _PERCENT.findall(part)
            if found:
                tell(float(found[-1]) / 100)


def content_digest(path: Path, tell: Tell = lambda _share: None) -> str:
    """Give the SHA-256 of a file's content, in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        done = 0
        while part := file.read(_CHUNK_BYTES):
            digest.update(part)
            done += len(part)
            tell(done / size if size else 1.0)
    return digest.hexdigest()
