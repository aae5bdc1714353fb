"""How long a rehearsal takes, on one core: 1 to 30 days at steps of 15 s.

usage: benchmarks/simulate.py
"""

import math
import random
import time

from autoscaler.core.policy import Image, Policy, Size, TargetTracking
from autoscaler.simulate.rehearsal import Scenario, rehearse_policy

STEP_SECONDS = 15.0
DAYS = (1, 3, 10, 30)


def demand(days: int) -> list[float]:
    """Give a daily cycle between 2 and 14 busy instances, with noise."""
    drawn = random.Random(1)  # noqa: S311 - noise that is the same every time
    ticks = round(days * 86400 / STEP_SECONDS)
    return [8 - 6 * math.cos(tick * STEP_SECONDS / 86400 * math.tau) + drawn.random() for tick in range(ticks)]


def main() -> None:
    policy = Policy("web", Image("default", "golden.qcow2"), Size(1, 40), scaling=(TargetTracking("guest.cpu", 0.6),))
    print("| days | decisions | CPU seconds | per decision |\n|---|---|---|---|")
    for days in DAYS:
        scenario = Scenario(demand(days), STEP_SECONDS, policy.size)
        began = time.process_time()
        rehearse_policy(scenario, policy)
        took = time.process_time() - began
        steps = len(scenario.demand)
        print(f"| {days} | {steps:,} | {took:.2f} | {took / steps * 1e6:.0f} µs |", flush=True)


if __name__ == "__main__":
    main()
