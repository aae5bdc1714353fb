"""Real guests keep the contract that the simulated world keeps."""

from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from autoscaler.core.policy import Image
from autoscaler.store import Journal
from tests.real.conftest import GOLDEN, HypervisorFactory, Pool
from tests.support.contract import Bench, WorldContract, real_bench
from tests.support.daemon import define_foreign, guest_exec


@pytest.mark.real
@pytest.mark.timeout(120)
class TestRealWorld(WorldContract):
    @pytest.fixture
    def bench(
        self, tmp_path: Path, libvirt_uri: str, pool: Pool, network: str, hypervisor: HypervisorFactory
    ) -> Iterator[Bench]:
        self.network = network
        self.uri, self.pool = libvirt_uri, pool
        self.image = Image(pool.name, pool.golden.name)
        journal = Journal.open(tmp_path / "state")
        bugs: list[BaseException] = []
        bench, executor = real_bench(hypervisor(controller=journal.controller), journal, bugs)
        yield bench
        assert executor.stop(30)
        journal.close()
        assert not bugs

    def add_foreign(self, bench: Bench, name: str) -> None:
        define_foreign(self.uri, name)

    def volumes(self, bench: Bench) -> set[str]:
        """Leave out what is the console's log: it comes and goes with its overlay."""
        return {name for name in self.pool.files() - {GOLDEN} if not name.endswith(".console.log")}

    def lose(self, bench: Bench, instance: str) -> None:
        connection = libvirt.open(self.uri)
        domain = connection.lookupByName(instance)
        domain.undefine()
        domain.destroy()
        connection.close()

    def switch_off(self, bench: Bench, instance: str) -> None:
        connection = libvirt.open(self.uri)
        connection.lookupByName(instance).destroy()
        connection.close()

    def make_deaf(self, bench: Bench, instance: str) -> None:
        """Take the teeth out of what both the agent and the power button call."""
        guest_exec(self.uri, instance, "printf '#!/bin/sh\\n' > /sbin/shutdown")
