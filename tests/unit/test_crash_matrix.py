"""Every step of every action: it fails, its outcome is unknown, the process dies before and after each commit and call.

After each the daemon starts anew on the same journal and host, and the group comes to what it should be.
"""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from autoscaler.core.action import Action
from autoscaler.executor import STEPS
from tests.conftest import MATRIX, WHOLE
from tests.support.crash import (
    ACTION_CASES,
    FAULTS,
    SCENARIOS,
    STEP_CASES,
    Case,
    DeathError,
    Machine,
    Process,
    Trap,
    all_cases,
    machine_before,
)
from tests.support.registry import all_functions, all_steps, mutating_port

CASES = all_cases()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_whatever_happens_the_group_comes_to_what_it_should_be(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    record_property(MATRIX, "simulated")
    machine, wanted = machine_before(case.action)
    trap = Trap(case)
    process = machine.start(trap)
    if case.how in FAULTS:
        process.run()
    else:
        with pytest.raises(DeathError):
            process.run()
        machine.clock.advance(5.0)
        machine.start().run()
    assert trap.struck, "the case never came"
    machine.check(wanted)


def test_no_step_and_no_case_is_left_out(record_property: Callable[[str, object], None]) -> None:
    steps = len(all_steps())
    sizes = f"{steps} steps x {len(STEP_CASES)} + {len(STEPS)} actions x {len(ACTION_CASES)}"
    record_property(WHOLE, f"simulated: {len(CASES)} = {sizes}")
    assert SCENARIOS.keys() == STEPS.keys(), "a new action needs a scenario that leads to it"
    assert len(set(CASES)) == len(CASES) == steps * len(STEP_CASES) + len(STEPS) * len(ACTION_CASES)


class Witness:
    """A host that looks, at each call that changes something, for a step of the registry among those who called."""

    def __init__(self, host: object) -> None:
        self._host = host
        self.seen: list[str] = []

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._host, name)
        if name not in mutating_port():
            return attribute

        def call(*arguments: Any) -> Any:
            assert _called_by_step(sys._getframe(1)), f"{name} is called outside of the registry's steps"
            self.seen.append(name)
            return attribute(*arguments)

        return call


def _called_by_step(frame: FrameType | None) -> bool:
    codes = {function.__code__ for function in all_functions()}
    while frame is not None and frame.f_code not in codes:
        frame = frame.f_back
    return frame is not None


def _witnessed(machine: Machine) -> Witness:
    witness = Witness(machine.host)
    Process(machine, machine.journal, witness).run()  # type: ignore[arg-type]
    return witness


@pytest.mark.parametrize("action", STEPS, ids=lambda action: action.__name__.lower())
def test_only_steps_change_a_host(action: type[Action]) -> None:
    machine, wanted = machine_before(action)
    assert _witnessed(machine).seen
    machine.check(wanted)


def test_the_witness_sees_who_is_no_step() -> None:
    with pytest.raises(AssertionError, match="outside of the registry"):
        Witness(Machine().host).destroy("web-1")
