"""This machine: its clock, its pressure figures, its /dev/kvm."""

from pathlib import Path

from autoscaler.core.finding import Finding, error, ok, warning
from autoscaler.host import kvm_device
from autoscaler.host.kvm_device import KvmDevice, User


def check_clock(synchronised: bool | None) -> Finding:  # noqa: FBT001 - it is what was found
    """Judge what the kernel says of its clock."""
    if synchronised:
        return ok("clock", "is kept right")
    return warning(
        "clock",
        "is kept right by nothing" if synchronised is False else "the kernel does not tell whether it is kept right",
        "Install chrony or systemd-timesyncd: schedules and history go by this clock",
    )


def check_pressure(share: float | None) -> Finding:
    """Judge whether the kernel keeps pressure figures."""
    if share is not None:
        return ok("psi", "the kernel tells how much work waits for CPU, memory and disks")
    return warning(
        "psi",
        "the kernel keeps no pressure figures: a host that is too full is seen late",
        "Boot with psi=1 on the kernel's command line (it needs CONFIG_PSI)",
    )


def check_kvm_device(host: str, user: User, device: Path = kvm_device.DEVICE) -> Finding:
    """Judge what /dev/kvm is to QEMU's user."""
    code = f"kvm-device.{host}"
    try:
        seen = kvm_device.look(user, device)
    except OSError as problem:
        return error(code, f"{device} cannot be looked at: {problem.strerror}", "Run this as root")
    match seen:
        case KvmDevice.USABLE:
            return ok(code, f"{device} is open to {user.name}")
        case KvmDevice.MISSING:
            return warning(
                code,
                f"there is no {device}: guests are emulated, many times slower",
                "Switch virtualisation on in the firmware, then: modprobe kvm_intel, or kvm_amd",
            )
        case KvmDevice.CLOSED:
            group = kvm_device.group_name(device.stat().st_gid)
            return error(
                code,
                f"{device} is closed to QEMU's user {user.name}: libvirt asks QEMU anew what it can do at every start,"
                " most of a minute per guest",
                f"chgrp kvm {device}; chmod 0660 {device}; usermod -aG kvm {user.name}; systemctl restart libvirtd"
                f" (its group is {group} now; a udev rule keeps it so)",
            )
    return error(
        code,
        f"{device} opens, and no KVM is in it: libvirt asks QEMU anew what it can do at every start, most of a minute"
        " per guest",
        f"See what {device} is with ls -l (10, 232 is KVM), remove what is not, and load kvm_intel or kvm_amd",
    )
