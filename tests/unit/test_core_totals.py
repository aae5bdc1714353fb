"""The counts that grow with each step: how often a group was scaled, and how many launches were lost."""

from dataclasses import replace

from autoscaler.core.decision import ReasonCode
from autoscaler.core.observation import Change
from autoscaler.core.policy import Image, Mode, Policy, Ready, Size
from autoscaler.core.snapshot import GroupTotals, Totals
from autoscaler.core.status import Finished, accumulate
from tests.support.plant import Plant

POLICY = Policy("web", Image("default", "golden.qcow2"), Size(1, 4), ready=Ready(timeout_seconds=40.0))


def run(plant: Plant, totals: Totals, seconds: float) -> Totals:
    """Tick for a while, counting."""
    for _ in range(round(seconds / plant.interval_seconds)):
        plant.clock.advance(plant.interval_seconds)
        result = plant.tick()
        assert plant.observation is not None
        totals = accumulate(totals, Finished((plant.policy,), plant.observation, result, ()))
    return totals


def web(totals: Totals) -> GroupTotals:
    return totals.groups["web"]


def test_each_change_of_size_is_counted_once_with_its_time_and_reason() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    totals = run(plant, Totals(), 20.0)
    assert web(totals).scalings == {"out": 1}
    plant.ask(Change.SCALE, 3)
    asked_at = plant.clock.at
    totals = run(plant, totals, 40.0)
    assert web(totals).scalings == {"out": 2}
    scaled = web(totals).scaled
    assert scaled is not None
    assert (scaled.before, scaled.admitted, scaled.direction) == (1, 3, "out")
    assert (scaled.at, scaled.reason) == (asked_at + 2.0, ReasonCode.HELD_BY_OPERATOR)
    plant.ask(Change.SCALE, 1)
    totals = run(plant, totals, 40.0)
    assert web(totals).scalings == {"out": 2, "in": 1}
    assert web(totals).scaled is not None
    assert web(totals).failed_launches == 0


def test_what_a_shadow_wants_over_and_over_is_one_scaling() -> None:
    plant = Plant(replace(POLICY, mode=Mode.SHADOW), interval_seconds=2.0)
    assert web(run(plant, Totals(), 20.0)).scalings == {"out": 1}


def test_what_is_lost_before_it_was_ready_is_a_failed_launch() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.broken = {"create_overlay"}
    totals = run(plant, Totals(), 4.0)
    assert web(totals).failed_launches == 1
    plant.broken = set()
    plant.host.guest = replace(plant.host.guest, boot_seconds=1e9)
    totals = run(plant, totals, 60.0)
    assert web(totals).failed_launches == 2
    assert web(totals).launches.count == 0
