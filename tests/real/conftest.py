"""Real libvirt, real QEMU guests: one private libvirtd per test process, swept after each test."""

import fcntl
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import pytest

from autoscaler.hypervisor import LibvirtHypervisor
from deploy.demo.golden import build
from tests.support.daemon import free_port
from tests.support.haproxy import HAProxyProcess
from tests.support.private_libvirtd import PrivateLibvirtd

CACHE = Path(__file__).resolve().parents[2] / ".cache"
GOLDEN = "golden.qcow2"
NETWORK = "default"
NETWORK_XML = f"""\
<network>
  <name>{NETWORK}</name>
  <forward mode='nat'/>
  <bridge name='virbr0' stp='off' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>
"""

HypervisorFactory = Callable[..., LibvirtHypervisor]


@dataclass(frozen=True)
class Pool:
    """A storage pool of one test; `golden` is the golden image in it."""

    name: str
    path: Path

    @property
    def golden(self) -> Path:
        return self.path / GOLDEN

    def files(self) -> set[str]:
        """What lies in it, as libvirt need not know yet."""
        return {entry.name for entry in self.path.iterdir()}


@pytest.fixture(scope="session")
def private_libvirtd() -> Iterator[PrivateLibvirtd]:
    started = PrivateLibvirtd()
    yield started
    started.close()


@pytest.fixture(scope="session")
def libvirt_uri(private_libvirtd: PrivateLibvirtd) -> str:
    return private_libvirtd.uri


@pytest.fixture
def libvirtd(private_libvirtd: PrivateLibvirtd) -> Iterator[PrivateLibvirtd]:
    """The private libvirtd, for a test that stops, kills or freezes it; it runs, and is empty, again afterwards."""
    yield private_libvirtd
    private_libvirtd.thaw()
    if not private_libvirtd.running():
        private_libvirtd.restart()
    connection = libvirt.open(private_libvirtd.uri)
    _sweep(connection)
    connection.close()


@pytest.fixture
def virt(libvirtd: PrivateLibvirtd) -> Iterator[libvirt.virConnect]:
    """A plain connection, to look at things and to put others' things there."""
    connection = libvirt.open(libvirtd.uri)
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def golden_image() -> Path:
    """The demo's golden image, built once per checkout, whoever comes first."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "golden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(CACHE)


@pytest.fixture
def pool(libvirtd: PrivateLibvirtd, virt: libvirt.virConnect, golden_image: Path) -> Pool:
    path = Path(tempfile.mkdtemp(prefix="pool-", dir=libvirtd.root))
    path.chmod(0o711)
    shutil.copyfile(golden_image, path / GOLDEN)
    name = path.name
    virt.storagePoolDefineXML(f"<pool type='dir'><name>{name}</name><target><path>{path}</path></target></pool>")
    virt.storagePoolLookupByName(name).create()
    return Pool(name, path)


@pytest.fixture
def network(virt: libvirt.virConnect) -> str:
    """A NAT network with DHCP, in the private libvirtd's own network namespace."""
    names = [known.name() for known in virt.listAllNetworks()]
    defined = virt.networkLookupByName(NETWORK) if NETWORK in names else virt.networkDefineXML(NETWORK_XML)
    if not defined.isActive():
        defined.create()
    return NETWORK


@pytest.fixture
def controller() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def hypervisor(libvirtd: PrivateLibvirtd, controller: str) -> Iterator[HypervisorFactory]:
    """Makes hypervisors on the private libvirtd; keyword arguments replace the defaults."""
    made: list[LibvirtHypervisor] = []

    def make(**options: Any) -> LibvirtHypervisor:
        arguments = {"host": "local", "uri": libvirtd.uri, "controller": controller, **options}
        made.append(LibvirtHypervisor(**arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def _sweep(connection: libvirt.virConnect) -> None:
    for domain in connection.listAllDomains():
        persistent = domain.isPersistent()
        if domain.isActive():
            domain.destroy()
        if persistent:
            domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE)
    for pool in connection.listAllStoragePools():
        path = pool.XMLDesc().partition("<path>")[2].partition("</path>")[0]
        if pool.isActive():
            pool.destroy()
        pool.undefine()
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def haproxy(tmp_path: Path, libvirtd: PrivateLibvirtd) -> Iterator[HAProxyProcess]:
    """A load balancer that reaches the guests."""
    with HAProxyProcess(tmp_path, free_port(), inside=libvirtd.inside_network) as process:
        yield process
