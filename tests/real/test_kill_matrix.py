"""A real daemon on real guests, killed at every step of every action, before and after the step's call to libvirt."""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest

from autoscaler.core.action import Action, Clone, Collect, Drain, Remove, Start
from autoscaler.executor import STEPS
from tests.conftest import MATRIX, WHOLE
from tests.real.conftest import Pool
from tests.support import killing_daemon
from tests.support.daemon import DaemonProcess
from tests.support.invariants import Before, look, until_settled
from tests.support.registry import all_steps

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

MOST = 2
POLICY = {
    "size": {"min": 1, "max": MOST},
    "scaling": [],
    "ready": {"agent": False, "timeout": "1m"},
    "cloud_init": {},
}
KILLER = Path(killing_daemon.__file__)
MOMENTS = ("before", "after")
CASES = [
    pytest.param(action, step.name, when, id=f"{action.__name__.lower()}-{step.name}-{when}", marks=marks)
    for action, step in all_steps()
    for when, marks in ((MOMENTS[0], [pytest.mark.slow]), (MOMENTS[1], []))
]


@dataclass
class Ground:
    """Where a case takes place."""

    daemon: DaemonProcess
    uri: str
    before: Before

    def arm(self, action: type[Action], step: str, when: str) -> None:
        """From now on the daemon that is started kills itself there."""
        self.daemon.command = [Path(sys.executable), KILLER]
        self.daemon.environment = {killing_daemon.VARIABLE: f"{action.__name__.lower()} {step} {when}"}

    def disarm(self) -> None:
        self.daemon.command = [self.shipped]
        self.daemon.environment = {}

    def __post_init__(self) -> None:
        (self.shipped,) = self.daemon.command

    def until_killed(self) -> None:
        assert self.daemon.process is not None
        code = self.daemon.process.wait(40)
        assert code == -signal.SIGKILL, f"it ended with {code}:\n{self.daemon.text()}"


@pytest.fixture
def ground(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[Ground]:
    daemon = DaemonProcess(
        tmp_path,
        libvirt_uri,
        pool.name,
        **POLICY,
        drain={"deadline": "1s"},
    )
    daemon.configure(orphans={"grace": "1s"})
    yield Ground(daemon, libvirt_uri, look(libvirt_uri, pool.path, seeded=True))
    daemon.close()


def _clone(ground: Ground) -> None:
    ground.daemon.start(wait=False)


def _remove(ground: Ground) -> None:
    ground.daemon.start()
    ground.daemon.until_ready(1, 40)
    ground.daemon.ask("scale", group="web", count=2, for_seconds=600.0)
    ground.daemon.until_ready(2, 40)
    ground.daemon.ask("scale", group="web", count=1, for_seconds=600.0)


def _drain(ground: Ground) -> None:
    hook = {"type": "command", "run": ["/bin/true"]}
    ground.daemon.write_policy(**POLICY, drain={"deadline": "1s", "hooks": [hook]})
    _remove(ground)


def _start(ground: Ground) -> None:
    armed, ground.daemon.environment = ground.daemon.environment, {}
    killer, ground.daemon.command = ground.daemon.command, [ground.shipped]
    ground.daemon.fake_boot("one")
    ground.daemon.start()
    (instance,) = ground.daemon.until_ready(1, 40)
    ground.daemon.stop()
    connection = libvirt.open(ground.uri)
    connection.lookupByName(instance.instance).destroy()
    connection.close()
    ground.daemon.fake_boot("two")
    ground.daemon.environment, ground.daemon.command = armed, killer
    ground.daemon.start(wait=False)


def _collect(ground: Ground) -> None:
    ground.daemon.start()
    (instance,) = ground.daemon.until_ready(1, 40)
    connection = libvirt.open(ground.uri)
    domain = connection.lookupByName(instance.instance)
    domain.undefine()
    domain.destroy()
    connection.close()


SCENARIOS: Mapping[type[Action], Callable[[Ground], None]] = {
    Clone: _clone,
    Drain: _drain,
    Remove: _remove,
    Start: _start,
    Collect: _collect,
}
"""What leads the daemon to an action of each kind."""


@pytest.mark.parametrize(("action", "step", "when"), CASES)
def test_killed_at_a_step(
    ground: Ground, action: type[Action], step: str, when: str, record_property: Callable[[str, object], None]
) -> None:
    record_property(MATRIX, "real guests")
    ground.arm(action, step, when)
    SCENARIOS[action](ground)
    ground.until_killed()
    ground.disarm()
    ground.daemon.start()
    ground.daemon.until_ready(1, 40)
    until_settled(ground.before, ground.daemon, MOST)


def test_no_step_is_left_out(record_property: Callable[[str, object], None]) -> None:
    steps = len(all_steps())
    record_property(WHOLE, f"real guests: {len(CASES)} = {steps} steps x {len(MOMENTS)}")
    assert SCENARIOS.keys() == STEPS.keys(), "a new action needs a scenario that leads to it"
    assert len({case.id for case in CASES}) == len(CASES) == steps * len(MOMENTS)
