"""The command line of virt-install that installs a golden image, unattended."""

from dataclasses import dataclass
from pathlib import Path

from autoscaler.core.policy import USER_NETWORK, Accelerator

PROGRAM = "virt-install"
SERIAL = "console=ttyS0"
"""What lets an installer speak on the serial console, which is where its progress is read."""

_VIRT_TYPES = {Accelerator.KVM: "kvm", Accelerator.TCG: "qemu"}
_MIB = 1024**2
_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Installation:
    """What is installed, from where, and on what machine."""

    name: str
    location: str
    """An installer's tree as virt-install takes it: a URL, an ISO image, or a directory of this machine, which
    may name its kernel and initrd (``TREE,kernel=PATH,initrd=PATH``)."""
    os_variant: str | None = None
    memory_bytes: int = 2 * _GIB
    vcpus: int = 2
    disk_bytes: int = 10 * _GIB
    network: str = "default"
    accelerator: Accelerator = Accelerator.AUTO
    extra_args: tuple[str, ...] = ()
    """For the installer's kernel."""
    initrd_inject: tuple[Path, ...] = ()
    """Files put into the root of the installer's initrd: a preseed or kickstart file."""
    unattended: str | None = None
    """What virt-install is to fill into the answer file it has for the system; empty for nothing of one's own."""
    more: tuple[str, ...] = ()
    """Further options of virt-install, as they are."""


def command_line(installation: Installation, uri: str, domain: str, domain_uuid: str, disk: str) -> tuple[str, ...]:
    """Give the whole command: `domain` and its UUID are the build's own, `disk` is the path of the volume to make."""
    it = installation
    return (
        PROGRAM,
        *("--connect", uri),
        *("--name", domain),
        *("--metadata", f"uuid={domain_uuid},title=image build {it.name}"),
        *("--memory", str(it.memory_bytes // _MIB)),
        *("--vcpus", str(it.vcpus)),
        *(("--virt-type", _VIRT_TYPES[it.accelerator]) if it.accelerator in _VIRT_TYPES else ()),
        *("--osinfo", "detect=on,require=off" if it.os_variant is None else it.os_variant),
        *("--disk", f"path={_quoted(disk)},size={it.disk_bytes / _GIB:g},format=qcow2,bus=virtio"),
        *("--network", f"{_network(it.network)},model=virtio"),
        *("--location", it.location),
        *("--extra-args", " ".join(_kernel_arguments(it))),
        *(word for file in it.initrd_inject for word in ("--initrd-inject", str(file))),
        *(() if it.unattended is None else (f"--unattended={it.unattended}" if it.unattended else "--unattended",)),
        *("--graphics", "none"),
        *("--autoconsole", "text"),
        *("--wait", "-1"),
        "--noreboot",
        *it.more,
    )


def _kernel_arguments(installation: Installation) -> tuple[str, ...]:
    given = installation.extra_args
    named = any(word.startswith("console=") for argument in given for word in argument.split())
    return given if named else (SERIAL, *given)


def _network(name: str) -> str:
    return "user" if name == USER_NETWORK else f"network={_quoted(name)}"


def _quoted(value: str) -> str:
    """Quote what has a comma, which would part the options of one argument."""
    return f'"{value}"' if "," in value else value
