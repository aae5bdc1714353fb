"""systemd's notification protocol: a datagram to the socket it names in the environment, and nothing without one."""

import os
import socket
import time

import structlog

log = structlog.get_logger(__name__)


def notify(*assignments: str) -> None:
    """Send state assignments such as `READY=1`; without a service manager this does nothing.

    One that cannot be reached is logged: it is no reason to end, and one that watches will act by itself.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect(address)
            sender.sendall("\n".join(assignments).encode())
    except OSError as error:
        log.warning("the service manager cannot be told", what=assignments[0], error=str(error))


def notify_reloading() -> None:
    """Tell that a reload began; the next `READY=1` ends it."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def lengthen_watchdog(seconds: float) -> None:
    """Ask for a watchdog period of at least this, where the unit's is shorter; without a watchdog this does nothing."""
    given = os.environ.get("WATCHDOG_USEC")
    if given and int(given) < seconds * 1e6:
        notify(f"WATCHDOG_USEC={int(seconds * 1e6)}")
