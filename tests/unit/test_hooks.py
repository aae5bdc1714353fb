"""Drain hooks, run for real: programs, receivers on loopback, and the simulated guest; good, wrong and late."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from autoscaler.core.action import Drain, InFlight, Intent, IntentState
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import Hook, HookKind
from autoscaler.core.ports import GuestRun, Hypervisor
from autoscaler.executor import StoppingError, Time, Work, carry_out, settle
from autoscaler.hooks import Leaving, name_of, run_hook, run_nothing
from autoscaler.simulate.host import Clock, SimulatedHost
from autoscaler.store import Journal, TickRecord
from tests.support.polling import wait_until
from tests.support.receiver import answering, read_request, refusing, serving, silent


@dataclass
class Guest:
    """The part of a host that hooks touch."""

    addresses_known: tuple[str, ...] = ("10.1.2.3", "fd00::1")
    result: GuestRun | HypervisorError = field(default_factory=lambda: GuestRun(0))
    ran: list[tuple[str, tuple[str, ...], float]] = field(default_factory=list)

    def addresses(self, _instance: str) -> tuple[str, ...]:
        return self.addresses_known

    def run_in_guest(self, instance: str, argv: tuple[str, ...], seconds: float) -> GuestRun:
        self.ran.append((instance, argv, seconds))
        if isinstance(self.result, HypervisorError):
            raise self.result
        return self.result


def leaving(guest: Guest | None = None, pause: Callable[[float], None] = time.sleep) -> Leaving:
    return Leaving(Drain("web", "local", "web-1", ()), cast("Hypervisor", guest or Guest()), pause)


def command(*argv: str, seconds: float = 10.0) -> Hook:
    return Hook(HookKind.COMMAND, argv, deadline_seconds=seconds)


def test_a_program_is_told_of_the_instance_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    out = tmp_path / "out"
    assert run_hook(command("sh", "-c", f"env > {out}; pwd >> {out}"), leaving()) is None
    lines = dict(line.partition("=")[::2] for line in out.read_text().splitlines())
    assert {key: value for key, value in lines.items() if key.startswith("AUTOSCALER_")} == {
        "AUTOSCALER_GROUP": "web",
        "AUTOSCALER_INSTANCE": "web-1",
        "AUTOSCALER_HOST": "local",
        "AUTOSCALER_ADDRESS": "10.1.2.3",
    }
    assert "NOTIFY_SOCKET" not in lines
    assert "/" in lines


def test_no_shell_reads_the_words(tmp_path: Path) -> None:
    assert run_hook(command("test", "$(id)", "=", "$(" + "id)"), leaving()) is None
    assert run_hook(command("sh", "-c", 'test -z "$AUTOSCALER_ADDRESS"'), leaving(Guest(()))) is None


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (("sh", "-c", "echo no way; echo at all >&2; exit 3"), "ended with 3: no way\nat all"),
        (("false",), "ended with 1"),
        (("/nowhere/hook",), "cannot be run: [Errno 2] No such file or directory: '/nowhere/hook'"),
        (("true", "\0"), "cannot be run: embedded null byte"),
        (("sh", "-c", "kill -9 $$"), "ended with -9"),
    ],
)
def test_a_program_that_fails(argv: tuple[str, ...], complaint: str) -> None:
    assert run_hook(command(*argv), leaving()) == complaint


def test_the_end_of_a_flood_is_kept() -> None:
    complaint = run_hook(
        command("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo end; exit 1"), leaving()
    )
    assert complaint is not None
    assert complaint.endswith("x\nend")
    assert len(complaint) < 5000


def test_a_late_program_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    script = f"sleep 60 & echo $! > {pid}; echo waiting; wait"
    assert run_hook(command("sh", "-c", script, seconds=0.5), leaving()) == "was killed after 0.5 s: waiting"
    assert time.monotonic() - began < 10
    wait_until(lambda: not _runs(int(pid.read_text())), 5, "its child is gone, too")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_program_that_leaves_another_one_behind_is_not_waited_for() -> None:
    began = time.monotonic()
    assert run_hook(command("sh", "-c", "sleep 5 & exit 1", seconds=30.0), leaving()) == "ended with 1"
    assert time.monotonic() - began < 4


def test_a_daemon_that_ends_takes_the_program_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def pause(_seconds: float) -> None:
        wait_until(pid.exists, 5, "it runs")
        raise StoppingError

    with pytest.raises(StoppingError):
        run_hook(command("sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60"), leaving(pause=pause))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_a_webhook_is_posted() -> None:
    got: list[tuple[dict[str, str], bytes]] = []

    def talk(line: socket.socket) -> None:
        got.append(read_request(line))
        line.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with serving(talk) as port:
        hook = Hook(HookKind.WEBHOOK, url=f"http://127.0.0.1:{port}/drain")
        assert run_hook(hook, leaving()) is None
    ((headers, body),) = got
    assert headers[""] == "POST /drain HTTP/1.1"
    assert json.loads(body) == {
        "event": "drain", "group": "web", "instance": "web-1", "host": "local", "address": "10.1.2.3",
    }  # fmt: skip


def test_a_webhook_that_fails_or_is_late() -> None:
    with serving(answering(500)) as wrong, serving(silent) as quiet, refusing() as closed:
        complaints = [
            run_hook(Hook(HookKind.WEBHOOK, url=f"http://127.0.0.1:{port}/", deadline_seconds=0.3), leaving())
            for port in (wrong, quiet, closed)
        ]
    assert complaints == ["HTTP status 500", "no answer within 0.3 s", "Connection refused"]
    odd = [run_hook(Hook(HookKind.WEBHOOK, url=url), leaving()) for url in ("http://127.0.0.1:99999/", "http://ä:1/")]
    assert odd[0] == "the URL is none that can be asked"
    assert odd[1] is not None


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (GuestRun(0, "bye"), None),
        (GuestRun(2, "no such unit\n"), "ended with 2: no such unit"),
        (GuestRun(None), "had not ended after 7 s"),
        (HypervisorError(HypervisorErrorKind.BUSY, "the agent does not answer"), "the agent does not answer"),
    ],
)
def test_a_program_in_the_guest(result: GuestRun | HypervisorError, complaint: str | None) -> None:
    guest = Guest(result=result)
    assert run_hook(Hook(HookKind.AGENT, ("leave", "now"), deadline_seconds=7.0), leaving(guest)) == complaint
    assert guest.ran == [("web-1", ("leave", "now"), 7.0)]


def test_names_hide_what_may_be_secret() -> None:
    assert name_of(Hook(HookKind.WEBHOOK, url="https://chat/T0KEN")) == "webhook chat"
    assert name_of(command("/usr/bin/leave", "--password", "x")) == "command /usr/bin/leave"


# The drain as an action


@pytest.fixture
def journal() -> Journal:
    return Journal.in_memory()


def intend(journal: Journal, *hooks: Hook) -> Intent:
    record = TickRecord(Observation(1.0, 1.0), (), (), Memory(journal.controller, 1.0))
    (intent,) = journal.commit_tick(record, (Drain("web", "local", "web-1", hooks),))
    return intent


def test_a_hook_that_fails_is_said_and_the_next_is_run(journal: Journal) -> None:
    guest, clock = Guest(), Clock()
    intent = intend(journal, command("false"), Hook(HookKind.AGENT, ("leave",)))
    work = Work(intent, cast("Hypervisor", guest), journal, Time(clock.now, time.sleep), run_hook)
    with capture_logs() as logs:
        assert carry_out(work)
    assert [outcome.state for outcome in journal.pending().outcomes] == [IntentState.DONE]
    assert [ran[1] for ran in guest.ran] == [("leave",)]
    said = [(line["event"], line.get("hook"), line.get("why")) for line in logs if "hook" in line["event"]]
    assert said == [
        ("drain hook failed, the drain goes on", "command false", "ended with 1"),
        ("drain hook done", "agent leave", None),
    ]


def test_hooks_are_run_again_after_a_crash(journal: Journal) -> None:
    clock = Clock()
    host = SimulatedHost("local", journal.controller, clock)
    intent = intend(journal, Hook(HookKind.AGENT, ("leave",)))
    journal.begin_step(intent.id, "hooks", 2.0)
    ran: list[Hook] = []

    def note(hook: Hook, _leaving: Leaving) -> str | None:
        ran.append(hook)
        return None

    flights: tuple[InFlight, ...] = journal.in_flight()
    assert [flight.step for flight in flights] == ["hooks"]
    assert settle(flights[0], Work(intent, host, journal, Time(clock.now, clock.advance), note))
    assert [hook.argv for hook in ran] == [("leave",)]
    assert not journal.in_flight()


def test_a_world_of_its_own_runs_nothing(journal: Journal, tmp_path: Path) -> None:
    clock = Clock()
    host = SimulatedHost("local", journal.controller, clock)
    intent = intend(journal, command("touch", str(tmp_path / "ran")))
    work = Work(intent, host, journal, Time(clock.now, clock.advance))
    assert work.run_hook is run_nothing
    assert carry_out(work)
    assert not (tmp_path / "ran").exists()
