"""The demo's load: a share of one vCPU, divided among the guests that are ready and burnt inside them."""

import json
import threading
from collections.abc import Iterable

import libvirt
import libvirt_qemu

_AGENT_SECONDS = 5
_PERIOD_SECONDS = 1.0


class Load:
    """Keeps the ready guests burning their part of the load, in a thread with a connection of its own."""

    def __init__(self, uri: str) -> None:
        self._connection = libvirt.open(uri)
        self._condition = threading.Condition()
        self._total = 0.0
        self._ready: frozenset[str] = frozenset()
        self._ended = False
        self._burning: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._thread.start()

    def burn(self, total: float) -> None:
        """Burn this much of one vCPU in all, from now on."""
        with self._condition:
            self._total = total
            self._condition.notify()

    def share_among(self, ready: Iterable[str]) -> None:
        """Name the domains that carry the load, from now on."""
        with self._condition:
            self._ready = frozenset(ready)
            self._condition.notify()

    def close(self) -> None:
        """End the thread; the guests go on with what they do."""
        with self._condition:
            self._ended = True
            self._condition.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while True:
            with self._condition:
                if self._ended:
                    return
                total, ready = self._total, self._ready
            self._apply(share(total, len(ready)), ready)
            with self._condition:
                if (total, ready) == (self._total, self._ready) and not self._ended:
                    # The period is for guests that did not answer.
                    self._condition.wait(_PERIOD_SECONDS)

    def _apply(self, each: float, ready: frozenset[str]) -> None:
        self._burning = {name: burning for name, burning in self._burning.items() if name in ready}
        for name in sorted(ready):
            if self._burning.get(name) == each:
                continue
            try:
                set_burn(self._connection, name, each)
            except libvirt.libvirtError:
                # It is just going, or just busy. Tried again in the next round, while it is among the ready.
                self._burning.pop(name, None)
            else:
                self._burning[name] = each


def share(total: float, count: int) -> float:
    """Return what each of `count` guests burns: the total in equal parts, none more than it has."""
    return min(round(total / count, 3), 1.0) if count else 0.0


def set_burn(connection: libvirt.virConnect, domain: str, each: float) -> None:
    """Tell a guest which share of its vCPU to burn. Raises libvirtError when its agent does not take it."""
    command = {"path": "/bin/sh", "arg": ["-c", f"echo {each:.3f} > /run/burn"]}
    libvirt_qemu.qemuAgentCommand(
        connection.lookupByName(domain),
        json.dumps({"execute": "guest-exec", "arguments": command}),
        _AGENT_SECONDS,
        0,
    )
