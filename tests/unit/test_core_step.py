"""Whole steps on the simulated host: what a group does over minutes."""

from dataclasses import replace

from autoscaler.core.action import Clone, Remove
from autoscaler.core.decision import ReasonCode
from autoscaler.core.observation import Change, DomainState, HostInventory, Ownership, Unknown
from autoscaler.core.policy import Behavior, DirectionLimits, Image, Launch, Mode, Policy, Ready, Size, TargetTracking
from autoscaler.core.step import StepResult, step
from tests.support.plant import CONTROLLER, Plant

POLICY = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 4),
    scaling=(TargetTracking("guest.cpu", 0.35, over_seconds=10.0),),
    behavior=Behavior(0.1, DirectionLimits(0.0, 0.0), DirectionLimits(30.0, 20.0)),
    warm_up_seconds=0.0,
    ready=Ready(agent=True, timeout_seconds=40.0),
)


def codes(result: StepResult) -> list[ReasonCode]:
    return [reason.code for reason in result.decisions[0].reasons]


def test_out_and_in_with_the_load() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    first = plant.tick()
    assert (first.decisions[0].admitted, codes(first)) == (1, [ReasonCode.RAISED_TO_MIN])
    plant.run(20.0)
    assert len(plant.owned()) == 1
    plant.demand = 0.9
    plant.run(30.0)
    assert len(plant.owned()) == 3
    plant.run(300.0)
    assert len(plant.owned()) == 3, "a steady load converges"
    plant.demand = 0.0
    plant.run(80.0)
    assert len(plant.owned()) == 1
    assert plant.host.volumes - plant.host.images == {("default", f"{name}.qcow2") for name in plant.owned()}


def test_booting_instances_do_not_call_for_more() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.run(20.0)
    plant.demand = 0.6
    clones = 0
    for _ in range(10):
        plant.clock.advance(2.0)
        clones += sum(isinstance(action, Clone) for action in plant.tick().actions)
    assert clones == 1


def test_a_missing_counter_holds_scale_in() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.demand = 0.9
    plant.run(60.0)
    plant.demand = 0.0
    plant.broken = {"counters"}
    result = plant.run(120.0)
    assert len(plant.owned()) == 3
    assert codes(result) in ([ReasonCode.HELD_BY_MISSING_LOAD], [])
    plant.broken = set()
    plant.run(80.0)
    assert len(plant.owned()) == 1


def test_an_unlisted_host_changes_nothing() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.run(20.0)
    plant.demand, plant.broken = 3.0, {"inventory"}
    result = plant.run(30.0)
    assert (result.actions, codes(result)) == ((), [ReasonCode.HELD_BY_UNKNOWN_INVENTORY])
    assert result.decisions[0].admitted == 1
    plant.broken = set()
    plant.run(30.0)
    assert len(plant.owned()) == 4


def test_a_failed_launch_backs_off_and_counts_against_max() -> None:
    plant = Plant(replace(POLICY, launch=Launch(breaker=0)), interval_seconds=2.0)
    plant.broken = {"start"}
    launches = []
    for _ in range(60):
        launches += [plant.clock.at for action in plant.tick().actions if isinstance(action, Clone)]
        assert len(plant.owned()) <= POLICY.size.max
        plant.clock.advance(2.0)
    # 120 s: at once, after 10 s, 20 s, 40 s; the defined domain that stays is removed before the next.
    assert 2 <= len(launches) <= 5
    plant.broken = set()
    plant.run(400.0)
    assert len(plant.owned()) == 1


def test_an_instance_that_is_not_ready_in_time_is_replaced() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.host.guest = replace(plant.host.guest, boot_seconds=float("inf"))
    seen: set[str] = set()
    for _ in range(60):
        result = plant.tick()
        seen |= plant.owned()
        if ReasonCode.READY_TIMEOUT in codes(result):
            break
        plant.clock.advance(2.0)
    else:
        raise AssertionError("no ready_timeout within two minutes")
    assert [type(action) for action in result.actions] == [Remove]
    assert result.memory.groups["web"].failures == 1
    plant.host.guest = replace(plant.host.guest, boot_seconds=4.0)
    plant.run(60.0)
    assert len(plant.owned()) == 1
    assert not plant.owned() & seen
    assert plant.memory.groups["web"].failures == 0


def test_a_crashed_instance_is_replaced() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.run(20.0)
    (instance,) = plant.owned()
    plant.host.set_state(instance, DomainState.CRASHED)
    plant.clock.advance(2.0)
    result = plant.tick()
    assert codes(result)[-1] is ReasonCode.REPLACES_FAILED_INSTANCE
    assert {type(action) for action in result.actions} == {Clone, Remove}
    plant.run(20.0)
    assert len(plant.owned()) == 1
    assert instance not in plant.owned()


def test_operator_holds_then_lets_go() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.run(20.0)
    plant.ask(Change.SCALE, 3, for_seconds=60.0)
    result = plant.run(30.0)
    assert (len(plant.owned()), codes(result)) == (3, [ReasonCode.HELD_BY_OPERATOR])
    plant.run(200.0)
    assert len(plant.owned()) == 1
    plant.ask(Change.PAUSE)
    plant.demand = 3.0
    result = plant.run(30.0)
    assert (len(plant.owned()), codes(result)[-1]) == (1, ReasonCode.PAUSED)
    plant.ask(Change.RESUME)
    plant.run(30.0)
    assert len(plant.owned()) == 4


def test_shadow_decides_and_does_nothing() -> None:
    plant = Plant(replace(POLICY, mode=Mode.SHADOW), interval_seconds=2.0)
    result = plant.run(20.0)
    assert (result.decisions[0].admitted, codes(result)[-1]) == (1, ReasonCode.SHADOW)
    assert not plant.owned()


def test_fixed_size_without_scaling() -> None:
    plant = Plant(replace(POLICY, scaling=(), size=Size(2, 4)), interval_seconds=2.0)
    plant.demand = 4.0
    result = plant.run(60.0)
    assert len(plant.owned()) == 2
    assert result.decisions[0].recommendations[0].reason.code is ReasonCode.FIXED_SIZE


def test_a_lowered_max_shrinks_an_inherited_excess() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.demand = 4.0
    plant.run(60.0)
    assert len(plant.owned()) == 4
    plant.policy = replace(POLICY, size=Size(1, 2))
    result = plant.tick()
    assert codes(result)[:2] == [ReasonCode.SCALE_OUT_LIMITED_BY_MAX, ReasonCode.LOWERED_TO_MAX]
    plant.run(20.0)
    assert len(plant.owned()) == 2


def test_what_is_not_ours_is_never_touched() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.host.add_foreign("web-1")
    plant.host.add_foreign("web-2", Ownership("another-controller", "web", "web-2", "", 0.0))
    plant.demand = 4.0
    plant.run(60.0)
    assert len(plant.owned()) == 4
    plant.demand = 0.0
    plant.run(120.0)
    assert {"web-1", "web-2"} <= set(plant.host._machines)
    assert len(plant.owned()) == 1


def test_the_newest_goes_first_and_what_is_not_ready_before_it() -> None:
    plant = Plant(replace(POLICY, size=Size(1, 3)), interval_seconds=2.0)
    plant.run(20.0)
    (oldest,) = plant.owned()
    plant.ask(Change.SCALE, 2)
    plant.run(20.0)
    (second,) = plant.owned() - {oldest}
    plant.host.guest = replace(plant.host.guest, boot_seconds=30.0)
    plant.ask(Change.SCALE, 3)
    plant.run(6.0)
    (booting,) = plant.owned() - {oldest, second}
    plant.ask(Change.SCALE, 1)
    plant.clock.advance(2.0)
    removed = [action.instance for action in plant.tick().actions if isinstance(action, Remove)]
    assert removed == [booting, second]


def test_clock_set_back_freezes_no_cooldown() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.demand = 0.9
    plant.run(60.0)
    plant.demand = 0.0
    plant.run(6.0)
    plant.clock.advance(-3600.0)
    plant.host._accounted_at = plant.clock.at
    result = plant.tick()
    assert codes(result)[0] is ReasonCode.CLOCK_SET_BACK
    plant.run(90.0)
    assert len(plant.owned()) == 1


def test_a_group_without_policy_keeps_its_memory() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.demand = 0.9
    plant.run(60.0)
    before = plant.memory.groups["web"]
    policy, plant.policy = plant.policy, replace(POLICY, group="other")
    plant.clock.advance(2.0)
    plant.tick()
    assert plant.memory.groups["web"] == before
    plant.policy = policy
    plant.clock.advance(2.0)
    assert plant.tick().decisions[0].current == 3


def test_ids_are_unique_to_the_controller() -> None:
    plant = Plant(POLICY)
    plant.tick()
    (flight,) = [flight for _, flight in plant.flights]
    assert flight.intent.action.instance.startswith("web-")
    assert CONTROLLER not in flight.intent.action.instance


def test_a_removal_that_failed_at_its_last_steps_is_done_again() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.demand = 0.9
    plant.run(60.0)
    plant.demand, plant.broken = 0.0, {"delete_volume"}
    plant.run(80.0)
    assert len(plant.owned()) == 3, "still seen, so still counted"
    plant.broken = set()
    plant.run(80.0)
    assert len(plant.owned()) == 1
    assert len(plant.host.volumes - plant.host.images) == 1


def test_a_guest_that_was_not_asked_has_not_failed_to_answer() -> None:
    """The daemon was down for longer than the ready timeout; its first look comes before its first question."""
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.host.guest = replace(plant.host.guest, boot_seconds=10.0)
    plant.run(6.0)
    (instance,) = plant.owned()
    plant.clock.advance(3600.0)
    observation = plant.observe()
    inventory = observation.inventory["local"]
    assert isinstance(inventory, HostInventory)
    unasked = tuple(replace(domain, answers=None) for domain in inventory.domains)
    blind = replace(observation, inventory={"local": replace(inventory, domains=unasked)})
    result = step((POLICY,), blind, plant.memory)
    assert result.actions == ()
    plant.memory = result.memory
    plant.run(4.0)
    assert plant.owned() == {instance}


def test_a_host_that_is_left_counts_until_it_was_read() -> None:
    plant = Plant(replace(POLICY, size=Size(2, 2)), interval_seconds=2.0)
    plant.run(20.0)
    moved = replace(POLICY, size=Size(2, 2), hosts=("other",))
    observation = plant.observe()
    unread = replace(observation, inventory={"local": Unknown("away"), "other": HostInventory("other", ())})
    result = step((moved,), unread, plant.memory)
    assert (result.actions, codes(result)) == ((), [ReasonCode.HELD_BY_UNKNOWN_INVENTORY])
    assert set(result.memory.groups["web"].instances) == plant.owned()


def test_starved_guests_are_not_taken_for_idle_ones() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.demand = 0.9
    plant.run(60.0)
    plant.demand, plant.host.steal = 0.0, 0.5
    result = plant.run(120.0)
    assert len(plant.owned()) == 3
    assert codes(result) == [ReasonCode.RAISED_TO_MIN, ReasonCode.HELD_BY_STARVED_GUESTS, ReasonCode.STARVED]
    plant.host.steal = 0.0
    plant.run(60.0)
    assert len(plant.owned()) == 1


def test_the_age_is_that_of_what_was_measured() -> None:
    plant = Plant(POLICY, interval_seconds=2.0)
    plant.run(20.0)
    plant.broken = {"counters"}
    plant.clock.advance(2.0)
    result = plant.run(6.0)
    assert result.decisions[0].inputs[0].age_seconds == 8.0
