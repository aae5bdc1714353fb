"""`autoscaler image lint --boot`: two real guests of an image at once, from a good one and from bad ones."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import libvirt
import pytest
import yaml

from autoscaler.store import Journal
from autoscaler.workshop.canaries import COPY
from tests.real.conftest import Pool
from tests.support.daemon import COMMAND
from tests.support.images import changed
from tests.support.private_libvirtd import wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

# As systemd and sshd do it at the first boot.
OWN_IDENTITY = """\
#!/bin/sh
/etc/rc.before
mkdir -p /etc/ssh
tr -d - < /sys/class/dmi/id/product_uuid > /etc/machine-id
echo "ssh-ed25519 $(cat /etc/machine-id) root@clone" > /etc/ssh/ssh_host_ed25519_key.pub
"""
BAKED = {
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "etc/ssh/ssh_host_ed25519_key.pub": "ssh-ed25519 AAAAC3Nz root@golden\n",
}
NO_AGENT = {"etc/inittab": "::sysinit:/etc/rc\nttyS0::askfirst:/bin/sh\n"}
SMALL = ("--memory", "192MiB", "--accelerator", "tcg")


@pytest.fixture
def config(libvirt_uri: str, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"hosts": {"local": {"uri": libvirt_uri}}, "state_dir": "state"}))
    return path


def command(config: Path, image: Path, *options: object) -> list[str]:
    words = (COMMAND, "--config", config, "image", "lint", image, "--boot", *SMALL, *options)
    return [str(word) for word in words]


def lint(config: Path, image: Path, *options: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run it and give its exit code and the findings of the guests, by code."""
    ended = subprocess.run(
        command(config, image, "--json", *options), capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.stdout, ended.stderr
    findings = {each["code"]: each for each in json.loads(ended.stdout)["findings"]}
    return ended.returncode, {code: each for code, each in findings.items() if code.startswith("boot.")}


def own_identity(golden: Path, folder: Path) -> Path:
    rc = (Path(__file__).parents[2] / "deploy/demo/guest/rc").read_text()
    return changed(golden, folder, {"etc/rc": OWN_IDENTITY, "etc/rc.before": rc})


def put(image: Path, pool: Pool, virt: libvirt.virConnect) -> Path:
    """Move an image into the pool."""
    there = pool.path / image.name
    shutil.move(image, there)
    virt.storagePoolLookupByName(pool.name).refresh()
    return there


def assert_nothing_left(config: Path, pool: Pool, virt: libvirt.virConnect, *images: Path) -> None:
    assert [domain.name() for domain in virt.listAllDomains()] == []
    assert pool.files() == {"golden.qcow2", *(image.name for image in images)}
    journal = Journal.open_readonly(config.parent / "state/canaries")
    assert journal.volumes() == ()
    assert journal.in_flight() == ()
    journal.close()


def test_a_good_image_passes(
    config: Path, golden_image: Path, pool: Pool, virt: libvirt.virConnect, network: str, tmp_path: Path
) -> None:
    image = put(own_identity(golden_image, tmp_path), pool, virt)
    code, found = lint(config, image)
    print(json.dumps(found, indent=2))
    assert {code: each["level"] for code, each in found.items()} == {
        "boot.ready": "ok",
        "boot.addresses": "ok",
        "boot.machine-id": "ok",
        "boot.host-keys": "ok",
    }
    assert code == 0
    assert "different addresses: 192.168.122." in found["boot.addresses"]["found"]
    assert_nothing_left(config, pool, virt, image)


def test_what_clones_would_share_is_told(
    config: Path, golden_image: Path, pool: Pool, virt: libvirt.virConnect, tmp_path: Path
) -> None:
    image = put(changed(golden_image, tmp_path, BAKED), pool, virt)
    code, found = lint(config, image, "--network", "user")
    assert code == 1
    assert found["boot.ready"]["level"] == "ok"
    assert "same machine-id, 0123456789abcdef" in found["boot.machine-id"]["found"]
    assert "same SSH host keys: ssh-ed25519" in found["boot.host-keys"]["found"]
    assert all("virt-sysprep" in found[each]["remedy"] for each in ("boot.machine-id", "boot.host-keys"))
    assert "user-mode" in found["boot.addresses"]["found"]
    assert_nothing_left(config, pool, virt, image)


@pytest.mark.slow
def test_an_image_without_an_agent_is_told(
    config: Path, golden_image: Path, pool: Pool, virt: libvirt.virConnect, tmp_path: Path
) -> None:
    image = put(changed(golden_image, tmp_path, NO_AGENT), pool, virt)
    code, found = lint(config, image, "--network", "user", "--within", "8s")
    assert code == 1
    assert set(found) == {"boot.ready"}
    assert "2 of 2 guests of it were not ready within 8 s" in found["boot.ready"]["found"]
    assert "qemu-guest-agent" in found["boot.ready"]["remedy"]
    assert_nothing_left(config, pool, virt, image)


@pytest.mark.slow
def test_interrupted_while_it_is_copied_it_leaves_nothing(
    config: Path, pool: Pool, virt: libvirt.virConnect, tmp_path: Path
) -> None:
    image = tmp_path / "large.qcow2"
    shutil.copyfile(pool.golden, image)
    os.truncate(image, image.stat().st_size + 4 * 1024**3)
    foreign = pool.path / f"{COPY}.qcow2"
    foreign.write_bytes(b"not the autoscaler's")
    virt.storagePoolLookupByName(pool.name).refresh()
    words = command(config, image, "--network", "user", "--pool", pool.name)
    refused = subprocess.run(words, capture_output=True, text=True, timeout=200, check=False)
    assert refused.returncode == 1
    assert f"{COPY}.qcow2" in refused.stderr
    assert foreign.read_bytes() == b"not the autoscaler's"
    foreign.unlink()
    virt.storagePoolLookupByName(pool.name).refresh()

    process = begin(words, tmp_path / "log")
    wait_until(lambda: f"{COPY}.qcow2" in pool.files() or process.poll() is not None, 60, "the copy is begun")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, (tmp_path / "log").read_text()
    assert_nothing_left(config, pool, virt)


def begin(words: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)


@pytest.mark.slow
def test_killed_or_interrupted_it_leaves_nothing_for_long(
    config: Path, pool: Pool, virt: libvirt.virConnect, tmp_path: Path
) -> None:
    """A file in no pool is copied there, so that there is all a killed run can leave: the copy, overlays, domains."""
    image = tmp_path / "elsewhere.qcow2"
    shutil.copyfile(pool.golden, image)
    words = command(config, image, "--network", "user", "--pool", pool.name)
    process = begin(words, tmp_path / "log")
    wait_until(lambda: len(virt.listAllDomains()) == 2 or process.poll() is not None, 60, "two guests")
    process.kill()
    process.wait(10)
    assert len(virt.listAllDomains()) == 2, (tmp_path / "log").read_text()
    assert "autoscaler-image-on-trial.qcow2" in pool.files()

    process = begin(words, tmp_path / "log")
    wait_until(lambda: "removed what a killed try left" in (tmp_path / "log").read_text(), 60, "the remains are gone")
    wait_until(lambda: virt.listAllDomains() or process.poll() is not None, 60, "guests of the next run")
    os.kill(process.pid, signal.SIGINT)
    began = time.monotonic()
    assert process.wait(60) == 130, (tmp_path / "log").read_text()
    print(f"interrupted, it had removed all of it after {time.monotonic() - began:.1f} s")
    assert_nothing_left(config, pool, virt)

    code, found = lint(config, image, "--network", "user", "--pool", pool.name)
    assert code == 0, found
    assert_nothing_left(config, pool, virt)
