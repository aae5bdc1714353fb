"""What every world keeps, simulated or real. It speaks only `observe()` and `apply(actions)`, and lets time pass."""

import abc
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from autoscaler.core.action import Action, Clone, Collect, InFlight, Intent, IntentState, Remove, Start
from autoscaler.core.capacity import Expected, Key, Resource, need_of, open_ledger
from autoscaler.core.errors import HypervisorErrorKind
from autoscaler.core.instances import domains_by_group
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Domain, DomainCounters, DomainState, HostInventory, Leftover, Observation
from autoscaler.core.policy import USER_NETWORK, CloudInit, Image, Machine, Wanted
from autoscaler.core.ports import Hypervisor
from autoscaler.executor import Executor, Time, Work, carry_out, settle
from autoscaler.sampler import Sampler
from autoscaler.simulate.host import Clock
from autoscaler.store import Journal, TickRecord
from autoscaler.world import Workers, World

GROUP = "contract"
METRICS = frozenset({"guest.cpu", "guest.memory", "guest.disk.read_bytes", "guest.net.rx_bytes"})


class InlineWorkers:
    """Carries actions out at once, on a simulated clock: an executor without threads."""

    def __init__(self, hypervisor: Hypervisor, journal: Journal, clock: Clock) -> None:
        self._hypervisor = hypervisor
        self._journal = journal
        self._time = Time(clock.now, clock.advance)

    def submit(self, intents: Iterable[Intent]) -> None:
        for intent in intents:
            carry_out(Work(intent, self._hypervisor, self._journal, self._time))

    def settle(self, flights: Iterable[InFlight]) -> None:
        for flight in flights:
            settle(flight, Work(flight.intent, self._hypervisor, self._journal, self._time))

    def active(self) -> frozenset[int]:
        return frozenset()


class Bench:
    """One world on a bench: observe, apply, and wait for what is to come."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        journal: Journal,
        workers: Workers,
        *,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self.journal = journal
        self.controller = journal.controller
        self._world = World(Sampler({"local": hypervisor}, {}, 1.0), journal, workers)
        self._now = now
        self._sleep = sleep
        self.seen: Observation | None = None
        self.wanted: Wanted | None = None

    def observe(self) -> Observation:
        self.seen = self._world.observe(self._now(), METRICS, self.wanted)
        return self.seen

    def apply(self, *actions: Action) -> None:
        seen = self.seen or self.observe()
        record = TickRecord(seen, (), (), Memory(self.controller, seen.at))
        self._world.begin(seen, self._world.commit(record, actions))

    def until(self, holds: Callable[[Observation], bool], seconds: float = 40.0) -> Observation:
        """Observe until something holds; outcomes stay in the observations until `apply` takes them in."""
        deadline = self._now() + seconds
        while True:
            seen = self.observe()
            if holds(seen):
                return seen
            assert self._now() < deadline, f"not within {seconds:g} s; last seen: {seen}"
            self._sleep(0.2)

    def pass_time(self, seconds: float) -> None:
        self._sleep(seconds)

    def owned(self, seen: Observation) -> dict[str, Domain]:
        listed = domains_by_group(seen, self.controller).get(GROUP, ())
        return {domain.ownership.instance: domain for domain in listed if domain.ownership is not None}


def ended(seen: Observation, instance: str) -> IntentState | None:
    for outcome in seen.outcomes:
        if outcome.intent.action.instance == instance:
            return outcome.state
    return None


def assert_monotone(before: DomainCounters, now: DomainCounters, *names: str) -> None:
    for name in names:
        then, later = getattr(before, name), getattr(now, name)
        assert then is not None, f"{name} is missing"
        assert later is not None, f"{name} is missing"
        assert 0 <= then <= later, name


DISK_COUNTERS = ("disk_read_bytes", "disk_write_bytes", "disk_read_ops", "disk_write_ops")
NET_COUNTERS = ("net_rx_bytes", "net_tx_bytes", "net_rx_packets", "net_tx_packets")


class WorldContract(abc.ABC):
    """Inherit, and give a `bench` fixture."""

    image: Image
    network: str = USER_NETWORK

    def clone(self, instance: str, image: Image | None = None) -> Clone:
        machine = Machine(vcpus=1, memory_bytes=192 * 1024 * 1024, network=self.network)
        return Clone(GROUP, "local", instance, image or self.image, machine)

    def remove(self, instance: str, deadline_seconds: float = 10.0) -> Remove:
        return Remove(GROUP, "local", instance, "test", deadline_seconds)

    def launch(self, bench: Bench, *instances: str) -> Observation:
        bench.apply(*(self.clone(instance) for instance in instances))
        seen = bench.until(
            lambda seen: all(
                (domain := bench.owned(seen).get(instance)) is not None and domain.answers is True
                for instance in instances
            )
        )
        bench.apply()
        return seen

    @abc.abstractmethod
    def add_foreign(self, bench: Bench, name: str) -> None:
        """Put a running domain there that is not ours."""

    @abc.abstractmethod
    def volumes(self, bench: Bench) -> set[str]:
        """Name the volumes of the image's pool, but for the golden image."""

    def test_an_instance_is_born_counted_and_removed(self, bench: Bench) -> None:
        assert bench.owned(bench.observe()) == {}
        bench.apply(self.clone("contract-a"), self.clone("contract-b"))
        seen = bench.until(lambda seen: all(ended(seen, f"contract-{x}") for x in "ab"))
        assert {ended(seen, "contract-a"), ended(seen, "contract-b")} == {IntentState.DONE}
        owned = bench.owned(bench.observe())
        assert set(owned) == {"contract-a", "contract-b"}
        assert {domain.state for domain in owned.values()} == {DomainState.RUNNING}
        assert len({domain.uuid for domain in owned.values()}) == 2
        assert all(domain.ownership is not None and domain.ownership.image_digest for domain in owned.values())
        assert {domain.ownership.image for domain in owned.values() if domain.ownership is not None} == {self.image}
        assert self.volumes(bench) == {"contract-a.qcow2", "contract-b.qcow2"}
        assert {volume.name for volume in bench.journal.volumes()} == self.volumes(bench)
        seen = bench.until(lambda seen: all(domain.answers is True for domain in bench.owned(seen).values()))
        bench.pass_time(1.0)
        later = bench.observe()
        for domain in owned.values():
            before, now = seen.domains[domain.uuid], later.domains[domain.uuid]
            assert now.read_at_seconds > before.read_at_seconds
            assert before.vcpu_time_seconds is not None
            assert now.vcpu_time_seconds is not None
            assert now.vcpu_time_seconds >= before.vcpu_time_seconds
            assert now.vcpu_delay_seconds is not None
            assert_monotone(before, now, *DISK_COUNTERS, *NET_COUNTERS)
        self.assert_memory_is_told(bench)
        bench.apply(self.remove("contract-a"), self.remove("contract-b"))
        bench.until(lambda seen: not bench.owned(seen) and not seen.in_flight)
        assert self.volumes(bench) == set()
        assert bench.journal.volumes() == ()

    def assert_memory_is_told(self, bench: Bench) -> None:
        """The guests' balloon drivers say within seconds of booting what could still be given."""

        def told(seen: Observation) -> list[DomainCounters]:
            found = [seen.domains[domain.uuid] for domain in bench.owned(seen).values() if domain.uuid in seen.domains]
            return [each for each in found if each.memory_usable_bytes]

        seen = bench.until(lambda seen: len(told(seen)) == 2)
        for each in told(seen):
            assert each.balloon_bytes == 192 * 1024 * 1024
            assert each.memory_usable_bytes is not None
            assert 0 < each.memory_usable_bytes < each.balloon_bytes
            assert each.memory_updated_at is not None
            assert seen.at - 60 < each.memory_updated_at <= seen.at + 1

    def test_what_a_host_has_to_give_is_told(self, bench: Bench) -> None:
        bench.wanted = Wanted(frozenset({self.image}))
        self.add_foreign(bench, "contract-k")
        self.launch(bench, "contract-j")
        inventory = bench.observe().inventory["local"]
        assert isinstance(inventory, HostInventory)
        capacity = inventory.capacity
        assert capacity is not None
        assert (capacity.host, dict(capacity.unread)) == ("local", {})
        tenants = {tenant.name: tenant for tenant in capacity.tenants}
        assert set(tenants) == {"contract-j", "contract-k"}
        ours = tenants["contract-j"]
        clone = self.clone("contract-j")
        assert (ours.memory_bytes, ours.vcpus, ours.hugepages) == (clone.machine.memory_bytes, 1, False)
        assert ours.uuid == bench.owned(bench.observe())["contract-j"].uuid
        assert len(ours.macs) == 1
        assert capacity.pools[self.image.pool].images[self.image.volume] > 0
        need = need_of(clone.machine, clone.image, capacity)
        alone, expected = (open_ledger(capacity, None, ours) for ours in ((), [_expected(clone)]))
        for resource in (Resource.MEMORY, Resource.VCPUS):
            before, after = alone.account(Key(resource)), expected.account(Key(resource))
            assert before is not None
            assert before == after, "an instance that runs counts once"
            assert before.free > need[Key(resource)]

    def test_a_clone_of_no_image_fails_and_leaves_nothing(self, bench: Bench) -> None:
        bench.apply(self.clone("contract-c", Image(self.image.pool, "absent.qcow2")))
        seen = bench.until(lambda seen: ended(seen, "contract-c") is not None)
        (outcome,) = seen.outcomes
        assert outcome.state is IntentState.FAILED
        assert outcome.failure is not None
        assert outcome.failure.kind is HypervisorErrorKind.NOT_FOUND
        assert "absent.qcow2" in outcome.failure.message
        assert bench.owned(bench.observe()) == {}
        assert self.volumes(bench) == set()
        assert bench.journal.volumes() == ()

    def test_a_foreign_domain_of_the_same_name_is_left_alone(self, bench: Bench) -> None:
        self.add_foreign(bench, "contract-d")
        before = _domain(bench.observe(), "contract-d")
        bench.apply(self.clone("contract-d"), self.remove("contract-d", deadline_seconds=0.0))
        seen = bench.until(lambda seen: len(seen.outcomes) == 2)
        clone = next(outcome for outcome in seen.outcomes if isinstance(outcome.intent.action, Clone))
        assert clone.state is IntentState.FAILED
        assert clone.failure is not None
        assert clone.failure.kind is HypervisorErrorKind.EXISTS
        assert _domain(bench.observe(), "contract-d") == before
        assert "contract-d.qcow2" not in self.volumes(bench)

    def test_removing_what_is_gone_is_done(self, bench: Bench) -> None:
        bench.apply(self.remove("contract-e"))
        seen = bench.until(lambda seen: ended(seen, "contract-e") is not None)
        assert ended(seen, "contract-e") is IntentState.DONE

    def test_a_guest_that_ignores_shutdown_is_destroyed_after_the_deadline(self, bench: Bench) -> None:
        self.launch(bench, "contract-f")
        self.make_deaf(bench, "contract-f")
        bench.apply(self.remove("contract-f", deadline_seconds=2.0))
        bench.until(lambda seen: not bench.owned(seen) and not seen.in_flight)
        assert self.volumes(bench) == set()

    def test_a_removal_finds_overlay_and_seed_without_a_ledger(self, bench: Bench) -> None:
        bench.apply(replace(self.clone("contract-g"), cloud_init=CloudInit()))
        bench.until(lambda seen: ended(seen, "contract-g") is not None)
        assert self.volumes(bench) == {"contract-g.qcow2", "contract-g.seed.iso"}
        assert {volume.name for volume in bench.journal.volumes()} == self.volumes(bench)
        for volume in bench.journal.volumes():
            bench.journal.remove_volume(volume)
        bench.apply(self.remove("contract-g", deadline_seconds=0.0))
        bench.until(lambda seen: not bench.owned(seen) and not seen.in_flight)
        assert self.volumes(bench) == set()

    def test_an_instance_that_is_off_is_started_again_and_one_that_runs_is_left(self, bench: Bench) -> None:
        self.launch(bench, "contract-i")
        before = bench.owned(bench.observe())["contract-i"]
        self.switch_off(bench, "contract-i")
        bench.until(lambda seen: bench.owned(seen)["contract-i"].state is DomainState.SHUTOFF)
        for _ in range(2):
            bench.apply(Start(GROUP, "local", "contract-i"))
            seen = bench.until(lambda seen: ended(seen, "contract-i") is not None)
            assert ended(seen, "contract-i") is IntentState.DONE
            bench.apply()
        again = bench.until(lambda seen: bench.owned(seen)["contract-i"].answers is True)
        assert bench.owned(again)["contract-i"] == before
        assert self.volumes(bench) == {"contract-i.qcow2"}

    def test_starting_what_is_gone_fails(self, bench: Bench) -> None:
        bench.apply(Start(GROUP, "local", "contract-h"))
        seen = bench.until(lambda seen: ended(seen, "contract-h") is not None)
        assert ended(seen, "contract-h") is IntentState.FAILED

    def test_what_is_left_over_is_collected_unless_a_domain_uses_it(self, bench: Bench) -> None:
        bench.apply(self.clone("contract-j"))
        bench.until(lambda seen: ended(seen, "contract-j") is not None)
        bench.apply()
        assert bench.observe().leftovers == ()
        bench.apply(Collect(GROUP, "local", "contract-j"))
        seen = bench.until(lambda seen: ended(seen, "contract-j") is not None)
        (outcome,) = seen.outcomes
        assert (outcome.state, outcome.failure and outcome.failure.kind) == (
            IntentState.FAILED,
            HypervisorErrorKind.BUSY,
        )
        assert self.volumes(bench) == {"contract-j.qcow2"}
        self.lose(bench, "contract-j")
        assert bench.observe().leftovers == (Leftover("local", "contract-j"),)
        bench.apply(Collect(GROUP, "local", "contract-j"))
        bench.until(lambda seen: ended(seen, "contract-j") is IntentState.DONE and not seen.leftovers)
        assert self.volumes(bench) == set()
        assert bench.journal.volumes() == ()

    @abc.abstractmethod
    def lose(self, bench: Bench, instance: str) -> None:
        """Undefine its domain by hand."""

    @abc.abstractmethod
    def switch_off(self, bench: Bench, instance: str) -> None:
        """Take its power away."""

    @abc.abstractmethod
    def make_deaf(self, bench: Bench, instance: str) -> None:
        """Let the guest ignore requests to shut down."""


def _expected(clone: Clone) -> Expected:
    return Expected(clone.instance, clone.image, clone.machine)


def _domain(seen: Observation, name: str) -> Domain:
    inventory = seen.inventory["local"]
    assert isinstance(inventory, HostInventory)
    return next(domain for domain in inventory.domains if domain.name == name)


def real_bench(hypervisor: Hypervisor, journal: Journal, bugs: list[BaseException]) -> tuple[Bench, Executor]:
    """Put a world with real workers on a bench; stop the executor in the end."""
    executor = Executor(
        {"local": hypervisor},
        journal,
        now=time.time,
        workers_per_host=2,
        on_end=lambda: None,
        on_bug=bugs.append,
    )
    return Bench(hypervisor, journal, executor, now=time.time, sleep=time.sleep), executor
