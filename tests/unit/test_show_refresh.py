"""What `autoscaler refresh` prints, at 80 columns, and what it asks of the daemon."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from autoscaler.cli.main import main
from autoscaler.cli.show_decision import decision_picture
from autoscaler.cli.show_refresh import refresh_data, refresh_picture
from autoscaler.control.server import ControlServer
from autoscaler.core.decision import ReasonCode, because
from autoscaler.core.memory import RefreshPhase, Setback
from autoscaler.core.observation import Change, Request
from autoscaler.core.policy import Image
from autoscaler.core.snapshot import GroupStatus, InstanceStatus, RefreshStatus, Snapshot
from autoscaler.core.transition import InstanceState
from tests.samples import DB, NOW, SNAPSHOT, STEADY, WEB
from tests.support.commands import golden, shown
from tests.support.desk import Desk

V1, V2 = Image("default", "web-v1.qcow2"), Image("default", "web-v2.qcow2")
ALICE = "alice (uid 1000, pid 4242)"
BATCH = RefreshStatus(V2, V1, RefreshPhase.BATCH, NOW - 20, NOW - 340, ALICE, batch=2, old=2, new=3, ready=2)
REPLACES = because(ReasonCode.REFRESH_REPLACES, image="default/web-v2.qcow2", batch=2, ready=2, left=2)
BACK = RefreshStatus(
    V1,
    None,
    RefreshPhase.ROLLED_BACK,
    NOW - 5,
    NOW - 65,
    ALICE,
    back=True,
    refused=V2,
    why=Setback.CANARY_NOT_READY,
    culprit="web-4",
    new=4,
    ready=4,
    pinned=True,
)
PINNED = because(ReasonCode.LAUNCHES_PINNED, image="default/web-v1.qcow2", refused="default/web-v2.qcow2", group="web")
INSTANCES = tuple(
    InstanceStatus(f"web-{number}", "local", state, NOW - age, image=image)
    for number, (state, age, image) in enumerate(
        [
            (InstanceState.DRAINING, 12, V1),
            (InstanceState.READY, 7200, V1),
            (InstanceState.READY, 130, V2),
            (InstanceState.BOOTING, 4, V2),
            (InstanceState.READY, 86400, None),
        ],
        start=1,
    )
)


def group(refresh: RefreshStatus | None, *reasons: ReasonCode, paused: bool = False) -> GroupStatus:
    said = {ReasonCode.REFRESH_REPLACES: REPLACES, ReasonCode.LAUNCHES_PINNED: PINNED}
    said[ReasonCode.REFRESH_LACKS_ROOM] = because(ReasonCode.REFRESH_LACKS_ROOM, ready=4, min=4, max=4)
    said[ReasonCode.REFRESH_SPARES] = because(ReasonCode.REFRESH_SPARES, protected=1)
    decision = replace(STEADY, group="web", reasons=tuple(said[code] for code in reasons))
    return replace(WEB, image=V2, refresh=refresh, decision=decision, instances=INSTANCES, paused=paused)


GROUPS = {
    "none": group(None),
    "batch": group(BATCH, ReasonCode.REFRESH_REPLACES),
    "waits": group(
        replace(BATCH, phase=RefreshPhase.CANARY, batch=0, old=4, new=0, ready=0, spared=1),
        ReasonCode.REFRESH_LACKS_ROOM,
        ReasonCode.REFRESH_SPARES,
        paused=True,
    ),
    "rolled_back": group(BACK, ReasonCode.LAUNCHES_PINNED),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_status_reads_as_in_the_golden_file(name: str) -> None:
    golden(f"cli_refresh_{name}.txt", shown(refresh_picture(GROUPS[name], NOW + 4)))


def test_explain_tells_how_far_it_is() -> None:
    decision = GROUPS["batch"].decision
    assert decision is not None
    golden("cli_explain_refresh.txt", shown(decision_picture(decision, NOW + 4)))


class Refreshing(Desk):
    """A backend whose group is being refreshed."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Change] = []

    def snapshot(self) -> Snapshot | None:
        return replace(SNAPSHOT, groups=(GROUPS["batch"], DB))

    def change(self, by: str, group: str, change: Change, count: int | None, for_seconds: float | None) -> Request:
        self.asked.append(change)
        return super().change(by, group, change, count, for_seconds)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Refreshing]:
    desk = Refreshing()
    server = ControlServer(tmp_path / "control.sock", desk)
    with capture_logs():
        server.start()
        yield desk
        server.stop()


def run(tmp_path: Path, *arguments: str) -> Result:
    config = tmp_path / "config.yaml"
    config.write_text(f"control_socket: {tmp_path / 'control.sock'}\nhosts: {{local: {{uri: qemu:///system}}}}\n")
    return CliRunner(env={"AUTOSCALER_CONFIG": str(config)}).invoke(main, ["refresh", *arguments])


@pytest.mark.parametrize(
    ("option", "change", "says"),
    [
        ((), Change.REFRESH, "web is refreshed to the image of its policy"),
        (("--cancel",), Change.CANCEL_REFRESH, "the refresh of web stops where it is"),
        (("--rollback",), Change.ROLL_BACK, "web goes back to its previous image"),
    ],
)
def test_each_wish_is_asked_for(
    tmp_path: Path, desk: Refreshing, option: tuple[str, ...], change: Change, says: str
) -> None:
    result = run(tmp_path, "web", *option)
    assert (result.exit_code, desk.asked) == (0, [change])
    assert says in result.output
    assert json.loads(run(tmp_path, "web", *option, "--json").output)["change"] == change.value


@pytest.mark.usefixtures("desk")
def test_the_status_is_json_for_programs(tmp_path: Path) -> None:
    data = json.loads(run(tmp_path, "web", "--status", "--json").output)
    assert data["image"] == {"pool": "default", "volume": "web-v2.qcow2", "name": None, "version": None}
    assert (data["refresh"]["phase"], data["refresh"]["running"]) == ("batch", True)
    assert data["waits_for"] == []
    (waits,) = refresh_data(GROUPS["waits"])["waits_for"]
    assert waits["code"] == "refresh_lacks_room"
    assert "has no room for one more" in waits["text"]
    assert [each["image"] and each["image"]["volume"] for each in data["instances"]][-2:] == ["web-v2.qcow2", None]


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("web", "--cancel", "--rollback"), 2, "exclude each other"),
        (("shop", "--status"), 1, "error: no policy for group shop; groups with a policy: web"),
        (("shop",), 1, "error: no policy for group shop"),
    ],
)
def test_wrong_use_is_told(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code == code
    assert says in result.output


def test_without_a_daemon_it_ends_with_3(tmp_path: Path) -> None:
    assert run(tmp_path, "web", "--status").exit_code == 3
