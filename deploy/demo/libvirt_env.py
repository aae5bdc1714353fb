"""A libvirt that answers, with a pool and a network of the demo's own, and all of it taken away again.

An ordinary user gets libvirt's session with user-mode networking. Root gets the system's libvirt: the one that runs, or
one started here when none does. Everything is written down before it is made (see `footprint`), so `clear` works for a
demo that was killed, too.
"""

import ipaddress
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

import libvirt

from autoscaler.core.policy import USER_NETWORK
from autoscaler.hypervisor.domain_xml import OWNERSHIP_NAMESPACE
from deploy.demo import firewall, footprint, processes
from deploy.demo.footprint import DemoError, Footprint

NAME = "autoscaler-demo"
BRIDGE = "virbr-asdemo"
KVM = Path("/dev/kvm")
QEMU_CONF = Path("/etc/libvirt/qemu.conf")
# Nobody's autostarted guest or network may begin to run because a demo started libvirtd.
AUTOSTART = tuple(Path("/etc/libvirt", kind, "autostart") for kind in ("qemu", "qemu/networks", "storage"))
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ANSWER_SECONDS = 30.0

# A session that is asked for would start by itself, twice beside the one that is started here, and linger.
os.environ["LIBVIRT_AUTOSTART"] = "0"
libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised; libvirt need not print them as well


@dataclass(frozen=True)
class Environment:
    """Where the demo's guests live."""

    uri: str
    pool: str
    pool_path: Path
    network: str
    """A network's name, or what the policy calls user-mode networking."""


@contextmanager
def environment() -> Iterator[Environment]:
    """Make the demo's surroundings and take them away at the end, whatever that is, unless they were to be kept.

    Raises `DemoError` when they cannot be made.
    """
    try:
        yield prepare()
    finally:
        clear_unkept()


def prepare() -> Environment:
    """Make libvirt answer, and in it the pool and the network. Raises `DemoError` when that cannot be done."""
    planned = _plan()
    footprint.save(planned)
    make_answer(planned.uri)
    connection = libvirt.open(planned.uri)
    try:
        planned = _make_pool(connection, planned)
        if planned.network is not None:
            _make_network(connection, planned, planned.network)
    except libvirt.libvirtError as error:
        raise DemoError(f"libvirt at {planned.uri} could not make the demo's pool or network: {error}") from error
    finally:
        connection.close()
    return Environment(planned.uri, planned.pool, Path(planned.pool_path), planned.network or USER_NETWORK)


def clear_unkept() -> None:
    """Take away what is left of a demo, unless it was to be kept."""
    left = footprint.load()
    if left is not None and not left.kept:
        clear(left)


def clear(left: Footprint) -> None:
    """Take everything away that a demo made. What it found, it leaves. Signals wait until that is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        _clear(left)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _clear(left: Footprint) -> None:
    processes.end("daemon", 20)
    if left.made:
        make_answer(left.uri)
        connection = libvirt.open(left.uri)
        try:
            _clear_libvirt(connection, left)
        finally:
            connection.close()
    _end_libvirt()
    if left.of_this_boot:
        firewall.put_back(left.before)
    if "pool" in left.made and Path(left.pool_path).exists():
        shutil.rmtree(left.pool_path)
    footprint.remove()


def refresh(environment: Environment) -> None:
    """Let libvirt see the files that were copied into the pool."""
    connection = libvirt.open(environment.uri)
    try:
        connection.storagePoolLookupByName(environment.pool).refresh()
    finally:
        connection.close()


# --- a libvirt that answers -----------------------------------------------------------------------------------------


@contextmanager
def answering(uri: str) -> Iterator[None]:
    """Make libvirt answer for a while, with one started here if need be, which ends afterwards."""
    started = make_answer(uri)
    try:
        yield
    finally:
        if started:
            _end_libvirt()
            if footprint.load() is None:
                footprint.remove()


def default_uri() -> str:
    """Return which libvirt this user's demo lives in."""
    return "qemu:///system" if os.geteuid() == 0 else "qemu:///session"


def make_answer(uri: str) -> bool:
    """Start libvirt where none runs; tell whether that was needed. Raises `DemoError` when it does not answer."""
    if _answers(uri):
        return False
    footprint.folder().mkdir(mode=0o755, parents=True, exist_ok=True)
    log = footprint.folder() / "libvirtd.log"
    if not processes.find("virtlogd"):
        processes.start("virtlogd", [_program("virtlogd")], log)
    pid = processes.start("libvirtd", ["sh", "-c", _libvirtd_script()], log)
    end = time.monotonic() + _ANSWER_SECONDS
    while not _answers(uri):
        if not processes.is_running(pid):
            raise DemoError(f"libvirtd ended at once: {_last_line(log)}")
        if time.monotonic() > end:
            raise DemoError(f"libvirtd gave no answer at {uri} within {_ANSWER_SECONDS:g} s: {_last_line(log)}")
        time.sleep(0.1)
    return True


def _end_libvirt() -> None:
    """End what `make_answer` started."""
    for part in ("libvirtd", "virtlogd"):
        processes.end(part, 10)


def _answers(uri: str) -> bool:
    try:
        libvirt.open(uri).close()
    except libvirt.libvirtError:
        return False
    return True


def _libvirtd_script() -> str:
    """Return what starts libvirtd; for root in a mount namespace, where a few things are hidden from it."""
    start = f"exec {_program('libvirtd')}"
    if os.geteuid() != 0:
        return start
    empty = footprint.folder() / "empty"
    empty.mkdir(exist_ok=True)
    instead = {path: empty for path in AUTOSTART if path.is_dir()}
    if _kvm_is_closed():
        instead |= _without_kvm()
    mounts = [f"mount --bind {shown} {path}" for path, shown in instead.items()]
    return f"exec unshare --mount sh -c '{' && '.join([*mounts, start])}'"


def _without_kvm() -> dict[Path, Path]:
    """Return what libvirtd must see instead of files of the machine to find no KVM at all."""
    # Not /dev/null: it can be opened, and libvirt would look anew at every start why there is no KVM behind it.
    closed = footprint.folder() / "no-kvm"
    closed.touch(mode=0)
    # libvirt cannot carry such a mount over into the /dev that it makes for each guest.
    shared_dev = footprint.folder() / "qemu.conf"
    lines = QEMU_CONF.read_text().splitlines() if QEMU_CONF.exists() else []
    lines = [line for line in lines if not line.startswith("namespaces")]
    shared_dev.touch(mode=0o600)
    shared_dev.write_text("\n".join([*lines, "namespaces = []", ""]))
    return {KVM: closed} | ({QEMU_CONF: shared_dev} if QEMU_CONF.exists() else {})


def _kvm_is_closed() -> bool:
    """Whether /dev/kvm is there and QEMU's user may not open it, which costs most of a minute at every start."""
    if not KVM.exists():
        return False
    try:
        user = pwd.getpwnam("libvirt-qemu")
    except KeyError:
        return False
    device = KVM.stat()
    if device.st_uid == user.pw_uid:
        needed = stat.S_IRUSR | stat.S_IWUSR
    elif device.st_gid in os.getgrouplist(user.pw_name, user.pw_gid):
        needed = stat.S_IRGRP | stat.S_IWGRP
    else:
        needed = stat.S_IROTH | stat.S_IWOTH
    return device.st_mode & needed != needed


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise DemoError(f"{name} is not installed: run deploy/demo/bootstrap demo")
    return found


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"it said nothing in {log}"


# --- pool and network -----------------------------------------------------------------------------------------------


def _plan() -> Footprint:
    system = os.geteuid() == 0
    data_home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share")
    return Footprint(
        uri=default_uri(),
        boot_id=footprint.boot_id(),
        pool=NAME,
        pool_path=str(Path("/var/lib/libvirt/images", NAME) if system else data_home / NAME / "images"),
        network=NAME if system else None,
        before=firewall.read(),
    )


def _make_pool(connection: libvirt.virConnect, planned: Footprint) -> Footprint:
    path = Path(planned.pool_path)
    if path.exists() or planned.pool in [pool.name() for pool in connection.listAllStoragePools()]:
        raise DemoError(
            f"a pool {planned.pool} or its folder {path} is there already, not made by this demo: remove it"
        )
    planned = replace(planned, made=["pool"])
    footprint.save(planned)
    path.mkdir(mode=0o711, parents=True)
    # Transient: it is gone with the machine's next boot at the latest.
    connection.storagePoolCreateXML(
        f"<pool type='dir'><name>{planned.pool}</name><target><path>{path}</path></target></pool>"
    )
    return planned


def _make_network(connection: libvirt.virConnect, planned: Footprint, name: str) -> None:
    if name in [network.name() for network in connection.listAllNetworks()]:
        raise DemoError(f"a network {name} is there already, not made by this demo: remove it with virsh net-destroy")
    subnet = free_subnet()
    footprint.save(replace(planned, made=[*planned.made, "network"]))
    # Without the spanning tree protocol a guest has its address three seconds earlier.
    connection.networkCreateXML(f"""
        <network>
          <name>{name}</name>
          <forward mode='nat'/>
          <bridge name='{BRIDGE}' stp='off' delay='0'/>
          <ip address='{subnet[1]}' prefix='{subnet.prefixlen}'>
            <dhcp><range start='{subnet[2]}' end='{subnet[-2]}'/></dhcp>
          </ip>
        </network>""")


def free_subnet() -> ipaddress.IPv4Network:
    """Choose a private /24 that no route of this machine touches. Raises `DemoError` when there is none."""
    listed = subprocess.run(["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, check=True)
    routes = [ipaddress.ip_network(route["dst"]) for route in json.loads(listed.stdout) if route["dst"] != "default"]
    for third in range(200, 100, -1):
        subnet = ipaddress.IPv4Network(f"192.168.{third}.0/24")
        # libvirt's own default network may not be up, and still be wanted later.
        if third != 122 and not any(subnet.overlaps(route) for route in routes):
            return subnet
    raise DemoError("no 192.168.x.0/24 network is free for the demo's guests: every one has a route")


def _clear_libvirt(connection: libvirt.virConnect, left: Footprint) -> None:
    if "pool" in left.made:
        for domain in connection.listAllDomains():
            if is_demo_domain(domain, Path(left.pool_path)):
                _remove_domain(domain)
        for pool in connection.listAllStoragePools():
            if pool.name() == left.pool and f"<path>{left.pool_path}</path>" in pool.XMLDesc():
                _remove_pool(pool)
    if "network" in left.made:
        for network in connection.listAllNetworks():
            if network.name() == left.network and f"'{BRIDGE}'" in network.XMLDesc():
                network.destroy()


def is_demo_domain(domain: libvirt.virDomain, pool_path: Path) -> bool:
    """Whether the daemon made this domain for the demo: its disk is in the demo's own pool, and it says whose it is."""
    try:
        description = domain.XMLDesc()
    except libvirt.libvirtError:  # gone meanwhile
        return False
    root = ET.fromstring(description)  # noqa: S314 - libvirt's own output
    sources = [disk.get("file") for disk in root.findall("./devices/disk/source")]
    in_pool = any(source is not None and Path(source).parent == pool_path for source in sources)
    owned = root.find(f"./metadata/{{{OWNERSHIP_NAMESPACE}}}instance") is not None
    probe = domain.name().startswith("autoscaler-probe-")  # the daemon's guest that tries KVM
    return in_pool and (owned or probe)


def _remove_domain(domain: libvirt.virDomain) -> None:
    persistent = domain.isPersistent()
    with suppress(libvirt.libvirtError):  # it may end by itself; what stays makes the undefining fail
        if domain.isActive():
            domain.destroy()
    if persistent:
        domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)


def _remove_pool(pool: libvirt.virStoragePool) -> None:
    pool.refresh()
    for volume in pool.listAllVolumes():
        volume.delete()
    pool.destroy()
