"""Golden images built by the real virt-install, with a small installer and with the distribution's own."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import libvirt
import pytest
import yaml

from autoscaler.store import Journal
from tests.real.conftest import Pool
from tests.support.build_options import CASES, PRESEED
from tests.support.daemon import COMMAND
from tests.support.images import installer
from tests.support.private_libvirtd import PrivateLibvirtd, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

DISTRIBUTION = "/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64,kernel=linux,initrd=initrd.gz"
AT = ("--location", DISTRIBUTION)


@dataclass
class Workshop:
    """Runs `autoscaler image`, where libvirtd is the machine's own."""

    libvirtd: PrivateLibvirtd
    config: Path
    pool: Pool

    @property
    def state(self) -> Path:
        return self.config.parent / "state" / "builds"

    def command(self, *arguments: object) -> list[str]:
        return [str(word) for word in (*self.libvirtd.inside(), COMMAND, "--config", self.config, "image", *arguments)]

    def build(self, *arguments: object) -> list[str]:
        small = ("--memory", "256MiB", "--vcpus", "1", "--disk", "64MiB", "--network", "user", "--accelerator", "tcg")
        return self.command("build", "web", "--pool", self.pool.name, *small, *arguments)


@pytest.fixture
def workshop(libvirtd: PrivateLibvirtd, pool: Pool, tmp_path: Path) -> Workshop:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"hosts": {"local": {"uri": "qemu:///system"}}, "state_dir": "state"}))
    return Workshop(libvirtd, config, pool)


@pytest.fixture
def tree(golden_image: Path, tmp_path: Path) -> tuple[object, ...]:
    """The options that give an installer; without `rdinit` it never ends."""
    folder, files = installer(golden_image, tmp_path)
    inject = [word for file in files for word in ("--initrd-inject", file)]
    return ("--location", f"{folder},kernel=vmlinuz,initrd=initrd.img", *inject)


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def begin(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    with log.open("wb") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)


def domains(virt: libvirt.virConnect) -> list[str]:
    return [domain.name() for domain in virt.listAllDomains()]


def assert_nothing_left(workshop: Workshop, virt: libvirt.virConnect) -> None:
    assert domains(virt) == []
    assert workshop.pool.files() == {"golden.qcow2"}
    boot = workshop.libvirtd.seen_inside(Path("/var/lib/libvirt/boot"))
    assert list(boot.iterdir()) == []
    journal = Journal.open_readonly(workshop.state)
    assert journal.volumes() == ()
    journal.close()


def test_an_installer_runs_unattended_and_leaves_a_disk(
    workshop: Workshop, tree: tuple[object, ...], virt: libvirt.virConnect
) -> None:
    built = run(workshop.build(*tree, "--extra-args", "rdinit=/install"))
    assert built.returncode == 0, built.stdout + built.stderr
    path = workshop.pool.path / "web.qcow2"
    assert f"volume web.qcow2 in pool {workshop.pool.name}" in built.stdout
    assert "qemu-img finds nothing wrong with it" in built.stdout
    assert built.stdout.rstrip().endswith(f"Next: autoscaler image import {path} --name web")
    assert domains(virt) == []
    assert workshop.pool.files() == {"golden.qcow2", "web.qcow2"}

    again = run(workshop.build(*tree, "--extra-args", "rdinit=/install"))
    assert again.returncode == 1
    assert "has a volume web.qcow2 already, which is left alone" in again.stderr
    assert path.exists()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing(
    workshop: Workshop, tree: tuple[object, ...], virt: libvirt.virConnect, tmp_path: Path, end: signal.Signals
) -> None:
    process = begin(workshop.build(*tree), tmp_path / "log")
    wait_until(lambda: domains(virt), 60, "the installer's domain")
    assert domains(virt) == ["autoscaler-build-web"]
    os.kill(process.pid, end)
    assert process.wait(40) == 130, (tmp_path / "log").read_text()
    assert_nothing_left(workshop, virt)


def test_what_a_killed_build_left_is_removed_by_the_next(
    workshop: Workshop, tree: tuple[object, ...], virt: libvirt.virConnect, tmp_path: Path
) -> None:
    process = begin(workshop.build(*tree), tmp_path / "log")
    wait_until(lambda: domains(virt), 60, "the installer's domain")
    beside = run(workshop.build(*tree))
    assert beside.returncode == 1
    assert f"another command does this already (pid {process.pid})" in beside.stderr
    process.kill()
    process.wait(10)
    assert domains(virt) == ["autoscaler-build-web"], "a killed process clears nothing up"
    wait_until(lambda: "virt-install" not in everything_running(), 20, "virt-install ends with whoever read it")

    failed = run(workshop.build(*tree, "--within", "2s"))
    assert failed.returncode == 1
    assert "removed what a killed build left" in failed.stderr
    assert "had not ended after 2 s" in failed.stderr
    assert_nothing_left(workshop, virt)


def everything_running() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_an_installer_that_writes_nothing_is_told(
    workshop: Workshop, tree: tuple[object, ...], virt: libvirt.virConnect
) -> None:
    built = run(workshop.build(*tree[:2], "--extra-args", "panic=-1 rdinit=/absent"))
    assert built.returncode == 1
    assert "ended without having written to its disk" in built.stderr
    assert_nothing_left(workshop, virt)


@pytest.mark.slow
def test_virt_install_takes_every_command_line(workshop: Workshop, tmp_path: Path, network: str) -> None:
    """But for KVM, which this libvirt is not to have, and what needs a whole mirror of the system."""
    preseed = tmp_path / "preseed.cfg"
    preseed.touch()
    given = {PRESEED: str(preseed)}
    for name, options in CASES.items():
        if name == "--accelerator kvm" or "--unattended" in options:
            continue
        words = [given.get(word, word) for word in options]
        printed = run(workshop.command("build", "web", "--pool", workshop.pool.name, *(*AT, "--print"), *words))
        assert printed.returncode == 0, printed.stderr
        ended = run([*map(str, workshop.libvirtd.inside()), "sh", "-c", f"{printed.stdout.strip()} --dry-run"])
        assert ended.returncode == 0, f"{name}: {printed.stdout}{ended.stderr}"
        assert "Dry run completed successfully" in ended.stdout
    assert workshop.pool.files() == {"golden.qcow2"}


@pytest.mark.slow
def test_the_distributions_installer_comes_to_its_first_line(
    workshop: Workshop, virt: libvirt.virConnect, tmp_path: Path
) -> None:
    log, preseed = tmp_path / "log", tmp_path / "preseed.cfg"
    preseed.write_text("d-i debian-installer/locale string en_US\n")
    command = workshop.build(*(*AT, "--os-variant", "debian11", "--initrd-inject", preseed, "--memory", "768MiB"))
    process = begin(command, log)
    began = time.monotonic()
    wait_until(lambda: kernel_spoke(log.read_text) or process.poll() is not None, 150, "the installer's kernel speaks")
    print(f"first line of the kernel seen after {time.monotonic() - began:.0f} s:\n{log.read_text()}")
    assert process.poll() is None, log.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(40) == 130
    assert_nothing_left(workshop, virt)


def kernel_spoke(read: Callable[[], str]) -> bool:
    """Whether a line was shown that begins with the kernel's time."""
    return any("[    " in line for line in read().splitlines())
