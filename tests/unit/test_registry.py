"""What changes anything on a host stands in the executor's registry of steps, and nowhere else."""

import ast
from pathlib import Path

import autoscaler
from tests.support.libvirt_calls import changes, entries, functions, mutating_names, reached_from, sources
from tests.support.registry import EXCEPTIONS, HANDED_ON, PORT_CLASS, all_functions, mutating_port, port_calls

PACKAGE = Path(autoscaler.__file__).parent


def _outside(texts: dict[str, str]) -> dict[str, set[tuple[str, str]]]:
    """The mutating calls that can be made without a step: by what begins with them."""
    room = functions(texts)
    calls = {call for function in all_functions() for call in port_calls(function)} | HANDED_ON.keys()
    by_steps = {f"{PORT_CLASS}.{call}" for call in calls}
    found = {entry: changes(entry, room, EXCEPTIONS) for entry in entries(room) - by_steps - EXCEPTIONS.keys()}
    return {entry: calls for entry, calls in found.items() if calls}


def test_libvirt_is_changed_by_steps_only() -> None:
    room = functions(sources())
    calls = {(name, call) for name, function in room.items() for call in function.calls}
    print(f"{len(calls)} mutating calls: {sorted(calls)}")
    assert {"createXML", "defineXMLFlags", "create", "destroy", "undefineFlags", "delete"} <= {c for _, c in calls}
    assert _outside(sources()) == {}
    reached = {name for entry in entries(room) for name in reached_from(entry, room)}
    assert {name for name, _ in calls} <= reached, "a call that nothing leads to is a call that this test misses"


def test_every_exception_is_one() -> None:
    room = functions(sources())
    assert all(changes(name, room) for name in EXCEPTIONS)


def _with(module: str, text: str) -> dict[str, str]:
    texts = sources()
    return {**texts, module: f"{texts[module]}\n\n{text}"}


def test_a_call_outside_of_the_steps_is_found() -> None:
    method = "    def tidy(self):\n        self._write('x', lambda it: it.lookupByName('x').undefine())\n"
    assert _outside(_with("libvirt_hypervisor", method)) == {f"{PORT_CLASS}.tidy": {(f"{PORT_CLASS}.tidy", "undefine")}}
    function = "def tidy(connection):\n    for pool in connection.listAllStoragePools():\n        pool.refresh()\n"
    assert _outside(_with("networks", function)) == {"networks.tidy": {("networks.tidy", "refresh")}}
    in_a_reader = sources()["inventory"].replace("state = _STATES", "domain.resume()\n    state = _STATES")
    assert "resume" in {
        call for _, call in _outside({**sources(), "inventory": in_a_reader})[f"{PORT_CLASS}.inventory"]
    }


def test_what_changes_something_is_told_from_what_reads() -> None:
    mutating = mutating_names()
    assert {"create", "setMemory", "attachDevice", "managedSave", "migrate3", "upload", "refresh"} <= mutating
    assert not {"info", "XMLDesc", "lookupByName", "listAllDomains", "download", "isActive"} & mutating
    assert mutating_port() == {
        "create_overlay",
        "create_seed",
        "define",
        "start",
        "request_shutdown",
        "destroy",
        "undefine",
        "delete_volume",
        "run_in_guest",
    }


def test_only_the_executor_is_given_what_can_change_a_host() -> None:
    """Everybody else is handed a `Sight`, which can only look, and mypy holds them to it."""
    importers = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
            if names & {"Hypervisor", "LibvirtHypervisor", "SimulatedHost"}:
                importers.add(str(path.relative_to(PACKAGE)))
    # The daemon and the workshop make it and hand it on; the room shows it; hooks are handed it by their step.
    assert {each for each in importers if not each.startswith("simulate/")} == {
        "executor.py",
        "hooks.py",
        "daemon.py",
        "hypervisor/__init__.py",
        "workshop/canaries.py",
    }


def test_what_a_step_hands_on_is_called_from_there_only() -> None:
    for call, modules in HANDED_ON.items():
        found = {
            path.name
            for path in PACKAGE.rglob("*.py")
            if path.parent.name not in {"hypervisor", "simulate", "core"} and f".{call}(" in path.read_text()
        }
        assert found == modules
