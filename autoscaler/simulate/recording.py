"""A journal as a recording: decided again by the step that made it, and as a load for other policies."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoscaler.codec import canonical, parse
from autoscaler.core.action import Clone
from autoscaler.core.decision import Decision
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.memory import GroupMemory, LoadSample, Memory
from autoscaler.core.step import StepResult, step
from autoscaler.core.words import nearest
from autoscaler.simulate.load import Load
from autoscaler.store import Journal, ReplayTick

SATURATED = 0.95
"""From this average load on, what the group would have carried beyond it cannot be told."""

_SUMMED = ("avg", "sum")
"""Where `low` is the sum of what was measured."""


class RecordingError(AutoscalerError):
    """A journal does not hold what was asked for."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The first decision that came out otherwise."""

    tick: int
    at: float
    recorded: str
    decided: str

    def __str__(self) -> str:
        """Say where, and both."""
        return (
            f"the decisions differ at tick {self.tick} (at {self.at:.3f}): recorded {self.recorded}, "
            f"decided again {self.decided}"
        )


@dataclass(slots=True)
class GroupRecording:
    """What a journal tells of one group's load."""

    times: list[float] = field(default_factory=list)
    demand: list[float] = field(default_factory=list)
    """In busy instances, as far as it could be seen: full instances hide what lies beyond them."""
    saturated: int = 0
    unseen: int = 0
    """Ticks without any measured instance: the demand is drawn across them."""


@dataclass(slots=True)
class Recording:
    """A journal, decided again."""

    ticks: int = 0
    decisions: int = 0
    difference: Difference | None = None
    groups: dict[str, GroupRecording] = field(default_factory=dict)
    boot_delays: dict[str, list[float]] = field(default_factory=dict)
    """By group, seconds from asking for an instance until it was ready."""

    def load(self, group: str | None) -> Load:
        """Give a group's demand; without a name that of the only one. Raises RecordingError."""
        name = self.group_name(group)
        recorded = self.groups[name]
        if len(recorded.times) < 2:
            raise RecordingError(f"the journal holds no measured load of group {name}; let the daemon run for a while")
        return Load(tuple(recorded.times), tuple(recorded.demand))

    def group_name(self, group: str | None) -> str:
        """Tell the group: the one named, or the only one. Raises RecordingError."""
        if group is None and len(self.groups) == 1:
            return next(iter(self.groups))
        if group is None:
            raise RecordingError(f"choose one with --group; it has these: {', '.join(sorted(self.groups)) or 'none'}")
        if group not in self.groups:
            near = nearest(group, self.groups, "it has these")
            raise RecordingError(f"there is no group {group} in the journal; {near}")
        return group


@dataclass(slots=True)
class _Launches:
    asked_at: dict[str, tuple[str, float]] = field(default_factory=dict)

    def take_in(self, result: StepResult, at: float, delays: dict[str, list[float]]) -> None:
        for action in result.actions:
            if isinstance(action, Clone):
                self.asked_at[action.instance] = (action.group, at)
        for group in result.memory.groups.values():
            for instance, known in group.instances.items():
                if known.ready_at == at and instance in self.asked_at:
                    name, asked_at = self.asked_at.pop(instance)
                    delays.setdefault(name, []).append(at - asked_at)


def replay(
    state_dir: Path, *, since: float | None = None, progress: Callable[[int], None] = lambda _ticks: None
) -> Recording:
    """Decide every raw tick of a journal again, with the step of the daemon, and read the loads it saw.

    `since` drops loads before it (seconds since the epoch). Raises StoreError when the journal cannot be read, and
    RecordingError when it has no ticks.
    """
    journal = Journal.open_readonly(state_dir)
    recording, launches = Recording(), _Launches()
    try:
        for tick, result in _decide_again(journal.replay()):
            recording.ticks += 1
            recording.decisions += len(result.decisions)
            if recording.difference is None:
                recording.difference = _compare(tick, result)
            launches.take_in(result, tick.observation.at, recording.boot_delays)
            for policy in tick.policies:
                recording.groups.setdefault(policy.group, GroupRecording())
            if since is None or tick.observation.at >= since:
                _take_in_loads(recording, tick, result.memory.groups)
            progress(1)
    finally:
        journal.close()
    if not recording.ticks:
        raise RecordingError(
            f"{state_dir}: the journal holds no ticks that could be decided again; ticks are kept 24 h"
        )
    return recording


def _decide_again(ticks: Iterator[ReplayTick]) -> Iterator[tuple[ReplayTick, StepResult]]:
    """Begin at the first tick that has its memory."""
    memory: Memory | None = None
    for tick in ticks:
        memory = tick.memory_before or memory
        if memory is None:
            continue
        result = step(tick.policies, tick.observation, memory)
        memory = result.memory
        yield tick, result


def _compare(tick: ReplayTick, result: StepResult) -> Difference | None:
    if canonical(result.decisions, tuple[Decision, ...]) == tick.decisions_json:
        return None
    recorded = {decision.group: decision for decision in parse(tick.decisions_json, tuple[Decision, ...])}
    for decision in result.decisions:
        before = recorded.get(decision.group)
        if before != decision:
            return Difference(tick.id, tick.observation.at, _brief(decision.group, before), _brief("", decision))
    return Difference(tick.id, tick.observation.at, f"{len(recorded)} groups", f"{len(result.decisions)} groups")


def _brief(group: str, decision: Decision | None) -> str:
    if decision is None:
        return f"{group}: nothing".lstrip(": ")
    codes = ", ".join(reason.code for reason in decision.reasons) or "no limit"
    text = f"{decision.recommended} recommended, {decision.admitted} admitted ({codes})"
    return f"{group}: {text}" if group else text


def _take_in_loads(recording: Recording, tick: ReplayTick, groups: Mapping[str, GroupMemory]) -> None:
    at = tick.observation.at
    for policy in tick.policies:
        recorded = recording.groups[policy.group]
        memory = groups.get(policy.group, GroupMemory())
        newest = [
            (strategy.across, memory.samples[strategy.series][-1])
            for strategy in policy.signals
            if strategy.metric == "guest.cpu" and memory.samples.get(strategy.series)
        ]
        sample = next(((across, sample) for across, sample in newest if sample.at == at), None)
        demand = None if sample is None else _demand(*sample)
        if demand is None:
            recorded.unseen += 1
        elif not recorded.times or at > recorded.times[-1]:
            recorded.times.append(at)
            recorded.demand.append(demand)
            recorded.saturated += sample is not None and (sample[1].value or 0) >= SATURATED


def _demand(across: str, sample: LoadSample) -> float | None:
    """Take what was not measured to carry as much as what was; None where nothing was measured."""
    if not sample.measured or sample.value is None:
        return None
    members = sample.measured + sample.warming + sample.missing
    each = sample.low / sample.measured if across in _SUMMED else sample.value
    return each * members
