"""The header of a qcow2 file, read without following anything it names.

`qemu-img` opens the files a header refers to, which a hostile image turns against the host (CVE-2024-4467); so the
header is read here first. Source: QEMU's docs/interop/qcow2.txt.
"""

from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"QFI\xfb"
_BYTES = 104
_VERSION_2_BYTES = 72
_DIRTY = 1 << 0
_CORRUPT = 1 << 1
_EXTERNAL_DATA_FILE = 1 << 2
_LONGEST_NAME_BYTES = 1023


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """What a qcow2 file says of itself."""

    version: int
    virtual_bytes: int
    """The size of the disk that a guest sees."""
    backing_file: str | None
    external_data_file: bool
    dirty: bool
    """It was not closed properly."""
    corrupt: bool
    encrypted: bool
    internal_snapshots: int


def read_header(path: Path) -> Qcow2Header | None:
    """Read the header; None for what is no qcow2 file, or is cut off before its end. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(_BYTES)
        version = _number(head, 4, 4)
        if head[:4] != _MAGIC or version not in {2, 3} or len(head) < (_BYTES if version == 3 else _VERSION_2_BYTES):
            return None
        offset, length = _number(head, 8, 8), _number(head, 16, 4)
        backing = None
        if offset:
            file.seek(offset)
            backing = file.read(min(length, _LONGEST_NAME_BYTES)).decode(errors="replace")
    features = _number(head, 72, 8) if version == 3 else 0
    return Qcow2Header(
        version=version,
        virtual_bytes=_number(head, 24, 8),
        backing_file=backing,
        external_data_file=bool(features & _EXTERNAL_DATA_FILE),
        dirty=bool(features & _DIRTY),
        corrupt=bool(features & _CORRUPT),
        encrypted=_number(head, 32, 4) != 0,
        internal_snapshots=_number(head, 60, 4),
    )


def _number(head: bytes, start: int, length: int) -> int:
    return int.from_bytes(head[start : start + length], "big")
