"""Real guests keep the contract that the simulated world keeps."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoscaler.core.policy import Image
from autoscaler.core.ports import Hypervisor
from autoscaler.store import Journal
from tests.support.contract import Bench, WorldContract, real_bench
from tests.support.daemon import define_foreign, guest_exec, volumes


@pytest.mark.real
@pytest.mark.timeout(120)
class TestRealWorld(WorldContract):
    image = Image("default", "golden.qcow2")

    @pytest.fixture
    def bench(
        self, tmp_path: Path, libvirt_uri: str, pool: Path, make_hypervisor: Callable[[str], Hypervisor]
    ) -> Iterator[Bench]:
        self.uri = libvirt_uri
        journal = Journal.open(tmp_path / "state")
        bugs: list[BaseException] = []
        bench, executor = real_bench(make_hypervisor(journal.controller), journal, bugs)
        yield bench
        assert executor.stop(30)
        journal.close()
        assert not bugs

    def add_foreign(self, bench: Bench, name: str) -> None:
        define_foreign(self.uri, name)

    def volumes(self, bench: Bench) -> set[str]:
        return volumes(self.uri) - {"golden.qcow2"}

    def make_deaf(self, bench: Bench, instance: str) -> None:
        """Take the teeth out of what both the agent and the power button call."""
        guest_exec(self.uri, instance, "printf '#!/bin/sh\\n' > /sbin/shutdown")
