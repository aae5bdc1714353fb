"""A journal of real ticks, replayed through the step that made it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoscaler.cli import main
from autoscaler.codec import canonical
from autoscaler.core.decision import Decision
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Unknown
from autoscaler.core.step import step
from autoscaler.simulate.load import read_load
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


@pytest.mark.slow
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
    _rehearse(daemon)


def _rehearse(daemon: DaemonProcess) -> None:
    """What operators can do with the same journal: decide it again, and try another policy on its load."""
    again = CliRunner().invoke(main, ["simulate", "--recording", str(daemon.state_dir)])
    assert again.exit_code == 0, again.output
    decisions = re.search(r"^([0-9]+) decisions, all identical$", again.stdout, re.MULTILINE)
    assert decisions is not None, again.stdout
    assert int(decisions[1]) >= TICKS
    policy, load = daemon.policies / "web.yaml", daemon.directory / "load.csv"
    words = ["--policy", str(policy), "--boot-delay", "measured", "--step", "1s"]
    tried = CliRunner().invoke(main, ["simulate", "--recording", str(daemon.state_dir), *words])
    assert tried.exit_code == 0, tried.output
    assert re.search(r"boot delays of [2-9] launches: [0-9]+ to [0-9]+ s", tried.stderr), tried.stderr
    saved = CliRunner().invoke(main, ["record", "--config", str(daemon.config), "--out", str(load)])
    assert saved.exit_code == 0, saved.output
    assert len(read_load(load, allow_gaps=True).times) > TICKS / 2


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
