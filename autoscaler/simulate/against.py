"""Sets published algorithms beside a policy: at their defaults, and at the target that serves them best."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.policy import Policy, TargetTracking
from autoscaler.simulate.baselines import ALGORITHMS, oracle, static, static_counts
from autoscaler.simulate.measures import WITHIN, Measures, measure
from autoscaler.simulate.rehearsal import Course, Progress, Scenario, rehearse, rehearse_policy

TARGETS = tuple(percent / 100 for percent in range(20, 71, 5))
"""The targets that are tried, as fractions of one instance's capacity."""


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


Run = Callable[[float], Course]


def contest(scenario: Scenario, name: str, within: float = WITHIN, progress: Progress = lambda _steps: None) -> Row:
    """Try one published algorithm at its default and at all targets; `name` is one of `baselines.NAMES`."""
    if name == "oracle":
        entry = Entry(name, "-", measure(scenario, rehearse(scenario, oracle(scenario), progress)))
        return Row(name, entry, entry, (entry,))
    if name == "static":
        counts = static_counts(scenario, within)
        entries = [
            Entry(name, f"{count}", measure(scenario, rehearse(scenario, static(count), progress))) for count in counts
        ]
        return _row(name, entries[0], entries, within)
    algorithm = ALGORITHMS[name]
    entries = []
    for target in sorted({*TARGETS, algorithm.default_target}):
        course = rehearse(scenario, algorithm.make(target, scenario.size), progress)
        entries.append(Entry(name, f"{target:.0%}", measure(scenario, course)))
    default = next(entry for entry in entries if entry.setting == f"{algorithm.default_target:.0%}")
    # A target outside the range that is tried counts as a default only.
    return _row(name, default, [e for e in entries if e.setting in {f"{target:.0%}" for target in TARGETS}], within)


def contest_policy(
    scenario: Scenario, policy: Policy, within: float = WITHIN, progress: Progress = lambda _steps: None
) -> Row:
    """Try a policy as it is, and its target tracking from the highest target down to the first that keeps the line.

    A lower target costs more, so that one is its best.
    """
    name = policy.group
    default = Entry(name, "as is", measure(scenario, rehearse_policy(scenario, policy, progress)))
    entries = [default]
    for target, tuned in retargeted(policy, sorted(TARGETS, reverse=True)):
        course = rehearse_policy(scenario, tuned, progress)
        entries.append(Entry(name, f"{target:.0%}", measure(scenario, course)))
        if entries[-1].measures.keeps(within):
            break
    return _row(name, default, entries, within)


def retargeted(policy: Policy, targets: Sequence[float] = TARGETS) -> Iterator[tuple[float, Policy]]:
    """Yield the policy with every target tracking at each target; nothing where it has none."""
    if not any(isinstance(strategy, TargetTracking) for strategy in policy.scaling):
        return
    for target in targets:
        scaling = tuple(
            replace(strategy, target=target) if isinstance(strategy, TargetTracking) else strategy
            for strategy in policy.scaling
        )
        yield target, replace(policy, scaling=scaling)


def _row(name: str, default: Entry, entries: Sequence[Entry], within: float) -> Row:
    return Row(name, default, best_of(entries, within), tuple(entries))


def best_of(entries: Sequence[Entry], within: float = WITHIN) -> Entry:
    """Give the cheapest that keeps the line, or what is least above it where none does."""
    keeping = [entry for entry in entries if entry.measures.keeps(within)]
    if keeping:
        return min(keeping, key=lambda entry: (entry.measures.cost, entry.measures.above_line))
    return min(entries, key=lambda entry: (entry.measures.above_line, entry.measures.cost))
