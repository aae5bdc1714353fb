"""What instances are made of."""

from dataclasses import dataclass
from enum import StrEnum


class Accelerator(StrEnum):
    """How a guest's instructions are run."""

    AUTO = "auto"
    """KVM where a guest was seen to boot under it, emulation elsewhere."""
    KVM = "kvm"
    TCG = "tcg"


IMAGE_NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
"""What the name of an image in the catalog looks like; it becomes part of the names of volumes."""


@dataclass(frozen=True, slots=True)
class Image:
    """The golden image: a volume of a storage pool on the group's host.

    One that is followed by its name has no pool and volume yet in a policy as it was written; the policy that a step
    is given has them, with the version that they are, or the name leads to nothing at present.
    """

    pool: str
    volume: str
    name: str | None = None
    """The name in the catalog; None for a volume that the policy names itself."""
    version: int | None = None
    """The version that is wanted, or used once pool and volume are known; None for the one that is published."""

    @property
    def found(self) -> bool:
        """Whether it is known which volume it is."""
        return bool(self.volume)

    def __str__(self) -> str:
        """Render as ``web`` or ``web version 3``, or as ``POOL/VOLUME`` without a name."""
        if self.name is None:
            return f"{self.pool}/{self.volume}"
        return self.name if self.version is None else f"{self.name} version {self.version}"

    def same_as(self, other: "Image | None") -> bool:
        """Whether both are the same volume, whatever it is called."""
        return other is not None and (self.pool, self.volume) == (other.pool, other.volume)


USER_NETWORK = "user"
"""The network name that stands for QEMU's user-mode networking."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The shape of every instance of a group."""

    vcpus: int = 1
    memory_bytes: int = 1024 * 1024 * 1024
    network: str = "default"
    accelerator: Accelerator = Accelerator.AUTO
    hugepages: bool = False
    """Whether the guest's memory is taken from the host's huge pages."""


@dataclass(frozen=True, slots=True)
class Template:
    """Text in which placeholders stand for an instance's values, as its file held it when the policy was read."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that templates name; it is read when an instance is made, and kept nowhere."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class CloudInit:
    """What cloud-init finds in a new instance. Without meta-data it is told its instance id and host name."""

    user_data: Template | None = None
    meta_data: Template | None = None
    network_config: Template | None = None
    secrets: tuple[Secret, ...] = ()
