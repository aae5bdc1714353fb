"""What a scrape costs, by the number of instances: `python benchmarks/scrape.py --instances 200 2000`.

A snapshot with everything known is served by the daemon's own web server and asked for over HTTP, 25 instances to
a group. The first scrape after a tick renders it, the others get what was rendered; figures are medians of ten rounds.
"""

import argparse
import gzip
import http.client
import statistics
import time
from contextlib import closing
from dataclasses import replace

from autoscaler.core.capacity import Account, Key, Ledger, Resource
from autoscaler.core.decision import Decision, Input, Reason, ReasonCode, Recommendation
from autoscaler.core.observation import HostSample, Slot, SlotState, TrafficView
from autoscaler.core.policy import Mode, Size, TrafficKind
from autoscaler.core.snapshot import (
    Durations,
    GroupRoom,
    GroupStatus,
    GroupTotals,
    HostRoom,
    HostStatus,
    InstanceStatus,
    Portion,
    ReloadStatus,
    Scaling,
    Snapshot,
    TickStatus,
    Totals,
    TrafficStatus,
)
from autoscaler.core.transition import InstanceState
from autoscaler.exporter.collector import make_registry
from autoscaler.web.server import WebServer

AT = 1_700_000_000.0
PER_GROUP = 25
GROUPS_PER_HOST = 10
ROUNDS = 10
MET = (
    ReasonCode.TARGET_EXCEEDED, ReasonCode.TARGET_UNDERRUN, ReasonCode.WITHIN_TOLERANCE, ReasonCode.WITHIN_TARGET,
    ReasonCode.HELD_BY_COOLDOWN, ReasonCode.HELD_BY_STABILIZATION, ReasonCode.SCALE_OUT_LIMITED_BY_MAX,
    ReasonCode.LIMITED_BY_RATE, ReasonCode.HELD_BY_UNFILLED_WINDOW, ReasonCode.REFUSED_FOR_MEMORY,
)  # fmt: skip
"""The reasons that each group has met since the daemon's start."""


def group(number: int) -> GroupStatus:
    name = f"group-{number:03}"
    seen = Input("guest.cpu", 0.61, 0.62, 1.0, 0.6, PER_GROUP, 0, 0, 60.0, window_full=True)
    wish = Recommendation("target_tracking", PER_GROUP, Reason(ReasonCode.WITHIN_TOLERANCE))
    decision = Decision(name, AT, PER_GROUP, (seen,), (wish,), PER_GROUP, PER_GROUP, PER_GROUP, ())
    slots = tuple(Slot(f"s{i}", f"192.0.2.{i}", 80, SlotState.READY, sessions=3) for i in range(PER_GROUP))
    return GroupStatus(
        name,
        Mode.ACTIVE,
        Size(1, 40),
        paused=False,
        override=None,
        decision=decision,
        instances=tuple(
            InstanceStatus(f"{name}-{i:08x}", f"host-{number // GROUPS_PER_HOST}", InstanceState.READY, AT, 0.6123 + i)
            for i in range(PER_GROUP)
        ),
        traffic=TrafficStatus(TrafficKind.HAPROXY, (), TrafficView(AT, AT, slots, 0, 0.012)),
    )


def room(host: str, groups: tuple[GroupStatus, ...]) -> HostRoom:
    keys = (
        Key(Resource.MEMORY),
        Key(Resource.VCPUS),
        Key(Resource.POOL_SPACE, "default"),
        Key(Resource.ADDRESSES, "n"),
    )
    ledger = Ledger(host, tuple(Account(key, 2**38, 2**32, 2**37, 2**36) for key in keys))
    need = (Portion(keys[0], 2**30),)
    here = (each.group for each in groups if each.instances[0].host == host)
    return HostRoom(
        ledger, 2**36, tuple(GroupRoom(name, PER_GROUP, 40, need) for name in here), growth_bytes={"default": 2**35}
    )


def make_snapshot(instances: int) -> Snapshot:
    groups = tuple(group(number) for number in range(instances // PER_GROUP))
    hosts = sorted({instance.host for each in groups for instance in each.instances})
    took = Durations().add(5.25)
    scaled = Scaling(AT, 19, 20, ReasonCode.TARGET_EXCEEDED)
    totals = GroupTotals(dict.fromkeys(MET, 17), {}, took, took, took, {"ready": 30, "removed": 10}, scaled=scaled)
    return Snapshot(
        "0.1.0",
        "11111111-2222-3333-4444-555555555555",
        AT,
        AT,
        10.0,
        TickStatus(1, AT, 0.2, 0.001),
        AT,
        ReloadStatus(ok=True, at=AT),
        tuple(
            HostStatus(h, connected=True, why=None, sample=HostSample(h, 64, 0.5, 30.0, 2**38, 2**37, 0.1, 0.1, 0.1))
            for h in hosts
        ),
        groups,
        totals=Totals({each.group: totals for each in groups}, took),
        room=tuple(room(host, groups) for host in hosts),
    )


class Scraped:
    """A web server and the snapshot that it serves at present."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.server = WebServer("127.0.0.1", 0, self.get, make_registry(self.get))

    def get(self) -> Snapshot:
        return self.snapshot

    def tick(self) -> None:
        self.snapshot = replace(self.snapshot)

    def scrape(self, encoding: str) -> tuple[float, bytes]:
        """Give how many seconds it took, and what came."""
        began = time.perf_counter()
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)) as connection:
            connection.request("GET", "/metrics", headers={"Accept-Encoding": encoding})
            content = connection.getresponse().read()
        return time.perf_counter() - began, content


def measure(instances: int) -> str:
    scraped = Scraped(make_snapshot(instances))
    scraped.server.start()
    first, again, zipped = [], [], []
    try:
        for _ in range(ROUNDS):
            scraped.tick()
            seconds, content = scraped.scrape("identity")
            first.append(seconds)
            again.append(scraped.scrape("identity")[0])
            scraped.tick()
            seconds, small = scraped.scrape("gzip")
            zipped.append(seconds)
    finally:
        scraped.server.stop()
    assert gzip.decompress(small) == content
    series = sum(not line.startswith(b"#") for line in content.splitlines())
    figures = (f"{1000 * statistics.median(times):.0f}" for times in (first, again, zipped))
    return (
        " | ".join((f"| {instances}", str(series), f"{len(content) / 1e3:.0f}", f"{len(small) / 1e3:.0f}", *figures))
        + " |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--instances", type=int, nargs="+", default=[200, 1000, 2000])
    print("| instances | series | kB | kB, gzip | first scrape, ms | again, ms | first with gzip, ms |")
    print("|---|---|---|---|---|---|---|")
    for instances in parser.parse_args().instances:
        print(measure(instances), flush=True)


if __name__ == "__main__":
    main()
