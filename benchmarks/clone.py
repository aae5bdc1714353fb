"""What one instance costs, in time and disk: our clone, bare libvirt calls, and virt-clone of the same image.

usage: python -m benchmarks.clone [--rounds N] [--burst N] [--into FILE]

All of it in one run, in turns, on a libvirt of its own (which needs root) that leaves nothing behind. The image holds
2 GiB of data, none of it zeros; its guests are emulated and find nothing to boot, so that they take no CPU from what
is measured. Ours is a whole clone: every step of the executor, each noted in a journal on disk before and after.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from autoscaler import log
from autoscaler.core.action import Action, Clone, Remove
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import USER_NETWORK, Accelerator, Image, Machine
from autoscaler.executor import Executor
from autoscaler.hypervisor import LibvirtHypervisor
from autoscaler.hypervisor.accelerator import parse_capabilities
from autoscaler.hypervisor.domain_xml import Files, domain_uuid, domain_xml
from autoscaler.hypervisor.volumes import overlay_xml
from autoscaler.store import Journal, TickRecord
from tests.support.private_libvirtd import PrivateLibvirtd

IMAGE_BYTES = 2 * 1024**3
BLOCK_BYTES = 64 * 1024**2
WORKERS = 4
MACHINE = Machine(vcpus=1, memory_bytes=64 * 1024**2, network=USER_NETWORK, accelerator=Accelerator.TCG)
IMAGE = Image("default", "golden.qcow2")
CONTROLLER = "11111111-2222-3333-4444-555555555555"
BEGIN, END = "<!-- clone: begin -->", "<!-- clone: end -->"


@dataclass
class Bench:
    """The libvirt, and its pool on this machine's disk."""

    libvirtd: PrivateLibvirtd
    pool: Path
    connection: libvirt.virConnect

    def allocated_bytes(self) -> int:
        """Tell what the pool takes on disk."""
        return sum(file.stat().st_blocks * 512 for file in self.pool.iterdir())


@contextmanager
def bench() -> Iterator[Bench]:
    """Give a libvirt with a pool that holds the image."""
    libvirtd = PrivateLibvirtd()
    try:
        pool = libvirtd.root / "pool"
        pool.mkdir(mode=0o711)
        print("making the image", file=sys.stderr)
        make_image(pool / IMAGE.volume)
        connection = libvirt.open(libvirtd.uri)
        xml = f"<pool type='dir'><name>{IMAGE.pool}</name><target><path>{pool}</path></target></pool>"
        connection.storagePoolDefineXML(xml).create()
        yield Bench(libvirtd, pool, connection)
        connection.close()
    finally:
        libvirtd.close()


def make_image(path: Path) -> None:
    """Make a qcow2 whose disk is full of data, but for a boot sector that boots nothing."""
    raw = path.with_suffix(".raw")
    block = os.urandom(BLOCK_BYTES)
    with raw.open("wb") as file:
        file.write(bytes(512) + block[512:])
        for _ in range(IMAGE_BYTES // BLOCK_BYTES - 1):
            file.write(block)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, path], check=True)
    raw.unlink()
    with path.open("rb") as image:
        # What is still to be written would be written while others are measured.
        os.fsync(image.fileno())


class Ours:
    """Clones by the executor, as the daemon makes them."""

    def __init__(self, bench: Bench) -> None:
        self._journal = Journal.open(bench.libvirtd.root / "state")
        self._hypervisor = LibvirtHypervisor("local", bench.libvirtd.uri, self._journal.controller)
        self._bugs: list[BaseException] = []
        self._executor = Executor(
            {"local": self._hypervisor},
            self._journal,
            now=time.time,
            workers_per_host=WORKERS,
            on_end=lambda: None,
            on_bug=self._bugs.append,
        )

    def make(self, names: Sequence[str]) -> None:
        self._do([Clone("bench", "local", name, IMAGE, MACHINE) for name in names])

    def remove(self, names: Sequence[str]) -> None:
        self._do([Remove("bench", "local", name, "benchmark", 0.0) for name in names])

    def close(self) -> None:
        self._hypervisor.close()
        self._journal.close()

    def _do(self, actions: Sequence[Action]) -> None:
        at = time.time()
        seen = Observation(at, 10.0, outcomes=self._journal.outcomes())
        record = TickRecord(seen, (), (), Memory(self._journal.controller))
        self._executor.submit(self._journal.commit_tick(record, actions))
        while self._executor.active():
            time.sleep(0.002)
        failures = [each.failure for each in self._journal.outcomes() if each.failure is not None]
        if failures or self._bugs:
            raise RuntimeError(f"the benchmark's own clones failed: {failures or self._bugs}")


class Bare:
    """The same overlay and the same domain by three calls of libvirt, one after another, with nothing around them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._platform = parse_capabilities(bench.connection.getDomainCapabilities(virttype="qemu"))

    def make(self, names: Sequence[str]) -> None:
        connection = self._bench.connection
        pool = connection.storagePoolLookupByName(IMAGE.pool)
        golden = self._bench.pool / IMAGE.volume
        for name in names:
            volume = pool.createXML(overlay_xml(f"{name}.qcow2", IMAGE_BYTES, str(golden)))
            clone = Clone("bench", "local", name, IMAGE, MACHINE)
            files = Files(volume.path(), None)
            xml = domain_xml(clone, domain_uuid(CONTROLLER, name), None, self._platform, files)
            connection.defineXMLFlags(xml).create()

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            domain = self._bench.connection.lookupByName(name)
            domain.destroy()
            domain.undefine()
            self._bench.connection.storagePoolLookupByName(IMAGE.pool).storageVolLookupByName(f"{name}.qcow2").delete()


class VirtClone:
    """virt-clone of a defined domain that has the image as its disk, and the start of what came of it."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        platform = parse_capabilities(bench.connection.getDomainCapabilities(virttype="qemu"))
        template = Clone("bench", "local", "template", IMAGE, MACHINE)
        files = Files(str(bench.pool / IMAGE.volume), None)
        bench.connection.defineXMLFlags(
            domain_xml(template, domain_uuid(CONTROLLER, "template"), None, platform, files)
        )

    def make(self, names: Sequence[str]) -> None:
        for name in names:
            words = ["virt-clone", "--connect", "qemu:///system", "--original", "template", "--name", name]
            self._bench.libvirtd.command(*words, "--file", str(self._bench.pool / f"{name}.qcow2"), "--quiet")
            self._bench.connection.lookupByName(name).create()

    def remove(self, names: Sequence[str]) -> None:
        Bare(self._bench).remove(names)


@dataclass
class Figures:
    """What one way of making instances took, by round."""

    seconds: list[float] = field(default_factory=list)
    """For each instance."""
    bytes: list[int] = field(default_factory=list)
    """Allocated on disk for each instance."""


Way = Ours | Bare | VirtClone


def measure(bench: Bench, way: Way, names: Sequence[str], figures: Figures) -> None:
    """Make instances, note what each of them took, and remove them."""
    before = bench.allocated_bytes()
    began = time.perf_counter()
    way.make(names)
    took = time.perf_counter() - began
    figures.seconds.append(took / len(names))
    figures.bytes.append((bench.allocated_bytes() - before) // len(names))
    way.remove(names)


def in_turns(bench: Bench, ways: dict[str, Way], rounds: int, count: int) -> dict[str, Figures]:
    """Measure each way once a round; one before the first warms caches up and is not counted."""
    figures = {name: Figures() for name in ways}
    for round_ in range(rounds + 1):
        print(f"{count} by {', '.join(ways)}: round {round_} of {rounds}", file=sys.stderr)
        for number, (name, way) in enumerate(ways.items()):
            names = [f"bench-{round_}-{number}-{each}" for each in range(count if round_ else 1)]
            measure(bench, way, names, figures[name] if round_ else Figures())
    return figures


def table(title: str, figures: dict[str, Figures], base: str) -> list[str]:
    """Show medians, and how many times the base's they are."""
    rows = [f"| {title} | time each | spread | x bare | disk each |", "|---|---|---|---|---|"]
    bare = statistics.median(figures[base].seconds)
    for name, each in figures.items():
        seconds = statistics.median(each.seconds)
        spread = f"{min(each.seconds):.2f} to {max(each.seconds):.2f}"
        disk = statistics.median(each.bytes) / 1024**2
        rows.append(f"| {name} | {seconds:.2f} s | {spread} | {seconds / bare:.2f} | {disk:,.1f} MiB |")
    return rows


def run(rounds: int, burst: int) -> list[str]:
    """Measure everything, and give the tables."""
    log.configure(level="critical")
    with bench() as made:
        ours = Ours(made)
        try:
            bare, virt_clone = Bare(made), VirtClone(made)
            single: dict[str, Way] = {"ours": ours, "bare calls": bare, "virt-clone": virt_clone}
            one = in_turns(made, single, rounds, 1)
            many = in_turns(made, {f"ours, {WORKERS} workers": ours, "bare calls": bare}, max(rounds // 2, 2), burst)
        finally:
            ours.close()
    return [*table("one", one, "bare calls"), "", *table(f"burst of {burst}", many, "bare calls")]


def put_into(path: Path, lines: Sequence[str]) -> None:
    """Replace what stands between the marks in a document."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text("\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--burst", type=int, default=20)
    parser.add_argument("--into", type=Path, metavar="FILE", help="write the tables into a document")
    given = parser.parse_args()
    lines = run(given.rounds, given.burst)
    print("\n".join(lines))
    if given.into is not None:
        put_into(given.into, lines)


if __name__ == "__main__":
    main()
