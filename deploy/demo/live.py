"""How the demo shows: a live view in a terminal, a plain log of what changes elsewhere."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from autoscaler.core.decision import Decision
from autoscaler.core.snapshot import GroupStatus, Snapshot
from autoscaler.core.transition import InstanceState
from autoscaler.reasons import clock, percent
from deploy.demo.story import explain, find_group, is_news

_COLOURS = {
    InstanceState.REQUESTED: "yellow",
    InstanceState.CLONING: "yellow",
    InstanceState.BOOTING: "cyan",
    InstanceState.RETURNING: "cyan",
    InstanceState.READY: "green",
    InstanceState.STOPPING: "magenta",
    InstanceState.FAILED: "red",
}
_BAR_CELLS = 40
_DECISIONS_SHOWN = 8
_WARNINGS_SHOWN = 3
_LOAD_EVERY_SECONDS = 10.0


class View(Protocol):
    """What shows the demo."""

    def say(self, text: str) -> None:
        """Tell what the demo itself does."""

    def warn(self, at: float, text: str) -> None:
        """Tell what the daemon found worth a warning."""

    def show(self, snapshot: Snapshot, burning: float) -> None:
        """Show the daemon's state, and the load that is being burnt, in vCPUs."""


@contextmanager
def view(console: Console, address: str) -> Iterator[View]:
    """Show the demo on the console until the end of the block."""
    if not console.is_terminal:
        yield Log(console)
        return
    screen = Screen(address)
    with Live(screen.render(), console=console, refresh_per_second=4) as live:
        screen.live = live
        yield screen


class Log:
    """One line for everything that changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, InstanceState] = {}
        self._decision: Decision | None = None
        self._load_at = 0.0

    def say(self, text: str) -> None:
        """Print one line with the time in front."""
        self._print(time.time(), text)

    def warn(self, at: float, text: str) -> None:
        """Print a warning of the daemon's."""
        self._print(at, f"daemon: {text}")

    def show(self, snapshot: Snapshot, burning: float) -> None:
        """Print what changed since the snapshot before."""
        group = find_group(snapshot)
        if group is None:
            return
        decision = group.decision
        if decision is not None and is_news(decision, self._decision):
            self._print(decision.at, f"decision: {explain(decision)}")
        self._decision = decision
        states = {instance.instance: instance.state for instance in group.instances}
        for name in sorted(states.keys() | self._states.keys()):
            if states.get(name) != self._states.get(name):
                self._print(snapshot.at, f"instance: {name} is {states[name].value if name in states else 'gone'}")
        self._states = states
        if snapshot.at >= self._load_at + _LOAD_EVERY_SECONDS:
            self._load_at = snapshot.at
            self._print(snapshot.at, _load_text(group, burning))

    def _print(self, at: float, text: str) -> None:
        self._console.print(f"{clock(at)}  {text}", soft_wrap=True, highlight=False, markup=False)


class Screen:
    """Load, instances and the last decisions, drawn anew as they change."""

    def __init__(self, address: str) -> None:
        self.live: Live | None = None
        self._address = address
        self._doing = "starting"
        self._snapshot: Snapshot | None = None
        self._burning = 0.0
        self._decisions: deque[Decision] = deque(maxlen=_DECISIONS_SHOWN)
        self._warnings: deque[str] = deque(maxlen=_WARNINGS_SHOWN)

    def say(self, text: str) -> None:
        """Show what the demo does."""
        self._doing = text
        self._draw()

    def warn(self, at: float, text: str) -> None:
        """Keep the daemon's warnings in sight."""
        self._warnings.append(f"{clock(at)}  {text}")
        self._draw()

    def show(self, snapshot: Snapshot, burning: float) -> None:
        """Draw the daemon's state."""
        self._snapshot, self._burning = snapshot, burning
        group = find_group(snapshot)
        if group is not None and group.decision is not None:
            self._take_in(group.decision)
        self._draw()

    def render(self) -> Group:
        """Build what is drawn."""
        parts: list[Text | Table] = [
            Text.assemble(("kvm-autoscaler demo", "bold"), f"   {self._doing}"),
            Text.assemble("metrics  ", (self._address, "underline")),
            *(Text(f"daemon   {warning}", style="yellow") for warning in self._warnings),
        ]
        group = None if self._snapshot is None else find_group(self._snapshot)
        if group is not None and self._snapshot is not None:
            parts += [_load_line(group, self._burning), _instances(group, self._snapshot.at), self._reasons()]
        return Group(*parts)

    def _take_in(self, decision: Decision) -> None:
        last = self._decisions[-1] if self._decisions else None
        if is_news(decision, last):
            self._decisions.append(decision)
        elif last is not None and last.admitted == last.current:
            self._decisions[-1] = decision  # the same again: only its figures are newer

    def _reasons(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), title="decisions", title_justify="left")
        table.add_column(style="dim", no_wrap=True, header="time")
        table.add_column(header="what and why", overflow="fold")
        for decision in self._decisions:
            style = "bold" if decision.admitted != decision.current else ""
            table.add_row(clock(decision.at), Text(explain(decision), style=style))
        return table

    def _draw(self) -> None:
        if self.live is not None:
            self.live.update(self.render())


def _load_text(group: GroupStatus, burning: float) -> str:
    seen = group.decision.inputs[0] if group.decision is not None and group.decision.inputs else None
    if seen is None or seen.value is None:
        return "load: not measured yet"
    return f"load: {percent(seen.value)}, target {percent(seen.target or 0.0)}; burnt in the guests: {burning:.2f} vCPU"


def _load_line(group: GroupStatus, burning: float) -> Text:
    """Draw the load as a bar with a mark at the target."""
    seen = group.decision.inputs[0] if group.decision is not None and group.decision.inputs else None
    line = Text()
    if seen is not None and seen.value is not None:
        filled = min(round(seen.value * _BAR_CELLS), _BAR_CELLS)
        target = round((seen.target or 0.0) * _BAR_CELLS)
        for cell in range(_BAR_CELLS):
            if cell == target:
                line.append("│", style="bold")
            line.append("█" if cell < filled else "·", style="red" if filled > target else "green")
        line.append("  ")
    return line.append(_load_text(group, burning))


def _instances(group: GroupStatus, at: float) -> Table:
    size = f"{group.size.min} to {group.size.max}" if group.size is not None else "unknown"
    table = Table(box=None, padding=(0, 2, 0, 0), title=f"instances ({size})", title_justify="left")
    table.add_column("name", min_width=12)
    table.add_column("state", min_width=10)
    table.add_column("for", justify="right", min_width=6)
    table.add_column("load", justify="right", min_width=6)
    table.add_column("")
    for instance in group.instances:
        table.add_row(
            instance.instance,
            Text(instance.state.value, style=_COLOURS[instance.state]),
            f"{max(at - instance.since, 0):.0f} s",
            "" if instance.load is None else percent(instance.load),
            instance.detail or "",
        )
    return table
