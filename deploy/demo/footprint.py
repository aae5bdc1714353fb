"""What a demo makes on this machine, written down before it is made, so that a later process can take it away.

The record lies in a folder of the user's own, outside the checkout: the next demo finds it whichever clone it runs in.
"""

import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path

from deploy.demo.firewall import NetworkState

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class DemoError(Exception):
    """The demo cannot go on; says why and what to do."""


@dataclass(frozen=True)
class Footprint:
    """Everything needed to take a demo away again."""

    uri: str
    boot_id: str
    pool: str
    pool_path: str
    network: str | None
    """None for user-mode networking, which leaves nothing."""
    before: NetworkState
    """Firewall and sysctls as they were."""
    made: list[str] = field(default_factory=list)
    """Which of `pool` and `network` the demo began to make: what it found there is not its own."""
    kept: bool = False
    """Left running on purpose."""

    @property
    def of_this_boot(self) -> bool:
        """Whether firewall and sysctls can still be what the demo made of them."""
        return self.boot_id == boot_id()


def boot_id() -> str:
    """Name the running boot of this machine."""
    return BOOT_ID.read_text().strip()


def folder() -> Path:
    """Return where the demo of this user keeps its record, configuration and state; it need not exist."""
    if os.geteuid() == 0:
        return Path("/var/lib/autoscaler-demo")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "autoscaler-demo"


def load() -> Footprint | None:
    """Read the record of a demo that was not taken away; None where there is none."""
    try:
        data = json.loads(_record().read_text())
    except FileNotFoundError:
        return None
    return Footprint(**{**data, "before": NetworkState(**data["before"])})


def save(footprint: Footprint) -> None:
    """Write the record, whole or not at all."""
    folder().mkdir(mode=0o755, parents=True, exist_ok=True)
    half = _record().with_suffix(".new")
    with half.open("w") as file:
        json.dump(asdict(footprint), file)
        file.flush()
        os.fsync(file.fileno())
    half.replace(_record())


def remove() -> None:
    """Remove the folder with the record and everything in it."""
    if folder().exists():
        shutil.rmtree(folder())


def lock() -> socket.socket:
    """Keep other demos of this user out until the returned socket is closed. Raises `DemoError` when one runs."""
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # In the abstract name space: nothing lies around, and it is free again whatever ends this process.
        held.bind(f"\0autoscaler-demo-{os.geteuid()}")
    except OSError as error:
        held.close()
        raise DemoError("a demo is running already: wait for its end, or stop it with Ctrl-C where it runs") from error
    return held


def _record() -> Path:
    return folder() / "footprint.json"
