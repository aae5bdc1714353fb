"""Runs drain hooks: a program on this machine, a POST, or a program in the guest, each until its deadline at most.

A hook may be run more than once for the same instance: after a crash of the daemon all of them are run again.
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import IO
from urllib.parse import urlsplit

from autoscaler.core.action import Drain
from autoscaler.core.errors import HypervisorError
from autoscaler.core.policy import Hook, HookKind
from autoscaler.core.ports import Hypervisor
from autoscaler.external.http import ExchangeError, exchange

Runner = Callable[[Hook, "Leaving"], str | None]
"""Runs one hook and gives what is wrong, None where it did what it should."""

_POLL_SECONDS = 0.1
_OUTPUT_BYTES = 4096
_READER_SECONDS = 1.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Leaving:
    """The instance that is to leave, as hooks are told of it; `pause` raises when the daemon ends."""

    drain: Drain
    hypervisor: Hypervisor
    pause: Callable[[float], None]

    def facts(self) -> dict[str, str]:
        """Name the instance, and the address to reach it by where one is known."""
        addresses = self.hypervisor.addresses(self.drain.instance)
        return {
            "group": self.drain.group,
            "instance": self.drain.instance,
            "host": self.drain.host,
            "address": addresses[0] if addresses else "",
        }


def run_hook(hook: Hook, leaving: Leaving) -> str | None:
    """Run one hook to its end or its deadline and give what is wrong; None where nothing is."""
    return _KINDS[hook.kind](hook, leaving)


def run_nothing(_hook: Hook, _leaving: Leaving) -> str | None:
    """Run no hook: for worlds whose instances are none that anybody else knows of."""
    return None


def name_of(hook: Hook) -> str:
    """Name a hook for people, without what may be secret in it."""
    what = urlsplit(hook.url).hostname if hook.kind is HookKind.WEBHOOK else hook.argv[0]
    return f"{hook.kind.value} {what}"


def _run_command(hook: Hook, leaving: Leaving) -> str | None:
    try:
        # A policy belongs to root and names the program; what a guest tells reaches it as data in its environment.
        process = subprocess.Popen(  # noqa: S603
            hook.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(leaving.facts()),
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return f"cannot be run: {error}"
    assert process.stdout is not None
    tail = _Tail(process.stdout)
    try:
        ended = _wait(process, hook.deadline_seconds, leaving.pause)
    finally:
        if process.poll() is None:
            _kill(process)
    if not ended:
        return _with_output(f"was killed after {hook.deadline_seconds:g} s", tail.text())
    return None if process.returncode == 0 else _with_output(f"ended with {process.returncode}", tail.text())


def _environment(facts: Mapping[str, str]) -> dict[str, str]:
    """Give a program the facts and nothing of the daemon's own environment."""
    return {"PATH": _PATH, **{f"AUTOSCALER_{name.upper()}": value for name, value in facts.items()}}


def _wait(process: "subprocess.Popen[bytes]", seconds: float, pause: Callable[[float], None]) -> bool:
    # Counted in pauses: a wall clock that is set would stretch or cut a deadline read off it.
    for _ in range(ceil(seconds / _POLL_SECONDS)):
        if process.poll() is not None:
            return True
        pause(_POLL_SECONDS)
    return process.poll() is not None


def _kill(process: "subprocess.Popen[bytes]") -> None:
    # With all it started: it leads a session of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass
class _Tail:
    """Reads a program's output as it comes, so that it never waits for a reader, and keeps the end of it."""

    file: IO[bytes]
    _kept: bytes = b""
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, name="hook output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        # What it left running may hold its output open for ever.
        self._thread.join(_READER_SECONDS)
        return self._kept.decode(errors="replace").strip()

    def _read(self) -> None:
        with self.file as file:
            while part := os.read(file.fileno(), _OUTPUT_BYTES):
                self._kept = (self._kept + part)[-_OUTPUT_BYTES:]


def _with_output(what: str, output: str) -> str:
    return f"{what}: {output}" if output else what


def _run_webhook(hook: Hook, leaving: Leaving) -> str | None:
    body = json.dumps({"event": "drain", **leaving.facts()}).encode()
    headers = {"Content-Type": "application/json"}
    try:
        status = exchange("POST", hook.url, seconds=hook.deadline_seconds, body=body, headers=headers)
    except ExchangeError as error:
        return str(error)
    return None if 200 <= status < 300 else f"HTTP status {status}"


def _run_in_guest(hook: Hook, leaving: Leaving) -> str | None:
    try:
        run = leaving.hypervisor.run_in_guest(leaving.drain.instance, hook.argv, hook.deadline_seconds)
    except HypervisorError as error:
        return str(error)
    if run.exit_code is None:
        return f"had not ended after {hook.deadline_seconds:g} s"
    return None if run.exit_code == 0 else _with_output(f"ended with {run.exit_code}", run.output.strip())


_KINDS: Mapping[HookKind, Runner] = {
    HookKind.COMMAND: _run_command,
    HookKind.WEBHOOK: _run_webhook,
    HookKind.AGENT: _run_in_guest,
}
