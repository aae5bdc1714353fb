"""The installed service under a real systemd, with libvirt under its own unit and real guests."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoscaler.core.snapshot import Snapshot
from tests.support.daemon import group_of
from tests.support.polling import wait_until
from tests.support.service import UNIT, Service
from tests.systemd.conftest import installed

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(300)]

TIMEOUT_STOP_SECONDS = 45.0


def unprivileged(service: Service) -> None:
    """The daemon's process has no root, no capability, and no way to gain one."""
    status = Path(f"/proc/{outside(service)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uid = service.container.output("id", "-u", "autoscaler")
    assert uid != "0"
    assert set(fields["Uid"].split()) == {uid}
    assert fields["Groups"].split() == [] or fields["Groups"].split() == [
        service.container.output("id", "-g", "autoscaler")
    ]
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def outside(service: Service) -> int:
    """Give the daemon's process id as this machine counts."""
    inside = service.main_pid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and str(inside) == inner_pid(entry) and "autoscaler" in comm(entry):
            return int(entry.name)
    raise AssertionError(f"no process with the pid {inside} inside")


def inner_pid(entry: Path) -> str:
    try:
        (line,) = [line for line in (entry / "status").read_text().splitlines() if line.startswith("NSpid:")]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    outer, *inner = line.split()[1:]
    return inner[-1] if inner else outer


def comm(entry: Path) -> str:
    try:
        return (entry / "comm").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def sees_the_host(service: Service) -> None:
    """From inside its sandbox, as its own user: the host's load, and the threads of QEMU, which is another user's."""
    (qemu,) = service.guests().values()
    pid = str(service.main_pid())
    inside = (
        "nsenter",
        "--mount",
        "--target",
        pid,
        "setpriv",
        "--reuid=autoscaler",
        "--regid=autoscaler",
        "--clear-groups",
    )
    service.container.run(*inside, "cat", "/proc/stat", "/proc/meminfo")
    names = service.container.output(*inside, "sh", "-c", f"cat /proc/{qemu}/task/*/comm")
    assert re.search(r"CPU 0/(TCG|KVM)", names)
    host = service.snapshot().hosts[0]
    assert host.connected
    assert host.sample is not None
    assert host.sample.memory_total_bytes > 0


def scales_out_and_in(service: Service) -> None:
    first = min(service.until_ready(1))
    # All it has: a share of a vCPU cannot be kept by an emulated guest on a host that is busy.
    service.burn(first, 1.0)
    assert first in service.until_ready(2)
    service.burn(first, 0.0)
    service.until_ready(1)


def test_ready_as_its_own_user_and_scales(service: Service) -> None:
    assert service.show("ActiveState") == "active"
    assert service.container.show("libvirtd.service", "ActiveState") == "active"
    unprivileged(service)
    sees_the_host(service)
    scales_out_and_in(service)


@pytest.fixture
def unified(cache: Path, golden: Path) -> Iterator[Service]:
    service = installed(cache, golden, unified=True)
    yield service
    service.close()


@pytest.mark.slow
def test_with_unified_cgroups(unified: Service) -> None:
    assert "cgroup2" in unified.container.output("stat", "--file-system", "--format=%T", "/sys/fs/cgroup")
    unified.start()
    scales_out_and_in(unified)
    unprivileged(unified)


def test_only_its_user_and_members_of_its_group_get_in(service: Service) -> None:
    """libvirt is open to the daemon's user by polkit's rule; the control socket to root and the group."""

    def tell(user: str, group: str, *command: str) -> int:
        who = ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups")
        return service.container.run(*who, *command, check=False).returncode

    listing = ("virsh", "--connect", "qemu:///system", "list")
    assert tell("autoscaler", "autoscaler", *listing) == 0
    assert tell("nobody", "autoscaler", *listing) != 0, "a member of the group may not manage libvirt"
    assert tell("nobody", "nogroup", "autoscaler", "status") == 3
    assert tell("nobody", "autoscaler", "autoscaler", "pause", "web") == 0
    assert tell("nobody", "autoscaler", "cat", "/var/lib/autoscaler/controller") != 0
    service.container.run("autoscaler", "resume", "web")
    audit = [line for line in service.journal().splitlines() if "control_change" in line]
    assert re.search(r"by='nobody \(uid 65534, pid \d+\)' command=pause group=web result=accepted", audit[-2])
    assert "by='root (uid 0" in audit[-1]


def test_without_polkits_rule_libvirt_refuses_it(service: Service) -> None:
    rule = "/etc/polkit-1/rules.d/50-autoscaler.rules"
    listing = (
        "setpriv",
        "--reuid=autoscaler",
        "--regid=autoscaler",
        "--clear-groups",
        "virsh",
        "-c",
        "qemu:///system",
        "list",
    )
    service.container.run("mv", rule, "/run/rule")
    try:
        wait_until(lambda: service.container.run(*listing, check=False).returncode != 0, 20, "polkit refuses")
    finally:
        service.container.run("cp", "/run/rule", rule)
    wait_until(lambda: service.container.run(*listing, check=False).returncode == 0, 20, "polkit grants again")


def test_a_reload_tells_whether_it_worked(service: Service) -> None:
    guests = service.guests()
    service.write_policy(size={"min": 1, "max": 5})
    assert service.systemctl("reload", UNIT)[0] == 0
    service.until(lambda it: most(it) == 5, 10, "the new policy")
    service.write_policy(size={"min": 3, "max": 2})
    code, _ = service.systemctl("reload", UNIT, check=False)
    assert code != 0
    assert service.show("ActiveState") == "active"
    assert re.search(r"reload refused.*/web\.yaml:\d+:\d+: size", service.journal())
    service.until(lambda it: it.reload is not None and not it.reload.ok, 10, "the refusal is seen")
    assert most(service.snapshot()) == 5, "the policy it had runs on"
    assert service.guests() == guests


def most(snapshot: Snapshot) -> int:
    size = group_of(snapshot).size
    assert size is not None
    return size.max


def test_a_blocked_tick_alone_is_ended_by_the_watchdog(service: Service) -> None:
    """Only the tick reads /proc/pressure: with a pipe there that nobody writes to, its thread hangs in open() for ever.

    The pipe is bound in the daemon's own mount namespace, so it is gone with it and the next daemon is well.
    """
    guests, starts = service.guests(), service.number_of_starts()
    drop_in(service, "[Service]\nWatchdogSec=5s\n")
    service.container.run("systemctl", "restart", UNIT)
    blocked = service.main_pid()
    service.container.run("mkfifo", "--mode=0644", "/run/blocked")
    service.container.run(
        "nsenter", "--mount", "--target", str(blocked), "mount", "--bind", "/run/blocked", "/proc/pressure/cpu"
    )
    began = time.monotonic()
    service.until(lambda it: it.at < time.time() - 8, 30, "ticks stop, while the control socket answers")
    wait_until(lambda: service.main_pid() != blocked and service.show("ActiveState") == "active", 90, "it runs again")
    assert time.monotonic() - began > 20, "ended although a healthy daemon may take that long"
    service.until_ready(1)
    log = service.journal()
    assert "Failed with result 'watchdog'" in log
    assert "in pressure" in log, "the stacks tell where the tick hung"
    assert service.number_of_starts() == starts + 2
    assert service.guests() == guests


def drop_in(service: Service, text: str) -> None:
    service.container.run("mkdir", "-p", f"/run/systemd/system/{UNIT}.d")
    service.write(f"/run/systemd/system/{UNIT}.d/test.conf", text)
    service.container.run("systemctl", "daemon-reload")


LIBVIRT_UNITS = ("libvirtd.service", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_outlives_five_minutes_without_libvirt(service: Service) -> None:
    guests, pid = service.guests(), service.main_pid()
    service.systemctl("stop", *LIBVIRT_UNITS)
    try:
        service.until(lambda it: not it.hosts[0].connected, 30, "it sees that libvirt is gone")
        end = time.monotonic() + 300
        while time.monotonic() < end:
            last = service.snapshot()
            assert time.time() - last.at < 30, "ticks go on"
            assert service.main_pid() == pid
            time.sleep(5)
    finally:
        service.systemctl("start", *reversed(LIBVIRT_UNITS))
    service.until(lambda it: it.hosts[0].connected, 60, "libvirt is back")
    assert service.until_ready(1) == set(guests)
    assert service.main_pid() == pid
    assert service.show("NRestarts") == "0"
    assert service.guests() == guests


@pytest.mark.slow
def test_a_libvirt_that_hangs_is_no_reason_for_the_watchdog(service: Service) -> None:
    drop_in(service, "[Service]\nWatchdogSec=5s\n")
    service.container.run("systemctl", "restart", UNIT)
    pid = service.main_pid()
    with_hanging_libvirt(service)
    try:
        time.sleep(90)
        assert service.main_pid() == pid
        assert not service.snapshot().hosts[0].connected
    finally:
        thaw_libvirt(service)
    service.until(lambda it: it.hosts[0].connected, 60, "libvirt is back")
    assert service.main_pid() == pid


def with_hanging_libvirt(service: Service) -> None:
    service.container.run("systemctl", "kill", "--signal=STOP", "libvirtd.service")


def thaw_libvirt(service: Service) -> None:
    service.container.run("systemctl", "kill", "--signal=CONT", "libvirtd.service")


def test_it_stops_in_time_while_libvirt_hangs(service: Service) -> None:
    guests = service.guests()
    # A clone is under way, too: what hangs in libvirt cannot be cancelled.
    with_hanging_libvirt(service)
    try:
        service.container.run("autoscaler", "scale", "web", "2")
        service.until(held, 30, "it sees that libvirt hangs")
        began = time.monotonic()
        service.systemctl("stop", UNIT)
        assert time.monotonic() - began < TIMEOUT_STOP_SECONDS
        assert service.show("Result") == "success", "not killed"
        assert "guests run on" in service.journal().splitlines()[-3]
    finally:
        thaw_libvirt(service)
    assert service.guests() == guests


def held(snapshot: Snapshot) -> bool:
    return not snapshot.hosts[0].connected


@pytest.mark.slow
def test_one_that_cannot_start_is_left_alone_after_five_tries(service: Service) -> None:
    guests, starts = service.guests(), service.journal().count("Starting autoscaler.service")
    service.systemctl("stop", UNIT)
    service.write_config(interval="never")
    service.systemctl("reset-failed", UNIT, check=False)
    assert service.systemctl("start", UNIT, check=False)[0] != 0
    wait_until(lambda: "start-limit-hit" in service.show("Result") or failed_for_good(service), 90, "systemd gives up")
    log = service.journal()
    assert log.count("Starting autoscaler.service") == starts + 5
    assert "config.yaml:" in log, "the reason is in the journal"
    assert service.guests() == guests


def failed_for_good(service: Service) -> bool:
    return service.show("ActiveState") == "failed" and "Start request repeated too quickly" in service.journal()
