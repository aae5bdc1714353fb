"""The tables of qcow2 images, as qemu-img writes them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from autoscaler.hypervisor.qcow2 import HEADER_BYTES, needed_bytes, parse_header

MIB = 1 << 20


def image(path: Path, *options: str, content: int = 3 * MIB) -> Path:
    """An image of 64 MiB with so much content, some of it at the end of the disk."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(b"x" * content)
    with raw.open("ab") as file:
        file.truncate(64 * MIB - MIB)
        file.seek(64 * MIB - MIB)
        file.write(b"y" * MIB)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", *options, raw, path], check=True)
    return path


def needed(path: Path) -> int:
    content = path.read_bytes()
    return needed_bytes(parse_header(content[:HEADER_BYTES]), lambda at, length: content[at : at + length])


LAYOUTS = {
    "plain": (),
    "small clusters": ("-o", "cluster_size=4k"),
    "old": ("-o", "compat=0.10"),
    "narrow counts": ("-o", "refcount_bits=1"),
    "compressed": ("-c",),
}


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_a_whole_image_is_long_enough_and_one_cut_off_is_not(tmp_path: Path, options: tuple[str, ...]) -> None:
    whole = image(tmp_path / "whole.qcow2", *options)
    size = whole.stat().st_size
    cluster = parse_header(whole.read_bytes()[:HEADER_BYTES]).cluster_bytes
    assert size - cluster < needed(whole) <= size
    cut = tmp_path / "cut.qcow2"
    for length in (size - cluster, size // 2, 2 * cluster, cluster + 512):
        shutil.copyfile(whole, cut)
        with cut.open("ab") as file:
            file.truncate(length)
        assert needed(cut) > length


def test_an_empty_image_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "empty.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1G"], check=True)
    assert needed(path) <= path.stat().st_size


def test_an_external_data_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "outside.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", path, "1M"], check=True
    )
    assert parse_header(path.read_bytes()[:HEADER_BYTES]).external_data_file
