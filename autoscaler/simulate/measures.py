"""How good a course was, in the figures of the SPEC research group's elasticity metrics and in those of an objective.

`d` is the fewest instances that keep the line, `s` what served, T the duration; every step counts alike.

The oracle knows the demand one boot delay ahead: at each step it has as many instances as the largest need from now
until an instance asked for now would be ready. Nobody who keeps the line can do with fewer: an instance that serves at
any time of that span must have been asked for by now, and exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from autoscaler.simulate.rehearsal import Course, Scenario

WITHIN = 0.01
"""The share of time above the line up to which the line is said to be kept."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Shares are fractions of one, `theta`, `tau` and `upsilon` percent as published."""

    above_line: float
    """Share of time with fewer instances than the line needs."""
    saturated: float
    """Share of time in which the instances had nothing left to give."""
    instance_hours: float
    """Of ready and booting instances."""
    cost: float
    """Instance hours, relative to the oracle's."""
    theta_under: float
    """θU: 100/T Σ max(d - s, 0)/d Δt."""
    theta_over: float
    """θO: 100/T Σ max(s - d, 0)/d Δt."""
    tau_under: float
    """τU: percent of time with s < d."""
    tau_over: float
    """τO: percent of time with s > d."""
    upsilon: float
    """Instability: 100/(T - t1) Σ min(|sgn Δs - sgn Δd|, 1) Δt."""
    changes: int
    """How often the count was changed."""

    def keeps(self, within: float = WITHIN) -> bool:
        """Whether the line was kept, but for a share `within` of the time."""
        return self.above_line <= within


def measure(scenario: Scenario, course: Course) -> Measures:
    """Judge a course."""
    needed, ready = scenario.needed, course.ready
    hours = sum(course.existing) * scenario.step_seconds / 3600
    oracle_hours = sum(scenario.oracle) * scenario.step_seconds / 3600
    steps = len(needed)
    under = sum(s < d for s, d in zip(ready, needed, strict=True))
    return Measures(
        above_line=under / steps,
        saturated=sum(busy > 0 and busy >= s for busy, s in zip(scenario.demand, ready, strict=True)) / steps,
        instance_hours=hours,
        cost=hours / oracle_hours if oracle_hours else (1.0 if not hours else float("inf")),
        theta_under=100 / steps * sum(max(d - s, 0) / max(d, 1) for s, d in zip(ready, needed, strict=True)),
        theta_over=100 / steps * sum(max(s - d, 0) / max(d, 1) for s, d in zip(ready, needed, strict=True)),
        tau_under=100 * under / steps,
        tau_over=100 / steps * sum(s > d for s, d in zip(ready, needed, strict=True)),
        upsilon=_instability(ready, needed),
        changes=len(course.changes),
    )


def _instability(ready: Sequence[int], needed: Sequence[int]) -> float:
    moves = [
        abs(_sign(s_after - s_before) - _sign(d_after - d_before))
        for (s_before, s_after), (d_before, d_after) in zip(pairwise(ready), pairwise(needed), strict=True)
    ]
    return 100 * sum(min(move, 1) for move in moves) / len(moves) if moves else 0.0


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)
