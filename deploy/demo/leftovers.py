"""Show that a demo left nothing: note what is there before it, compare after it.

    python deploy/demo/leftovers.py before FILE
    make demo
    python deploy/demo/leftovers.py after FILE      # prints what differs and exits 1, or exits 0

What libvirt knows can only be read with libvirt running: one is started for as long as it takes where none runs.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import libvirt

from deploy.demo import firewall, golden, libvirt_env

_PROCESSES = re.compile(r"libvirtd|virtlogd|virtlockd|qemu-system|dnsmasq|autoscaler")

Facts = dict[str, Any]


def snapshot() -> Facts:
    """Note everything a demo could leave behind, as plain JSON data."""
    # First what a libvirt that is started for the look would change.
    network = firewall.read()
    facts: Facts = {
        "processes": processes(),
        "firewall": dict(network.rules),
        "firewall tables": network.tables,
        "sysctls": dict(network.sysctls),
        "interfaces": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "golden images": golden_digests(golden.CACHE),
    }
    uri = libvirt_env.default_uri()
    with libvirt_env.answering(uri):
        connection = libvirt.open(uri)
        try:
            facts |= known_to_libvirt(connection)
        finally:
            connection.close()
    return facts


def processes() -> dict[str, int]:
    """Count the processes of the kinds that a demo starts, by command line.

    This process and those that started it do not count, nor do those that live in a network namespace of their own,
    where no demo puts anything.
    """
    mine = _ancestors(os.getpid())
    found: Counter[str] = Counter()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in mine and not _is_apart(entry):
            words = _command(entry)
            if words and _PROCESSES.search(Path(words[0]).name + " " + " ".join(words[1:3])):
                found[" ".join(words)] += 1
    return dict(found)


def known_to_libvirt(connection: libvirt.virConnect) -> Facts:
    """List domains, pools, volumes and networks with their states."""
    pools = connection.listAllStoragePools()
    return {
        "domains": {domain.name(): bool(domain.isActive()) for domain in connection.listAllDomains()},
        "pools": {pool.name(): bool(pool.isActive()) for pool in pools},
        "volumes": sorted(volume.path() for pool in pools if pool.isActive() for volume in pool.listAllVolumes()),
        "networks": _networks(connection),
    }


def golden_digests(cache: Path) -> dict[str, str]:
    """Compute the SHA-256 of every golden image that was built."""
    digests = {}
    for image in sorted(cache.glob("golden-*.qcow2")):
        with image.open("rb") as file:
            digests[image.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def differences(before: Facts, after: Facts) -> list[str]:
    """Describe what differs; a golden image that was built in between is none."""
    lines = []
    for kind in sorted({*before, *after}):
        was, now = _items(before.get(kind)), _items(after.get(kind))
        new = {} if kind == "golden images" else {key: now[key] for key in now.keys() - was.keys()}
        lines += [f"{kind}: new: {key}" for key in sorted(new)]
        lines += [f"{kind}: gone: {key}" for key in sorted(was.keys() - now.keys())]
        lines += [
            f"{kind}: changed: {key}: {was[key]} -> {now[key]}"
            for key in sorted(was.keys() & now.keys())
            if was[key] != now[key]
        ]
    return lines


def _items(facts: Any) -> dict[str, Any]:
    """Turn either kind of facts into keys with values, lists of lines included."""
    if isinstance(facts, list):
        return dict(Counter(facts))
    flat: dict[str, Any] = {}
    for key, value in (facts or {}).items():
        flat |= {f"{key}: {line}": n for line, n in Counter(value).items()} if isinstance(value, list) else {key: value}
    return flat


def _networks(connection: libvirt.virConnect) -> dict[str, bool]:
    try:
        networks = connection.listAllNetworks()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # a session may have no networks
            raise
        return {}
    return {network.name(): bool(network.isActive()) for network in networks}


def _is_apart(entry: Path) -> bool:
    try:
        return (entry / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False  # gone, or not for us to see


def _command(entry: Path) -> list[str]:
    try:
        line = (entry / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [word.decode(errors="replace") for word in line.split(b"\0") if word]


def _ancestors(pid: int) -> set[int]:
    found = set()
    while pid:
        found.add(pid)
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return found


def main() -> int:
    """Note or compare."""
    parser = argparse.ArgumentParser(description="Show that a demo left nothing behind.")
    parser.add_argument("when", choices=["before", "after"])
    parser.add_argument("file", type=Path, help="where the state before is noted")
    arguments = parser.parse_args()
    if arguments.when == "before":
        arguments.file.write_text(json.dumps(snapshot(), indent=2) + "\n")
        return 0
    found = differences(json.loads(arguments.file.read_text()), snapshot())
    for line in found:
        print(f"leftovers: {line}", file=sys.stderr)
    if not found:
        print("leftovers: none")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
