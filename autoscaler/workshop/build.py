"""Builds a golden image: virt-install installs it in a domain that is gone afterwards, and leaves its disk."""

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.ports import VolumeRef
from autoscaler.hypervisor import BuildSite
from autoscaler.hypervisor.domain_xml import domain_uuid
from autoscaler.images import virt_install
from autoscaler.images.installation import Installation, command_line
from autoscaler.images.virt_install import InstallationError
from autoscaler.store import Journal
from autoscaler.workshop.interrupts import held_back

_LEAST_WRITTEN_BYTES = 1024**2
"""An empty qcow2 has less than that, any system more."""


@dataclass(frozen=True, slots=True)
class Build:
    """One build, as it is going to be run."""

    installation: Installation
    volume: VolumeRef
    """The disk; its host is the libvirt's URI, its instance the name of the domain that installs it."""
    domain_uuid: str
    path: str
    """Of the disk, on the host."""

    @property
    def command(self) -> tuple[str, ...]:
        """The command that does it."""
        return command_line(self.installation, self.volume.host, self.volume.instance, self.domain_uuid, self.path)


def prepare(installation: Installation, pool: str, volume: str, site: BuildSite, journal: Journal) -> Build:
    """Look whether it can be done; changes nothing. Raises HypervisorError, InstallationError."""
    virt_install.require()
    if installation.os_variant is not None:
        virt_install.check_os_variant(installation.os_variant)
    site.check_network(installation.network)
    ref = VolumeRef(site.uri, pool, volume, f"autoscaler-build-{installation.name}")
    path = site.free_path(pool, volume)
    return Build(installation, ref, domain_uuid(journal.controller, ref.instance), path)


def run(
    build: Build,
    site: BuildSite,
    journal: Journal,
    *,
    now: Callable[[], float],
    within_seconds: float,
    hear: Callable[[str], None],
) -> None:
    """Install it; what was made is removed when that fails or is interrupted, and all but the disk otherwise.

    Raises InstallationError, HypervisorError and StoreError.
    """
    journal.add_volume(build.volume, now())
    try:
        _refuse_empty(build, site, virt_install.run(build.command, within_seconds, hear))
    except BaseException:
        with held_back():
            site.clear(build.domain_uuid, build.volume)
            journal.remove_volume(build.volume)
        raise
    with held_back():
        site.clear(build.domain_uuid, None)
        journal.remove_volume(build.volume)


def _refuse_empty(build: Build, site: BuildSite, last: str) -> None:
    if site.allocated_bytes(build.volume) < _LEAST_WRITTEN_BYTES:
        raise InstallationError(
            f"the installer ended without having written to its disk; the last that was said: {last or 'nothing'}. "
            "Its preseed or kickstart file has to have the system put on /dev/vda"
        )


def clear_remains(journal: Journal, hear: Callable[[str], None]) -> None:
    """Remove what builds left that were killed, on whatever host. Raises HypervisorError where one does not answer."""
    for volume in journal.volumes():
        hear(_clear_remains_of(volume, journal))
        journal.remove_volume(volume)


def _clear_remains_of(volume: VolumeRef, journal: Journal) -> str:
    left = f"domain {volume.instance}, and volume {volume.name} in pool {volume.pool} on host {volume.host}"
    site = BuildSite(volume.host)
    try:
        site.clear(domain_uuid(journal.controller, volume.instance), volume)
    except HypervisorError as error:
        if error.kind is HypervisorErrorKind.BUSY:
            return f"what a killed build left is somebody's by now: {error}"
        raise HypervisorError(
            error.kind, f"a build was killed that may have left {left}, which cannot be removed now: {error}"
        ) from error
    finally:
        site.close()
    return f"removed what a killed build left, as far as it was there: {left}"
