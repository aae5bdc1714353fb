"""Versions of the golden image: the same system with other words on its kernel's command line, which its page shows."""

import subprocess
from pathlib import Path

from deploy.demo.golden import ENVIRONMENT, PARTITION_START_SECTORS, SECTOR_BYTES

BROKEN = "rdinit=/bin/cat"
"""With this word the kernel comes up, and nothing after it: the agent never answers."""


def version_word(version: str) -> str:
    """Give the word that makes the guest's page show a version."""
    return f"demo.version={version}"


def make_version(golden: Path, target: Path, *words: str) -> None:
    """Write a copy of the golden image whose kernel is given these words as well."""
    raw, settings = target.with_suffix(".raw"), target.with_suffix(".cfg")
    partition = f"{raw}@@{PARTITION_START_SECTORS * SECTOR_BYTES}"
    try:
        _run("qemu-img", "convert", "-O", "raw", golden, raw)
        _run("mcopy", "-i", partition, "::syslinux.cfg", settings)
        text = settings.read_text()
        assert "append " in text
        settings.write_text(text.replace("append ", f"append {' '.join(words)} "))
        _run("mcopy", "-o", "-i", partition, settings, "::syslinux.cfg")
        _run("qemu-img", "convert", "-O", "qcow2", raw, target)
    finally:
        raw.unlink(missing_ok=True)
        settings.unlink(missing_ok=True)


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
