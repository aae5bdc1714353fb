"""Golden images that differ from the demo's in what lies in their file system, and an installer that installs one."""

import gzip
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PARTITION = 2048 * 512
INSTALL = """\
#!/bin/sh
mount -t devtmpfs dev /dev
exec > /dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in virtio_pci virtio_blk; do modprobe "$module"; done
echo "the installer writes the system"
zcat /system.raw.gz > /dev/vda
sync
echo "the installer is done"
poweroff -f
"""


def changed(golden: Path, folder: Path, files: Mapping[str, str], name: str = "changed.qcow2") -> Path:
    """Copy a golden image with further files in its initramfs, each executable; those of the same name are replaced."""
    raw, tree = folder / f"{name}.raw", folder / f"{name}.tree"
    _raw(golden, raw)
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
        (tree / path).chmod(0o755)
    initrd = folder / f"{name}.initrd"
    _run("mcopy", "-n", "-i", f"{raw}@@{PARTITION}", "::initrd.img", initrd)
    with initrd.open("ab") as whole:
        # The kernel unpacks one archive after another.
        whole.write(gzip.compress(_archive(tree)))
    _run("mcopy", "-o", "-i", f"{raw}@@{PARTITION}", initrd, "::initrd.img")
    image = folder / name
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    for made in (raw, initrd):
        made.unlink()
    shutil.rmtree(tree)
    return image


def installer(golden: Path, folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """Lay out an installer's tree (`vmlinuz`, `initrd.img`), and give it with the files it needs in its initrd.

    Its kernel needs `rdinit=/install`; without that it boots the demo's guest, which never ends.
    """
    raw, tree = folder / "system.raw", folder / "tree"
    tree.mkdir()
    _raw(golden, raw)
    for name in ("vmlinuz", "initrd.img"):
        _run("mcopy", "-n", "-i", f"{raw}@@{PARTITION}", f"::{name}", tree / name)
    system, install = folder / "system.raw.gz", folder / "install"
    system.write_bytes(gzip.compress(raw.read_bytes(), compresslevel=1))
    install.write_text(INSTALL)
    install.chmod(0o755)
    raw.unlink()
    return tree, (install, system)


def _raw(image: Path, raw: Path) -> None:
    _run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw)


def _archive(tree: Path) -> bytes:
    names = "\0".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    return subprocess.run(
        ["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"],
        input=names.encode(),
        cwd=tree,
        capture_output=True,
        check=True,
    ).stdout


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
