"""The daemon, but that it kills itself at one step of one action: `KILL_AT="clone overlay before"`, or `after`.

`before`: the step is in the journal and its call to the hypervisor has not been made. `after`: the call has been made,
and nothing of it has been written down. Nothing of this is in what is shipped: it runs the shipped daemon and wraps
the journal's and the hypervisor's methods from outside.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from autoscaler.cli import main
from autoscaler.core.action import Action, Intent
from autoscaler.executor import STEPS
from autoscaler.hypervisor import LibvirtHypervisor
from autoscaler.store import Journal, TickRecord
from tests.support.registry import the_call

VARIABLE = "KILL_AT"
_here = threading.local()
"""Whether this thread is in the step."""


def _arm(kind: str, name: str, when: str) -> None:
    ((action, step),) = (
        (action, step)
        for action, steps in STEPS.items()
        for step in steps
        if (action.__name__.lower(), step.name) == (kind, name)
    )
    call = the_call(step)
    _watch_steps(action, name)
    if call is None:
        _wrap(Journal, "end_step", "before")
    else:
        _wrap(LibvirtHypervisor, call, when)


def _watch_steps(action: type, name: str) -> None:
    begin, end, intents = Journal.begin_step, Journal.end_step, set[int]()

    commit = Journal.commit_tick

    def commit_tick(self: Journal, record: TickRecord, actions: Sequence[Action]) -> tuple[Intent, ...]:
        committed = commit(self, record, actions)
        intents.update(intent.id for intent in committed if isinstance(intent.action, action))
        return committed

    def begin_step(self: Journal, intent_id: int, step: str, at: float) -> None:
        begin(self, intent_id, step, at)
        _here.armed = intent_id in intents and step == name

    def end_step(self: Journal, intent_id: int, step: str, at: float) -> None:
        _here.armed = False
        end(self, intent_id, step, at)

    Journal.commit_tick, Journal.begin_step, Journal.end_step = commit_tick, begin_step, end_step  # type: ignore[method-assign]


def _wrap(owner: type, method: str, when: str) -> None:
    original: Callable[..., Any] = getattr(owner, method)

    def call(self: object, *arguments: Any) -> Any:
        doing = partial(original, self, *arguments)
        if not getattr(_here, "armed", False):
            return doing()
        if when == "after":
            doing()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("a process that was killed goes on")

    setattr(owner, method, call)


if __name__ == "__main__":
    _arm(*os.environ[VARIABLE].split())
    sys.exit(main())
