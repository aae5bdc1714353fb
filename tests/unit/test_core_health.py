"""The gates of an instance that was not asked everything yet, and what status tells of its probe."""

import pytest

from autoscaler.core.health import passes
from autoscaler.core.observation import Domain, DomainState, Probe
from autoscaler.core.policy import Image, Policy, Ready, Size
from autoscaler.core.status import Finished, group_statuses
from autoscaler.core.step import step
from autoscaler.core.transition import InstanceState
from tests.support.plant import Plant

TCP = Ready(agent=False, tcp_port=80)
ADDRESS = Ready(agent=False, address=True)
GOOD, BAD = Probe(passed=True, at=1.0), Probe(passed=False, at=1.0, failures=1)


@pytest.mark.parametrize(
    ("ready", "answers", "addresses", "probe", "passed"),
    [
        (ADDRESS, True, ("10.0.0.1",), None, True),
        (ADDRESS, None, (), None, None),  # as after a restart of the daemon: nobody has looked yet
        (ADDRESS, False, (), None, False),
        (ADDRESS, True, (), None, False),
        (TCP, True, ("10.0.0.1",), GOOD, True),
        (TCP, True, ("10.0.0.1",), BAD, False),
        (TCP, True, ("10.0.0.1",), None, None),
        (TCP, None, (), None, None),
        (TCP, True, (), None, False),  # without an address it is never asked, and must not boot for ever
        (TCP, False, (), None, False),
    ],
)
def test_what_was_not_asked_has_not_failed(
    ready: Ready, answers: bool | None, addresses: tuple[str, ...], probe: Probe | None, passed: bool | None
) -> None:
    domain = Domain("local", "u", "web-1", DomainState.RUNNING, None, answers=answers, addresses=addresses)
    assert passes(ready, domain, probe) is passed


def test_status_tells_the_address_and_what_a_probe_found_wrong() -> None:
    policy = Policy("web", Image("default", "golden.qcow2"), Size(1, 1), ready=Ready(tcp_port=80))
    plant = Plant(policy, interval_seconds=2.0)
    plant.host.watch_addresses(frozenset({"web"}))
    plant.run(20.0)
    (instance,) = plant.owned()
    plant.probes[instance] = Probe(passed=False, at=plant.clock.at, failures=1, detail="port 80: Connection refused")
    observation = plant.observe()
    result = step((policy,), observation, plant.memory)
    (group,) = group_statuses(Finished((policy,), observation, result, ()))
    (status,) = group.instances
    assert status.state is InstanceState.BOOTING
    assert status.address is not None
    assert status.address.startswith("198.18.")
    assert status.complaint == "port 80: Connection refused"
