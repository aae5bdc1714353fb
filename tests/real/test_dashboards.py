"""Dashboards, rules and alerts on what a real daemon did: every query gives something, and what the journal has.

One group behind HAProxy grows under load and shrinks again while Prometheus scrapes every second. Then all that Grafana
would ask is asked for the last moment, and one value of each panel compared with the journal, libvirt or HAProxy.
"""

import math
import os
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from autoscaler.codec import parse
from autoscaler.core.action import Clone, IntentState, Remove
from autoscaler.core.capacity import Expected, Key, Ledger, Resource, need_of, open_ledger
from autoscaler.core.decision import Decision, Input, ReasonCode, decisive
from autoscaler.core.observation import HostCapacity, HostInventory, HostSample, TrafficView, Unknown
from autoscaler.core.snapshot import Durations
from autoscaler.store import Event, Journal, ReplayTick
from tests.real.conftest import Pool
from tests.real.test_traffic import READY, until_served
from tests.support.daemon import DaemonProcess, burn, free_port, group_of
from tests.support.dashboards import BOARDS, Query, marks, panel_queries, panels, variables, written_queries
from tests.support.haproxy import HAProxyProcess
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until
from tests.support.prometheus import Prometheus, PrometheusWithRules
from tests.support.steady_client import SteadyClient

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(600)]

RECENT = 6
"""The last scrape shows one of so many last ticks."""


@dataclass
class Told:
    """What the daemon did, by those who know: its journal, libvirt and HAProxy."""

    start: float
    end: float
    ticks: list[ReplayTick]
    events: tuple[Event, ...]
    domains: int
    vcpus: int
    served: int

    @property
    def recent(self) -> list[ReplayTick]:
        return self.ticks[-RECENT:]

    def decisions(self, ticks: Sequence[ReplayTick]) -> list[Decision]:
        """The group's decisions."""
        return [parse(tick.decisions_json, tuple[Decision, ...])[0] for tick in ticks]

    def input(self, read: Callable[[Input], float | None]) -> list[float | None]:
        return [read(decision.inputs[0]) for decision in self.decisions(self.recent)]

    def sample(self, read: Callable[[HostSample], float | None]) -> list[float | None]:
        samples = (tick.observation.hosts["local"] for tick in self.recent)
        return [read(sample) for sample in samples if isinstance(sample, HostSample)]

    def capacity(self, read: Callable[[HostCapacity], float | None]) -> list[float | None]:
        return [read(capacity_of(tick)) for tick in self.recent]

    def view(self, read: Callable[[TrafficView], float | None]) -> list[float | None]:
        views = (tick.observation.traffic.get("web") for tick in self.recent)
        return [read(view) for view in views if isinstance(view, TrafficView)]

    def refusals(self) -> list[float | None]:
        return [
            sum(reason.code.value.startswith("refused_for") for reason in decision.reasons)
            for decision in self.decisions(self.recent)
        ]

    def reasons(self, *codes: ReasonCode) -> list[float | None]:
        """Whether a decision had one of these."""
        found = ({reason.code for reason in decision.reasons} for decision in self.decisions(self.recent))
        return [float(bool(each & {*codes})) for each in found]

    def scalings(self) -> list[Event]:
        return [event for event in self.events if event.kind == "scaled"]

    def passages(self, after: str) -> dict[str, float]:
        """When each instance first came into a state."""
        arrivals = [event for event in self.events if event.kind == "instance" and event.detail["after"] == after]
        return {event.instance or "": event.at for event in reversed(arrivals)}

    def launches(self) -> Durations:
        """How long launches took."""
        asked, ready = self.passages("requested"), self.passages("ready")
        return _durations([at - asked[name] for name, at in ready.items()])

    def removals(self) -> Durations:
        """How long removals took."""
        outcomes = (outcome for tick in self.ticks for outcome in tick.observation.outcomes)
        done = (o for o in outcomes if o.state is IntentState.DONE and isinstance(o.intent.action, Remove))
        return _durations([outcome.ended_at - outcome.intent.at for outcome in done])

    def lost(self) -> float:
        """How many instances were removed that never were ready."""
        return len({*self.passages("removed")} - {*self.passages("ready")})


def capacity_of(tick: ReplayTick) -> HostCapacity:
    inventory = tick.observation.inventory["local"]
    assert isinstance(inventory, HostInventory)
    assert inventory.capacity is not None
    return inventory.capacity


def ledger_of(tick: ReplayTick) -> Ledger:
    """Sum up the host as admission did: with the instances that are there, none being on its way."""
    (policy,) = tick.policies
    assert not any(isinstance(flight.intent.action, Clone) for flight in tick.observation.in_flight)
    inventory = tick.observation.inventory["local"]
    assert isinstance(inventory, HostInventory)
    owned = [domain.ownership.instance for domain in inventory.domains if domain.ownership is not None]
    expected = [Expected(name, policy.image, policy.machine) for name in owned]
    return open_ledger(capacity_of(tick), tick.observation.hosts["local"], expected)


def fitting(tick: ReplayTick) -> float | None:
    (policy,) = tick.policies
    return ledger_of(tick).fits(need_of(policy.machine, policy.image, capacity_of(tick)))[0]


def committed_memory(tick: ReplayTick) -> float | None:
    account, sample = ledger_of(tick).account(Key(Resource.MEMORY)), tick.observation.hosts["local"]
    assert account is not None
    assert isinstance(sample, HostSample)
    return account.committed / sample.memory_total_bytes


def _promised(capacity: HostCapacity) -> float:
    (pool,) = capacity.pools.values()
    return (pool.capacity_bytes - pool.available_bytes + pool.growth_bytes) / pool.capacity_bytes


def _durations(seconds: Sequence[float]) -> Durations:
    total = Durations()
    for each in seconds:
        total = total.add(each)
    return total


def median(durations: Durations) -> float:
    """Interpolate as Prometheus does, within the bucket that holds the middle."""
    rank = durations.count / 2
    number = next(i for i, count in enumerate(durations.buckets) if count >= rank)
    below, low = (durations.buckets[number - 1], durations.bounds[number - 1]) if number else (0, 0.0)
    high = durations.bounds[number]
    return low + (high - low) * (rank - below) / (durations.buckets[number] - below)


def _first_room(capacity: HostCapacity, resource: Resource) -> tuple[float, float]:
    """What is taken, and of how much."""
    if resource is Resource.ADDRESSES:
        (network,) = capacity.networks.values()
        return network.taken, network.addresses
    (pool,) = capacity.pools.values()
    return pool.capacity_bytes - pool.available_bytes, pool.capacity_bytes


def _share(capacity: HostCapacity, resource: Resource) -> float:
    taken, total = _first_room(capacity, resource)
    return taken / total


Expectation = Callable[[Told], Sequence[float | None]]
"""What a value may be: what one of the last ticks had."""

LOAD: Expectation = lambda told: told.input(lambda seen: seen.value)  # noqa: E731 - one line of many alike
PRESSURE: Expectation = lambda told: told.input(  # noqa: E731
    lambda seen: seen.value / seen.target if seen.value is not None and seen.target else None
)
REASONS: Expectation = lambda told: [1.0]  # noqa: E731 - their labels are compared
LAUNCH: Expectation = lambda told: [median(told.launches())]  # noqa: E731
REMOVAL: Expectation = lambda told: [median(told.removals())]  # noqa: E731
LOST: Expectation = lambda told: [told.lost()]  # noqa: E731

OVERVIEW: Mapping[tuple[str, str], Expectation] = {
    ("Last tick", "A"): lambda told: [told.end - tick.observation.at for tick in told.recent],
    ("Hosts out of reach", "A"): lambda told: [
        sum(isinstance(each, Unknown) for each in tick.observation.inventory.values()) for tick in told.recent
    ],
    ("Groups held back", "A"): lambda told: told.reasons(ReasonCode.SCALE_OUT_LIMITED_BY_MAX),
    ("Launches lost, 1 h", "A"): LOST,
    ("Reloads refused", "A"): lambda told: [sum(event.kind == "reload_refused" for event in told.events)],
    ("Instances ready", "A"): lambda told: [told.domains],
    ("Groups", "A"): lambda told: [told.domains],
    ("Groups", "B"): lambda told: [decision.admitted for decision in told.decisions(told.recent)],
    ("Groups", "C"): lambda told: [decision.desired for decision in told.decisions(told.recent)],
    ("Groups", "D"): lambda told: [tick.policies[0].size.min for tick in told.recent],
    ("Groups", "E"): lambda told: [tick.policies[0].size.max for tick in told.recent],
    ("Groups", "F"): PRESSURE,
    ("Groups", "G"): lambda told: [fitting(tick) for tick in told.recent],
    ("Groups", "H"): lambda told: told.reasons(ReasonCode.PAUSED),
    ("Groups", "I"): lambda told: [told.end - told.scalings()[-1].at],
    ("Size", "{{group}}"): lambda told: [decision.admitted for decision in told.decisions(told.recent)],
    ("Load against target", "{{group}}"): PRESSURE,
    ("What decides", "{{group}}: {{reason}}"): REASONS,
    ("Time to launch", "{{group}} p50"): LAUNCH,
    ("Time to remove", "{{group}} p50"): REMOVAL,
    ("Failures", "{{group}} launches lost"): LOST,
    ("CPU and pressure", "{{host}} busy"): lambda told: told.sample(lambda sample: sample.cpu_busy_share),
    ("Memory", "{{host}} used"): lambda told: told.sample(
        lambda sample: 1 - sample.memory_available_bytes / sample.memory_total_bytes
    ),
    ("Memory", "{{host}} committed"): lambda told: [committed_memory(tick) for tick in told.recent],
    ("vCPUs committed", "{{host}}"): lambda told: [told.vcpus / (16 * (os.cpu_count() or 0))],
    ("Pools", "{{host}} {{pool}} used"): lambda told: told.capacity(lambda c: _share(c, Resource.POOL_SPACE)),
    ("Pools", "{{host}} {{pool}} promised"): lambda told: told.capacity(_promised),
    ("Addresses taken", "{{host}} {{network}}"): lambda told: told.capacity(lambda c: _share(c, Resource.ADDRESSES)),
    ("Refused and starved", "{{group}} refused for {{resource}}"): Told.refusals,
    ("Ticks", "interval"): lambda told: [tick.observation.interval_seconds for tick in told.recent],
    ("Ticks not committed", "{{instance}}"): lambda told: [0.0],
    ("Scalings, 1 h", "{{direction}}"): lambda told: [len(told.scalings()) - 1],
}
GROUP: Mapping[tuple[str, str], Expectation] = {
    ("Ready", "A"): lambda told: [told.domains],
    ("Admitted", "A"): lambda told: [decision.admitted for decision in told.decisions(told.recent)],
    ("Maximum", "A"): lambda told: [tick.policies[0].size.max for tick in told.recent],
    ("Load / target", "A"): PRESSURE,
    ("Last scaled, ago", "A"): lambda told: [told.end - told.scalings()[-1].at],
    ("Stopped", "A"): lambda told: told.reasons(ReasonCode.HELD_BY_BREAKER, ReasonCode.PAUSED),
    ("Starved", "A"): lambda told: told.reasons(ReasonCode.STARVED, ReasonCode.HELD_BY_STARVED_GUESTS),
    ("Launches lost, 1 h", "A"): LOST,
    ("Size", "min"): lambda told: [tick.policies[0].size.min for tick in told.recent],
    ("Size", "max"): lambda told: [tick.policies[0].size.max for tick in told.recent],
    ("Size", "recommended"): lambda told: [decision.recommended for decision in told.decisions(told.recent)],
    ("Size", "admitted"): lambda told: [decision.admitted for decision in told.decisions(told.recent)],
    ("Size", "desired"): lambda told: [decision.desired for decision in told.decisions(told.recent)],
    ("Load and target", "{{metric}}"): LOAD,
    ("Load and target", "target of {{metric}}"): lambda told: told.input(lambda seen: seen.target),
    ("What decides", "{{reason}}"): REASONS,
    ("Age of the load", "{{metric}}"): lambda told: told.input(lambda seen: seen.age_seconds),
    ("Instances by state", "{{state}}"): lambda told: [told.domains],
    ("Load of each instance", "{{exported_instance}}"): lambda told: told.input(lambda seen: seen.latest),
    ("Time to launch", "p50"): LAUNCH,
    ("Time to remove", "p50"): REMOVAL,
    ("Failures", "launches lost"): LOST,
    ("More would fit", "{{host}}"): lambda told: [fitting(tick) for tick in told.recent],
    ("Refused", "{{resource}}"): Told.refusals,
    ("Servers", "{{state}}"): lambda told: [told.served],
    ("Servers", "wanted"): lambda told: [told.served],
    ("Sessions and queue", "queue"): lambda told: told.view(lambda view: view.queue),
    ("Sessions and queue", "sessions"): lambda told: told.view(
        lambda view: sum(slot.sessions or 0 for slot in view.slots)
    ),
    ("Response time", "mean"): lambda told: told.view(lambda view: view.response_seconds),
}
EXPECTED = {BOARDS[0]: OVERVIEW, BOARDS[1]: GROUP}
SUMMED = {"Scalings, 1 h", "Instances by state", "Servers", "Refused", "Refused and starved"}
"""Panels whose series are compared by their sum."""
EXTRAPOLATED = {"Scalings, 1 h": 0.1}
"""Prometheus stretches an increase to the whole window: by less than this share."""


@pytest.fixture
def told_and_asked(
    tmp_path: Path, libvirtd: PrivateLibvirtd, pool: Pool, network: str, virt: libvirt.virConnect
) -> Iterator[tuple[Told, Prometheus, str]]:
    """Let the daemon do something, and give what it did, a Prometheus that saw it, and the last scrape."""
    inside = libvirtd.inside_network
    haproxy = HAProxyProcess(tmp_path, free_port(), inside=inside)
    machine = {"vcpus": 1, "memory": "192MiB", "network": network, "accelerator": "tcg"}
    traffic = haproxy.section(drain={"deadline": "3s"})
    size = {"min": 1, "max": 2}
    daemon = DaemonProcess(tmp_path, libvirtd.uri, pool.name, machine=machine, ready=READY, traffic=traffic, size=size)
    daemon.prefix = [*inside]
    try:
        haproxy.start()
        with PrometheusWithRules(tmp_path / "prometheus", daemon.port, inside=inside) as prometheus:
            wait_until(lambda: _answers(prometheus), 40, "Prometheus answers")
            start = time.time()
            daemon.start()
            (first,) = group_of(until_served(daemon, 1)).instances
            with SteadyClient("127.0.0.1", haproxy.port, threads=1, inside=inside):
                burn(libvirtd.uri, first.instance, 0.9)
                two = group_of(until_served(daemon, 2)).instances
                for each in two:
                    burn(libvirtd.uri, each.instance, 0.0)
                until_served(daemon, 1)
            daemon.until_tick(RECENT + 1)
            active = [domain for domain in virt.listAllDomains() if domain.isActive()]
            vcpus = sum(int(ET.fromstring(domain.XMLDesc()).findtext("vcpu", "0")) for domain in active)
            served = sum(slot.serves for slot in haproxy.view().slots)
            scraped = _scrape(daemon, inside)
            end = time.time()
            daemon.stop()
            journal = Journal.open_readonly(daemon.state_dir)
            ticks = [tick for tick in journal.replay() if tick.observation.at <= end]
            told = Told(start, end, ticks, journal.events(), len(active), vcpus, served)
            journal.close()
            yield told, prometheus, scraped
    finally:
        daemon.close()
        haproxy.close()


def _answers(prometheus: Prometheus) -> bool:
    try:
        return prometheus.at("vector(1)", time.time()) == [({}, 1.0)]
    except AssertionError:
        return False


def _scrape(daemon: DaemonProcess, inside: Sequence[str]) -> str:
    url = f"http://127.0.0.1:{daemon.port}/metrics"
    return subprocess.run([*inside, "wget", "-q", "-O", "-", url], capture_output=True, text=True, check=True).stdout


def test_every_query_gives_what_the_journal_has(told_and_asked: tuple[Told, Prometheus, str]) -> None:
    told, prometheus, scraped = told_and_asked
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=scraped, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    complaints = [*_rules(prometheus, told)]
    for board in BOARDS:
        titles = {panel["title"] for panel in panels(board)}
        assert {title for title, _ in EXPECTED[board]} == titles, "at least one value of each panel is compared"
        complaints += _variables(board, prometheus)
        complaints += _marks(board, prometheus, told)
        for query in panel_queries(board):
            complaints += _compare(query, prometheus, told)
    for expression in written_queries():
        prometheus.at(expression, told.end)
    assert not complaints, "\n".join(complaints)
    sizes = prometheus.over('autoscaler_group_size_admitted{group="web"}', told.start, told.end)
    assert (
        _changes(sizes[0][1]) == _changes([decision.admitted for decision in told.decisions(told.ticks)]) == [1, 2, 1]
    )


def _compare(query: Query, prometheus: Prometheus, told: Told) -> Iterator[str]:
    found = prometheus.at(query.expression, told.end)
    if not [value for _, value in found if not math.isnan(value)]:
        yield f"{query} gives nothing: {found}"
        return
    expectation = EXPECTED[query.board].get((query.panel, query.legend))
    if expectation is None:
        return
    expected = [value for value in expectation(told) if value is not None]
    values = [sum(value for _, value in found)] if query.panel in SUMMED else [value for _, value in found]
    within = EXTRAPOLATED.get(query.panel, 1e-3)
    for value in values:
        if not any(math.isclose(value, each, rel_tol=within, abs_tol=2e-3) for each in expected):
            yield f"{query} gives {value}, not one of {expected}"
    if expectation is REASONS:
        seen = {labels["reason"] for labels, _ in found}
        if seen not in [{reason.code.value for reason in decisive(each)} for each in told.decisions(told.recent)]:
            yield f"{query} shows {seen}"


def _variables(board: str, prometheus: Prometheus) -> Iterator[str]:
    values = {"group": ["web"], "host": ["local"]}
    for name, series, label in variables(board):
        given = prometheus.get(f"label/{label}/values", **{"match[]": series})
        if not given or given != values.get(name, given):
            yield f"{board}: the values of {name} are {given}"


def _marks(board: str, prometheus: Prometheus, told: Told) -> Iterator[str]:
    for query in marks(board):
        found = prometheus.over(query.expression, told.start, told.end)
        moments = {round(value / 1000, 2) for _, values in found for value in values}
        scaled = {round(event.at, 2) for event in told.scalings()}
        if not moments or (query.panel == "Scaled" and moments != scaled):
            yield f"{query} marks {moments}; the journal has {scaled}"


def _rules(prometheus: Prometheus, told: Told) -> Iterator[str]:
    for group in prometheus.get("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                yield f"the rule {rule['name']} is {rule['health']}: {rule.get('lastError')}"
            if rule["type"] == "recording" and not prometheus.at(rule["name"], told.end):
                yield f"the rule {rule['name']} records nothing"


def _changes(values: Sequence[float]) -> list[float]:
    return [value for number, value in enumerate(values) if number == 0 or value != values[number - 1]]
