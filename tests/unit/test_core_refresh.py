"""A rolling refresh: canaries, batches, what stays in service, the way back, and what happens in the middle of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from autoscaler.core.action import Clone, Drain, Remove
from autoscaler.core.decision import ReasonCode
from autoscaler.core.errors import ControlError
from autoscaler.core.memory import GroupMemory, RefreshPhase, RefreshState, Setback
from autoscaler.core.observation import Change, DomainState, Probe, Slot, TrafficView, Unknown
from autoscaler.core.policy import (
    CountOrShare,
    Hook,
    HookKind,
    Image,
    Launch,
    Mode,
    Policy,
    Ready,
    Refresh,
    Size,
    Traffic,
    TrafficKind,
)
from autoscaler.core.policy import Drain as DrainPolicy
from autoscaler.core.refresh import refuse_refresh
from autoscaler.core.refresh_status import refresh_status
from autoscaler.core.serving import wanted
from autoscaler.core.snapshot import RefreshStatus
from autoscaler.core.step import StepResult
from autoscaler.core.transition import InstanceState as S
from autoscaler.core.transition import TransitionReason as R
from tests.samples import WEB
from tests.support.plant import Plant, group_instances

V1, V2, V3 = (Image("default", f"v{number}.qcow2") for number in (1, 2, 3))
RULES = Refresh(canary=1, canary_soak_seconds=20.0, batch=CountOrShare(1), pause_seconds=10.0, timeout_seconds=600.0)
POLICY = Policy("web", V1, Size(4, 5), ready=Ready(timeout_seconds=40.0), refresh=RULES)


def plant_of(policy: Policy = POLICY) -> Plant:
    """Give a whole group that stands on the first image, with the others in the pool and the second in its policy."""
    plant = Plant(policy, interval_seconds=2.0)
    plant.host.images = frozenset((image.pool, image.volume) for image in (V1, V2, V3))
    plant.host.volumes |= plant.host.images
    plant.run(20.0)
    assert counts(plant) == {policy.image: policy.size.min}
    plant.policy = replace(policy, image=V2)
    plant.transitions.clear()
    return plant


def counts(plant: Plant) -> dict[Image | None, int]:
    found: dict[Image | None, int] = {}
    assert plant.observation is not None
    for instance in group_instances(plant.policy, plant.observation, plant.memory):
        found[instance.image] = found.get(instance.image, 0) + 1
    return found


def state(plant: Plant) -> RefreshState:
    refresh = plant.memory.groups["web"].refresh
    assert refresh is not None
    return refresh


def status(plant: Plant) -> RefreshStatus:
    assert plant.observation is not None
    instances = group_instances(plant.policy, plant.observation, plant.memory)
    shown = refresh_status(plant.policy, instances, plant.memory.groups["web"], plant.clock.at)
    assert shown is not None
    return shown


def ready(plant: Plant) -> int:
    assert plant.observation is not None
    return sum(i.state is S.READY for i in group_instances(plant.policy, plant.observation, plant.memory))


def codes(result: StepResult) -> set[ReasonCode]:
    return {reason.code for reason in result.decisions[0].reasons}


Check = Callable[[StepResult], None]


def until(
    plant: Plant, holds: Callable[[], object], seconds: float = 900.0, check: Check = lambda _: None
) -> StepResult:
    """Tick until something holds; what is to hold at each tick is checked."""
    end = plant.clock.at + seconds
    while plant.clock.at < end:
        plant.clock.advance(2.0)
        result = plant.tick()
        check(result)
        if holds():
            return result
    raise AssertionError(f"not within {seconds:g} s: {status(plant)}")


def ended(plant: Plant) -> bool:
    return not state(plant).running


def never_below(plant: Plant, least: int, most: int) -> Check:
    def check(_: StepResult) -> None:
        assert ready(plant) >= least, status(plant)
        assert len(plant.owned()) <= most

    return check


# The way there


@pytest.mark.parametrize("canary", [0, 1, 9])
@pytest.mark.parametrize("batch", [CountOrShare(1), CountOrShare(3), CountOrShare(share=0.5)], ids=["1", "3", "half"])
@pytest.mark.parametrize(
    ("least", "most"),
    [(CountOrShare(share=1.0), 5), (CountOrShare(3), 4), (CountOrShare(share=0.5), 4), (CountOrShare(0), 8)],
)
def test_every_instance_is_replaced_within_the_bounds(
    canary: int, batch: CountOrShare, least: CountOrShare, most: int
) -> None:
    rules = replace(RULES, canary=canary, batch=batch, min_in_service=least)
    plant = plant_of(replace(POLICY, size=Size(4, most), refresh=rules))
    plant.ask(Change.REFRESH)
    until(plant, lambda: ended(plant), check=never_below(plant, least.of(4), most))
    assert state(plant).phase is RefreshPhase.DONE
    plant.run(30.0)
    assert counts(plant) == {V2: 4}
    assert ready(plant) == 4


def test_phases_and_reasons_of_a_refresh() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    seen: list[tuple[RefreshPhase, int]] = []
    told: dict[RefreshPhase, set[ReasonCode]] = {}

    def note(result: StepResult) -> None:
        refresh = state(plant)
        if not seen or seen[-1] != (refresh.phase, refresh.batch):
            seen.append((refresh.phase, refresh.batch))
        told.setdefault(refresh.phase, set()).update(codes(result))
        assert any(code.startswith("refresh_") for code in codes(result)), "every tick explains itself"

    until(plant, lambda: ended(plant), check=note)
    assert seen == [
        (RefreshPhase.CANARY, 0),
        (RefreshPhase.SOAK, 0),
        (RefreshPhase.BATCH, 1),
        (RefreshPhase.PAUSE, 1),
        (RefreshPhase.BATCH, 2),
        (RefreshPhase.PAUSE, 2),
        (RefreshPhase.BATCH, 3),
        (RefreshPhase.DONE, 3),
    ]
    expected = {
        RefreshPhase.CANARY: ReasonCode.REFRESH_TRIES,
        RefreshPhase.SOAK: ReasonCode.REFRESH_SOAKS,
        RefreshPhase.BATCH: ReasonCode.REFRESH_REPLACES,
        RefreshPhase.PAUSE: ReasonCode.REFRESH_PAUSES,
        RefreshPhase.DONE: ReasonCode.REFRESH_DONE,
    }
    for phase, code in expected.items():
        assert code in told[phase]
    assert {t.reason for t in plant.transitions if t.after is S.STOPPING} == {R.REFRESHED}
    assert codes(plant.run(4.0)) == set(), "nothing is said of it afterwards"


def test_a_canary_replaces_nobody_before_it_was_watched() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    began = plant.clock.at
    assert counts(plant) == {V1: 4, V2: 1}
    until(plant, lambda: state(plant).phase is RefreshPhase.BATCH, check=lambda _: None)
    assert plant.clock.at - began >= 20.0
    assert state(plant).previous == V1


def test_without_room_and_with_all_to_be_kept_it_waits_and_says_so() -> None:
    rules = replace(RULES, timeout_seconds=100.0)
    plant = plant_of(replace(POLICY, size=Size(4, 4), refresh=rules))
    plant.ask(Change.REFRESH)
    plant.run(20.0)
    for _ in range(80):
        plant.clock.advance(2.0)
        result = plant.tick()
        assert ReasonCode.REFRESH_LACKS_ROOM in codes(result)
        assert not result.actions
    assert state(plant).phase is RefreshPhase.CANARY, "waiting for room has no end"
    plant.policy = replace(plant.policy, size=Size(4, 5))
    until(plant, lambda: ended(plant), check=never_below(plant, 4, 5))
    assert state(plant).phase is RefreshPhase.DONE


def test_an_old_one_makes_room_only_for_what_can_come() -> None:
    rules = replace(RULES, min_in_service=CountOrShare(1))
    plant = plant_of(replace(POLICY, size=Size(4, 4), refresh=rules, launch=Launch(budget=5)))
    plant.ask(Change.REFRESH)
    plant.run(120.0)
    assert ready(plant) == 4, "the budget of the hour allowed one, and none leaves for what it does not allow"
    assert counts(plant) == {V1: 3, V2: 1}


def test_an_old_one_makes_room_on_a_host_that_is_full() -> None:
    rules = replace(RULES, min_in_service=CountOrShare(3))
    plant = plant_of(replace(POLICY, size=Size(4, 8), refresh=rules))
    plant.host.memory_bytes = 5 << 30
    plant.ask(Change.REFRESH)
    seen: set[ReasonCode] = set()

    def watch(result: StepResult) -> None:
        seen.update(codes(result))
        assert ready(plant) >= 3
        assert len(plant.owned()) <= 4

    until(plant, lambda: ended(plant), check=watch)
    assert ReasonCode.REFUSED_FOR_MEMORY in seen
    assert state(plant).phase is RefreshPhase.DONE


def test_hooks_and_idleness_are_waited_for_as_in_a_scale_in() -> None:
    hook = Hook(HookKind.COMMAND, ("leave",))
    plant = plant_of(replace(POLICY, drain=DrainPolicy(hooks=(hook,))))
    plant.drained.clear()
    plant.ask(Change.REFRESH)
    drained: list[str] = []
    until(
        plant,
        lambda: ended(plant),
        check=lambda r: drained.extend(a.instance for a in r.actions if isinstance(a, Drain)),
    )
    assert len(drained) == 4
    assert sorted(plant.drained) == sorted(drained)
    assert {t.reason for t in plant.transitions if t.after is S.DRAINING} == {R.REFRESHED}


def test_nothing_to_replace_is_done_at_once() -> None:
    plant = plant_of()
    plant.policy = replace(plant.policy, image=V1)
    plant.ask(Change.REFRESH)
    result = plant.run(0.0)
    assert state(plant).phase is RefreshPhase.DONE
    assert ReasonCode.REFRESH_DONE in codes(result)


def test_what_is_protected_or_detached_stays_and_is_told() -> None:
    plant = plant_of()
    protected, detached = sorted(plant.owned())[:2]
    plant.ask(Change.PROTECT, for_seconds=1e6, instance=protected)
    plant.ask(Change.DETACH, instance=detached)
    plant.run(30.0)
    plant.ask(Change.REFRESH)
    result = until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE
    done = next(r for r in result.decisions[0].reasons if r.code is ReasonCode.REFRESH_DONE)
    assert done.parameters["spared"] == 2
    assert {protected, detached} <= plant.owned()
    assert status(plant).spared == 2


# Behind a load balancer


class Balancer:
    """Serves whom the group wants served, as of the tick before; what stands on some images it finds down."""

    def __init__(self, plant: Plant) -> None:
        self.plant = plant
        self.down: set[Image] = set()
        self.sessions = 0
        self.look()

    def look(self) -> None:
        plant, at = self.plant, self.plant.clock.at
        group = plant.memory.groups.get("web", GroupMemory())
        instances = () if plant.observation is None else group_instances(plant.policy, plant.observation, plant.memory)
        services = wanted(plant.policy, instances, group, at)
        images = {i.id: i.image for i in instances}
        slots = tuple(
            Slot(
                f"web{number}",
                service.address,
                service.port,
                service.state,
                sessions=self.sessions,
                healthy=images[service.instance] not in self.down,
            )
            for number, service in enumerate(services.services if services is not None else ())
        )
        plant.traffic["web"] = TrafficView(at, at - 2.0, slots)


def served_plant(**traffic: float) -> tuple[Plant, Balancer]:
    served = replace(
        POLICY,
        refresh=replace(RULES, timeout_seconds=1e6),
        traffic=Traffic(TrafficKind.HAPROXY, socket="/s", backend="web", slots="web", **traffic),  # type: ignore[arg-type]
    )
    plant = Plant(served, interval_seconds=2.0)
    plant.host.images = frozenset((image.pool, image.volume) for image in (V1, V2, V3))
    plant.host.volumes |= plant.host.images
    plant.host.watch_addresses(frozenset({"web"}))
    balancer = Balancer(plant)
    for _ in range(20):
        plant.clock.advance(2.0)
        balancer.look()
        plant.tick()
    assert ready(plant) == 4
    plant.policy = replace(served, image=V2)
    plant.ask(Change.REFRESH)
    return plant, balancer


def test_nobody_leaves_before_the_balancer_serves_whom_it_is_replaced_by() -> None:
    plant, balancer = served_plant()
    balancer.down = {V2}

    def look(_: StepResult) -> None:
        balancer.look()
        assert counts(plant).get(V1, 0) == 4

    plant.clock.advance(2.0)
    plant.tick()
    for _ in range(60):
        plant.clock.advance(2.0)
        look(plant.tick())
    assert (state(plant).phase, status(plant).new, status(plant).ready) == (RefreshPhase.CANARY, 1, 0)
    balancer.down = set()
    until(plant, lambda: ended(plant), check=lambda _: balancer.look())
    assert state(plant).phase is RefreshPhase.DONE
    assert {t.reason for t in plant.transitions if t.after is S.DRAINING} == {R.REFRESHED}


def test_sessions_of_what_is_replaced_are_waited_for() -> None:
    plant, balancer = served_plant(drain_seconds=40.0)
    balancer.sessions = 3
    told: set[ReasonCode] = set()

    def look(result: StepResult) -> None:
        balancer.look()
        told.update(codes(result))

    until(plant, lambda: ended(plant), check=look)
    assert state(plant).phase is RefreshPhase.DONE
    assert {ReasonCode.WAITS_FOR_SESSIONS, ReasonCode.SESSIONS_CUT} <= told


def test_a_balancer_that_does_not_answer_lets_nobody_leave() -> None:
    plant, balancer = served_plant()
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK, check=lambda _: balancer.look())
    plant.traffic["web"] = Unknown("it does not answer")
    for _ in range(60):
        plant.clock.advance(2.0)
        plant.tick()
        assert counts(plant) == {V1: 4, V2: 1}
    until(plant, lambda: ended(plant), check=lambda _: balancer.look())
    assert state(plant).phase is RefreshPhase.DONE


# Load, failures and hands in the middle


def test_growth_while_the_canary_is_tried_comes_from_the_image_in_service() -> None:
    plant = plant_of(replace(POLICY, size=Size(3, 8)))
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    plant.ask(Change.SCALE, 6)
    cloned: list[Image] = []
    plant.run(10.0)
    until(plant, lambda: state(plant).since + 18.0 <= plant.clock.at)
    assert state(plant).phase is RefreshPhase.SOAK
    assert counts(plant) == {V1: 5, V2: 1}, "the old one that the canary is to replace stays, and two more come"
    until(plant, lambda: ended(plant), check=lambda r: cloned.extend(images(r)))
    assert set(cloned) == {V2}
    assert counts(plant) == {V2: 6}


def images(result: StepResult) -> list[Image]:
    return [action.image for action in result.actions if isinstance(action, Clone)]


def test_scaling_in_during_a_refresh_takes_the_old_ones_first() -> None:
    plant = plant_of(replace(POLICY, size=Size(2, 8)))
    plant.ask(Change.SCALE, 6)
    plant.policy = replace(plant.policy, image=V1)
    plant.run(40.0)
    plant.policy = replace(plant.policy, image=V2)
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.PAUSE)
    new = counts(plant)[V2]
    plant.ask(Change.SCALE, 3)
    plant.clock.advance(2.0)
    result = plant.tick()
    gone = {a.instance for a in result.actions if isinstance(a, Remove)}
    assert len(gone) == 3
    plant.run(8.0)
    assert counts(plant) == {V1: 3 - new, V2: new}


def test_a_pause_stops_it_and_no_time_goes_by() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    plant.ask(Change.PAUSE)
    for _ in range(60):
        plant.clock.advance(2.0)
        assert not plant.tick().actions
    assert state(plant).phase is RefreshPhase.SOAK
    plant.ask(Change.RESUME)
    resumed = plant.clock.at
    until(plant, lambda: state(plant).phase is RefreshPhase.BATCH)
    assert plant.clock.at - resumed >= 20.0, "what was not watched is watched now"
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE


def test_a_host_that_cannot_be_read_holds_it() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    plant.broken = {"inventory"}
    for _ in range(30):
        plant.clock.advance(2.0)
        assert not plant.tick().actions
    plant.broken = set()
    plant.clock.advance(2.0)
    plant.tick()
    assert state(plant).phase is RefreshPhase.SOAK
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE


def test_a_policy_that_vanishes_holds_it_until_it_is_back() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    plant.managed = False
    plant.run(100.0)
    assert state(plant).phase is RefreshPhase.SOAK
    plant.managed = True
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE


def test_a_clock_that_is_set_back_shifts_it() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    plant.clock.advance(-3600.0)
    plant.tick()
    assert plant.clock.at - state(plant).since <= 20.0
    until(plant, lambda: ended(plant), 300.0)
    assert state(plant).phase is RefreshPhase.DONE


def test_a_refresh_asked_for_while_no_host_can_be_read_is_not_forgotten() -> None:
    plant = plant_of()
    plant.broken = {"inventory"}
    plant.ask(Change.REFRESH)
    plant.run(10.0)
    assert state(plant).phase is RefreshPhase.ASKED
    plant.broken = set()
    until(plant, lambda: ended(plant))
    assert counts(plant) == {V2: 4}


def test_an_instance_lost_in_the_middle_comes_back_on_the_new_image() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.PAUSE)
    old = next(i for i in sorted(plant.owned()) if image_of(plant, i) == V1)
    plant.host.set_state(old, DomainState.SHUTOFF)
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE
    assert counts(plant) == {V2: 4}


def image_of(plant: Plant, instance: str) -> Image | None:
    assert plant.observation is not None
    listed = group_instances(plant.policy, plant.observation, plant.memory)
    return next((i.image for i in listed if i.id == instance), None)


def test_after_a_reboot_of_the_host_it_goes_on() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.SOAK)
    plant.host.reboot()
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE
    assert counts(plant) == {V2: 4}


# Bad images


def sicken(plant: Plant, instance: str) -> None:
    plant.probes[instance] = Probe(passed=False, at=plant.clock.at, failures=3, detail="HTTP 500")


@pytest.mark.parametrize("room", [4, 5])
@pytest.mark.parametrize("how", list(Setback)[1:5])
def test_a_bad_canary_is_taken_back_and_nothing_is_launched_from_its_image(how: Setback, room: int) -> None:
    probed = Ready(agent=True, tcp_port=80, timeout_seconds=40.0)
    rules = replace(RULES, min_in_service=CountOrShare(3))
    plant = Plant(replace(POLICY, size=Size(4, room), ready=probed, refresh=rules), interval_seconds=2.0)
    plant.host.volumes |= {("default", f"v{n}.qcow2") for n in (1, 2, 3)}
    healthy = probe_all(plant)
    until_ready(plant, 4, healthy)
    plant.policy = replace(plant.policy, image=V2)
    if how is Setback.CANARY_NOT_READY:
        plant.host.dead_images = {("default", "v2.qcow2")}
    if how is Setback.CANARY_NOT_MADE:
        plant.host.volumes -= {("default", "v2.qcow2")}
    plant.ask(Change.REFRESH)

    seen: set[ReasonCode] = set()

    def disturb(result: StepResult) -> None:
        seen.update(codes(result))
        healthy()
        assert ready(plant) >= 3
        for name in plant.owned():
            if image_of(plant, name) == V2 and state(plant).phase is RefreshPhase.SOAK:
                if how is Setback.CANARY_UNHEALTHY:
                    sicken(plant, name)
                if how is Setback.CANARY_FAILED:
                    plant.host.set_state(name, DomainState.CRASHED)

    until(plant, lambda: ended(plant), check=disturb)
    assert state(plant).phase is RefreshPhase.ROLLED_BACK
    assert state(plant).why is how
    assert (state(plant).culprit or "").startswith("web-")
    assert {ReasonCode.REFRESH_GOES_BACK, ReasonCode.REFRESH_ROLLED_BACK} <= seen
    until_ready(plant, 4, healthy)
    assert counts(plant) == {V1: 4}
    plant.host.set_state(min(plant.owned()), DomainState.SHUTOFF)
    until_ready(plant, 3, healthy)
    result = until_ready(plant, 4, healthy)
    assert counts(plant) == {V1: 4}, "what replaces one is made of the image in service"
    assert ReasonCode.LAUNCHES_PINNED in codes(result)
    plant.policy = replace(plant.policy, image=V3)
    plant.clock.advance(2.0)
    assert ReasonCode.LAUNCHES_PINNED not in codes(plant.tick())
    plant.ask(Change.REFRESH)
    until(plant, lambda: ended(plant), check=lambda _: healthy())
    assert counts(plant) == {V3: 4}


def probe_all(plant: Plant) -> Callable[[], None]:
    def healthy() -> None:
        for name in plant.host._machines:
            plant.probes.setdefault(name, Probe(passed=True, at=plant.clock.at))

    return healthy


def until_ready(plant: Plant, count: int, healthy: Callable[[], None]) -> StepResult:
    for _ in range(200):
        plant.clock.advance(2.0)
        healthy()
        result = plant.tick()
        if ready(plant) == count and (count == 3 or len(plant.owned()) == count):
            return result
    raise AssertionError(counts(plant))


def test_versions_of_the_catalog_are_called_by_their_names() -> None:
    first, second = replace(V1, name="web", version=1), replace(V2, name="web", version=2)
    plant = plant_of(replace(POLICY, image=first))
    plant.policy = replace(plant.policy, image=second)
    plant.host.dead_images = {("default", "v2.qcow2")}
    plant.ask(Change.REFRESH)
    result = until(plant, lambda: ended(plant))
    pinned = next(r for r in result.decisions[0].reasons if r.code is ReasonCode.LAUNCHES_PINNED)
    assert (pinned.parameters["image"], pinned.parameters["refused"]) == ("web version 1", "web version 2")
    plant.policy = replace(plant.policy, image=Image("", "", "web"))
    plant.run(4.0)
    plant.policy = replace(plant.policy, image=second)
    assert ReasonCode.LAUNCHES_PINNED in codes(plant.run(4.0)), "a name that led nowhere for a while is still refused"


def test_without_rollback_a_bad_canary_stops_it_and_is_launched_no_more() -> None:
    plant = plant_of(replace(POLICY, refresh=replace(RULES, rollback=False)))
    plant.host.dead_images = {("default", "v2.qcow2")}
    plant.ask(Change.REFRESH)
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.FAILED
    result = plant.run(60.0)
    assert counts(plant) == {V1: 4}
    assert {ReasonCode.REFRESH_FAILED, ReasonCode.LAUNCHES_PINNED} <= codes(result)


def test_an_image_that_goes_bad_after_its_canary_is_rolled_back() -> None:
    plant = plant_of(replace(POLICY, refresh=replace(RULES, min_in_service=CountOrShare(3))))
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.PAUSE)
    plant.host.guest = replace(plant.host.guest)
    alive = {name for name in plant.owned() if image_of(plant, name) == V2}
    assert alive
    boot = plant.host.guest.boot_seconds
    plant.host.guest = replace(plant.host.guest, boot_seconds=1e9)
    for name in plant.owned():
        plant.host._machines[name].started_at = -1e10
    until(plant, lambda: state(plant).back, 2000.0)
    assert state(plant).why is Setback.LAUNCHES_FAILED
    plant.host.guest = replace(plant.host.guest, boot_seconds=boot)
    until(plant, lambda: ended(plant), 2000.0)
    assert state(plant).phase is RefreshPhase.ROLLED_BACK
    plant.run(60.0)
    assert counts(plant) == {V1: 4}


def test_a_full_pool_is_not_held_against_an_image() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    plant.host.pool_bytes = 0
    plant.run(60.0)
    assert state(plant).phase is RefreshPhase.CANARY
    plant.host.pool_bytes = 1 << 40
    until(plant, lambda: ended(plant))
    assert state(plant).phase is RefreshPhase.DONE


def test_what_comes_no_further_goes_back_in_the_end() -> None:
    plant = plant_of(replace(POLICY, refresh=replace(RULES, timeout_seconds=100.0)))
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.BATCH)
    plant.broken = {"undefine"}
    until(plant, lambda: state(plant).back, 1200.0)
    assert state(plant).why is Setback.NO_PROGRESS
    until(plant, lambda: ended(plant), 1200.0)
    assert state(plant).phase is RefreshPhase.FAILED, "the way back comes no further either, and ends"


# Operators


def test_cancel_stops_where_it_is() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is RefreshPhase.PAUSE)
    before = counts(plant)
    plant.ask(Change.CANCEL_REFRESH)
    assert ReasonCode.REFRESH_CANCELLED in codes(plant.run(0.0))
    plant.run(200.0)
    assert counts(plant) == before
    assert state(plant).phase is RefreshPhase.CANCELLED


@pytest.mark.parametrize("phase", [RefreshPhase.CANARY, RefreshPhase.SOAK, RefreshPhase.PAUSE, RefreshPhase.DONE])
def test_rollback_goes_back_from_anywhere(phase: RefreshPhase) -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).phase is phase)
    plant.ask(Change.ROLL_BACK)
    until(plant, lambda: state(plant).back and ended(plant), check=never_below(plant, 4, 5))
    assert (state(plant).phase, state(plant).why) == (RefreshPhase.ROLLED_BACK, Setback.ASKED)
    plant.run(60.0)
    assert counts(plant) == {V1: 4}
    assert status(plant).pinned


def test_a_newer_image_supersedes_and_the_way_back_stays_open() -> None:
    plant = plant_of()
    plant.host.dead_images = {("default", "v2.qcow2"), ("default", "v3.qcow2")}
    plant.ask(Change.REFRESH)
    plant.run(12.0)
    assert counts(plant) == {V1: 4, V2: 1}
    plant.policy = replace(plant.policy, image=V3)
    plant.ask(Change.REFRESH)
    until(plant, lambda: state(plant).target == V3)
    assert state(plant).previous == V1
    until(plant, lambda: ended(plant), 2000.0)
    plant.run(60.0)
    assert state(plant).phase is RefreshPhase.ROLLED_BACK
    assert counts(plant) == {V1: 4}


def test_a_second_wish_for_the_same_changes_nothing() -> None:
    plant = plant_of()
    plant.ask(Change.REFRESH)
    plant.run(10.0)
    before = state(plant)
    plant.ask(Change.REFRESH)
    plant.run(2.0)
    assert state(plant).started_at == before.started_at


def test_what_drained_when_a_refresh_is_cancelled_is_taken_back() -> None:
    hook = Hook(HookKind.COMMAND, ("leave",))
    rules = replace(RULES, min_in_service=CountOrShare(3))
    plant = plant_of(replace(POLICY, size=Size(4, 4), refresh=rules, drain=DrainPolicy(hooks=(hook,))))
    plant.action_seconds = 20.0
    plant.ask(Change.REFRESH)
    until(plant, lambda: ready(plant) == 3)
    plant.ask(Change.CANCEL_REFRESH)
    result = plant.run(4.0)
    assert ready(plant) == 4
    plant.run(60.0)
    assert counts(plant) == {V1: 4}
    assert result is not None


def shown(**changes: object) -> RefreshStatus:
    given = RefreshStatus(V2, V1, RefreshPhase.BATCH, 0.0, 0.0, "bob")
    return replace(given, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "now", "says"),
    [
        (Change.CANCEL_REFRESH, None, "no refresh of group web is under way"),
        (Change.CANCEL_REFRESH, shown(phase=RefreshPhase.DONE), "no refresh of group web is under way"),
        (Change.REFRESH, shown(), "being refreshed to default/v2.qcow2 already"),
        (Change.ROLL_BACK, None, "was not refreshed"),
        (Change.ROLL_BACK, shown(back=True, previous=None), "goes or went back already"),
        (Change.ROLL_BACK, shown(previous=None), "is not known"),
    ],
)
def test_wishes_without_sense_are_refused(change: Change, now: RefreshStatus | None, says: str) -> None:
    with pytest.raises(ControlError, match=says):
        refuse_refresh("web", replace(WEB, image=V2, refresh=now), change)


def test_an_image_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(ControlError, match="leads to no volume at present"):
        refuse_refresh("web", replace(WEB, image=Image("", "")), Change.REFRESH)
    plant = plant_of()
    plant.policy = replace(plant.policy, image=Image("", ""), mode=Mode.SHADOW)
    plant.ask(Change.REFRESH)
    plant.run(4.0)
    assert plant.memory.groups["web"].refresh is None


@pytest.mark.parametrize(
    ("change", "now"),
    [
        (Change.REFRESH, None),
        (Change.REFRESH, shown(phase=RefreshPhase.DONE)),
        (Change.REFRESH, shown(target=V3)),
        (Change.CANCEL_REFRESH, shown()),
        (Change.ROLL_BACK, shown()),
        (Change.ROLL_BACK, shown(phase=RefreshPhase.DONE)),
    ],
)
def test_wishes_with_sense_are_granted(change: Change, now: RefreshStatus | None) -> None:
    refuse_refresh("web", replace(WEB, image=V2, refresh=now), change)
    refuse_refresh("web", None, Change.REFRESH)


@pytest.mark.parametrize(
    ("portion", "total", "count"),
    [
        (CountOrShare(share=0.25), 4, 1),
        (CountOrShare(share=0.25), 5, 2),
        (CountOrShare(share=0.9), 10, 9),
        (CountOrShare(share=1.0), 7, 7),
        (CountOrShare(3), 4, 3),
        (CountOrShare(9), 4, 4),
        (CountOrShare(share=0.0), 4, 0),
    ],
)
def test_a_count_or_a_share_of_a_group(portion: CountOrShare, total: int, count: int) -> None:
    assert portion.of(total) == count
