"""The hosts: libvirt, KVM, and what the policies need there."""

import os
import time
from collections.abc import Callable, Iterator, Sequence

from autoscaler.core.action import Clone
from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.finding import Finding, error, ok, warning
from autoscaler.core.policy import USER_NETWORK, Accelerator, Policy
from autoscaler.doctor.machine import check_kvm_device
from autoscaler.host.kvm_device import user_of
from autoscaler.hypervisor import Inspection, is_local
from autoscaler.reasons import duration

LEAST_FREE_BYTES = 256 * 1024 * 1024
_RIGHTS = "Give this user the right to manage libvirt: a polkit rule, or membership of the group libvirt"
_START = "Start it: systemctl start libvirtd.socket, and see: journalctl -u libvirtd"


def check_host(host: str, uri: str, policies: Sequence[Policy]) -> Iterator[Finding]:
    """Look at one host and at all that the policies for it need there."""
    inspection = Inspection(host, uri)
    try:
        reached = _check_libvirt(inspection, host, uri)
        yield reached
        if reached.remedy is None:
            yield from _check_reached(inspection, host, uri, policies)
    finally:
        inspection.close()


def _check_libvirt(inspection: Inspection, host: str, uri: str) -> Finding:
    code = f"libvirt.{host}"
    try:
        return ok(code, f"libvirt {inspection.version()} answers at {uri} and may be managed")
    except HypervisorError as problem:
        denied = problem.kind is HypervisorErrorKind.DENIED
        return error(code, str(problem).partition(". ")[0], _RIGHTS if denied else _START)


def _check_reached(inspection: Inspection, host: str, uri: str, policies: Sequence[Policy]) -> Iterator[Finding]:
    if is_local(uri):
        ids = inspection.qemu_ids() or (os.geteuid(), os.getegid())
        yield check_kvm_device(host, user_of(*ids))
    sizes: dict[tuple[str, str], int] = {}
    for pool in dict.fromkeys(policy.image.pool for policy in policies if policy.image.found):
        users = [policy for policy in policies if policy.image.found and policy.image.pool == pool]
        images = list(_check_images(inspection, host, users, sizes))
        yield _check_pool(inspection, host, pool, _may_take(users, sizes))
        yield from images
    for network in dict.fromkeys(policy.machine.network for policy in policies):
        yield _check_network(inspection, host, network)
    yield _check_kvm(inspection, host, [p for p in policies if (p.image.pool, p.image.volume) in sizes], policies)


def _check_images(
    inspection: Inspection, host: str, policies: Sequence[Policy], sizes: dict[tuple[str, str], int]
) -> Iterator[Finding]:
    """Look at each golden image once; the sizes of the good ones are added to `sizes`."""
    for image in dict.fromkeys(policy.image for policy in policies):
        code = f"image.{host}/{image.pool}/{image.volume}"
        try:
            size = inspection.image_bytes(image)
        except HypervisorError as problem:
            yield _of(problem, code)
        else:
            sizes[image.pool, image.volume] = size
            yield ok(code, f"is a qcow2 of its own, with a disk of {_size(size)}")


def _may_take(policies: Sequence[Policy], sizes: dict[tuple[str, str], int]) -> int:
    """Sum up what all instances of these groups take when each has written all of its disk."""
    return sum(policy.size.max * sizes.get((policy.image.pool, policy.image.volume), 0) for policy in policies)


def _check_pool(inspection: Inspection, host: str, pool: str, may_take: int) -> Finding:
    code = f"pool.{host}/{pool}"
    try:
        free = inspection.free_bytes(pool)
    except HypervisorError as problem:
        return _of(problem, code)
    if free < LEAST_FREE_BYTES:
        return error(code, f"has {_size(free)} free: guests pause when it is full", "Free space on its file system")
    if free < may_take:
        return warning(
            code,
            f"has {_size(free)} free, and its groups may grow to {_size(may_take)}: guests pause when it is full",
            "Add space, lower size.max, or watch the pool",
        )
    return ok(code, f"is active, with {_size(free)} free")


def _check_network(inspection: Inspection, host: str, network: str) -> Finding:
    code = f"network.{host}/{network}"
    try:
        inspection.check_network(network)
    except HypervisorError as problem:
        return _of(problem, code)
    return ok(code, "is QEMU's own user-mode networking" if network == USER_NETWORK else "is active")


def _check_kvm(inspection: Inspection, host: str, bootable: Sequence[Policy], policies: Sequence[Policy]) -> Finding:
    """Boot a guest under KVM, in the shape of the first group that would have it."""
    code = f"kvm.{host}"
    wanting = [policy for policy in bootable if policy.machine.accelerator is not Accelerator.TCG]
    if all(policy.machine.accelerator is Accelerator.TCG for policy in policies):
        return ok(code, "not tried: no policy asks for it")
    demanded = any(policy.machine.accelerator is Accelerator.KVM for policy in policies)
    bad: Callable[[str, str, str], Finding] = error if demanded else warning
    if not wanting:
        return bad(code, "not tried: no image to boot is there", "Mend what is said of the images, then try again")
    policy = wanting[0]
    clone = Clone(policy.group, host, f"{policy.group}-doctor", policy.image, policy.machine)
    began = time.monotonic()
    try:
        if not inspection.offers_kvm():
            found = "libvirt offers none: guests are emulated, many times slower"
            return bad(code, found, "See what is missing with: virt-host-validate qemu")
        if inspection.kvm_boots(clone):
            return ok(code, f"booted a guest from {policy.image.volume} in {duration(time.monotonic() - began)}")
    except HypervisorError as problem:
        return bad(code, str(problem), "See QEMU's own log in /var/log/libvirt/qemu")
    return bad(
        code,
        f"no guest from {policy.image.volume} came up under KVM: guests are emulated, many times slower",
        "Is this machine itself a guest? Switch nested virtualisation on outside, or set machine.accelerator to tcg",
    )


def _of(problem: HypervisorError, code: str) -> Finding:
    """Part one of our messages into what happened and what to do."""
    found, dot, remedy = str(problem).partition(". ")
    return error(code, found, remedy if dot else "See libvirt's log: journalctl -u libvirtd")


def _size(size_bytes: int) -> str:
    gib = size_bytes / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{size_bytes / 2**20:.0f} MiB"
