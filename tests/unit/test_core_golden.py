"""A golden image that changed under its overlays: told, and nothing more cloned from it."""

from dataclasses import replace

import pytest

from autoscaler.core.action import Clone
from autoscaler.core.decision import ReasonCode
from autoscaler.core.golden import golden_key
from autoscaler.core.observation import GoldenState, Observation
from autoscaler.core.policy import Image, Policy, Size
from autoscaler.core.step import StepResult
from tests.support.plant import Plant

IMAGE = Image("default", "golden.qcow2")
POLICY = Policy("web", IMAGE, Size(2, 4))
KEY = golden_key("local", IMAGE)
STAMP = "digest"
"""What the plant's instances were cloned under."""


class Watched(Plant):
    """A plant whose golden images are looked after."""

    golden: GoldenState | None = GoldenState(STAMP, "one")

    def observe(self) -> Observation:
        states = {} if self.golden is None else {KEY: self.golden}
        self.observation = replace(super().observe(), golden=states)
        return self.observation


def codes(result: StepResult) -> set[ReasonCode]:
    return {reason.code for reason in result.decisions[0].reasons}


IS_CHANGED = {ReasonCode.IMAGE_CHANGED, ReasonCode.HELD_BY_CHANGED_IMAGE}
IS_UNREAD = {ReasonCode.HELD_BY_UNREAD_IMAGE}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (GoldenState(STAMP, "one"), set()),
        (GoldenState("touched", "one", {STAMP: "one"}), set()),
        (GoldenState("touched", None, {STAMP: "one"}), IS_UNREAD),
        (GoldenState("touched", "two", {STAMP: "one"}), IS_CHANGED),
        (GoldenState("touched", "two"), IS_CHANGED),
        (GoldenState("touched", "touched"), IS_CHANGED),
        (GoldenState(STAMP, "two", expected="one"), IS_CHANGED),
        (GoldenState(STAMP, None, expected="one"), IS_UNREAD),
        (GoldenState(STAMP, "one", expected="one"), set()),
        (GoldenState(None), set()),
        (None, IS_UNREAD),
    ],
)
def test_what_is_said_while_instances_stand_on_it(state: GoldenState | None, said: set[ReasonCode]) -> None:
    plant = Watched(POLICY, interval_seconds=2.0)
    plant.run(30.0)
    assert len(plant.owned()) == 2
    plant.golden = state
    assert codes(plant.run(10.0)) - {ReasonCode.FIXED_SIZE} == said - {*IS_UNREAD, ReasonCode.HELD_BY_CHANGED_IMAGE}
    assert len(plant.owned()) == 2, "what runs is left alone"
    plant.policy = replace(POLICY, size=Size(3, 4))
    result = plant.run(30.0)
    assert codes(result) - {ReasonCode.RAISED_TO_MIN} == said
    assert len(plant.owned()) == (2 if said else 3)
    assert not said or not any(isinstance(action, Clone) for action in result.actions)


def test_the_alarm_names_who_stands_on_it_and_ends_when_the_content_is_back() -> None:
    plant = Watched(POLICY, interval_seconds=2.0)
    plant.run(30.0)
    plant.golden = GoldenState("touched", "two", {STAMP: "one"})
    (alarm,) = (r for r in plant.run(10.0).decisions[0].reasons if r.code is ReasonCode.IMAGE_CHANGED)
    assert dict(alarm.parameters) == {
        "image": "default/golden.qcow2",
        "volume": "default/golden.qcow2",
        "host": "local",
        "instances": ", ".join(sorted(plant.owned())),
    }
    plant.golden = GoldenState("touched again", "one", {STAMP: "one", "touched": "two"})
    assert ReasonCode.IMAGE_CHANGED not in codes(plant.run(10.0))


def test_a_new_content_is_cloned_from_once_nothing_stands_on_the_old_one() -> None:
    plant = Watched(replace(POLICY, size=Size(0, 4)), interval_seconds=2.0)
    plant.golden = GoldenState("touched", "two")
    plant.run(10.0)
    plant.policy = POLICY
    plant.run(30.0)
    assert len(plant.owned()) == 2


def test_a_version_of_the_catalog_is_cloned_from_only_once_it_was_looked_at() -> None:
    plant = Watched(replace(POLICY, image=replace(IMAGE, name="web", version=1)), interval_seconds=2.0)
    plant.golden = None
    assert codes(plant.run(10.0)) >= IS_UNREAD
    assert plant.owned() == set()
    plant.golden = GoldenState(STAMP, "one", expected="one")
    plant.run(30.0)
    assert len(plant.owned()) == 2


def test_a_version_that_is_not_what_was_stored_is_never_cloned_from() -> None:
    plant = Watched(POLICY, interval_seconds=2.0)
    plant.golden = GoldenState(STAMP, "two", expected="one")
    result = plant.run(30.0)
    assert codes(result) >= IS_CHANGED
    assert plant.owned() == set()
    before = plant.memory.groups["web"].sequence
    plant.run(30.0)
    assert plant.memory.groups["web"].sequence == before, "no ids are used up meanwhile"
