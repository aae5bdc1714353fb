"""Commands run inside a guest by its agent, which is asked until they ended."""

import base64
import json
import time
from typing import Any

import libvirt
import libvirt_qemu

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind
from autoscaler.core.ports import GuestRun

GRACE_SECONDS = 10.0
"""What the call around `run` is given beyond the command's own time."""
_AGENT_SECONDS = 3
_POLL_SECONDS = 0.2
_OUTPUT_BYTES = 4096


_NONSENSE = (ValueError, LookupError, TypeError, AttributeError)


def run(domain: libvirt.virDomain, argv: tuple[str, ...], seconds: float) -> GuestRun:
    """Run a command and wait for its end, at most `seconds`; one that has not ended by then runs on.

    Raises libvirtError where the agent does not answer, or refuses to run commands, and HypervisorError where what it
    answers makes no sense: it is the guest's word.
    """
    deadline = time.monotonic() + seconds
    try:
        begun = _ask(domain, "guest-exec", {"path": argv[0], "arg": list(argv[1:]), "capture-output": True})
        while True:
            status = _ask(domain, "guest-exec-status", {"pid": begun["pid"]})
            if status["exited"]:
                code = status.get("exitcode")
                output = _text(status.get("out-data")) + _text(status.get("err-data"))
                return GuestRun(None if code is None else int(code), output)
            if time.monotonic() + _POLL_SECONDS > deadline:
                return GuestRun(None)
            time.sleep(_POLL_SECONDS)
    except _NONSENSE as error:
        raise HypervisorError(
            HypervisorErrorKind.FAILED, f"the agent of {domain.name()} answered guest-exec with nonsense"
        ) from error


def _ask(domain: libvirt.virDomain, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    message = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuAgentCommand(domain, message, _AGENT_SECONDS, 0))["return"]
    return answer


def _text(encoded: str | None) -> str:
    return base64.b64decode(encoded or "")[-_OUTPUT_BYTES:].decode(errors="replace")
