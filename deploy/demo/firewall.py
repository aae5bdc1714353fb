"""Firewall rules and sysctls that libvirt leaves behind when its last NAT network ends, and how they were before.

libvirt makes its own chains (LIBVIRT_*), and iptables the tables they are in; forwarding is turned on with the first
network. None of it goes with the last network.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SAVERS = ("iptables-save", "ip6tables-save")
SYSCTLS = Path("/proc/sys/net")
_PATTERNS = (
    "ipv4/ip_forward",  # first: writing it sets those below
    "ipv4/conf/*/forwarding",
    "ipv4/conf/*/accept_redirects",
    "ipv6/conf/*/forwarding",
    "ipv6/conf/*/accept_redirects",
)
_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
_COUNTERS = re.compile(r" ?\[[0-9]+:[0-9]+\]")


@dataclass(frozen=True)
class NetworkState:
    """What is put back: firewall chains by the command that lists them, nftables' tables, and sysctls below net."""

    rules: Mapping[str, list[str]] = field(default_factory=dict)
    tables: list[str] = field(default_factory=list)
    sysctls: Mapping[str, str] = field(default_factory=dict)


def read() -> NetworkState:
    """Read the state; the firewall only as root, for an ordinary user can neither see nor change it."""
    if os.geteuid() != 0:
        return NetworkState(sysctls=_sysctls())
    return NetworkState({saver: _rules(saver) for saver in SAVERS}, _tables(), _sysctls())


def put_back(before: NetworkState) -> None:
    """Take away chains and tables that were not there before and hold no rule, then restore the sysctls.

    Chains that do hold rules belong to a network that somebody else started meanwhile, and so does forwarding.
    """
    if os.geteuid() != 0:
        return
    in_use = [not _remove_chains(saver, before.rules.get(saver, [])) for saver in SAVERS]
    if any(in_use):
        return
    _remove_tables(before.tables)
    for name, value in before.sysctls.items():
        path = SYSCTLS / name
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def _rules(saver: str) -> list[str]:
    """List chains and rules, without counters and without the built-in chains that hold nothing by default."""
    program = shutil.which(saver, path=_PATH)
    if program is None:
        return []
    saved = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    table, lines = "", []
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-")) and not re.match(r":[A-Z]+ ACCEPT ", line):
            lines.append(f"{table} {_COUNTERS.sub('', line)}")
    return sorted(lines)


def _tables() -> list[str]:
    """List nftables' tables, each as its family and name. iptables shows the same whether they are there or not."""
    if shutil.which("nft", path=_PATH) is None:
        return []
    return [line.removeprefix("table ") for line in _run("nft", "list", "tables").splitlines()]


def _sysctls() -> dict[str, str]:
    return {
        str(path.relative_to(SYSCTLS)): path.read_text().strip()
        for pattern in _PATTERNS
        for path in sorted(SYSCTLS.glob(pattern))
    }


def _remove_chains(saver: str, before: list[str]) -> bool:
    """Remove libvirt's new and empty chains with the jumps to them; tell whether none of them is in use."""
    new = [line for line in _rules(saver) if line not in before]
    chains = [(table, chain) for table, chain in _matches(r"(\w+) :(LIBVIRT_\w+)", new)]
    if _matches(r"(\w+) -A (LIBVIRT_\w+)", new):
        return False
    command = saver.removesuffix("-save")
    for table, rule in _matches(r"(\w+) -A ([A-Z]+ -j LIBVIRT_\w+)$", new):
        _run(command, "-w", "-t", table, "-D", *rule.split())
    for table, chain in chains:
        _run(command, "-w", "-t", table, "-X", chain)
    return True


def _remove_tables(before: list[str]) -> None:
    """Remove the tables that iptables made meanwhile, where nothing is in them but chains that let everything pass."""
    for table in _tables():
        family, name = table.split()
        saver = {"ip": "iptables-save", "ip6": "ip6tables-save"}.get(family)
        if table in before or saver is None or name not in ("filter", "nat", "mangle"):
            continue
        if not any(line.startswith(f"{name} ") for line in _rules(saver)):
            _run("nft", "delete", "table", family, name)


def _matches(pattern: str, lines: list[str]) -> list[tuple[str, str]]:
    return [(found[1], found[2]) for line in lines if (found := re.match(pattern, line))]


def _run(*command: str) -> str:
    program = shutil.which(command[0], path=_PATH) or command[0]
    return subprocess.run([program, *command[1:]], capture_output=True, text=True, check=True).stdout
