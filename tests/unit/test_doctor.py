"""What the doctor makes of what it finds; the whole of it is run on a real libvirt among the other real tests."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from autoscaler.cli import main
from autoscaler.cli.show_findings import show_findings
from autoscaler.config import Config, PrometheusServer, Webhook
from autoscaler.core.policy import Accelerator, CloudInit, Image, Machine, Policy, Secret, Size, Traffic, TrafficKind
from autoscaler.doctor import Finding, Level
from autoscaler.doctor.files import check_config_file, check_policy_files, check_state
from autoscaler.doctor.hosts import _check_kvm
from autoscaler.doctor.machine import check_clock, check_kvm_device, check_pressure
from autoscaler.doctor.others import check_others
from autoscaler.doctor.service import check_daemon, check_socket, check_watchdog
from autoscaler.host.clock import synchronised
from autoscaler.host.kvm_device import User, user_of
from autoscaler.hypervisor.inspection import Inspection, parse_qemu_ids
from tests.support.commands import golden

NOBODY = User(65534, frozenset({65534}), "nobody")
STRANGER = User(4242, frozenset({4242}), "4242")

FINDINGS = (
    Finding("clock", Level.OK, "is kept right"),
    Finding(
        "psi",
        Level.WARNING,
        "the kernel keeps no pressure figures: a host that is too full is seen late",
        "Boot with psi=1 on the kernel's command line (it needs CONFIG_PSI)",
    ),
    Finding(
        "policies",
        Level.ERROR,
        '/etc/autoscaler/policies/web.yaml:3:1: unknown key "szie"; did you mean "size"?\n'
        "/etc/autoscaler/policies/web.yaml:9:5: must be a duration such as 90s, 5m, 1h30m or 500ms, not 'soon'",
        "Mend what is said of each line",
    ),
    Finding("libvirt.local", Level.OK, "libvirt 9.0.0 answers at qemu:///system and may be managed"),
    Finding(
        "kvm-device.local",
        Level.ERROR,
        "/dev/kvm is closed to QEMU's user libvirt-qemu: libvirt asks QEMU anew what it can do at every start, most of"
        " a minute per guest",
        "chgrp kvm /dev/kvm; chmod 0660 /dev/kvm; usermod -aG kvm libvirt-qemu; systemctl restart libvirtd (its group"
        " is root now; a udev rule keeps it so)",
    ),
)


def test_findings_read_as_in_the_golden_file() -> None:
    console = Console(width=80, file=io.StringIO(), highlight=False, markup=False)
    assert show_findings(console, FINDINGS) == FINDINGS
    assert isinstance(console.file, io.StringIO)
    golden("cli_doctor.txt", console.file.getvalue())
    assert max(map(len, console.file.getvalue().splitlines())) <= 80


@pytest.fixture
def config(tmp_path: Path) -> Config:
    for name in ("policies", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "config.yaml").write_text("policies_dir: policies\nstate_dir: state\ncontrol_socket: control.sock\n")
    return Config(
        policies_dir=tmp_path / "policies", state_dir=tmp_path / "state", control_socket=tmp_path / "control.sock"
    )


def test_good_files(config: Config, tmp_path: Path) -> None:
    (config.policies_dir / "web.yaml").touch(mode=0o644)
    assert check_config_file(tmp_path / "config.yaml", config).level is Level.OK
    assert check_policy_files(config, 1).level is Level.OK
    assert check_state(config).level is Level.OK


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "code", "level", "named"),
    [
        (lambda path: (path / "config.yaml").chmod(0o666), "config", Level.ERROR, "config.yaml"),
        (lambda path: path.chmod(0o777), "config", Level.ERROR, ""),
        (lambda path: os.chown(path / "config.yaml", 65534, 0), "config", Level.ERROR, "nobody"),
        (lambda path: (path / "policies").chmod(0o777), "policies", Level.ERROR, "policies"),
        (lambda path: (path / "policies/web.yaml").chmod(0o646), "policies", Level.ERROR, "web.yaml"),
        (lambda path: (path / "policies/web.yaml").unlink(), "policies", Level.WARNING, "no policy"),
        (lambda path: (path / "state").chmod(0o777), "state", Level.ERROR, "0777"),
        (lambda path: (path / "state").chmod(0o755), "state", Level.WARNING, "0755"),
        (lambda path: (path / "state").rmdir(), "state", Level.WARNING, "not there"),
        (lambda path: (path / "state/controller").write_text("nonsense"), "state", Level.ERROR, "no UUID"),
        (lambda path: (path / "state/controller").write_text(f"{'0' * 32}\n"), "state", Level.ERROR, "no journal"),
    ],
)
def test_bad_files(config: Config, tmp_path: Path, spoil: Spoil, code: str, level: Level, named: str) -> None:
    (config.policies_dir / "web.yaml").touch(mode=0o644)
    spoil(tmp_path)
    policies = len(list(config.policies_dir.iterdir()))
    findings = {
        found.code: found
        for found in (
            check_config_file(tmp_path / "config.yaml", config),
            check_policy_files(config, policies),
            check_state(config),
        )
    }
    assert findings[code].level is level
    assert named in findings[code].found
    assert findings[code].remedy


WEB = Policy(
    "web",
    Image("default", "golden.qcow2"),
    Size(1, 4),
    traffic=Traffic(TrafficKind.HAPROXY, port=80, socket="/nowhere/admin.sock", backend="web", slots="web"),
)


def test_what_others_answer(config: Config, tmp_path: Path) -> None:
    assert list(check_others(config, ())) == []
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    secret.chmod(0o644)
    config = replace(
        config,
        prometheus=PrometheusServer("http://127.0.0.1:9"),
        webhooks=(Webhook("https://chat/", secret), Webhook("https://other/")),
    )
    prometheus, webhook, balancer = check_others(config, (WEB,))
    assert [found.code for found in (prometheus, webhook, balancer)] == ["prometheus", "webhook", "balancer"]
    assert all(found.level is Level.ERROR and found.remedy for found in (prometheus, webhook, balancer))
    assert "127.0.0.1:9" in prometheus.found
    assert "every user of this machine may read the secret" in webhook.found
    assert "s3cret" not in webhook.found
    assert "group web" in balancer.found
    assert "/nowhere/admin.sock" in balancer.found
    secret.chmod(0o400)
    assert next(found for found in check_others(config, ()) if found.code == "webhook").level is Level.OK


def test_secrets_of_instances_are_tried(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    policy = replace(WEB, traffic=None, cloud_init=CloudInit(secrets=(Secret("db", str(path)),)))
    (found,) = check_others(config, (policy,))
    assert (found.code, found.level) == ("cloud-init", Level.ERROR)
    assert found.remedy == "Mend that file, or name another as cloud_init.secrets.db of group web"
    path.write_text("s3cret")
    path.chmod(0o400)
    (found,) = check_others(config, (policy,))
    assert (found.level, found.found) == (Level.OK, f"the secret in {path} can be read")


def test_a_socket_that_anyone_may_open(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.touch()
    path.chmod(0o660)
    assert check_socket(path).level is Level.OK
    path.chmod(0o666)
    assert check_socket(path).level is Level.ERROR


def test_no_daemon_is_no_error(config: Config) -> None:
    (found,) = check_daemon(config)
    assert found.level is Level.WARNING
    assert "does not run" in found.found


@pytest.mark.parametrize(
    ("environment", "level", "named"),
    [
        (None, Level.WARNING, "may not be read"),
        ({}, Level.WARNING, "no service manager"),
        ({"NOTIFY_SOCKET": "/run/n"}, Level.WARNING, "no watchdog"),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "49000000"}, Level.WARNING, "49 s"),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "90000000"}, Level.OK, "1 min 30 s"),
    ],
)
def test_the_watchdog(environment: dict[str, str] | None, level: Level, named: str) -> None:
    found = check_watchdog(environment, 50.0)
    assert found.level is level
    assert named in found.found
    assert level is Level.OK or found.remedy


def test_clock_and_pressure() -> None:
    assert synchronised() in {True, False, None}
    assert [check_clock(known).level for known in (True, False, None)] == [Level.OK, Level.WARNING, Level.WARNING]
    assert check_pressure(0.0).level is Level.OK
    assert check_pressure(None).level is Level.WARNING


def test_a_kvm_device(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    assert check_kvm_device("local", NOBODY, device).level is Level.WARNING
    device.touch()
    for mode, user, code in (
        (0o600, NOBODY, "closed"),
        (0o060, STRANGER, "closed"),
        (0o666, NOBODY, "no KVM is in it"),
    ):
        device.chmod(mode)
        found = check_kvm_device("local", user, device)
        assert (found.level, found.code) == (Level.ERROR, "kvm-device.local")
        assert code in found.found
    device.chmod(0o660)
    os.chown(device, 0, 4242)
    assert "closed" in check_kvm_device("local", NOBODY, device).found
    assert "no KVM is in it" in check_kvm_device("local", STRANGER, device).found
    assert "no KVM is in it" in check_kvm_device("local", user_of(0, 0), device).found


def test_users_are_known_with_their_groups() -> None:
    assert user_of(0, 0).name == "root"
    assert user_of(4_000_000, 7) == User(4_000_000, frozenset({7}), "4000000")


@pytest.mark.parametrize(
    ("models", "ids"),
    [
        ("", None),
        ("<secmodel><model>none</model></secmodel>", None),
        (
            "<secmodel><model>dac</model><baselabel type='kvm'>+64055:+106</baselabel></secmodel>",
            (64055, 106),
        ),
    ],
)
def test_qemus_user(models: str, ids: tuple[int, int] | None) -> None:
    assert parse_qemu_ids(f"<capabilities><host>{models}</host></capabilities>") == ids


class Tried(Inspection):
    """A host whose KVM is known."""

    def __init__(self, *, offered: bool, boots: bool) -> None:
        self.offered, self.boots, self.asked = offered, boots, 0

    def offers_kvm(self) -> bool:
        return self.offered

    def kvm_boots(self, clone: object, seconds: float = 30.0) -> bool:
        self.asked += 1
        return self.boots


POLICY = Policy("web", Image("default", "golden.qcow2"), Size(1, 4))


@pytest.mark.parametrize(
    ("accelerator", "offered", "boots", "level", "tried"),
    [
        (Accelerator.AUTO, True, True, Level.OK, 1),
        (Accelerator.AUTO, True, False, Level.WARNING, 1),
        (Accelerator.KVM, True, False, Level.ERROR, 1),
        (Accelerator.AUTO, False, False, Level.WARNING, 0),
        (Accelerator.KVM, False, False, Level.ERROR, 0),
        (Accelerator.TCG, True, True, Level.OK, 0),
    ],
)
def test_kvm_is_proved_by_a_guest(
    accelerator: Accelerator, offered: bool, boots: bool, level: Level, tried: int
) -> None:
    host = Tried(offered=offered, boots=boots)
    policy = replace(POLICY, machine=Machine(accelerator=accelerator))
    assert _check_kvm(host, "local", [policy], [policy]).level is level
    assert host.asked == tried


def test_without_an_image_kvm_is_not_tried() -> None:
    host = Tried(offered=True, boots=True)
    assert _check_kvm(host, "local", [], [POLICY]).level is Level.WARNING
    assert host.asked == 0


def test_without_a_configuration_it_says_so_and_fails(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["doctor", "--json", "--config", str(tmp_path / "none.yaml")])
    assert result.exit_code == 1
    data = json.loads(result.output)
    assert data["ok"] is False
    (config,) = (found for found in data["findings"] if found["code"] == "config")
    assert "there is no configuration" in config["found"]
