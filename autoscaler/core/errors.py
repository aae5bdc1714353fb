"""The families of errors an operator can meet; everything else is a bug and crashes to the service manager.

Each message says what happened, to which file, host, group or instance, and what to do next.
"""

from dataclasses import dataclass
from enum import StrEnum


class AutoscalerError(Exception):
    """What the operator can act upon."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault in a file people edit; line and column count from 1."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        """Render as ``FILE:LINE:COLUMN: message``, which editors and terminals link."""
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class PolicyError(AutoscalerError):
    """A policy or configuration file is wrong; carries every problem found, not the first only."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class HypervisorErrorKind(StrEnum):
    """What became of a call to a hypervisor."""

    UNREACHABLE = "unreachable"
    DEADLINE = "deadline"
    """The call did not return in time: its outcome is unknown."""
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    NO_SPACE = "no_space"
    DENIED = "denied"
    INVALID = "invalid"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    """The daemon ended in the middle, and what had been begun was undone."""
    FAILED = "failed"


class HypervisorError(AutoscalerError):
    """A hypervisor could not do what was asked; chained to libvirt's own error where there is one."""

    def __init__(self, kind: HypervisorErrorKind, message: str, *, retryable: bool = False) -> None:
        self.kind = kind
        self.retryable = retryable
        super().__init__(message)


class ImageError(AutoscalerError):
    """A golden image cannot be read, flattened or stored; the message says why."""


class StoreError(AutoscalerError):
    """The journal cannot be opened, read or written."""


class StateInUseError(StoreError):
    """Another process holds the state directory; `pid` as far as it is known."""

    def __init__(self, message: str, pid: str) -> None:
        self.pid = pid
        super().__init__(message)


class ControlError(AutoscalerError):
    """A request over the control socket was refused; the message says why."""


class DaemonUnreachableError(AutoscalerError):
    """The daemon does not answer on its control socket."""
