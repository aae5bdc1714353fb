"""What becomes of instances: gates, health, draining, who goes, lifetimes, breaker, budget, strange hands."""

from dataclasses import replace

import pytest

from autoscaler.core.action import Clone, Drain, Remove
from autoscaler.core.decision import Reason, ReasonCode
from autoscaler.core.errors import ControlError
from autoscaler.core.launches import quantile, with_warm_up
from autoscaler.core.leaving import leave
from autoscaler.core.observation import Change, DomainState, Probe
from autoscaler.core.policy import (
    Drain as DrainPolicy,
)
from autoscaler.core.policy import (
    Health,
    Hook,
    HookKind,
    Image,
    Launch,
    Mode,
    Policy,
    Ready,
    Removal,
    RemovalOrder,
    Size,
)
from autoscaler.core.snapshot import GroupStatus, InstanceStatus, Snapshot, Totals
from autoscaler.core.status import Finished, accumulate, group_statuses, image_launches, refuse_change
from autoscaler.core.step import StepResult, step
from autoscaler.core.transition import InstanceState as S
from autoscaler.core.transition import TransitionReason as R
from tests.support.plant import Plant, group_instances

POLICY = Policy("web", Image("default", "golden.qcow2"), Size(2, 4), ready=Ready(timeout_seconds=40.0))
HOOK = Hook(HookKind.COMMAND, ("leave",))
Passage = tuple[S | None, S, R]


def tick(plant: Plant, seconds: float = 2.0) -> StepResult:
    plant.clock.advance(seconds)
    return plant.tick()


def plant_of(count: int, policy: Policy = POLICY) -> Plant:
    """Give a group of ready instances of different ages, that stays at this size until it is told another."""
    plant = Plant(policy, interval_seconds=2.0)
    for size in range(1, count + 1):
        plant.policy = replace(policy, size=Size(size, policy.size.max))
        plant.run(10.0)
        plant.clock.advance(2.0)
    plant.transitions.clear()
    plant.drained.clear()
    return plant


def shrink(plant: Plant, count: int) -> None:
    plant.ask(Change.SCALE, count)
    plant.policy = replace(plant.policy, size=Size(min(count, plant.policy.size.min), plant.policy.size.max))


def by_age(plant: Plant) -> list[str]:
    owned = [machine.domain.ownership for machine in plant.host._machines.values()]
    return [each.instance for each in sorted(filter(None, owned), key=lambda each: each.created_at)]


def states(plant: Plant) -> dict[str, S]:
    assert plant.observation is not None
    return {i.id: i.state for i in group_instances(plant.policy, plant.observation, plant.memory)}


def codes(result: StepResult) -> list[ReasonCode]:
    return [reason.code for reason in result.decisions[0].reasons]


def reason(result: StepResult, code: ReasonCode) -> Reason:
    return next(each for each in result.decisions[0].reasons if each.code is code)


def path(plant: Plant, instance: str) -> list[Passage]:
    return [(t.before, t.after, t.reason) for t in plant.transitions if t.instance == instance]


def removed(result: StepResult) -> list[str]:
    return [action.instance for action in result.actions if isinstance(action, Remove)]


def cloned(result: StepResult) -> list[str]:
    return [action.instance for action in result.actions if isinstance(action, Clone)]


# The whole life


def test_a_life_from_request_to_removal() -> None:
    plant = Plant(replace(POLICY, size=Size(1, 4)), interval_seconds=2.0)
    plant.run(20.0)
    (instance,) = plant.owned()
    assert path(plant, instance) == [
        (None, S.REQUESTED, R.REQUESTED),
        (S.REQUESTED, S.BOOTING, R.STARTED),
        (S.BOOTING, S.READY, R.BECAME_READY),
    ]
    assert plant.memory.groups["web"].lives[instance].reason is R.BECAME_READY
    plant.transitions.clear()
    shrink(plant, 0)
    plant.run(10.0)
    assert path(plant, instance) == [(S.READY, S.STOPPING, R.SCALE_IN), (S.STOPPING, S.REMOVED, R.REMOVED)]
    assert plant.memory.groups["web"].lives == {}


def test_a_quiet_tick_has_no_transition() -> None:
    plant = plant_of(2)
    plant.run(60.0)
    assert plant.transitions == []


def test_a_launch_that_fails_is_a_transition() -> None:
    plant = Plant(replace(POLICY, size=Size(1, 4)), interval_seconds=2.0)
    plant.broken = {"create_overlay"}
    (instance,) = cloned(plant.tick())
    tick(plant)
    assert path(plant, instance) == [(None, S.REQUESTED, R.REQUESTED), (S.REQUESTED, S.REMOVED, R.LAUNCH_FAILED)]


def test_a_removal_that_fails_is_a_transition() -> None:
    plant = plant_of(2)
    stopped = by_age(plant)[0]
    plant.host.set_state(stopped, DomainState.SHUTOFF)
    plant.broken = {"undefine"}
    plant.run(6.0)
    assert path(plant, stopped)[-2:] == [
        (S.FAILED, S.STOPPING, R.STOPPED_BY_SOMEBODY),
        (S.STOPPING, S.FAILED, R.REMOVAL_FAILED),
    ]


# Gates


@pytest.mark.parametrize(
    ("ready", "opens"),
    [
        (Ready(agent=False), None),
        (Ready(agent=True), "agent"),
        (Ready(agent=False, address=True), "address"),
        (Ready(agent=False, tcp_port=80), "probe"),
        (Ready(agent=True, tcp_port=80), "probe"),
    ],
    ids=["runs", "agent", "address", "probe", "agent and probe"],
)
def test_every_gate_asked_for_has_to_open(ready: Ready, opens: str | None) -> None:
    plant = Plant(replace(POLICY, size=Size(1, 1), ready=replace(ready, timeout_seconds=1000.0)), interval_seconds=2.0)
    if opens == "agent":
        plant.host.guest = replace(plant.host.guest, boot_seconds=1e9)
    plant.run(20.0)
    (instance,) = plant.owned()
    assert states(plant)[instance] is (S.READY if opens is None else S.BOOTING)
    plant.host.guest = replace(plant.host.guest, boot_seconds=4.0)
    if opens == "address":
        plant.host.change(instance, addresses=("192.0.2.7",))
    plant.probes[instance] = Probe(False, plant.clock.at, 1)
    if opens == "probe":
        tick(plant)
        assert states(plant)[instance] is S.BOOTING, "a probe that fails opens nothing"
        plant.probes[instance] = Probe(True, plant.clock.at)
    tick(plant)
    assert states(plant)[instance] is S.READY


def test_one_that_comes_up_late_is_removed_all_the_same() -> None:
    plant = Plant(replace(POLICY, size=Size(1, 1)), interval_seconds=2.0)
    plant.host.guest = replace(plant.host.guest, boot_seconds=1e9)
    plant.run(20.0)
    (instance,) = plant.owned()
    plant.broken = {"undefine"}
    plant.run(40.0)
    plant.host.guest = replace(plant.host.guest, boot_seconds=1.0)
    plant.host.start(instance)
    tick(plant)
    assert states(plant)[instance] in {S.FAILED, S.STOPPING}
    plant.broken = set()
    plant.run(60.0)
    assert instance not in plant.owned()
    assert (S.BOOTING, S.FAILED, R.READY_TIMEOUT) in path(plant, instance)
    assert not any(after is S.READY for _, after, _ in path(plant, instance))


# Health


def sicken(plant: Plant, instance: str, how: R) -> None:
    match how:
        case R.IO_ERROR:
            plant.host.set_state(instance, DomainState.PAUSED)
            plant.host.change(instance, io_error=True)
        case R.AGENT_SILENT:
            plant.host.silence(instance)
        case R.PROBE_FAILED:
            plant.probes[instance] = Probe(False, plant.clock.at, 3, "connection refused")


PROBED = replace(POLICY, ready=Ready(tcp_port=80), health=Health(agent_silent_seconds=10.0))


def probed_plant(count: int, policy: Policy = PROBED) -> Plant:
    """Give a group whose instances all pass their probes, as those do that come later."""
    plant = plant_of(count, replace(policy, ready=Ready()))
    plant.policy = replace(policy, size=Size(count, policy.size.max))
    plant.probes.update({name: Probe(True, plant.clock.at) for name in by_age(plant)})
    tick(plant)
    return plant


def settle(plant: Plant, seconds: float) -> None:
    """Tick, and let new instances pass their probes."""
    for _ in range(int(seconds / 2.0)):
        tick(plant)
        for name in by_age(plant):
            plant.probes.setdefault(name, Probe(True, plant.clock.at))


@pytest.mark.parametrize("how", [R.IO_ERROR, R.AGENT_SILENT, R.PROBE_FAILED])
def test_an_unhealthy_one_is_replaced_the_new_one_ready_first(how: R) -> None:
    plant = probed_plant(2)
    ill, well = by_age(plant)
    sicken(plant, ill, how)
    for _ in range(60):
        before = set(plant.host._machines)
        tick(plant)
        for name in by_age(plant):
            plant.probes.setdefault(name, Probe(True, plant.clock.at))
        if states(plant).get(ill) is S.STOPPING:
            assert sum(state is S.READY for state in states(plant).values()) == 2
            break
        assert len(before) <= 3
    settle(plant, 10.0)
    assert well in states(plant)
    assert sorted(states(plant).values()) == [S.READY, S.READY]
    assert path(plant, ill)[:2] == [(S.READY, S.UNHEALTHY, how), (S.UNHEALTHY, S.STOPPING, how)]


def test_where_there_is_no_room_the_unhealthy_one_goes_first() -> None:
    plant = probed_plant(2, replace(PROBED, size=Size(2, 2)))
    ill = by_age(plant)[0]
    sicken(plant, ill, R.PROBE_FAILED)
    result = tick(plant)
    assert removed(result) == [ill]
    assert cloned(result) == []
    assert reason(result, ReasonCode.REPLACES_UNHEALTHY_INSTANCE).parameters["state"] == "probe_failed"
    settle(plant, 20.0)
    assert sorted(states(plant).values()) == [S.READY, S.READY]


def test_too_many_unhealthy_ones_stop_replacement_and_raise_an_alarm() -> None:
    plant = probed_plant(4)
    for ill in by_age(plant)[:3]:
        sicken(plant, ill, R.PROBE_FAILED)
    for _ in range(20):
        result = tick(plant)
        assert result.actions == ()
        assert reason(result, ReasonCode.REPLACEMENT_STOPPED).parameters == {"unhealthy": 3, "owned": 4}
    well = by_age(plant)[0]
    plant.probes[well] = Probe(True, plant.clock.at)
    assert ReasonCode.REPLACEMENT_STOPPED not in codes(tick(plant))
    assert path(plant, well)[-1] == (S.UNHEALTHY, S.READY, R.RECOVERED)


def test_a_single_unhealthy_one_is_always_replaced() -> None:
    plant = probed_plant(1)
    (ill,) = by_age(plant)
    sicken(plant, ill, R.PROBE_FAILED)
    settle(plant, 30.0)
    assert ill not in plant.owned()
    assert list(states(plant).values()) == [S.READY]


def test_an_agent_that_was_not_asked_is_not_silent() -> None:
    plant = probed_plant(1)
    (instance,) = by_age(plant)
    plant.host.set_state(instance, DomainState.PAUSED)
    settle(plant, 100.0)
    assert states(plant) == {instance: S.READY}


# Strange hands


def test_one_that_was_paused_is_left_alone_counted_and_explained() -> None:
    plant = plant_of(2)
    paused = by_age(plant)[0]
    plant.host.set_state(paused, DomainState.PAUSED)
    result = tick(plant)
    assert result.actions == ()
    assert reason(result, ReasonCode.PAUSED_BY_SOMEBODY).parameters == {"instance": paused}
    plant.run(600.0)
    assert set(states(plant)) == {*by_age(plant)}
    plant.host.set_state(paused, DomainState.RUNNING)
    tick(plant)
    assert path(plant, paused) == [
        (S.READY, S.READY, R.PAUSED_BY_SOMEBODY),
        (S.READY, S.READY, R.RESUMED_BY_SOMEBODY),
    ]


def test_one_that_was_stopped_is_replaced_and_explained() -> None:
    plant = plant_of(2)
    stopped = by_age(plant)[0]
    plant.host.set_state(stopped, DomainState.SHUTOFF)
    result = tick(plant)
    assert reason(result, ReasonCode.REPLACES_FAILED_INSTANCE).parameters["state"] == "stopped_by_somebody"
    assert removed(result) == [stopped]
    plant.run(20.0)
    assert path(plant, stopped) == [
        (S.READY, S.FAILED, R.STOPPED_BY_SOMEBODY),
        (S.FAILED, S.STOPPING, R.STOPPED_BY_SOMEBODY),
        (S.STOPPING, S.REMOVED, R.REMOVED),
    ]
    assert len(plant.owned()) == 2


def test_one_whose_emulator_died_is_replaced_and_explained() -> None:
    plant = plant_of(2)
    dead = by_age(plant)[0]
    plant.host.set_state(dead, DomainState.SHUTOFF)
    plant.host.change(dead, crashed=True)
    result = tick(plant)
    assert reason(result, ReasonCode.REPLACES_FAILED_INSTANCE).parameters["state"] == "crashed"
    assert path(plant, dead)[0] == (S.READY, S.FAILED, R.CRASHED)


def test_one_that_was_undefined_is_noticed_and_another_made() -> None:
    plant = plant_of(2)
    gone = by_age(plant)[0]
    plant.host.forget(gone)
    result = tick(plant)
    assert reason(result, ReasonCode.UNDEFINED_BY_SOMEBODY).parameters == {"instance": gone}
    assert path(plant, gone) == [(S.READY, S.REMOVED, R.UNDEFINED_BY_SOMEBODY)]
    plant.run(20.0)
    assert list(states(plant).values()) == [S.READY, S.READY]


def test_one_that_was_renamed_is_ours_still() -> None:
    plant = plant_of(2)
    renamed = by_age(plant)[0]
    plant.host.change(renamed, name="mine-now")
    assert tick(plant).actions == ()
    assert path(plant, renamed) == [(S.READY, S.READY, R.RENAMED_BY_SOMEBODY)]
    assert set(states(plant)) == plant.owned()


def test_instances_of_a_host_that_left_the_configuration_are_kept_and_counted() -> None:
    plant = plant_of(3)
    here = set(plant.owned())
    plant.policy = replace(plant.policy, hosts=("other",))
    other = Plant(plant.policy)
    other.host._host = "other"
    seen = replace(
        plant.observe(),
        hosts={},
        inventory={"other": replace(other.host.inventory(), host="other")},
        domains={},
        at=plant.clock.at + 2.0,
    )
    result = step((plant.policy,), seen, plant.memory)
    assert reason(result, ReasonCode.UNREACHABLE_INSTANCES).parameters == {"host": "local", "count": 3}
    assert len(cloned(result)) == 1, "no more than the maximum of 4"
    assert removed(result) == []
    assert here < set(result.memory.groups["web"].lives)
    assert {t.reason for t in result.transitions if t.instance in here} == {R.UNREACHABLE}
    later = step((plant.policy,), replace(seen, at=seen.at + 2.0), result.memory)
    assert [t for t in later.transitions if t.instance in here] == []


# Draining and who goes


@pytest.mark.parametrize(
    ("order", "leaves"), [(RemovalOrder.NEWEST, 3), (RemovalOrder.OLDEST, 0), (RemovalOrder.LEAST_LOADED, 1)]
)
def test_who_goes_by_the_policys_order(order: RemovalOrder, leaves: int) -> None:
    plant = plant_of(4, replace(POLICY, removal=Removal(order)))
    names = by_age(plant)
    group = plant.memory.groups["web"]
    loads = {names[0]: 0.9, names[1]: 0.1, names[2]: 0.5}
    plant.memory = replace(plant.memory, groups={"web": replace(group, loads=loads)})
    plant.observe()
    assert plant.observation is not None
    instances = group_instances(plant.policy, plant.observation, plant.memory)
    left = leave(plant.policy, 3, instances, plant.memory.groups["web"], at=plant.clock.at)
    assert [action.instance for action in left.actions] == [names[leaves]]


def test_without_hooks_or_idleness_to_wait_for_it_is_removed_at_once() -> None:
    plant = plant_of(3)
    shrink(plant, 2)
    assert removed(tick(plant)) == [by_age(plant)[-1]]


def test_hooks_are_run_first_and_then_it_is_removed() -> None:
    plant = plant_of(3, replace(POLICY, drain=DrainPolicy(hooks=(HOOK,))))
    newest = by_age(plant)[-1]
    shrink(plant, 2)
    result = tick(plant)
    assert result.actions == (Drain("web", "local", newest, (HOOK,)),)
    assert codes(result)[-1] is ReasonCode.DRAINS
    assert states(plant)[newest] is S.DRAINING
    assert removed(tick(plant)) == [newest]
    plant.run(10.0)
    assert plant.drained == [newest]
    assert path(plant, newest) == [
        (S.READY, S.DRAINING, R.SCALE_IN),
        (S.DRAINING, S.STOPPING, R.SCALE_IN),
        (S.STOPPING, S.REMOVED, R.REMOVED),
    ]


def test_it_is_waited_for_until_it_is_idle_or_long_enough() -> None:
    policy = replace(POLICY, drain=DrainPolicy(idle=0.1, wait_seconds=30.0))
    plant = plant_of(3, policy)
    newest = by_age(plant)[-1]
    shrink(plant, 2)
    since = plant.clock.at + 2.0
    while removed(tick(plant)) == []:
        assert states(plant)[newest] is S.DRAINING
        assert plant.clock.at < since + 40.0
    assert plant.clock.at - since >= 30.0, "a load that is not known is no idleness"


def test_when_the_load_returns_it_is_taken_back_instead_of_cloning() -> None:
    plant = plant_of(3, replace(POLICY, drain=DrainPolicy(idle=0.1, wait_seconds=300.0)))
    newest = by_age(plant)[-1]
    shrink(plant, 2)
    tick(plant)
    shrink(plant, 3)
    result = tick(plant)
    assert result.actions == ()
    assert reason(result, ReasonCode.TAKEN_BACK).parameters == {"instance": newest}
    assert path(plant, newest) == [(S.READY, S.DRAINING, R.SCALE_IN), (S.DRAINING, S.READY, R.TAKEN_BACK)]
    shrink(plant, 4)
    assert len(cloned(tick(plant))) == 1


def test_what_is_asked_to_shut_down_is_not_taken_back() -> None:
    plant = plant_of(3)
    shrink(plant, 2)
    (gone,) = removed(tick(plant, 0.5))
    shrink(plant, 3)
    assert len(cloned(tick(plant, 0.1))) == 1
    plant.run(20.0)
    assert gone not in plant.owned()
    assert len(plant.owned()) == 3


def test_one_that_is_undefined_while_its_hooks_run_counts_until_they_end() -> None:
    plant = plant_of(3, replace(POLICY, drain=DrainPolicy(hooks=(HOOK,))))
    plant.action_seconds = 9.0
    newest = by_age(plant)[-1]
    shrink(plant, 2)
    tick(plant)
    plant.host.forget(newest)
    shrink(plant, 3)
    tick(plant)
    assert states(plant)[newest] is S.STOPPING
    plant.run(30.0)
    assert path(plant, newest)[1:] == [
        (S.DRAINING, S.STOPPING, R.UNDEFINED_BY_SOMEBODY),
        (S.STOPPING, S.REMOVED, R.UNDEFINED_BY_SOMEBODY),
    ]
    assert len(plant.owned()) == 3


# Protection, detaching and lifetimes


def test_a_protected_one_is_spared_and_another_goes() -> None:
    plant = plant_of(3)
    oldest, middle, newest = by_age(plant)
    plant.ask(Change.PROTECT, instance=newest)
    shrink(plant, 2)
    assert removed(tick(plant)) == [middle]
    plant.run(10.0)
    plant.ask(Change.PROTECT, instance=oldest)
    shrink(plant, 1)
    result = tick(plant)
    assert removed(result) == []
    assert reason(result, ReasonCode.SPARED_BY_PROTECTION).parameters == {"protected": 2, "wanted": 1}
    plant.ask(Change.UNPROTECT, instance=newest)
    assert removed(tick(plant)) == [newest]


def test_protection_ends_by_itself() -> None:
    plant = plant_of(2)
    newest = by_age(plant)[-1]
    plant.ask(Change.PROTECT, for_seconds=20.0, instance=newest)
    shrink(plant, 1)
    plant.ask(Change.PROTECT, for_seconds=1000.0, instance=by_age(plant)[0])
    assert removed(tick(plant)) == []
    assert removed(tick(plant, 20.0)) == [newest]


def test_a_protected_one_is_not_removed_when_it_fails() -> None:
    plant = plant_of(2)
    kept = by_age(plant)[0]
    plant.ask(Change.PROTECT, instance=kept)
    tick(plant)
    plant.host.set_state(kept, DomainState.SHUTOFF)
    result = tick(plant)
    assert removed(result) == []
    assert len(cloned(result)) == 1


def test_a_detached_one_is_neither_counted_nor_removed_and_may_come_back() -> None:
    plant = plant_of(2, replace(POLICY, size=Size(2, 2)))
    away, stays = by_age(plant)
    plant.ask(Change.DETACH, instance=away)
    result = tick(plant)
    assert states(plant)[away] is S.DETACHED
    assert len(cloned(result)) == 1, "the maximum does not count it"
    plant.run(20.0)
    plant.host.set_state(away, DomainState.SHUTOFF)
    assert tick(plant).actions == ()
    plant.host.set_state(away, DomainState.RUNNING)
    plant.ask(Change.ATTACH, instance=away)
    result = tick(plant)
    assert reason(result, ReasonCode.ATTACH_REFUSED_BY_MAX).parameters["owned"] == 2
    plant.policy = replace(plant.policy, size=Size(2, 3))
    plant.ask(Change.ATTACH, instance=away)
    result = tick(plant)
    assert (states(plant)[away], result.decisions[0].current) == (S.READY, 3)
    assert path(plant, away) == [(S.READY, S.DETACHED, R.DETACHED), (S.DETACHED, S.READY, R.ATTACHED)]
    assert stays in states(plant)


def test_the_young_are_not_scaled_in() -> None:
    plant = plant_of(2, replace(POLICY, removal=Removal(min_lifetime_seconds=60.0)))
    shrink(plant, 1)
    result = tick(plant)
    assert removed(result) == []
    assert reason(result, ReasonCode.SPARED_BY_MIN_LIFETIME).parameters["young"] == 2
    born = plant.memory.groups["web"].instances[by_age(plant)[0]].started_at
    while not (gone := removed(tick(plant))):
        assert plant.clock.at < born + 70.0
    assert gone == [by_age(plant)[0]]


def test_the_old_are_replaced_one_at_a_time_the_new_one_ready_first() -> None:
    plant = plant_of(3, replace(POLICY, size=Size(3, 4), removal=Removal(max_lifetime_seconds=100.0)))
    first = by_age(plant)
    plant.clock.advance(100.0)
    gone: list[str] = []
    for _ in range(40):
        gone += removed(tick(plant))
        ready = sum(state is S.READY for state in states(plant).values())
        assert ready >= 3, states(plant)
        if len(gone) == 3:
            break
    assert gone == first
    assert {why for name in first for _, _, why in path(plant, name)} == {R.MAX_LIFETIME, R.REMOVED}


def test_where_there_is_no_room_the_old_one_goes_first_and_alone() -> None:
    plant = plant_of(2, replace(POLICY, size=Size(2, 2), removal=Removal(max_lifetime_seconds=100.0)))
    first = by_age(plant)
    plant.clock.advance(100.0)
    gone: list[str] = []
    for _ in range(40):
        gone += removed(tick(plant))
        assert sum(state is S.READY for state in states(plant).values()) >= 1
        if len(gone) == 2:
            break
    assert gone == first


# Launches


def test_the_breaker_stops_launches_until_it_is_reset() -> None:
    plant = Plant(replace(POLICY, size=Size(1, 4), launch=Launch(breaker=3)), interval_seconds=2.0)
    plant.broken = {"create_overlay"}
    launches = 0
    for _ in range(200):
        launches += len(cloned(tick(plant)))
    result = tick(plant)
    assert launches == 3
    assert reason(result, ReasonCode.HELD_BY_BREAKER).parameters == {"failures": 3, "wanted": 1, "group": "web"}
    plant.broken = set()
    assert cloned(tick(plant, 3600.0)) == []
    plant.ask(Change.RESET)
    assert len(cloned(tick(plant))) == 1
    plant.run(20.0)
    assert list(states(plant).values()) == [S.READY]


def test_the_budget_of_an_hour_holds_launches() -> None:
    plant = plant_of(3, replace(POLICY, launch=Launch(budget=4)))
    plant.host.set_state(by_age(plant)[0], DomainState.SHUTOFF)
    plant.run(20.0)
    plant.host.set_state(by_age(plant)[0], DomainState.SHUTOFF)
    result = plant.run(20.0)
    assert len(plant.owned()) == 2
    assert reason(result, ReasonCode.HELD_BY_BUDGET).parameters["budget"] == 4
    plant.clock.advance(3600.0)
    plant.run(20.0)
    assert len(plant.owned()) == 3


def test_launch_times_are_kept_per_image_and_give_the_warm_up() -> None:
    plant = plant_of(3)
    (seconds,) = plant.memory.launches.values()
    assert len(seconds) == 3
    assert all(4.0 <= each <= 8.0 for each in seconds)
    auto = replace(POLICY, warm_up_auto=True)
    assert with_warm_up(auto, {}).warm_up_seconds == 60.0
    assert with_warm_up(auto, {"default/golden.qcow2": (20.0, 30.0, 90.0)}).warm_up_seconds == 30.0
    assert with_warm_up(auto, {"default/golden.qcow2": (2.0,)}).warm_up_seconds == 10.0
    assert with_warm_up(auto, {"default/golden.qcow2": (2000.0,)}).warm_up_seconds == 600.0
    assert with_warm_up(POLICY, {"default/golden.qcow2": (30.0,)}).warm_up_seconds == 60.0


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [((), 0.5, None), ((3.0,), 0.5, 3.0), ((1.0, 2.0), 0.5, 1.0), (tuple(map(float, range(1, 101))), 0.95, 95.0)],
)
def test_quantiles_are_by_nearest_rank(values: tuple[float, ...], share: float, expected: float | None) -> None:
    assert quantile(values, share) == expected


# Groups without a policy


def test_a_vanished_policy_leaves_all_running_until_the_group_is_deleted() -> None:
    plant = plant_of(3)
    kept, away, _ = by_age(plant)
    plant.ask(Change.PROTECT, instance=kept)
    plant.ask(Change.DETACH, instance=away)
    plant.policy = replace(plant.policy, size=Size(2, 4))
    tick(plant)
    plant.managed = False
    result = plant.run(400.0)
    assert (result.decisions, result.actions) == ((), ())
    plant.run(20.0)
    before = plant.owned()
    plant.ask(Change.DELETE)
    plant.run(20.0)
    assert plant.owned() == {kept, away}
    assert len(before) > 2
    plant.ask(Change.UNPROTECT, instance=kept)
    plant.ask(Change.ATTACH, instance=away)
    plant.run(20.0)
    assert plant.owned() == set()
    assert "web" not in plant.memory.groups
    assert path(plant, kept)[-2:] == [(S.READY, S.STOPPING, R.GROUP_DELETED), (S.STOPPING, S.REMOVED, R.REMOVED)]


def test_a_policy_that_comes_back_ends_the_deletion() -> None:
    plant = plant_of(2)
    plant.managed = False
    plant.broken = {"undefine"}
    plant.ask(Change.DELETE)
    tick(plant)
    plant.managed = True
    tick(plant)
    assert not plant.memory.groups["web"].deleting


# What an operator may ask


def status(instance: str, state: S, owned: int = 1) -> Snapshot:
    """Give a snapshot of group web, of at most two: this instance and `owned` others."""
    others = tuple(InstanceStatus(f"web-{n}", "local", S.READY, 0.0) for n in range(owned))
    listed = (InstanceStatus(instance, "local", state, 0.0), *others)
    group = GroupStatus("web", Mode.ACTIVE, Size(1, 2), paused=False, override=None, decision=None, instances=listed)
    return Snapshot("1", "controller", 0.0, 0.0, 10.0, groups=(group,))


@pytest.mark.parametrize("change", [Change.PROTECT, Change.UNPROTECT, Change.DETACH])
@pytest.mark.parametrize("state", [S.READY, S.BOOTING, S.UNHEALTHY, S.DRAINING, S.RETURNING])
def test_what_is_there_may_be_changed(change: Change, state: S) -> None:
    assert refuse_change(status("web-7", state), "web-7", change) == "web"


@pytest.mark.parametrize(
    ("state", "owned", "change", "why"),
    [
        (S.REQUESTED, 1, Change.PROTECT, "web-7 is requested; wait for it to be there, or to be gone"),
        (S.STOPPING, 1, Change.DETACH, "web-7 is stopping"),
        (S.DETACHED, 1, Change.DETACH, "web-7 is detached already"),
        (S.READY, 1, Change.ATTACH, "web-7 is not detached: it is ready in group web"),
        (S.DETACHED, 2, Change.ATTACH, "group web has 2 of at most 2 instances; raise size.max"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(state: S, owned: int, change: Change, why: str) -> None:
    with pytest.raises(ControlError, match=why):
        refuse_change(status("web-7", state, owned), "web-7", change)


def test_a_detached_one_may_be_attached_where_there_is_room() -> None:
    assert refuse_change(status("web-7", S.DETACHED), "web-7", Change.ATTACH) == "web"


def test_an_instance_that_is_not_there_cannot_be_changed() -> None:
    with pytest.raises(ControlError, match="there is no instance web-9"):
        refuse_change(status("web-7", S.READY), "web-9", Change.PROTECT)


def test_status_tells_state_reason_note_protection_and_launch_times() -> None:
    plant = plant_of(2)
    paused, protected = by_age(plant)
    plant.ask(Change.PROTECT, for_seconds=60.0, instance=protected)
    plant.host.set_state(paused, DomainState.PAUSED)
    result = tick(plant)
    assert plant.observation is not None
    finished = Finished((plant.policy,), plant.observation, result, ())
    (group,) = group_statuses(finished)
    told = {each.instance: each for each in group.instances}
    assert (told[paused].state, told[paused].detail) == (S.READY, "paused_by_somebody")
    assert (told[paused].reason, told[protected].protected_until) == (R.BECAME_READY, plant.clock.at + 58.0)
    assert not group.breaker_open
    (image,) = image_launches(finished)
    assert (image.image, image.count) == ("default/golden.qcow2", 2)
    assert accumulate(Totals(), finished).groups["web"].transitions == {}
    plant.managed = False
    result = tick(plant)
    (group,) = group_statuses(Finished((), plant.observation, result, ()))
    assert (group.size, {each.state for each in group.instances}) == (None, {S.READY})
