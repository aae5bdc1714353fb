"""Files that say whom to serve: a template's for any program that reads one, and Prometheus' file of targets.

A file is written whole beside its place and moved there, so that no reader ever sees half of one, and only when it says
something new.
"""

import json
import os
import re
import string
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.policy import Traffic
from autoscaler.core.traffic import Service, Wanted, targets
from autoscaler.external.haproxy import BalancerError

RELOAD_SECONDS = 30.0
FULL_WEIGHT = 100


class Placeholders(string.Template):
    """`@{address}` is replaced; everything else, also nginx's own `$host`, stays as it is."""

    delimiter = "@"
    idpattern = "(?!)"
    braceidpattern = "[a-z]+"
    flags = re.RegexFlag(0)


def acknowledged(wanted: Wanted | None, wanted_at: float | None, at: float) -> TrafficView:
    """Give the view of a balancer that never answers back: it has what it was told, and says nothing of sessions."""
    services = wanted.services if wanted is not None else ()
    slots = tuple(Slot(service.instance, service.address, service.port, service.state) for service in services)
    return TrafficView(at, wanted_at, slots)


def in_service(wanted: Wanted) -> tuple[Service, ...]:
    """Name those to whom something is to be sent, in a lasting order."""
    ready = (service for service in wanted.services if service.state is SlotState.READY)
    return tuple(sorted(ready, key=lambda service: service.instance))


def render(template: str, group: str, services: Sequence[Service]) -> str:
    """Fill a template in: a line that names something of an instance comes once for each of them."""
    text = Placeholders(template).safe_substitute(group=group, count=len(services))
    lines = []
    for line in text.splitlines(keepends=True):
        repeated = _OF_AN_INSTANCE & set(Placeholders(line).get_identifiers())
        lines += [_fill(line, service) for service in services] if repeated else [line]
    return "".join(lines)


_OF_AN_INSTANCE = frozenset({"address", "port", "instance", "host", "weight"})


def _fill(line: str, service: Service) -> str:
    address = f"[{service.address}]" if ":" in service.address else service.address
    weight = max(1, round(FULL_WEIGHT * service.weight_share))
    return Placeholders(line).safe_substitute(
        address=address, port=service.port, instance=service.instance, host=service.host, weight=weight
    )


class TemplatedFile:
    """A file made from a template, and a command run, without a shell, when it changed."""

    def __init__(self, traffic: Traffic, now: Callable[[], float]) -> None:
        self._traffic = traffic
        self._now = now
        self._put: Wanted | None = None
        # What an earlier process wrote it may not have lived to make known.
        self._read = False

    def view(self, wanted_at: float | None) -> TrafficView:
        """Give what was written last."""
        return acknowledged(self._put, wanted_at, self._now())

    def put(self, wanted: Wanted) -> None:
        """Write the file if it differs, and let it be read until that succeeded."""
        try:
            template = Path(self._traffic.template).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise BalancerError(f"template {self._traffic.template} cannot be read: {error}") from error
        text = render(template, wanted.group, in_service(wanted))
        self._read &= not write_if_new(Path(self._traffic.path), text)
        if not self._read:
            _reload(self._traffic.reload)
            self._read = True
        self._put = wanted


class PrometheusTargets:
    """Prometheus' file_sd: it looks for changes by itself."""

    def __init__(self, traffic: Traffic, now: Callable[[], float]) -> None:
        self._traffic = traffic
        self._now = now
        self._put: Wanted | None = None

    def view(self, wanted_at: float | None) -> TrafficView:
        """Give what was written last."""
        return acknowledged(self._put, wanted_at, self._now())

    def put(self, wanted: Wanted) -> None:
        """Write the file if it differs."""
        text = json.dumps(targets(wanted.group, in_service(wanted)), indent=2) + "\n"
        write_if_new(Path(self._traffic.path), text)
        self._put = wanted


def write_if_new(path: Path, text: str) -> bool:
    """Put a file in place whole; tells whether it said something else before. Raises BalancerError."""
    try:
        if path.exists() and path.read_bytes() == text.encode():
            return False
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # Others read it; what an operator set before is kept.
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise BalancerError(f"file {path} cannot be written: {error.strerror or error}") from error
    return True


def _reload(argv: Sequence[str]) -> None:
    if not argv:
        return
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, without a shell
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=RELOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BalancerError(f"`{' '.join(argv)}` did not end within {RELOAD_SECONDS:g} s") from error
    except (OSError, ValueError) as error:
        raise BalancerError(f"`{' '.join(argv)}` cannot be run: {error}") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).decode(errors="replace").split())[-300:]
        raise BalancerError(f"`{' '.join(argv)}` ended with {done.returncode}: {said or 'it said nothing'}")
