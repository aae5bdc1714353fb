"""What two guests of the same image, started at once, tell of it: judged here, without anything being asked."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoscaler.core.finding import Finding, error, ok, warning

_CLEAN = "Clean it with: virt-sysprep -a IMAGE"


@dataclass(frozen=True, slots=True)
class Inside:
    """What a guest's agent told of its guest."""

    machine_id: str | None
    """None where the guest has none."""
    host_keys: tuple[str, ...]
    """The public SSH host keys, each with its kind."""
    has_sshd: bool = False


@dataclass(frozen=True, slots=True)
class Canary:
    """One guest of the image, and how far it came."""

    instance: str
    failure: str | None = None
    """Why it could not be made or started."""
    ready_seconds: float | None = None
    """From when all had been started until its agent answered; None where it never did."""
    went_off: bool = False
    """It was not running any more before it was ready."""
    addresses: tuple[str, ...] = ()
    inside: Inside | None = None
    """None where the agent would not run a command."""
    refused: str | None = None
    """Why it would not."""


def judge(canaries: Sequence[Canary], within_seconds: float, *, compare_addresses: bool) -> Iterator[Finding]:
    """Make findings of what the canaries told; what builds on a finding that is an error is not judged."""
    failed = next((each for each in canaries if each.failure is not None), None)
    if failed is not None:
        yield error("boot.start", f"no guest could be started of it: {failed.failure}", "Mend what is said there")
        return
    ready = _ready(canaries, within_seconds)
    yield ready
    if ready.remedy is not None:
        return
    if compare_addresses:
        yield _addresses(canaries)
    else:
        yield ok("boot.addresses", "not compared: in user-mode networking every guest has the same")
    inside = [each.inside for each in canaries if each.inside is not None]
    if len(inside) < len(canaries):
        why = next((each.refused for each in canaries if each.refused is not None), None)
        yield warning(
            "boot.inside",
            f"the agent runs no commands, so machine-ids and host keys were not compared: {why or 'no reason given'}",
            "Allow guest-exec in the image's agent, at least for this look: BLACKLIST_RPC in /etc/sysconfig/qemu-ga",
        )
        return
    yield _machine_ids(inside)
    yield _host_keys(inside)


def _ready(canaries: Sequence[Canary], within_seconds: float) -> Finding:
    off = next((each for each in canaries if each.went_off), None)
    if off is not None:
        return error(
            "boot.ready",
            "a guest of it went off before its agent answered",
            "Start one by hand and look at its console: does it boot from a virtio disk, in this much memory?",
        )
    seconds = [each.ready_seconds for each in canaries if each.ready_seconds is not None]
    if len(seconds) < len(canaries):
        return error(
            "boot.ready",
            f"{len(canaries) - len(seconds)} of {len(canaries)} guests of it were not ready within "
            f"{within_seconds:.0f} s: their agents did not answer",
            "Install qemu-guest-agent in it and let it start at boot; where it only boots slowly, use --within",
        )
    return ok("boot.ready", f"two guests at once were ready after {' and '.join(f'{each:.1f} s' for each in seconds)}")


def _addresses(canaries: Sequence[Canary]) -> Finding:
    without = [each for each in canaries if not each.addresses]
    if without:
        return error(
            "boot.addresses",
            f"{len(without)} of {len(canaries)} guests of it got no address",
            "Let it ask for one by DHCP on whatever network card it finds, or use --network user",
        )
    shared = set.intersection(*(set(each.addresses) for each in canaries))
    if shared:
        return error(
            "boot.addresses",
            f"two guests at once have the same address: {', '.join(sorted(shared))}",
            "Is it configured in the image? Let DHCP give it, and see what is said of the machine-id",
        )
    first = [each.addresses[0] for each in canaries]
    return ok("boot.addresses", f"two guests at once have different addresses: {' and '.join(first)}")


def _machine_ids(inside: Sequence[Inside]) -> Finding:
    found = [each.machine_id for each in inside]
    if all(each is None for each in found):
        return ok("boot.machine-id", "it keeps no machine-id")
    if found[0] == found[1]:
        return error(
            "boot.machine-id",
            f"two guests have the same machine-id, {found[0]}: they would share their DHCP address, and more",
            _CLEAN,
        )
    return ok("boot.machine-id", "two guests have different machine-ids")


def _host_keys(inside: Sequence[Inside]) -> Finding:
    if not any(each.host_keys for each in inside):
        if any(each.has_sshd for each in inside):
            return warning(
                "boot.host-keys",
                "it has an SSH server and made itself no host keys",
                "Let it make them at its first boot: ssh-keygen -A, or cloud-init",
            )
        return ok("boot.host-keys", "it has no SSH host keys")
    shared = set.intersection(*(set(each.host_keys) for each in inside))
    if shared:
        kinds = ", ".join(sorted({key.partition(" ")[0] for key in shared}))
        return error("boot.host-keys", f"two guests have the same SSH host keys: {kinds}", _CLEAN)
    return ok("boot.host-keys", "two guests have different SSH host keys")


_SCRIPT = """\
echo machine-id $(cat /etc/machine-id 2>/dev/null)
for each in /usr/sbin/sshd /usr/bin/sshd; do [ -x $each ] && echo sshd; done
for each in /etc/ssh/ssh_host_*_key.pub; do [ -r $each ] && echo key $(cut -d' ' -f1,2 $each); done
exit 0
"""
QUESTION = ("/bin/sh", "-c", _SCRIPT)
"""What a guest is asked to run."""


def read_answer(printed: str) -> Inside:
    """Read what the question printed; a guest's nonsense gives little."""
    told: dict[str, list[str]] = {"machine-id": [], "sshd": [], "key": []}
    for line in printed.splitlines():
        word, _, rest = line.partition(" ")
        if word in told:
            told[word].append("".join(each for each in rest if each.isprintable()).strip())
    machine_id = next(iter(told["machine-id"]), "")
    return Inside(machine_id or None, tuple(told["key"]), bool(told["sshd"]))
