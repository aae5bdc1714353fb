"""The gates of an instance that was not asked everything yet, by a table."""

import pytest

from autoscaler.core.health import passes
from autoscaler.core.observation import Domain, DomainState, Probe
from autoscaler.core.policy import Ready

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
