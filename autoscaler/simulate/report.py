"""What a rehearsal gives to machines: the arrays, and the figures."""

from dataclasses import asdict, dataclass
from typing import Any

from autoscaler.core.policy import Policy
from autoscaler.simulate.against import Row
from autoscaler.simulate.measures import Measures, measure
from autoscaler.simulate.rehearsal import Course, Progress, Scenario, rehearse_policy


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """One policy in one scenario."""

    policy: Policy
    scenario: Scenario
    course: Course
    measures: Measures

    @classmethod
    def of(cls, scenario: Scenario, policy: Policy, progress: Progress = lambda _steps: None) -> "Rehearsal":
        """Run it."""
        course = rehearse_policy(scenario, policy, progress)
        return cls(policy, scenario, course, measure(scenario, course))

    def data(self) -> dict[str, Any]:
        """Give plain JSON data; `t` in seconds, `demand` in busy instances."""
        scenario = self.scenario
        return {
            "group": self.policy.group,
            "step_seconds": scenario.step_seconds,
            "line": scenario.line,
            "t": [scenario.start + step * scenario.step_seconds for step in range(len(scenario.demand))],
            "demand": list(scenario.demand),
            "ready": self.course.ready,
            "desired": self.course.desired,
            "oracle": scenario.oracle,
            "failed_launches": self.course.failed_launches,
            "metrics": asdict(self.measures),
        }


def row_data(row: Row) -> dict[str, Any]:
    """Give plain JSON data of one contestant."""
    return {
        "name": row.name,
        "default": asdict(row.default),
        "best": asdict(row.best),
        "entries": [asdict(entry) for entry in row.entries],
    }
