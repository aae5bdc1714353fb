"""What the edges give to the ones that lean on them: a host's hypervisor, real or simulated."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from autoscaler.core.action import Clone
from autoscaler.core.observation import DomainCounters, HostCapacity, HostInventory, Ownership
from autoscaler.core.policy import Image, Wanted


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """A volume that was made for an instance, as the ledger keeps it."""

    host: str
    pool: str
    name: str
    instance: str


@dataclass(frozen=True, slots=True)
class Identity:
    """By what an instance's domain is known, which follows from its name and controller alone."""

    uuid: str
    """The domain's, and the DMI UUID that its guest makes its machine-id of."""
    mac: str


@dataclass(frozen=True, slots=True)
class GoldenSeen:
    """A golden image as it is now."""

    stamp: str
    """Tells one state of the volume from another, by its sizes and time of change."""
    path: str | None = None
    """Its file, where that can be read here."""


@dataclass(frozen=True, slots=True)
class GuestRun:
    """What became of a command inside a guest."""

    exit_code: int | None
    """None where it had not ended at its deadline, or was ended by a signal."""
    output: str = ""
    """What it printed, to both its outputs, as far as it was kept."""


def overlay_name(instance: str) -> str:
    """Name the overlay of an instance."""
    return f"{instance}.qcow2"


def seed_name(instance: str) -> str:
    """Name the volume from which cloud-init learns what the instance is to be."""
    return f"{instance}.seed.iso"


class Sight(Protocol):
    """One host as those see it who may only look. Every method raises `HypervisorError`, within its own deadline."""

    @property
    def host(self) -> str:
        """The host's name in the configuration."""
        ...

    def inventory(self) -> HostInventory:
        """List all domains, ours or not, with state, ownership, and whether our running ones' agents answer."""
        ...

    def watch_addresses(self, groups: frozenset[str]) -> None:
        """Let the listing tell the addresses of these groups' running instances from now on, as they become known."""
        ...

    def addresses(self, instance: str) -> tuple[str, ...]:
        """Give the known addresses of an instance whose group's are watched, at once and without asking anybody."""
        ...

    def watch_pools(self, pools: frozenset[str]) -> None:
        """Let the listing tell the room of these storage pools from now on, as far as they are active."""
        ...

    def golden(self, image: Image) -> GoldenSeen | None:
        """Look at a golden image as it is now; None where there is no such volume."""
        ...

    def counters(self, metrics: frozenset[str]) -> Mapping[str, DomainCounters]:
        """Raw counters of every running domain, by UUID, as far as these metrics are made of them."""
        ...

    def capacity(self, wanted: Wanted) -> HostCapacity:
        """Tell what the host has to give and who takes it; of pools and networks, the wanted ones."""
        ...


class Hypervisor(Sight, Protocol):
    """One host, for the executor's steps, which alone change anything there.

    Methods that name an instance act only on the domain that carries this controller's ownership element with that
    instance id; a domain of the same name that is not ours raises `EXISTS` (when creating) and is never touched.
    """

    def validate(self, clone: Clone) -> None:
        """Raise unless pool, golden image (qcow2), network, name and MAC address allow it; changes nothing."""
        ...

    def identity(self, instance: str) -> Identity:
        """Tell by what an instance is known, or will be; asks nobody."""
        ...

    def image_digest(self, clone: Clone) -> str:
        """Identify the golden image as it is now."""
        ...

    def create_overlay(self, clone: Clone, volume: VolumeRef) -> None:
        """Make a qcow2 overlay on the golden image, in the image's pool, with the backing format given."""
        ...

    def create_seed(self, volume: VolumeRef, content: bytes) -> None:
        """Make a volume with this content that nobody but its owner and the instance's QEMU can read."""
        ...

    def define(self, clone: Clone, volume: VolumeRef, ownership: Ownership) -> None:
        """Define the instance's domain with its ownership element, and its seed where the clone has one."""
        ...

    def start(self, instance: str) -> None:
        """Start the instance's domain; a running one is left as it is."""
        ...

    def running(self, instance: str) -> bool | None:
        """Whether the instance's domain is running (in any state but off); None where there is no such domain."""
        ...

    def busy_with(self, instance: str) -> bool:
        """Whether a call for this instance that was given up has not returned yet, and may still take effect."""
        ...

    def request_shutdown(self, instance: str) -> None:
        """Ask the guest to shut down: agent first, then ACPI. Returns without waiting for it."""
        ...

    def destroy(self, instance: str) -> None:
        """Power the instance off; a domain that is off or gone is left as it is."""
        ...

    def undefine(self, instance: str) -> None:
        """Remove the domain's definition and what libvirt keeps beside it; a domain that is gone is no error."""
        ...

    def volumes_of(self, instance: str) -> tuple[VolumeRef, ...]:
        """Give the instance's own volumes that its domain still refers to; never a disk that was added by hand."""
        ...

    def user_of(self, volume: VolumeRef) -> str | None:
        """Name a domain, ours or not, that refers to the volume; None where there is none."""
        ...

    def overlays_on(self, volume: VolumeRef) -> tuple[str, ...]:
        """Name the volumes, ours or not, that have this one as their backing store."""
        ...

    def run_in_guest(self, instance: str, argv: tuple[str, ...], seconds: float) -> GuestRun:
        """Run a command inside the instance by its agent and wait for its end, at most so many seconds.

        One that has not ended by then runs on in the guest. Raises HypervisorError where it could not be begun.
        """
        ...

    def delete_volume(self, volume: VolumeRef) -> None:
        """Delete the volume; one that is gone is no error."""
        ...
