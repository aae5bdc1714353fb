"""What can be told of /dev/kvm without a guest. That KVM works is told by a guest that boots, and by nothing else."""

import fcntl
import grp
import os
import pwd
import stat
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

DEVICE = Path("/dev/kvm")
_GET_API_VERSION = 0xAE00
_API_VERSION = 12


class KvmDevice(Enum):
    """What /dev/kvm is to a user."""

    USABLE = auto()
    MISSING = auto()
    CLOSED = auto()
    """There, but that user may not open it."""
    DEAD = auto()
    """It may be opened, and no KVM is in it."""


@dataclass(frozen=True, slots=True)
class User:
    """A user with all groups it is in."""

    uid: int
    gids: frozenset[int]
    name: str


def user_of(uid: int, gid: int) -> User:
    """Look a user up; one that has no name is known by its number."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return User(uid, frozenset({gid}), str(uid))
    return User(uid, frozenset({gid, *os.getgrouplist(name, gid)}), name)


def group_name(gid: int) -> str:
    """Give a group's name, or its number."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def look(user: User, device: Path = DEVICE) -> KvmDevice:
    """Tell what the device is to a user. Raises OSError where it cannot be looked at."""
    try:
        status = device.stat()
    except FileNotFoundError:
        return KvmDevice.MISSING
    if not _may_open(user, status):
        return KvmDevice.CLOSED
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        # Not for whoever asks; what is in it cannot be told then.
        return KvmDevice.USABLE
    try:
        version = fcntl.ioctl(descriptor, _GET_API_VERSION)
    except OSError:
        version = -1
    finally:
        os.close(descriptor)
    return KvmDevice.USABLE if version == _API_VERSION else KvmDevice.DEAD


def _may_open(user: User, status: os.stat_result) -> bool:
    if user.uid == 0:
        return True
    wanted = stat.S_IROTH | stat.S_IWOTH
    if user.uid == status.st_uid:
        wanted = stat.S_IRUSR | stat.S_IWUSR
    elif status.st_gid in user.gids:
        wanted = stat.S_IRGRP | stat.S_IWGRP
    return status.st_mode & wanted == wanted
