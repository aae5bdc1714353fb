"""How long one step takes, by the number of groups: `python benchmarks/decide.py --groups 20 200`.

Each group has ten instances and is scaled by target tracking, a threshold, steps, a query and a schedule; all of it is
decided by `core.step` alone, on one core, without reading hosts or writing a journal. The table gives the
median and the worst processor time of the ticks after every window is full, what a group costs, and what it costs to
make of a decided tick what is shown: status, totals, room.
"""

import argparse
import cProfile
import gc
import pstats
import statistics
import time
from dataclasses import replace

from autoscaler.core.memory import Memory
from autoscaler.core.observation import (
    Domain,
    DomainCounters,
    DomainState,
    ExternalSample,
    HostInventory,
    HostSample,
    Observation,
    Ownership,
    ScheduleState,
)
from autoscaler.core.policy import (
    Image,
    Policy,
    Schedule,
    Size,
    Step,
    StepScaling,
    TargetTracking,
    ThresholdScaling,
)
from autoscaler.core.snapshot import Totals
from autoscaler.core.status import Finished, accumulate, group_statuses, room_statuses
from autoscaler.core.step import step
from autoscaler.daemon import COLLECTOR_THRESHOLDS

CONTROLLER = "11111111-2222-3333-4444-555555555555"
INTERVAL_SECONDS = 10.0
WARM_TICKS = 40
SCHEDULE = Schedule("0 8 * * mon-fri", "UTC", 36000.0, min=2)


def policy(number: int) -> Policy:
    return Policy(
        f"group-{number}",
        Image("default", "golden.qcow2"),
        Size(1, 20),
        scaling=(
            TargetTracking("guest.cpu", 0.6),
            ThresholdScaling("guest.memory", above=0.9, below=0.7, over_seconds=120.0),
            StepScaling("guest.net.rx_bytes", (Step(1e8, None, change=1), Step(None, 1e6, change=-1)), across="p95"),
            TargetTracking("prometheus", 50.0, query=f"queue{{group='{number}'}}", per_instance=True),
            SCHEDULE,
        ),
    )


def observe(at: float, groups: int, instances: int) -> Observation:
    seconds = at - 1000.0
    domains, counters = [], {}
    for group in range(groups):
        for number in range(instances):
            name = f"group-{group}-{number}"
            owner = Ownership(CONTROLLER, f"group-{group}", name, "digest", 0.0)
            domains.append(Domain("local", name, name, DomainState.RUNNING, owner, answers=True))
            counters[name] = DomainCounters(
                name, seconds, 2, seconds * 1.1, 0.0, 2**30, 2**28, at, net_rx_bytes=int(seconds * 1e7)
            )
    return Observation(
        at,
        INTERVAL_SECONDS,
        hosts={"local": HostSample("local", 64, 0.5, 30.0, 2**38, 2**37)},
        inventory={"local": HostInventory("local", tuple(domains))},
        domains=counters,
        external={f"prometheus queue{{group='{group}'}}": ExternalSample(450.0, at) for group in range(groups)},
        schedules={SCHEDULE.key: ScheduleState(active=True)},
    )


def measure(groups: int, instances: int, ticks: int, *, profile: bool = False) -> list[tuple[float, float]]:
    """Give the seconds of processor time of each tick after the windows are full: to decide, and to show."""
    policies = tuple(policy(number) for number in range(groups))
    base = observe(1000.0, groups, instances)
    memory, totals, taken = Memory(CONTROLLER), Totals(), []
    profiler = cProfile.Profile()
    for tick in range(WARM_TICKS + ticks):
        at = 1000.0 + tick * INTERVAL_SECONDS
        observation = replace(observe(at, groups, instances), inventory=base.inventory)
        if profile and tick >= WARM_TICKS:
            profiler.enable()
        began = time.process_time()
        result = step(policies, observation, memory)
        decided = time.process_time()
        memory, finished = result.memory, Finished(policies, observation, result, ())
        totals = accumulate(totals, finished)
        group_statuses(finished)
        room_statuses(finished)
        taken.append((decided - began, time.process_time() - decided))
        profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    return taken[WARM_TICKS:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--groups", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--instances", type=int, default=10)
    parser.add_argument("--ticks", type=int, default=10)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    given = parser.parse_args()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    print(
        f"{'groups':>7} {'instances':>10} {'median ms':>10} {'worst ms':>9} {'ms a group':>11} {'shown ms a group':>17}"
    )
    for groups in given.groups:
        taken = measure(groups, given.instances, given.ticks, profile=given.profile)
        median, shown = (statistics.median(each) * 1000 for each in zip(*taken, strict=True))
        size, worst = groups * given.instances, max(taken)[0] * 1000
        print(f"{groups:>7} {size:>10} {median:>10.1f} {worst:>9.1f} {median / groups:>11.3f} {shown / groups:>17.3f}")


if __name__ == "__main__":
    main()
