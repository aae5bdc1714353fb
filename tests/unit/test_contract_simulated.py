import math
from dataclasses import replace

import pytest

from autoscaler.core.observation import DomainState
from autoscaler.core.policy import Image
from autoscaler.simulate.host import Clock, SimulatedHost
from autoscaler.store import Journal
from tests.support.contract import Bench, InlineWorkers, WorldContract


class TestSimulatedWorld(WorldContract):
    image = Image("default", "golden.qcow2")

    @pytest.fixture
    def bench(self) -> Bench:
        clock = Clock()
        journal = Journal.in_memory()
        self.host = SimulatedHost("local", journal.controller, clock)
        workers = InlineWorkers(self.host, journal, clock)
        return Bench(self.host, journal, workers, now=clock.now, sleep=clock.advance)

    def add_foreign(self, bench: Bench, name: str) -> None:
        self.host.add_foreign(name)

    def volumes(self, bench: Bench) -> set[str]:
        return {name for pool, name in self.host.volumes - self.host.images}

    def lose(self, bench: Bench, instance: str) -> None:
        self.host.forget(instance)

    def switch_off(self, bench: Bench, instance: str) -> None:
        self.host.set_state(instance, DomainState.SHUTOFF)

    def make_deaf(self, bench: Bench, instance: str) -> None:
        self.host.guest = replace(self.host.guest, shutdown_seconds=math.inf)
