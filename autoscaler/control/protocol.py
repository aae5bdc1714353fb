"""One JSON object per line, each way.

A request is ``{"command": "scale", "arguments": {"group": "web", "count": 3, "for_seconds": 3600}}``; its answer is
``{"ok": true, "result": ...}`` or ``{"ok": false, "error": "..."}``. ``arguments`` may be left out when there are none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoscaler.core.errors import ControlError

MAX_REQUEST_BYTES = 64 * 1024
DEFAULT_HOLD_SECONDS = 3600.0
_MOST_SECONDS = 1e11
_MOST_ID = 1 << 62

ARGUMENTS: Mapping[str, frozenset[str]] = {
    "status": frozenset(),
    "explain": frozenset({"group", "at"}),
    "events": frozenset({"group", "since", "after"}),
    "history": frozenset({"group", "since"}),
    "scale": frozenset({"group", "count", "for_seconds"}),
    "pause": frozenset({"group"}),
    "resume": frozenset({"group"}),
    "reset": frozenset({"group"}),
    "delete": frozenset({"group"}),
    "refresh": frozenset({"group"}),
    "cancel_refresh": frozenset({"group"}),
    "roll_back": frozenset({"group"}),
    "protect": frozenset({"instance", "for_seconds"}),
    "unprotect": frozenset({"instance"}),
    "detach": frozenset({"instance"}),
    "attach": frozenset({"instance"}),
    "reload": frozenset(),
    "accept_ledger": frozenset(),
    "images": frozenset(),
    "image_begin": frozenset({"import"}),
    "image_alive": frozenset({"import"}),
    "image_finish": frozenset({"import", "stamp", "publish"}),
    "image_abandon": frozenset({"import"}),
    "image_gone": frozenset({"volume"}),
    "image_publish": frozenset({"name", "version"}),
    "image_rollback": frozenset({"name"}),
    "image_remove": frozenset({"version"}),
    "image_keep": frozenset({"version"}),
    "image_removed": frozenset({"version"}),
}
"""Every command with the arguments it takes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it came over the socket: a known command, and only arguments that it takes."""

    command: str
    arguments: Mapping[str, Any]

    def group(self) -> str:
        """Return the group's name. Raises `ControlError` when it is missing or no text."""
        return self._name("group", "the name of a group")

    def instance(self) -> str:
        """Return the instance's id. Raises `ControlError` when it is missing or no text."""
        return self._name("instance", "the name of an instance")

    def _name(self, name: str, wanted: str) -> str:
        value = self.arguments.get(name)
        if not isinstance(value, str) or not value.isprintable() or not value:
            raise self.wrong(name, wanted, value)
        return value

    def optional_group(self) -> str | None:
        """Return the group's name, None when it was left out. Raises `ControlError` when it is no text."""
        return None if self.arguments.get("group") is None else self.group()

    def after(self) -> int:
        """Return the id of an event, 0 when it was left out. Raises `ControlError` when it is none."""
        value = self.arguments.get("after", 0)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_ID:
            raise self.wrong("after", "the id of an event, or 0", value)
        return value

    def count(self) -> int | None:
        """Return the size asked for, None for ``auto``. Raises `ControlError` for anything else."""
        value = self.arguments.get("count")
        if value == "auto":
            return None
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self.wrong("count", 'a whole number of 0 or more, or "auto"', value)
        return value

    def seconds(self, name: str) -> float | None:
        """Return a time or duration in seconds, None when left out. Raises `ControlError` unless it is above 0.

        Nor may it be beyond any date that can be written.
        """
        value = self.arguments.get(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not _is_above_zero(value):
            raise self.wrong(name, "a number of seconds above 0", value)
        return float(value)

    def wrong(self, name: str, wanted: str, got: object) -> ControlError:
        """Say which argument of which command is wrong."""
        shown = "nothing" if got is None else json.dumps(got)[:60]
        return ControlError(f'{self.command}: "{name}" must be {wanted}, not {shown}')


def _is_above_zero(value: float) -> bool:
    try:
        return 0 < value < _MOST_SECONDS
    except OverflowError:  # a whole number beyond the range of a float
        return False


def parse_call(line: bytes) -> Call:
    """Read one request. Raises `ControlError` saying what is wrong and where."""
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ControlError(f"the request is no JSON: column {error.colno}: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ControlError("the request is no JSON that can be read: send one object, in UTF-8, on one line") from error
    if not isinstance(data, dict):
        raise ControlError('the request must be an object like {"command": "status"}')
    unknown = sorted(data.keys() - {"command", "arguments"})
    if unknown:
        raise ControlError(f'the request has an unknown key "{unknown[0]}"; known: command, arguments')
    return _checked(data.get("command"), data.get("arguments", {}))


def _checked(command: object, arguments: object) -> Call:
    if not isinstance(command, str) or command not in ARGUMENTS:
        raise ControlError(f'unknown command {json.dumps(command)[:60]}; "command" is one of: {", ".join(ARGUMENTS)}')
    if not isinstance(arguments, dict):
        raise ControlError(f'{command}: "arguments" must be an object, not {json.dumps(arguments)[:60]}')
    unknown = sorted(arguments.keys() - ARGUMENTS[command])
    if unknown:
        known = ", ".join(sorted(ARGUMENTS[command])) or "none"
        raise ControlError(f'{command}: unknown argument "{unknown[0]}"; known: {known}')
    return Call(command, arguments)


def answer(result: object) -> bytes:
    """Render the answer of a request that was carried out; `result` is plain JSON data."""
    return _line({"ok": True, "result": result})


def refusal(error: str) -> bytes:
    """Render the answer of a request that was refused."""
    return _line({"ok": False, "error": error})


def _line(data: object) -> bytes:
    return json.dumps(data, allow_nan=False).encode() + b"\n"
