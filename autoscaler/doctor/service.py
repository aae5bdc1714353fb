"""The daemon that runs, or does not: its control socket, its health, its watchdog, its user."""

import os
import socket
import stat
import struct
import time
from pathlib import Path

from autoscaler.codec import decode
from autoscaler.config import Config
from autoscaler.control.client import request
from autoscaler.control.server import SOCKET_MODE
from autoscaler.core.errors import ControlError, DaemonUnreachableError
from autoscaler.core.finding import Finding, error, ok, warning
from autoscaler.core.snapshot import Snapshot
from autoscaler.daemon import heartbeat_seconds
from autoscaler.doctor.files import user_name
from autoscaler.reasons import duration

_ANSWER_SECONDS = 5.0
_LATE_INTERVALS = 3
_PEER = struct.Struct("3i")


def check_daemon(config: Config) -> tuple[Finding, ...]:
    """Look at the daemon of this configuration; one that does not run is no error."""
    peer = _peer(config.control_socket)
    if peer is None:
        found = f"nothing answers at {config.control_socket}: the daemon does not run, or is another user's"
        return (warning("daemon", found, "Start it: systemctl start autoscaler. Or run this as root"),)
    pid, uid = peer
    return (
        check_socket(config.control_socket),
        _check_health(config),
        check_watchdog(_environment(pid), heartbeat_seconds(config)),
        _check_user(uid),
    )


def check_socket(path: Path) -> Finding:
    """Tell whether the control socket is for its owner and group only."""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if mode != SOCKET_MODE:
        return error(
            "socket",
            f"{path} has mode {mode:04o}, not {SOCKET_MODE:04o}: who may open it may do everything",
            f"chmod {SOCKET_MODE:04o} {path}, and find out what changed it",
        )
    return ok("socket", f"{path} is for {user_name(status.st_uid)} and its group only")


def check_watchdog(environment: dict[str, str] | None, needed_seconds: float) -> Finding:
    """Judge the watchdog by the daemon's environment (None: it may not be read) and the time it may need."""
    setting = f"WatchdogSec={needed_seconds:.0f}s"
    if environment is None:
        return warning("watchdog", "the daemon's environment may not be read", "Run this as root")
    if "NOTIFY_SOCKET" not in environment:
        return warning(
            "watchdog",
            "the daemon runs under no service manager: none ends it when it hangs",
            "Run it as a service: systemctl enable --now autoscaler",
        )
    if not environment.get("WATCHDOG_USEC"):
        found = "the service has no watchdog: nothing ends a daemon that hangs"
        return warning("watchdog", found, f"Set {setting} or more: systemctl edit autoscaler")
    period = int(environment["WATCHDOG_USEC"]) / 1e6
    if period < needed_seconds:
        return warning(
            "watchdog",
            f"a daemon whose hosts hang may need {duration(needed_seconds)} between heartbeats, the unit grants"
            f" {duration(period)}, and the daemon has to ask for more",
            f"Set {setting} or more: systemctl edit autoscaler",
        )
    return ok("watchdog", f"{duration(period)}; up to {duration(needed_seconds)} may pass between heartbeats")


def _check_health(config: Config) -> Finding:
    try:
        snapshot = decode(request(config.control_socket, "status", timeout_seconds=_ANSWER_SECONDS), Snapshot)
    except (ControlError, DaemonUnreachableError) as problem:
        return error("daemon", str(problem), "See its log: journalctl -u autoscaler")
    age = time.time() - (snapshot.last_success_at or snapshot.started_at)
    if age > _LATE_INTERVALS * snapshot.interval_seconds:
        found = f"no tick has finished for {duration(age)}; one is due every {duration(snapshot.interval_seconds)}"
        return error("daemon", found, "See its log: journalctl -u autoscaler")
    if snapshot.reload is not None and not snapshot.reload.ok:
        found = "policies were refused at the last reload, the earlier ones run on"
        return error("daemon", found, f"Mend them, then: autoscaler validate {config.policies_dir}; autoscaler reload")
    for host in snapshot.hosts:
        if not host.connected:
            return error(
                "daemon", f"does not reach host {host.host}: {host.why}", "See what is said of that host below"
            )
    return ok("daemon", f"{snapshot.version} runs, its last tick was {duration(max(age, 0.0))} ago")


def _check_user(uid: int) -> Finding:
    if uid == os.geteuid():
        return ok("user", f"what follows was tried as {user_name(uid)}, the daemon's user")
    return warning(
        "user",
        f"what follows was tried as {user_name(os.geteuid())}; the daemon runs as {user_name(uid)}, with other rights",
        f"See what it may do, too: sudo -u {user_name(uid)} autoscaler doctor",
    )


def _peer(path: Path) -> tuple[int, int] | None:
    """Give the process and user ids of whoever listens; None where nobody answers, or not to us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(str(path))
        except OSError:
            return None
        pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return pid, uid


def _environment(pid: int) -> dict[str, str] | None:
    """Read the two variables systemd sets, and keep nothing else: an environment may hold secrets."""
    try:
        text = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return None
    pairs = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
    return {name: pairs[name] for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC") if name in pairs}
