"""What is left of instances that are gone: what counts as left over, and when it is collected."""

from dataclasses import replace

import pytest

from autoscaler.codec import canonical, parse
from autoscaler.core.action import Clone, Collect, InFlight, Intent, IntentState
from autoscaler.core.clock import set_back
from autoscaler.core.leftovers import collects, find_leftovers
from autoscaler.core.memory import GroupMemory, Memory
from autoscaler.core.observation import (
    Domain,
    DomainState,
    HostInventory,
    Leftover,
    Observation,
    Ownership,
    Unknown,
)
from autoscaler.core.policy import Image, Machine, Mode, Policy, Size
from autoscaler.core.ports import VolumeRef
from autoscaler.core.step import step
from autoscaler.executor import Executor
from tests.support.crash import GRACE_SECONDS
from tests.support.crash import Machine as CrashMachine

VOLUME = VolumeRef("local", "default", "web-1.qcow2", "web-1")
LEFT = Leftover("local", "web-1")
COLLECT = Collect("web", "local", "web-1")


def domain(name: str, instance: str | None) -> Domain:
    ownership = None if instance is None else Ownership("c", "web", instance, "", 0.0)
    return Domain("local", f"uuid of {name}", name, DomainState.SHUTOFF, ownership)


def seen(*domains: Domain, at: float = 1000.0) -> Observation:
    return Observation(at, 10.0, {}, {"local": HostInventory("local", domains)}, leftover_grace_seconds=600.0)


def test_what_is_left_over() -> None:
    assert find_leftovers([VOLUME], seen()) == (LEFT,)
    assert find_leftovers([VOLUME, VOLUME], seen(domain("web-2", "web-2"))) == (LEFT,)
    assert find_leftovers([], seen(domain("web-1", "web-1"))) == ()


@pytest.mark.parametrize("there", [domain("web-1", "web-1"), domain("renamed", "web-1"), domain("web-1", None)])
def test_what_has_a_domain_is_not_left_over(there: Domain) -> None:
    assert find_leftovers([VOLUME], seen(there)) == ()


def test_what_is_in_flight_is_not_left_over() -> None:
    clone = Clone("web", "local", "web-1", Image("default", "golden.qcow2"), Machine())
    flight = InFlight(Intent(1, 1.0, clone), IntentState.UNKNOWN)
    assert find_leftovers([VOLUME], replace(seen(), in_flight=(flight,))) == ()


def test_nothing_is_left_over_on_a_host_that_was_not_read() -> None:
    unread = replace(seen(), inventory={"local": Unknown("no answer")})
    assert find_leftovers([VOLUME], unread) == ()
    assert find_leftovers([replace(VOLUME, host="elsewhere")], seen()) == ()
    # Nor is forgotten how long it was.
    assert collects(unread, {"local/web-1": 10.0}, frozenset()) == ((), {"local/web-1": 10.0})


def left(at: float) -> Observation:
    return replace(seen(at=at), leftovers=(LEFT,))


def test_collected_after_the_grace_period_without_a_break() -> None:
    actions, since = collects(left(1000.0), {}, frozenset())
    assert (actions, since) == ((), {"local/web-1": 1000.0})
    assert collects(left(1599.0), since, frozenset()) == ((), since)
    assert collects(left(1600.0), since, frozenset()) == ((COLLECT,), {})
    assert collects(seen(at=1300.0), since, frozenset()) == ((), {}), "it was back: the grace begins anew"


def test_nothing_is_collected_while_the_ledger_is_lost_or_the_group_is_held() -> None:
    since = {"local/web-1": 0.0}
    assert collects(replace(left(1000.0), ledger_lost=True), since, frozenset()) == ((), since)
    assert collects(left(1000.0), since, frozenset({"web"})) == ((), since)
    assert collects(left(1000.0), since, frozenset({"other"})) == ((COLLECT,), {})


@pytest.mark.parametrize("why", ["paused", "shadow"])
def test_a_group_that_nothing_is_done_for_keeps_what_is_left_over(why: str) -> None:
    policy = Policy("web", Image("default", "golden.qcow2"), Size(0, 4))
    memory = Memory("c", 0.0, {"web": GroupMemory(paused=why == "paused")}, leftovers={"local/web-1": 0.0})
    if why == "shadow":
        policy = replace(policy, mode=Mode.SHADOW)
    result = step((policy,), left(1000.0), memory)
    assert (result.actions, result.memory.leftovers) == ((), memory.leftovers)
    assert step((), left(1000.0), memory).actions == (COLLECT,), "the group's policy may be gone"


def test_a_clock_set_back_shifts_the_grace_and_a_restart_keeps_it() -> None:
    memory = Memory("c", 1000.0, leftovers={"local/web-1": 900.0})
    assert set_back(memory, 500.0)[0].leftovers == {"local/web-1": 400.0}
    assert parse(canonical(memory), Memory) == memory


def gone(machine: CrashMachine) -> str:
    machine.start().run(4)
    (instance,) = machine.instances()
    machine.host.forget(instance)
    return instance


def test_a_volume_that_a_domain_uses_is_left_alone() -> None:
    machine = CrashMachine()
    instance = gone(machine)
    volumes = machine.journal.volumes(instance)
    assert {volume.name for volume in volumes} == {f"{instance}.qcow2", f"{instance}.seed.iso"}
    machine.host.add_foreign("mine-now")
    machine.host._machines["mine-now"].volumes = volumes
    machine.start().run(12)
    assert ("default", f"{instance}.qcow2") in machine.host.volumes
    assert machine.journal.volumes(instance) == volumes
    machine.host.forget("mine-now")
    machine.start().run(12)
    machine.check(1)


def test_a_row_whose_volume_is_gone_is_struck() -> None:
    machine = CrashMachine()
    instance = gone(machine)
    machine.host.volumes.discard(("default", f"{instance}.qcow2"))
    machine.start().run(12)
    machine.check(1)


def test_a_lost_ledger_collects_nothing_until_it_is_accepted() -> None:
    machine = CrashMachine()
    machine.journal.remember("ledger_lost", "yes")
    instance = gone(machine)
    process = machine.start()
    process.run(int(GRACE_SECONDS))
    assert ("default", f"{instance}.qcow2") in machine.host.volumes
    assert machine.journal.accept_ledger()
    assert not machine.journal.accept_ledger(), "there is nothing to accept any more"
    process.run(12)
    machine.check(1)


def test_a_lost_ledger_is_filled_from_the_domains() -> None:
    machine = CrashMachine()
    machine.start().run(4)
    overlay, seed = volumes = machine.journal.volumes()
    assert (overlay.name, seed.name) == (f"{overlay.instance}.qcow2", f"{overlay.instance}.seed.iso")
    for volume in volumes:
        machine.journal.remove_volume(volume)
    hosts = {"local": machine.host}
    executor = Executor(hosts, machine.journal, now=machine.clock.now, workers_per_host=1, on_end=print, on_bug=print)
    executor.adopt()
    assert machine.journal.volumes() == volumes
    executor.stop(1.0)
    machine.check(1)
