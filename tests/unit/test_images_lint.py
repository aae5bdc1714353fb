"""Images that are hostile, damaged or fine, each made by the real qemu-img, through the command people run."""

import json
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoscaler.cli import main
from autoscaler.core.finding import Level
from autoscaler.images.inside import judge, read_answers

QCOW2 = ("create", "-q", "-f", "qcow2")


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True)


def lint(image: Path, *options: str) -> tuple[int, dict[str, str]]:
    ended = CliRunner().invoke(main, ["image", "lint", "--json", *options, str(image)])
    assert ended.exception is None or isinstance(ended.exception, SystemExit)
    return ended.exit_code, {each["code"]: each["level"] for each in json.loads(ended.output)["findings"]}


def errors(found: dict[str, str]) -> set[str]:
    return {code for code, level in found.items() if level == Level.ERROR}


@pytest.fixture
def good(tmp_path: Path) -> Path:
    image = tmp_path / "good.qcow2"
    qemu_img(*QCOW2, image, "16M")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write 0 8M", image], check=True, capture_output=True)
    return image


def _with_backing_file(good: Path, image: Path) -> None:
    qemu_img(*QCOW2, "-u", "-b", "/etc/shadow", "-F", "raw", image, "16M")


def _with_data_file(good: Path, image: Path) -> None:
    qemu_img(*QCOW2, "-o", f"data_file={image}.raw", image, "16M")
    Path(f"{image}.raw").unlink()


def _huge(good: Path, image: Path) -> None:
    qemu_img(*QCOW2, image, "10T")


def _truncated(good: Path, image: Path) -> None:
    image.write_bytes(good.read_bytes())
    os.truncate(image, good.stat().st_size // 2)


def _cut_in_the_header(good: Path, image: Path) -> None:
    image.write_bytes(good.read_bytes()[:50])


def _text(good: Path, image: Path) -> None:
    image.write_text("no image\n")


def _encrypted(good: Path, image: Path) -> None:
    content = bytearray(good.read_bytes())
    content[32:36] = struct.pack(">I", 2)
    image.write_bytes(content)


HOSTILE = [
    (_with_backing_file, "image.backing-file"),
    (_with_data_file, "image.data-file"),
    (_huge, "image.virtual-size"),
    (_truncated, "image.integrity"),
    (_cut_in_the_header, "image.format"),
    (_text, "image.format"),
    (_encrypted, "image.encrypted"),
]
"""Ways to make a bad image beside a good one, each with the code of what is then found."""


@pytest.mark.parametrize(("make", "code"), HOSTILE, ids=lambda value: value if isinstance(value, str) else None)
def test_each_fault_has_its_code(good: Path, make: Callable[[Path, Path], None], code: str) -> None:
    image = good.with_name("bad.qcow2")
    make(good, image)
    exit_code, found = lint(image)
    assert (exit_code, errors(found)) == (1, {code})


def test_a_good_image_passes_and_is_left_as_it_is(good: Path) -> None:
    before = good.read_bytes()
    exit_code, found = lint(good)
    assert (exit_code, errors(found)) == (0, set())
    assert found["image.format"] == found["image.integrity"] == found["image.virtual-size"] == Level.OK
    assert good.read_bytes() == before


def test_another_limit_can_be_given(good: Path) -> None:
    assert lint(good, "--largest", "8MiB")[0] == 1
    huge = good.with_name("huge.qcow2")
    _huge(good, huge)
    assert "image.virtual-size" not in errors(lint(huge, "--largest", "11TiB")[1])


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    assert lint(tmp_path / "absent.qcow2") == (1, {"image.file": Level.ERROR})
    assert lint(tmp_path) == (1, {"image.file": Level.ERROR})


def test_an_image_that_is_open_to_write_elsewhere(good: Path) -> None:
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", good], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write("length\n")
        other.stdin.flush()
        assert "16 MiB" in other.stdout.readline()  # it has opened the image
        exit_code, found = lint(good)
        other.communicate("quit\n", timeout=10)
    assert (exit_code, errors(found)) == (1, {"image.in-use"})


def test_what_is_inside_is_judged() -> None:
    printed = (
        "==machine-id==\n0123456789abcdef0123456789abcdef\n==host-keys==\n/etc/ssh/ssh_host_rsa_key\n"
        "==cloud-instances==\ni-1\n==agent==\n==virtio==\n/lib/modules/6.1/kernel/drivers/block/virtio_blk.ko\n"
    )
    found = {finding.code: finding.level for finding in judge(read_answers(printed))}
    assert errors(dict(found)) == {"inside.machine-id", "inside.host-keys", "inside.cloud-init", "inside.agent"}
    assert found["inside.virtio"] is Level.OK
    clean = "==machine-id==\nuninitialized\n==host-keys==\n==agent==\n/usr/sbin/qemu-ga\n==builtin==\n/lib/modules/x\n"
    assert all(finding.level is Level.OK for finding in judge(read_answers(clean)))
