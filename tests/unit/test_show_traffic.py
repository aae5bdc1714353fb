"""What `autoscaler traffic` prints."""

import pytest

from autoscaler.cli.show_traffic import traffic_picture
from autoscaler.core.observation import Slot, SlotState, TrafficView
from autoscaler.core.policy import TrafficKind
from autoscaler.core.snapshot import TrafficStatus
from autoscaler.core.traffic import Service
from tests.support.commands import shown

WANTED = (
    Service("web-1", "local", "192.0.2.1", 80),
    Service("web-2", "local", "192.0.2.2", 80, SlotState.DRAIN),
    Service("web-3", "local", "192.0.2.3", 80),
)
VIEW = TrafficView(
    98.0,
    97.0,
    (
        Slot("web1", "192.0.2.1", 80, SlotState.READY, 100, 100, 7, healthy=True),
        Slot("web2", "192.0.2.2", 80, SlotState.DRAIN, 100, 100, 1, healthy=True),
        Slot("web3", "192.0.2.9", 80, SlotState.READY, 10, 100, 0, healthy=False),
        Slot("web4", "127.0.0.1", 1, SlotState.MAINT, 100, 100, 0),
    ),
    queue=0,
)


def printed(status: TrafficStatus) -> list[list[str]]:
    return [line.split() for line in shown(traffic_picture("web", status, 100.0, 200), 200).splitlines()]


def test_everybody_who_should_be_or_is_there_is_listed() -> None:
    title, header, *rows = printed(TrafficStatus(TrafficKind.HAPROXY, WANTED, VIEW))
    assert " ".join(title) == "web: haproxy, 1 in service, of 4 slots, 2 s ago, 0 requests wait"
    assert header == ["INSTANCE", "ADDRESS", "WANTED", "SLOT", "STATE", "WEIGHT", "SESSIONS", "CHECKS"]
    assert rows == [
        ["web-1", "192.0.2.1:80", "ready", "web1", "ready", "100", "7", "up"],
        ["web-2", "192.0.2.2:80", "drain", "web2", "drain", "100", "1", "up"],
        ["web-3", "192.0.2.3:80", "ready", "-", "not", "there", "-", "-", "-"],
        ["-", "192.0.2.9:80", "-", "web3", "ready", "10", "0", "down"],
    ]


@pytest.mark.parametrize(
    ("why", "said"),
    [("Connection refused", "cannot be told whom to serve: Connection refused"), (None, "not looked at yet")],
)
def test_a_balancer_that_was_not_seen(why: str | None, said: str) -> None:
    (title, *_) = printed(TrafficStatus(TrafficKind.HAPROXY, (), None, why))
    assert " ".join(title).endswith(said)
