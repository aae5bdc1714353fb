"""The control socket's commands about golden images."""

import re
from typing import Any, Protocol

import cattrs

from autoscaler.codec import decode, encode
from autoscaler.control.protocol import Call
from autoscaler.core.catalog import CatalogView, ImageVersion, Import, Publication, Ticket
from autoscaler.core.policy import IMAGE_NAME
from autoscaler.core.ports import VolumeRef

_DIGEST = re.compile(r"[0-9a-f]{64}")

QUIET = frozenset({"images", "image_alive"})
"""Those that change nothing."""


class ImageBackend(Protocol):
    """The daemon's catalog as the control socket sees it. Every method raises `ControlError` where it refuses."""

    def view(self) -> CatalogView:
        """Give the catalog and who follows it."""
        ...

    def begin(self, by: str, asked: Import) -> Ticket:
        """Give leave to make a volume, which is in the ledger from now on."""
        ...

    def alive(self, asked: Import) -> None:
        """Hear that an import goes on."""
        ...

    def finish(self, by: str, asked: Import, stamp: str, *, publish: bool) -> ImageVersion:
        """Take a volume that is whole into the catalog."""
        ...

    def abandon(self, asked: Import) -> None:
        """Let a half be deleted by the command that made it."""
        ...

    def gone(self, half: VolumeRef) -> None:
        """Strike out a volume that was deleted."""
        ...

    def publish(self, by: str, name: str, version: int | None) -> Publication:
        """Let groups follow a version, the newest if none is given."""
        ...

    def rollback(self, by: str, name: str) -> Publication:
        """Publish what was published before."""
        ...

    def remove(self, by: str, asked: ImageVersion) -> None:
        """Let nothing new stand on a version that is to be pruned."""
        ...

    def keep(self, asked: ImageVersion) -> None:
        """Take that back."""
        ...

    def removed(self, by: str, asked: ImageVersion) -> None:
        """Take a version that nothing stands on out of the catalog."""
        ...


def carry_out_image(backend: ImageBackend, by: str, call: Call) -> Any:
    """Do what a command about images asks, and give the result as plain JSON data. Raises `ControlError`."""
    match call.command:
        case "images":
            return encode(backend.view())
        case "image_begin":
            return encode(backend.begin(by, _import(call)))
        case "image_alive":
            backend.alive(_import(call))
        case "image_finish":
            return encode(
                backend.finish(by, _import(call), _text(call, "stamp"), publish=call.arguments.get("publish") is True)
            )
        case "image_abandon":
            backend.abandon(_import(call))
        case "image_gone":
            backend.gone(_value(call, "volume", VolumeRef))
        case "image_publish" | "image_rollback":
            return encode(_published(backend, by, call))
        case _:
            _prune(backend, by, call)
    return {"ok": True}


def _published(backend: ImageBackend, by: str, call: Call) -> Publication:
    name = _image_name(call, call.arguments.get("name"))
    if call.command == "image_rollback":
        return backend.rollback(by, name)
    version = call.arguments.get("version")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 1):
        raise call.wrong("version", "the number of a version", version)
    return backend.publish(by, name, version)


def _prune(backend: ImageBackend, by: str, call: Call) -> None:
    version = _value(call, "version", ImageVersion)
    match call.command:
        case "image_remove":
            backend.remove(by, version)
        case "image_keep":
            backend.keep(version)
        case _:
            backend.removed(by, version)


def _import(call: Call) -> Import:
    found: Import = _value(call, "import", Import)
    _image_name(call, found.name)
    texts = {"host": found.host, "pool": found.pool, "source": found.source}
    for name, text in texts.items():
        if not text or not text.isprintable() or len(text) > 4096:
            raise call.wrong(f"import.{name}", "a text", text)
    if _DIGEST.fullmatch(found.digest) is None:
        raise call.wrong("import.digest", "a SHA-256 in hexadecimal digits", found.digest)
    return found


def _image_name(call: Call, name: object) -> str:
    if not isinstance(name, str) or re.fullmatch(IMAGE_NAME, name) is None:
        raise call.wrong("name", "the name of an image such as web", name)
    return name


def _text(call: Call, name: str) -> str:
    value = call.arguments.get(name)
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise call.wrong(name, "a text", value)
    return value


def _value(call: Call, name: str, kind: type[Any]) -> Any:
    value = call.arguments.get(name)
    try:
        return decode(value, kind)
    except (cattrs.BaseValidationError, ValueError, KeyError, TypeError) as error:
        raise call.wrong(name, f"the fields of {kind.__name__}", value) from error
