"""What is inside an image, without starting it: read by libguestfs, where its tools are installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from autoscaler.core.finding import Finding, error, ok, warning

_SECONDS = 300
_MARK = "==%s=="
_CLEAN = "Clean it with: virt-sysprep -a IMAGE"
# What guestfish prints for each question, between its marks; a leading dash lets it go on after a failure.
_QUESTIONS = {
    "machine-id": "-cat /etc/machine-id",
    "host-keys": "glob-expand /etc/ssh/ssh_host_*_key",
    "cloud-instances": "-ls /var/lib/cloud/instances",
    "agent": "glob-expand /usr/{sbin,bin,lib/*/qemu}/qemu-ga",
    "virtio": "glob-expand /{usr/,}lib/modules/*/kernel/drivers/block/virtio_blk.ko*",
    "builtin": "glob-expand /{usr/,}lib/modules/*/modules.builtin",
}


def look_inside(path: Path) -> Iterator[Finding]:
    """Look at what clones must not share (machine-id, SSH host keys, cloud-init's memory) and what they need."""
    if shutil.which("guestfish") is None:
        yield warning(
            "inside.not-seen",
            "libguestfs is not installed: machine-id, host keys, cloud-init, agent and drivers were not looked at",
            "Install libguestfs-tools, or try two clones with --boot",
        )
        return
    answers = _ask(path)
    if answers is None:
        yield warning(
            "inside.not-seen", "libguestfs finds no system it knows in it", "Try two clones of it with --boot"
        )
        return
    yield from judge(answers)


def judge(answers: dict[str, str]) -> Iterator[Finding]:
    """Make findings of what was read, by the names of the questions; an empty answer means that there is none."""
    if answers["machine-id"] in {"", "uninitialized"}:
        yield ok("inside.machine-id", "the machine-id is empty: each clone makes its own")
    else:
        yield error("inside.machine-id", "clones would share its machine-id, and so their DHCP address", _CLEAN)
    if answers["host-keys"]:
        yield error("inside.host-keys", "clones would share its SSH host keys", _CLEAN)
    else:
        yield ok("inside.host-keys", "it has no SSH host keys: each clone makes its own")
    if answers["cloud-instances"]:
        yield error(
            "inside.cloud-init", "cloud-init has run in it, and remembers it", "Run in it: cloud-init clean --logs"
        )
    else:
        yield ok("inside.cloud-init", "cloud-init has not run in it")
    if answers["agent"]:
        yield ok("inside.agent", "the QEMU guest agent is installed")
    else:
        yield error(
            "inside.agent",
            "the QEMU guest agent is not installed: clones never become ready",
            "Install qemu-guest-agent in it, or set ready.agent to false",
        )
    if not answers["virtio"] and not answers["builtin"]:
        yield warning("inside.virtio", "no kernel with virtio drivers was found", "Try it with --boot")
    else:
        yield ok("inside.virtio", "its kernel has virtio drivers")


def _ask(path: Path) -> dict[str, str] | None:
    script = "".join(f"echo {_MARK % name}\n{question}\n" for name, question in _QUESTIONS.items())
    try:
        ended = subprocess.run(  # noqa: S603 - an argument list, no shell
            [shutil.which("guestfish") or "guestfish", "--ro", "--format=qcow2", "-a", path.absolute(), "-i"],
            input=script,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C", "LIBGUESTFS_BACKEND": "direct"},
        )
    except subprocess.TimeoutExpired:
        return None
    if ended.returncode != 0 and _MARK % "machine-id" not in ended.stdout:
        return None
    return read_answers(ended.stdout)


def read_answers(printed: str) -> dict[str, str]:
    """Take guestfish's output apart at the marks."""
    answers = dict.fromkeys(_QUESTIONS, "")
    name = None
    for line in printed.splitlines():
        marked = next((each for each in _QUESTIONS if line == _MARK % each), None)
        if marked is not None:
            name = marked
        elif name is not None:
            answers[name] = f"{answers[name]}\n{line}".strip()
    return answers
