"""What is read off a qcow2 image's own tables: whether it keeps data elsewhere, and whether it was cut off.

The layout is in QEMU's docs/interop/qcow2.txt; all numbers are big-endian.
"""

from collections.abc import Callable
from dataclasses import dataclass

HEADER_BYTES = 104
_EXTERNAL_DATA_FILE = 1 << 2
"""Of the incompatible features."""
_OLD_REFCOUNT_ORDER = 4
_MOST_TABLE_BYTES = 1 << 20

Read = Callable[[int, int], bytes]
"""Gives so many bytes from an offset on, or fewer where the file ends."""


@dataclass(frozen=True, slots=True)
class Header:
    """The parts of the header that are of use here."""

    cluster_bytes: int
    external_data_file: bool
    refcount_table_offset: int
    refcount_table_bytes: int
    refcount_bits: int


def parse_header(data: bytes) -> Header:
    """Read the first `HEADER_BYTES` of a qcow2 file."""
    version = _number(data, 4, 4)
    order = _number(data, 96, 4) if version >= 3 else _OLD_REFCOUNT_ORDER
    cluster_bytes = 1 << _number(data, 20, 4)
    return Header(
        cluster_bytes=cluster_bytes,
        external_data_file=version >= 3 and bool(_number(data, 72, 8) & _EXTERNAL_DATA_FILE),
        refcount_table_offset=_number(data, 48, 8),
        refcount_table_bytes=_number(data, 56, 4) * cluster_bytes,
        refcount_bits=1 << order,
    )


def needed_bytes(header: Header, read: Read) -> int:
    """Tell how long the file must be at least: beyond where its last used cluster begins, by the table of references.

    That the last cluster itself was cut is not seen. Few kilobytes are read, whatever the size of the image.
    """
    table = read(header.refcount_table_offset, min(header.refcount_table_bytes, _MOST_TABLE_BYTES))
    blocks = [_number(table, at, 8) for at in range(0, len(table) - 7, 8)]
    used = [number for number, offset in enumerate(blocks) if offset]
    if not used:
        return header.refcount_table_offset + header.cluster_bytes
    last = used[-1]
    block = read(blocks[last], header.cluster_bytes)
    counts = block.rstrip(b"\0")
    if len(block) < header.cluster_bytes or not counts:
        return blocks[last] + header.cluster_bytes
    bits = header.refcount_bits
    # Counts narrower than a byte begin at its lowest bit.
    within_byte = (counts[-1].bit_length() - 1) // bits if bits < 8 else 0
    last_cluster = last * (header.cluster_bytes * 8 // bits) + (len(counts) - 1) * 8 // bits + within_byte
    return last_cluster * header.cluster_bytes + 1


def _number(data: bytes, offset: int, length: int) -> int:
    return int.from_bytes(data[offset : offset + length], "big")
