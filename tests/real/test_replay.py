"""A journal of real ticks, replayed through the step that made it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.codec import canonical
from autoscaler.core.decision import Decision
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Unknown
from autoscaler.core.step import step
from autoscaler.store import Journal
from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, burn
from tests.support.private_libvirtd import PrivateLibvirtd

TICKS = 200

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    yield process
    process.close()


def test_a_journal_of_real_ticks_replays_to_the_same_decisions(
    daemon: DaemonProcess, libvirtd: PrivateLibvirtd, libvirt_uri: str
) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    burn(libvirt_uri, first.instance, 0.9)
    daemon.until_ready(3)
    libvirtd.command("virsh", "-c", "qemu:///system", "suspend", first.instance)
    daemon.until_tick(3)
    libvirtd.command("virsh", "-c", "qemu:///system", "resume", first.instance)
    daemon.kill()
    libvirtd.kill()
    daemon.start()
    daemon.until_tick(2)
    libvirtd.restart()
    daemon.until_ready(3)
    burn(libvirt_uri, first.instance, 0.0)
    daemon.until_ready(1)
    seen = _ticks(daemon)
    if seen < TICKS:
        daemon.until_tick(TICKS - seen, 300)
    daemon.stop()
    _replay(daemon.state_dir)


def _ticks(daemon: DaemonProcess) -> int:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        return sum(1 for _ in journal.replay())
    finally:
        journal.close()


def _replay(state_dir: Path) -> None:
    journal = Journal.open_readonly(state_dir)
    memory: Memory | None = None
    ticks = restarts = unread = missing = grown = shrunk = 0
    for tick in journal.replay():
        if tick.memory_before is not None:
            restarts += memory is not None
            assert memory is None or canonical(memory) == canonical(tick.memory_before)
            memory = tick.memory_before
        assert memory is not None
        result = step(tick.policies, tick.observation, memory)
        assert canonical(result.decisions, tuple[Decision, ...]) == tick.decisions_json
        memory = result.memory
        ticks += 1
        unread += any(isinstance(inventory, Unknown) for inventory in tick.observation.inventory.values())
        for decision in result.decisions:
            missing += any(seen.missing for seen in decision.inputs)
            grown += decision.admitted > decision.current
            shrunk += decision.admitted < decision.current
    journal.close()
    assert ticks >= TICKS
    assert min(restarts, unread, missing, grown, shrunk) >= 1, (restarts, unread, missing, grown, shrunk)
