"""What holds on a real host whatever happened: nothing of ours too many or left over, nothing of others' touched."""

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path

import libvirt

from autoscaler.core.observation import Domain
from autoscaler.hypervisor.inventory import list_domains
from autoscaler.store import Journal
from tests.support.daemon import DaemonProcess, define_foreign

FOREIGN = "foreign"
FOREIGN_FILE = "foreign.qcow2"
FILES_OF_AN_INSTANCE = (".qcow2", ".console.log")
SEED = ".seed.iso"


def sha256(path: Path) -> str:
    """Of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass(frozen=True)
class Before:
    """What was there before, and must be there after: golden image, others' domain, others' files."""

    uri: str
    directory: Path
    files: dict[str, str]
    """Names in the pool that are not an instance's, each with its content's SHA-256."""
    domains: frozenset[tuple[str, str]]
    """Name and UUID of what is not ours."""
    files_of_an_instance: tuple[str, ...] = FILES_OF_AN_INSTANCE


def look(uri: str, directory: Path, *, seeded: bool = False) -> Before:
    """Put a foreign domain and a foreign volume there, and note what is there; to be called before a daemon starts.

    `seeded`: instances have seeds for cloud-init.
    """
    define_foreign(uri, FOREIGN)
    (directory / FOREIGN_FILE).write_bytes(b"not the autoscaler's")
    files = {entry.name: sha256(entry) for entry in directory.iterdir()}
    domains = frozenset((domain.name, domain.uuid) for domain in listed(uri))
    return Before(uri, directory, files, domains, (*FILES_OF_AN_INSTANCE, SEED) if seeded else FILES_OF_AN_INSTANCE)


def listed(uri: str) -> tuple[Domain, ...]:
    """Every domain there is."""
    connection = libvirt.open(uri)
    try:
        return list_domains(connection, "local")
    finally:
        connection.close()


def check_always(before: Before, controller: str, most: int) -> set[str]:
    """Check what holds at every moment; gives our instances. Raises AssertionError."""
    domains = listed(before.uri)
    ours = {
        domain.name: domain.ownership.instance
        for domain in domains
        if domain.ownership is not None and domain.ownership.controller == controller
    }
    assert len(ours) <= most, f"{len(ours)} instances where {most} is the most: {sorted(ours)}"
    others = {(domain.name, domain.uuid) for domain in domains if domain.name not in ours}
    assert others >= before.domains, "what is not ours was touched"
    for name, digest in before.files.items():
        assert sha256(before.directory / name) == digest, f"{name} was written to"
    return set(ours.values())


def until_settled(before: Before, daemon: DaemonProcess, most: int, seconds: float = 40.0) -> None:
    """Wait until nothing is under way or left over; what holds always is checked meanwhile. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _check_settled(before, daemon, most)
        except _NotSettledError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:g} s: {error}\n{daemon.text()[-6000:]}") from error
        time.sleep(0.2)


class _NotSettledError(Exception):
    """Something is still under way or left over."""


def _check_settled(before: Before, daemon: DaemonProcess, most: int) -> None:
    journal = Journal.open_readonly(daemon.state_dir)
    try:
        controller, ledger, flights = journal.controller, journal.volumes(), journal.in_flight()
    finally:
        journal.close()
    ours = check_always(before, controller, most)
    shown = {instance.instance for group in daemon.snapshot().groups for instance in group.instances}
    files = {entry.name for entry in before.directory.iterdir()} - before.files.keys()
    wanted = {f"{instance}{end}" for instance in ours for end in before.files_of_an_instance}
    for what, found, right in (
        ("instances the daemon shows", shown, ours),
        ("files in the pool", files, wanted),
        ("instances in the ledger", {volume.instance for volume in ledger}, ours),
        ("actions in flight", set(flights), set()),
    ):
        if found != right:
            raise _NotSettledError(f"{what}: {sorted(map(str, found))} instead of {sorted(map(str, right))}")
