"""Sets published algorithms beside a policy: at their defaults, and at the target that serves them best."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.policy import Policy, TargetTracking
from autoscaler.simulate.baselines import ALGORITHMS, oracle, static, static_counts
from autoscaler.simulate.measures import WITHIN, Measures, measure
from autoscaler.simulate.rehearsal import Progress, Scenario, rehearse, rehearse_policy

TARGETS = range(20, 71, 5)
"""The targets that are tried first, in percent of one instance's capacity; then points above the best."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One contestant at one setting."""

    name: str
    setting: str
    measures: Measures


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant: as it comes, and at its best, which is the cheapest setting that keeps the line.

    Where none keeps it, the best is the one that is least above it.
    """

    name: str
    default: Entry
    best: Entry
    entries: tuple[Entry, ...]


def contest(scenario: Scenario, name: str, within: float = WITHIN, progress: Progress = lambda _steps: None) -> Row:
    """Try one published algorithm at its default and at the highest target that keeps the line.

    `name` is one of `baselines.NAMES`. A lower target costs more, so the range of targets is halved again and again.
    """
    if name == "oracle":
        entry = Entry(name, "-", measure(scenario, rehearse(scenario, oracle(scenario), progress)))
        return Row(name, entry, entry, (entry,))
    if name == "static":
        counts = static_counts(scenario, within)
        entries = [
            Entry(name, f"{count}", measure(scenario, rehearse(scenario, static(count), progress))) for count in counts
        ]
        return Row(name, entries[0], best_of(entries, within), tuple(entries))
    algorithm = ALGORITHMS[name]

    def attempt(percent: int) -> Entry:
        course = rehearse(scenario, algorithm.make(percent / 100, scenario.size), progress)
        return Entry(name, f"{percent}%", measure(scenario, course))

    entries = refined(halved(attempt, within), attempt, within)
    default = attempt(round(algorithm.default_target * 100))
    return Row(name, default, best_of(entries, within), tuple(entries))


def contest_policy(
    scenario: Scenario, policy: Policy, within: float = WITHIN, progress: Progress = lambda _steps: None
) -> Row:
    """Try a policy as it is, and its target tracking at the highest target that keeps the line, as `contest` does."""
    name = policy.group

    def attempt(percent: int) -> Entry:
        course = rehearse_policy(scenario, retargeted(policy, percent / 100), progress)
        return Entry(name, f"{percent}%", measure(scenario, course))

    default = Entry(name, "as is", measure(scenario, rehearse_policy(scenario, policy, progress)))
    entries = [default]
    if any(isinstance(strategy, TargetTracking) for strategy in policy.scaling):
        entries += refined(halved(attempt, within), attempt, within)
    return Row(name, default, best_of(entries, within), tuple(entries))


def retargeted(policy: Policy, target: float) -> Policy:
    """Give the policy with every target tracking at this target, a fraction of one instance's capacity."""
    scaling = tuple(
        replace(strategy, target=target) if isinstance(strategy, TargetTracking) else strategy
        for strategy in policy.scaling
    )
    return replace(policy, scaling=scaling)


def halved(attempt: Callable[[int], Entry], within: float) -> list[Entry]:
    """Find the highest of the targets that keeps the line, if it is kept below it and not above."""
    entries: list[Entry] = []
    low, high = 0, len(TARGETS)
    while low < high:
        middle = (low + high) // 2
        entries.append(attempt(TARGETS[middle]))
        low, high = (middle + 1, high) if entries[-1].measures.keeps(within) else (low, middle)
    return entries


def refined(entries: list[Entry], attempt: Callable[[int], Entry], within: float) -> list[Entry]:
    """Go on from the best entry in single points, up to the next of the targets, while the line is kept."""
    best = best_of(entries, within)
    if not best.measures.keeps(within):
        return entries
    percent = int(best.setting.removesuffix("%"))
    finer: list[Entry] = []
    for higher in range(percent + 1, min(percent + TARGETS.step, TARGETS.stop)):
        finer.append(attempt(higher))
        if not finer[-1].measures.keeps(within):
            break
    return entries + finer


def best_of(entries: Sequence[Entry], within: float = WITHIN) -> Entry:
    """Give the cheapest that keeps the line, or what is least above it where none does."""
    keeping = [entry for entry in entries if entry.measures.keeps(within)]
    if keeping:
        return min(keeping, key=lambda entry: (entry.measures.cost, entry.measures.above_line))
    return min(entries, key=lambda entry: (entry.measures.above_line, entry.measures.cost))
