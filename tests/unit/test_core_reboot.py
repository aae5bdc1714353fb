"""What becomes of a group whose host was rebooted."""

from dataclasses import replace

import pytest

from autoscaler.core.action import Action, Clone, Remove, Start
from autoscaler.core.decision import ReasonCode
from autoscaler.core.instances import MAX_FAILED_STARTS, Instance
from autoscaler.core.observation import Change, DomainState
from autoscaler.core.policy import Behavior, DirectionLimits, Image, Mode, Policy, Ready, Size, TargetTracking
from autoscaler.core.reconcile import turns
from autoscaler.core.snapshot import Totals
from autoscaler.core.status import Finished, accumulate
from autoscaler.core.step import StepResult
from autoscaler.core.transition import InstanceState
from tests.support.plant import Plant, group_instances

POLICY = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(7, 9),
    scaling=(TargetTracking("guest.cpu", 0.35, over_seconds=10.0),),
    behavior=Behavior(0.1, DirectionLimits(0.0, 0.0), DirectionLimits(30.0, 20.0)),
    warm_up_seconds=0.0,
    ready=Ready(agent=True, timeout_seconds=40.0),
)


def plant_of(count: int = 7) -> Plant:
    """Seven ready instances, of different ages."""
    plant = Plant(replace(POLICY, size=Size(1, 9)), interval_seconds=2.0)
    for size in range(1, count + 1):
        plant.policy = replace(plant.policy, size=Size(size, 9))
        plant.run(10.0)
        plant.clock.advance(2.0)
    assert states(plant) == {InstanceState.READY: count}
    return plant


def states(plant: Plant) -> dict[InstanceState, int]:
    assert plant.observation is not None
    found: dict[InstanceState, int] = {}
    for instance in group_instances(plant.policy, plant.observation, plant.memory):
        found[instance.state] = found.get(instance.state, 0) + 1
    return found


def tick(plant: Plant) -> StepResult:
    plant.clock.advance(2.0)
    return plant.tick()


def codes(result: StepResult) -> list[ReasonCode]:
    return [reason.code for reason in result.decisions[0].reasons]


def by_age(plant: Plant) -> list[str]:
    owned = [machine.domain.ownership for machine in plant.host._machines.values()]
    return [each.instance for each in sorted(filter(None, owned), key=lambda each: each.created_at)]


@pytest.mark.parametrize("saving", [False, True], ids=["shut off", "managed save"])
def test_a_reboot_brings_all_back_oldest_first_a_few_at_a_time_and_clones_none(saving: bool) -> None:
    plant = plant_of()
    oldest_first = by_age(plant)
    volumes = set(plant.host.volumes)
    plant.host.reboot(saving=saving)
    actions: list[Action] = []
    first = tick(plant)
    assert states(plant) == {InstanceState.RETURNING: 7}
    assert codes(first).count(ReasonCode.BROUGHT_BACK) == 4
    assert ReasonCode.RETURN_WAITS in codes(first)
    actions += first.actions
    for _ in range(30):
        actions += tick(plant).actions
        coming = states(plant)
        up = coming.get(InstanceState.READY, 0)
        assert sum(coming.values()) == 7
        assert len(actions) - up <= 4, "no more come up at once than there are workers"
    assert [type(action) for action in actions] == [Start] * 7
    assert [action.instance for action in actions] == oldest_first
    assert states(plant) == {InstanceState.READY: 7}
    assert plant.host.volumes == volumes


def test_a_clone_waits_until_all_are_back() -> None:
    plant = plant_of()
    plant.host.reboot()
    plant.policy = replace(plant.policy, size=Size(8, 9))
    held = tick(plant)
    assert ReasonCode.HELD_BY_RETURN in codes(held)
    cloned_at = None
    for _ in range(30):
        result = tick(plant)
        if any(isinstance(action, Clone) for action in result.actions):
            cloned_at = states(plant)
            break
    assert cloned_at is not None
    assert InstanceState.RETURNING not in cloned_at


@pytest.mark.parametrize("state", [DomainState.SHUTOFF, DomainState.CRASHED])
def test_without_a_reboot_what_is_off_is_replaced(state: DomainState) -> None:
    plant = plant_of(2)
    gone = by_age(plant)[0]
    plant.host.set_state(gone, state)
    result = tick(plant)
    assert [action.instance for action in result.actions if isinstance(action, Remove)] == [gone]
    assert ReasonCode.REPLACES_FAILED_INSTANCE in codes(result)
    assert not [action for action in result.actions if isinstance(action, Start)]


def test_one_that_is_switched_off_after_it_was_brought_back_is_replaced() -> None:
    plant = plant_of(2)
    plant.host.reboot()
    plant.run(20.0)
    gone = by_age(plant)[0]
    plant.host.set_state(gone, DomainState.SHUTOFF)
    assert isinstance(tick(plant).actions[0], Remove)


def test_one_that_will_not_start_is_replaced_after_a_few_attempts() -> None:
    plant = plant_of(2)
    plant.host.reboot()
    plant.broken = {"start"}
    starts: dict[str, int] = {}
    removed: list[str] = []
    for _ in range(300):
        for action in tick(plant).actions:
            if isinstance(action, Start):
                starts[action.instance] = starts.get(action.instance, 0) + 1
            elif isinstance(action, Remove):
                removed.append(action.instance)
        if len(removed) == 2:
            break
    assert list(starts.values()) == [MAX_FAILED_STARTS] * 2
    assert set(removed) == set(starts)
    plant.broken = set()
    plant.run(700.0)
    assert states(plant) == {InstanceState.READY: 2}


def test_failed_starts_back_off() -> None:
    plant = plant_of(2)
    plant.host.reboot()
    plant.broken = {"start"}
    tick(plant)
    tick(plant)
    held = tick(plant)
    assert ReasonCode.HELD_BY_LAUNCH_BACKOFF in codes(held)
    assert held.actions == ()


@pytest.mark.parametrize("shadow", [False, True], ids=["paused", "shadow"])
def test_nothing_is_brought_back_for_a_group_that_is_left_alone(shadow: bool) -> None:
    plant = plant_of(2)
    plant.host.reboot()
    if shadow:
        plant.policy = replace(plant.policy, mode=Mode.SHADOW)
    else:
        plant.ask(Change.PAUSE)
    for _ in range(5):
        assert tick(plant).actions == ()
    assert states(plant) == {InstanceState.RETURNING: 2}


def test_what_is_too_many_after_the_reboot_is_removed_and_not_started() -> None:
    plant = plant_of(3)
    plant.policy = replace(plant.policy, size=Size(1, 2))
    plant.host.reboot()
    result = tick(plant)
    removed = {action.instance for action in result.actions if isinstance(action, Remove)}
    started = {action.instance for action in result.actions if isinstance(action, Start)}
    assert (len(removed), len(started)) == (1, 2)
    assert not removed & started


def test_coming_back_starts_readiness_anew_and_is_no_launch() -> None:
    plant = plant_of(1)
    (name,) = by_age(plant)
    plant.clock.advance(86_400.0)
    plant.tick()
    plant.host.reboot()
    totals = Totals()
    for _ in range(15):
        result = tick(plant)
        assert plant.observation is not None
        totals = accumulate(totals, Finished((plant.policy,), plant.observation, result, ()))
    memory = plant.memory.groups["web"].instances[name]
    assert memory.boot == "boot 2"
    assert memory.ready_at is not None
    assert memory.ready_at > memory.started_at > plant.clock.at - 30.0
    assert totals.groups["web"].launches.count == 0
    assert totals.groups["web"].removals.count == 0


def test_brought_back_by_others_it_is_taken_as_new() -> None:
    """As libvirt-guests does at boot, before the daemon looks."""
    plant = plant_of(1)
    (name,) = by_age(plant)
    plant.host.reboot(saving=True)
    plant.host.start(name)
    result = tick(plant)
    assert result.actions == ()
    assert states(plant) == {InstanceState.BOOTING: 1}
    plant.run(10.0)
    assert states(plant) == {InstanceState.READY: 1}


def test_a_saved_one_is_brought_back_without_a_reboot() -> None:
    plant = plant_of(1)
    machine = plant.host._machines[by_age(plant)[0]]
    machine.domain = replace(machine.domain, state=DomainState.SHUTOFF, saved=True)
    assert [type(action) for action in tick(plant).actions] == [Start]


def _instance(name: str, created_at: float, state: InstanceState, host: str = "a") -> Instance:
    return Instance(name, host, state, created_at, created_at)


BACK, BOOT, READY = InstanceState.RETURNING, InstanceState.BOOTING, InstanceState.READY


@pytest.mark.parametrize(
    ("instances", "at_once", "chosen"),
    [
        ([], 2, set()),
        ([_instance("x", 3, BACK), _instance("y", 1, BACK), _instance("z", 2, BACK)], 2, {"y", "z"}),
        ([_instance("x", 3, BACK), _instance("y", 1, BOOT), _instance("z", 2, BACK)], 2, {"z"}),
        ([_instance("x", 3, BACK), _instance("y", 1, READY), _instance("z", 2, READY)], 2, {"x"}),
        ([_instance("x", 3, BACK), _instance("y", 1, BACK, "b"), _instance("z", 2, BACK, "b")], 1, {"x", "y"}),
        ([_instance("x", 1, BACK), _instance("w", 1, BACK)], 1, {"w"}),
    ],
)
def test_turns(instances: list[Instance], at_once: int, chosen: set[str]) -> None:
    assert turns(instances, at_once) == chosen
