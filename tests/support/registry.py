"""What the steps in the executor's registry do, read off their source, so that new steps are covered by themselves."""

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache

from autoscaler import executor
from autoscaler.core.action import Action
from autoscaler.core.ports import Hypervisor
from autoscaler.executor import STEPS, Step, Work
from tests.support.libvirt_calls import changes, functions, sources

PORT_CLASS = "libvirt_hypervisor.LibvirtHypervisor"
EXCEPTIONS = {
    "accelerator.AcceleratorChoice.boots": "the guest that is booted to try KVM, under a name and UUID of its own",
    "build_site.BuildSite.clear": "what virt-install made for a build, by a UUID and a ledger of the build's own",
    "image_store.ImageStore.upload": "the volume of an image that a command imports, in the daemon's ledger before",
    "image_store.ImageStore.delete": "the same volume when the import fails, or when the command prunes the image",
    "agent.ping": "guest-ping asks whether the agent answers and changes nothing",
    "addresses._told_by_agent": "guest-network-get-interfaces asks for addresses and changes nothing",
}
"""What makes mutating calls and is no step, each with the reason."""

HANDED_ON = {"run_in_guest": {"hooks.py", "canaries.py"}}
"""Methods that a step calls through another module, which it hands the host to: the drain's hooks. Canaries, which are
made and removed by steps and are nobody's instances, are asked by it what they are."""

PORT = frozenset(name for name in dir(Hypervisor) if not name.startswith("_"))


def all_steps() -> list[tuple[type[Action], Step]]:
    """Every step of every action, in the registry's order."""
    return [(action, step) for action, steps in STEPS.items() for step in steps]


def functions_of(step: Step) -> tuple[Callable[[Work], None], ...]:
    """What a step runs: doing and undoing."""
    return (step.do,) if step.undo is None else (step.do, step.undo)


@cache
def port_calls(function: Callable[..., object]) -> tuple[str, ...]:
    """The hypervisor's methods a function of the executor calls, also through other functions there, in order."""
    found: list[str] = []
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Attribute) and node.attr in PORT and _ends_in_hypervisor(node.value):
            found.append(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            other = getattr(executor, node.func.id, None)
            if inspect.isfunction(other) and other.__module__ == executor.__name__ and other is not function:
                found += port_calls(other)
    return tuple(found)


def the_call(step: Step) -> str | None:
    """The call a step is about: the one that changes something, else the last that looks; None where it calls none."""
    calls = port_calls(step.do)
    acting = [call for call in calls if call in mutating_port()]
    found = acting or calls
    return found[-1] if found else None


@cache
def mutating_port() -> frozenset[str]:
    """The methods of the port that change something: those through which libvirt's mutating calls are made."""
    room = functions(sources())
    return frozenset(name for name in PORT if changes(f"{PORT_CLASS}.{name}", room, EXCEPTIONS))


def _ends_in_hypervisor(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "hypervisor") or (
        isinstance(node, ast.Name) and node.id == "hypervisor"
    )


def all_functions() -> Iterator[Callable[[Work], None]]:
    """Everything the registry runs."""
    for _, step in all_steps():
        yield from functions_of(step)
