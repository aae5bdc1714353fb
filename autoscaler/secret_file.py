"""Secrets in files of their own: read when they are needed, and repeated nowhere."""

import os
from pathlib import Path

from autoscaler.core.errors import PolicyError, Problem

_SECRET_BYTES = 16 * 1024


def read_secret(path: Path) -> bytes:
    """Read a secret from a file of its own, without the line's end. Raises PolicyError naming the file.

    Policies and configuration only name the file, so that whoever may use the commands need not be able to read it.
    """
    try:
        with path.open("rb") as file:
            open_to_all = os.fstat(file.fileno()).st_mode & 0o007
            secret = file.read(_SECRET_BYTES + 1).strip()
    except OSError as error:
        message = f"the secret cannot be read: {error.strerror}; it belongs to the daemon's user, with mode 0400"
        raise PolicyError((Problem(str(path), 1, 1, message),)) from error
    wrong = None
    if open_to_all:
        wrong = f"every user of this machine may read the secret; change it, then: chmod 0400 {path}"
    elif not secret:
        wrong = "there is no secret in it; make one with: openssl rand -hex 32"
    elif len(secret) > _SECRET_BYTES:
        wrong = f"is longer than the {_SECRET_BYTES} bytes a secret may have; is it the right file?"
    if wrong is not None:
        raise PolicyError((Problem(str(path), 1, 1, wrong),))
    return secret
