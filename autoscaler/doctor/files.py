"""Who may read and change what the daemon lives by."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from autoscaler.config import Config
from autoscaler.core.errors import StoreError
from autoscaler.core.finding import Finding, error, ok, warning
from autoscaler.store import Journal


def user_name(uid: int) -> str:
    """Give a user's name, or its number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def check_config_file(path: Path, config: Config) -> Finding:
    """Tell whether only those who should can change the configuration, which was read already."""
    return _guarded("config", path, config) or ok("config", f"{path} is good")


def check_policy_files(config: Config, groups: int) -> Finding:
    """Tell whether only those who should can change the policies, which were read already."""
    folder = config.policies_dir
    for path in (folder, *sorted(folder.iterdir())):
        found = _guarded("policies", path, config)
        if found is not None:
            return found
    if not groups:
        return warning("policies", f"{folder} holds no policy", "Put a policy file there, then: autoscaler reload")
    return ok("policies", f"{groups} good in {folder}")


def check_state(config: Config) -> Finding:
    """Tell whether the state directory is the daemon's own and its journal can be read."""
    folder = config.state_dir
    try:
        status = folder.stat()
    except FileNotFoundError:
        return warning("state", f"{folder} is not there yet", "Start the daemon; it makes it, or says why it cannot")
    except OSError as problem:
        return error("state", f"{folder} cannot be looked at: {problem.strerror}", "Run this as root")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        return error("state", f"{folder} can be written by others (mode {mode:04o})", f"chmod 0700 {folder}")
    if mode & 0o055:
        return warning("state", f"{folder} can be read by others (mode {mode:04o})", f"chmod 0700 {folder}")
    return _check_journal(folder)


def _check_journal(folder: Path) -> Finding:
    try:
        if not any(folder.iterdir()):
            return ok("state", f"{folder} is empty: no daemon has run yet")
        Journal.open_readonly(folder).close()
    except PermissionError:
        owner = user_name(folder.stat().st_uid)
        return warning("state", f"{folder} is {owner}'s and was not looked into", "Run this as root")
    except StoreError as problem:
        found, _, remedy = str(problem).partition(". ")
        return error("state", found, remedy or f"See what is wrong in {folder}")
    return ok("state", f"{folder} is the daemon's own, its journal is good")


def _guarded(code: str, path: Path, config: Config) -> Finding | None:
    """Complain of a path that somebody could change whom nobody trusts with the daemon."""
    for each in (path, path.absolute().parent):
        status = each.stat()
        mode = stat.S_IMODE(status.st_mode)
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return error(code, f"{each} can be changed by anyone (mode {mode:04o})", f"chmod o-w {each}")
    owner = path.stat().st_uid
    if owner not in set(_trusted(config)):
        return error(
            code,
            f"{path} belongs to {user_name(owner)}, who can so decide what the daemon does",
            f"chown root {path}",
        )
    return None


def _trusted(config: Config) -> Iterator[int]:
    yield 0
    yield os.geteuid()
    if config.state_dir.exists():
        yield config.state_dir.stat().st_uid
