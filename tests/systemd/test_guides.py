"""The commands of the guides, taken out of their text and run as they stand there: real systemd, real guests."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guide import FILES, ROOT, Shell, blocks
from tests.support.service import Service

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.slow, pytest.mark.timeout(900)]

SOURCES = ("autoscaler", "deploy", "docs", "policies", "systemd", "LICENSE", "Makefile", "README.md", "pyproject.toml")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/cache/wheels", "PIP_NO_CACHE_DIR": "1"}
LEFT_OUT = Path("/run/systemd")
"""Where systemd itself notes what it has run."""


def give_sudo(service: Service) -> None:
    if service.container.run("sh", "-c", "command -v sudo", check=False).returncode:
        service.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n')
        service.container.run("chmod", "755", "/usr/local/bin/sudo")


def shell_in(service: Service, folder: str) -> Shell:
    made = Shell(*service.container.inside("bash", "--noprofile", "--norc", **OFFLINE))
    made.run(f"cd {folder}", "the test")
    return made


@pytest.fixture
def bare(empty: Service) -> Iterator[Service]:
    """A host on which a checkout lies in /root/checkout, with what its image is made of, and nothing is installed."""
    inside = empty.container
    inside.run("mkdir", "-p", "/root/checkout/.cache")
    for name in (*SOURCES, "requirements.lock"):
        inside.run("cp", "-r", f"/checkout/{name}", "/root/checkout/")
    inside.run("cp", "-r", f"/cache/{empty.golden}", "/cache/packages", "/root/checkout/.cache/")
    give_sudo(empty)
    # Debian's own network `default`, which the container hides with all of the machine's libvirt state.
    inside.run("virsh", "net-define", "/usr/share/libvirt/networks/default.xml")
    yield empty
    print(empty.journal()[-6000:], file=sys.stderr)


@pytest.fixture
def shell(bare: Service) -> Iterator[Shell]:
    made = shell_in(bare, "/root/checkout")
    yield made
    made.close()


def nothing_is_left(service: Service) -> None:
    inside = service.container
    for folder in ("/etc", "/var/lib", "/run", "/opt", "/usr/local"):
        assert inside.output("find", folder, "-name", "*autoscaler*", "-not", "-path", f"{LEFT_OUT}/*") == ""
    assert inside.run("id", "autoscaler", check=False).returncode == 1


def test_the_tutorial(bare: Service, shell: Shell) -> None:
    for block in blocks(ROOT / "docs/tutorial.md", "sh", "console"):
        shell.follow(block)
    assert bare.container.output("virsh", "list", "--all", "--name") == ""
    assert list(bare.container.path("/var/lib/libvirt/images").iterdir()) == []
    nothing_is_left(bare)


def test_the_guide_to_installing(bare: Service, shell: Shell) -> None:
    bare.container.run("cp", f"/cache/{bare.golden}", "/root/checkout/golden.qcow2")
    bare.container.run("useradd", "alice")
    for block in blocks(ROOT / "docs/install.md", "sh", "console"):
        if "uninstall" in block.text:
            assert bare.show("ActiveState") == "active"
            assert bare.container.show("autoscaler.service", "UnitFileState") == "enabled"
            bare.until_ready(1, seconds=120)
            assert "autoscaler" in bare.container.output("id", "-nG", "alice")
        shell.follow(block)
    nothing_is_left(bare)


@pytest.mark.parametrize("page", FILES)
def test_how_to(service: Service, page: str) -> None:
    give_sudo(service)
    service.container.run("mkdir", "-p", "/root/folder")
    service.container.run("ln", "-sfn", "/checkout/deploy", "/root/folder/deploy")
    for name in ("golden", "newer"):
        service.container.run("cp", f"/cache/{service.golden}", f"/root/folder/{name}.qcow2")
    service.container.run("chmod", "644", "/root/folder/newer.qcow2")
    service.container.run("qemu-io", "-c", "write -P 7 32M 1k", "/root/folder/newer.qcow2")
    for name, text in FILES[page].items():
        service.write(f"/root/folder/{name}", text)
    shell = shell_in(service, "/root/folder")
    try:
        for block in blocks(ROOT / page, "sh", "console"):
            if block.not_run is None:
                shell.follow(block)
    finally:
        shell.close()
        service.container.run("rm", "-rf", "/root/folder", "/etc/systemd/system/autoscaler.service.d")
