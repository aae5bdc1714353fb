"""The doctor on a real libvirt: nothing wrong, and each thing that can be."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.real.conftest import GOLDEN, Pool
from tests.support.daemon import COMMAND, DaemonProcess
from tests.support.private_libvirtd import PrivateLibvirtd

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

Findings = dict[str, dict[str, Any]]


@pytest.fixture
def setup(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    """Configuration and policy of a daemon that need not run."""
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name)
    yield process
    process.close()


def doctor(setup: DaemonProcess, *prefix: str | Path, **environment: str) -> tuple[int, Findings]:
    done = subprocess.run(
        [*prefix, COMMAND, "doctor", "--json", "--config", setup.config],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.stderr == ""
    data = json.loads(done.stdout)
    findings: Findings = {found["code"]: found for found in data["findings"]}
    errors = [found for found in findings.values() if found["level"] == "error"]
    assert (done.returncode, data["ok"]) == ((1, False) if errors else (0, True))
    assert all(found["remedy"] for found in findings.values() if found["level"] != "ok")
    return done.returncode, findings


def with_kvm(content: Path) -> list[str | Path]:
    """Run what follows with this for /dev/kvm, in a mount namespace of its own."""
    bind = f'mount --bind {content} /dev/kvm && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", bind, "sh"]


def levels(findings: Findings) -> dict[str, str]:
    """Leave out what depends on the machine the tests run on."""
    of_the_machine = {"clock", "psi", "kvm-device.local"}
    return {code: found["level"] for code, found in findings.items() if code not in of_the_machine}


def test_all_is_well_without_and_with_a_daemon(setup: DaemonProcess, pool: Pool, virt: libvirt.virConnect) -> None:
    _, findings = doctor(setup)
    well = {
        "config": "ok",
        "policies": "ok",
        "state": "warning",
        "daemon": "warning",
        "libvirt.local": "ok",
        f"pool.local/{pool.name}": "ok",
        f"image.local/{pool.name}/{GOLDEN}": "ok",
        "network.local/user": "ok",
        "kvm.local": "ok",
    }
    assert levels(findings) == well
    assert "9." in findings["libvirt.local"]["found"] or "libvirt 1" in findings["libvirt.local"]["found"]
    setup.start()
    setup.until_ready(1)
    _, findings = doctor(setup)
    running = {"state": "ok", "daemon": "ok", "socket": "ok", "watchdog": "warning", "user": "ok"}
    assert levels(findings) == {**well, **running}
    assert pool.files() >= {GOLDEN}
    assert len(virt.listAllDomains()) == 1, "nothing is left of the examination"


def test_the_text_for_people_names_each_thing(setup: DaemonProcess) -> None:
    done = setup.run("doctor")
    assert "libvirt.local: libvirt " in done.stdout
    assert done.stdout.splitlines()[-1].endswith(("error", "errors"))


def test_kvm_is_tried_where_a_policy_wants_it(setup: DaemonProcess, pool: Pool, virt: libvirt.virConnect) -> None:
    for accelerator, level in (("auto", "warning"), ("kvm", "error")):
        setup.write_policy(machine={"network": "user", "accelerator": accelerator})
        _, findings = doctor(setup)
        assert findings["kvm.local"]["level"] == level
        assert "emulated" in findings["kvm.local"]["found"]
    assert virt.listAllDomains() == []
    assert pool.files() == {GOLDEN}


def test_a_kvm_device_that_is_closed_or_dead(setup: DaemonProcess, tmp_path: Path) -> None:
    if not Path("/dev/kvm").exists():
        # Then there is nothing to put another in the place of; what is made of those is shown by the unit tests.
        _, findings = doctor(setup)
        assert findings["kvm-device.local"]["level"] == "warning"
        return
    closed = tmp_path / "kvm"
    closed.touch(mode=0o600)
    code, findings = doctor(setup, *with_kvm(closed))
    assert (code, findings["kvm-device.local"]["level"]) == (1, "error")
    assert "is closed to QEMU's user" in findings["kvm-device.local"]["found"]
    code, findings = doctor(setup, *with_kvm(Path("/dev/null")))
    assert code == 1
    assert "no KVM is in it" in findings["kvm-device.local"]["found"]


def test_no_libvirt(setup: DaemonProcess, libvirtd: PrivateLibvirtd) -> None:
    libvirtd.stop()
    code, findings = doctor(setup)
    assert code == 1
    assert "systemctl start libvirtd" in findings["libvirt.local"]["remedy"]
    assert not [code for code in findings if code.startswith(("pool", "kvm"))], "one cause is one complaint"


def test_no_rights(setup: DaemonProcess, libvirtd: PrivateLibvirtd) -> None:
    """Without the capabilities that let root through, on a socket that is another user's."""
    path = libvirtd.root / "run/libvirt/libvirt-sock"
    before = path.stat()
    path.chmod(0o600)
    os.chown(path, 65534, 65534)
    powerless = "-dac_override,-dac_read_search"
    try:
        code, findings = doctor(setup, "setpriv", f"--inh-caps={powerless}", f"--bounding-set={powerless}")
    finally:
        os.chown(path, before.st_uid, before.st_gid)
        path.chmod(before.st_mode)
    assert code == 1
    assert "polkit" in findings["libvirt.local"]["remedy"]


@pytest.mark.parametrize(
    ("policy", "code", "named"),
    [
        ({"image": {"pool": "nowhere", "volume": GOLDEN}}, "pool.local/nowhere", "virsh pool-define-as"),
        ({"machine": {"network": "absent", "accelerator": "tcg"}}, "network.local/absent", "virsh net-list"),
        ({"size": {"min": 3, "max": 2}}, "policies", "Mend"),
    ],
    ids=["pool", "network", "policy"],
)
def test_what_a_policy_needs_and_is_not_there(
    setup: DaemonProcess, policy: dict[str, Any], code: str, named: str
) -> None:
    setup.write_policy(**policy)
    status, findings = doctor(setup)
    assert (status, findings[code]["level"]) == (1, "error")
    assert named in findings[code]["remedy"]


def test_images_that_are_missing_or_no_qcow2(setup: DaemonProcess, pool: Pool, virt: libvirt.virConnect) -> None:
    (pool.path / "plain.img").write_bytes(b"\0" * 1024 * 1024)
    virt.storagePoolLookupByName(pool.name).refresh()
    for volume, remedy in (("absent.qcow2", "virsh vol-list"), ("plain.img", "qemu-img convert")):
        setup.write_policy(image={"pool": pool.name, "volume": volume})
        status, findings = doctor(setup)
        found = findings[f"image.local/{pool.name}/{volume}"]
        assert (status, found["level"]) == (1, "error")
        assert remedy in found["remedy"]


def test_a_pool_that_is_stopped_or_full(
    setup: DaemonProcess, pool: Pool, virt: libvirt.virConnect, libvirtd: PrivateLibvirtd
) -> None:
    code = f"pool.local/{pool.name}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", pool.path / "vast.qcow2", "900T"], check=True)
    known = virt.storagePoolLookupByName(pool.name)
    known.refresh()
    setup.write_policy(image={"pool": pool.name, "volume": "vast.qcow2"})
    _, findings = doctor(setup)
    assert findings[code]["level"] == "warning"
    assert "may grow to" in findings[code]["found"]
    known.destroy()
    status, findings = doctor(setup)
    assert (status, findings[code]["level"]) == (1, "error")
    assert "virsh pool-start" in findings[code]["remedy"]
    libvirtd.command("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(pool.path))
    try:
        known.create()
        status, findings = doctor(setup)
        assert (status, findings[code]["level"]) == (1, "error")
        assert "free" in findings[code]["found"]
    finally:
        known.destroy()
        libvirtd.command("umount", str(pool.path))


def test_a_network_that_is_stopped(setup: DaemonProcess, network: str, virt: libvirt.virConnect) -> None:
    setup.write_policy(machine={"network": network, "accelerator": "tcg"})
    _, findings = doctor(setup)
    assert findings[f"network.local/{network}"]["level"] == "ok"
    virt.networkLookupByName(network).destroy()
    _, findings = doctor(setup)
    assert findings[f"network.local/{network}"]["level"] == "error"


def test_a_daemon_that_is_ill(setup: DaemonProcess, libvirtd: PrivateLibvirtd, tmp_path: Path) -> None:
    setup.start()
    setup.until_ready(1)
    good = (setup.policies / "web.yaml").read_text()
    setup.write_policy(size={"min": 3, "max": 2})
    assert setup.run("reload").returncode == 1
    _, findings = doctor(setup)
    assert "refused" in findings["daemon"]["found"]
    (setup.policies / "web.yaml").write_text(good)
    assert setup.run("reload").returncode == 0
    setup.socket.chmod(0o666)
    setup.state_dir.chmod(0o755)
    _, findings = doctor(setup)
    assert (findings["socket"]["level"], findings["state"]["level"]) == ("error", "warning")
    libvirtd.stop()
    setup.until(lambda seen: not seen.hosts[0].connected, 20, "a daemon without libvirt")
    _, findings = doctor(setup)
    assert "does not reach host local" in findings["daemon"]["found"]
    libvirtd.restart()
    setup.until_ready(1)


def test_a_daemon_with_a_watchdog(setup: DaemonProcess) -> None:
    path = setup.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager:
        service_manager.bind(str(path))
        for seconds, level in ((20, "warning"), (90, "ok")):
            setup.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": f"{seconds}000000"}
            setup.start()
            _, findings = doctor(setup)
            assert findings["watchdog"]["level"] == level
            setup.kill()
