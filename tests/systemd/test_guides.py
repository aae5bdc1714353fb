"""The commands of the guides, taken out of their text and run as they stand there: real systemd, real guests."""

from collections.abc import Iterator

import pytest

from tests.support.guide import ROOT, Shell, blocks
from tests.support.service import Service

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.slow, pytest.mark.timeout(900)]

SOURCES = ("autoscaler", "deploy", "docs", "policies", "systemd", "LICENSE", "Makefile", "README.md", "pyproject.toml")
OFFLINE = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/cache/wheels", "PIP_NO_CACHE_DIR": "1"}


@pytest.fixture
def bare(empty: Service) -> Service:
    """A host on which a checkout lies in /root/checkout, with what its image is made of, and nothing is installed."""
    inside = empty.container
    inside.run("mkdir", "-p", "/root/checkout/.cache")
    for name in (*SOURCES, "requirements.lock"):
        inside.run("cp", "-r", f"/checkout/{name}", "/root/checkout/")
    inside.run("cp", "-r", f"/cache/{empty.golden}", "/cache/packages", "/root/checkout/.cache/")
    if inside.run("sh", "-c", "command -v sudo", check=False).returncode:
        empty.write("/usr/local/bin/sudo", '#!/bin/sh\nexec "$@"\n')
        inside.run("chmod", "755", "/usr/local/bin/sudo")
    # Debian's own network `default`, which the container hides with all of the machine's libvirt state.
    inside.run("virsh", "net-define", "/usr/share/libvirt/networks/default.xml")
    return empty


@pytest.fixture
def shell(bare: Service) -> Iterator[Shell]:
    made = Shell(*bare.container.inside("bash", "--noprofile", "--norc", **OFFLINE))
    made.run("cd /root/checkout", "the test")
    yield made
    made.close()


def test_the_tutorial(bare: Service, shell: Shell) -> None:
    inside = bare.container
    for block in blocks(ROOT / "docs/tutorial.md", "sh", "console"):
        assert block.not_run is None, f"{block}: the tutorial is run whole"
        shell.follow(block)
    assert inside.output("virsh", "list", "--all", "--name") == ""
    for folder in ("/etc", "/var/lib", "/run", "/opt", "/usr/local"):
        assert inside.output("find", folder, "-name", "*autoscaler*", "-not", "-path", "/run/systemd/*") == ""
    assert list(inside.path("/var/lib/libvirt/images").iterdir()) == []
