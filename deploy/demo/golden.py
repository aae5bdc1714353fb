"""Build the demo's golden image: a small qcow2 that boots by itself, made without root and without mounts.

A raw disk with one FAT partition takes the distribution's cloud kernel, an initramfs and syslinux; the initramfs holds
busybox, the QEMU guest agent with its libraries, the virtio drivers and the files beside this one in `guest/`.
Kernel, busybox and agent are taken from the machine where their packages are installed; where they are not, their
packages are downloaded and unpacked, never installed, so the machine's own kernel and services stay as they are.
"""

import argparse
import gzip
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
GUEST = Path(__file__).resolve().parent / "guest"

KERNEL_PACKAGE = "linux-image-cloud-amd64"
DRIVERS = (
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_console",
    "virtio-rng",
    "button",
    "evdev",
)
GUEST_FILES = {
    "inittab": "etc/inittab",
    "rc": "etc/rc",
    "udhcpc.script": "etc/udhcpc.script",
    "power": "etc/acpi/PWRF/00000080",
    "burn": "bin/burn",
    "work": "www/cgi-bin/work",
    "shutdown": "sbin/shutdown",
}
SYSLINUX_CFG = """\
default demo
prompt 0
timeout 0
label demo
    kernel vmlinuz
    initrd initrd.img
    append console=ttyS0 quiet panic=5 no_timer_check
"""
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
PARTITION_SECTORS = 65536
PARTITION_START_SECTORS = 2048
SECTOR_BYTES = 512
# Tools for disks live outside an ordinary user's PATH.
ENVIRONMENT = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL": "C"}


class BuildError(Exception):
    """The image could not be built; says which step failed and what to do."""


@dataclass(frozen=True)
class Ingredients:
    """Everything the image is made of, already on this machine."""

    kernel: Path
    kernel_version: str
    modules_root: Path
    """The folder whose lib/modules holds the kernel's drivers."""
    busybox: Path
    agent: Path

    def key(self) -> str:
        """Name the image by all that goes into it."""
        digest = hashlib.sha256()
        for path in (Path(__file__), *sorted(GUEST.iterdir()), self.kernel, self.busybox, self.agent):
            digest.update(f"{path.name} {_sha256(path)}\n".encode())
        return digest.hexdigest()[:16]


def build(cache_dir: Path) -> Path:
    """Return the golden image in `cache_dir`, building it when it is not there yet.

    Raises `BuildError` naming the step that failed.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    ingredients = gather(cache_dir)
    image = cache_dir / f"golden-{ingredients.key()}.qcow2"
    if not image.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix="building-") as work:
            finished = make_image(ingredients, Path(work))
            finished.chmod(0o444)
            finished.replace(image)
    return image


def gather(cache_dir: Path) -> Ingredients:
    """Find kernel, busybox and agent among the installed packages, or in packages downloaded to `cache_dir`."""
    packages = cache_dir / "packages"
    root = Path("/") if _newest_kernel(Path("/")) else _unpacked_kernel(packages)
    kernel = _newest_kernel(root)
    if kernel is None:
        raise BuildError(f"{root} holds no cloud kernel: remove {packages} and run again")
    version = kernel.name.removeprefix("vmlinuz-")
    return Ingredients(
        kernel=kernel,
        kernel_version=version,
        modules_root=root,
        busybox=_program("bin/busybox", "busybox-static", packages),
        agent=_program("usr/sbin/qemu-ga", "qemu-guest-agent", packages),
    )


def make_image(ingredients: Ingredients, work: Path) -> Path:
    """Build the image in the empty folder `work`."""
    tree = work / "tree"
    _stage(ingredients, tree)
    initramfs = work / "initrd.img"
    initramfs.write_bytes(gzip.compress(_archive(tree), compresslevel=6, mtime=0))
    raw = work / "golden.raw"
    make_disk(raw, {"vmlinuz": ingredients.kernel, "initrd.img": initramfs}, work)
    image = work / "golden.qcow2"
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    return image


# --- where the ingredients come from --------------------------------------------------------------------------------


def _newest_kernel(root: Path) -> Path | None:
    """Return the newest cloud kernel below `root` that can be read and has its drivers beside it."""
    kernels = [
        kernel
        for kernel in (root / "boot").glob("vmlinuz-*-cloud-amd64")
        if os.access(kernel, os.R_OK) and (root / "lib/modules" / kernel.name.removeprefix("vmlinuz-")).is_dir()
    ]
    return max(kernels, key=lambda kernel: [int(n) for n in re.findall(r"\d+", kernel.name)], default=None)


def _unpacked_kernel(packages: Path) -> Path:
    root = _unpacked(packages / "kernel", _kernel_package)
    if not (root / "lib").exists():  # since Debian 13 packages say usr/lib
        (root / "lib").symlink_to("usr/lib")
    kernel = _newest_kernel(root)
    if kernel is not None:
        run("depmod", "-b", root, kernel.name.removeprefix("vmlinuz-"))
    return root


def _kernel_package() -> str:
    """Resolve the package that always depends on the newest kernel."""
    for line in run("apt-cache", "depends", KERNEL_PACKAGE).splitlines():
        found = re.fullmatch(r"\s*Depends: (linux-image-\d\S+)", line)
        if found:
            return found[1]
    raise BuildError(f"{KERNEL_PACKAGE} names no kernel: run `apt-get update` as root and try again")


def _program(path: str, package: str, packages: Path) -> Path:
    """Find a program of a package: installed, or unpacked."""
    installed = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package],
        capture_output=True,
        text=True,
        check=False,  # an unknown package is simply not installed
    )
    root = Path("/") if installed.stdout == "installed" else _unpacked(packages / package, lambda: package)
    return root / path


def _unpacked(root: Path, package: Callable[[], str]) -> Path:
    """Return `root` with the files of the package in it, downloading and unpacking it unless that was done before."""
    if root.exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix="unpacking-") as work:
        run("apt-get", "download", package(), cwd=Path(work))
        (archive,) = Path(work).glob("*.deb")
        run("dpkg-deb", "-x", archive, Path(work) / "files")
        (Path(work) / "files").replace(root)
    return root


# --- the initramfs --------------------------------------------------------------------------------------------------


def _stage(ingredients: Ingredients, tree: Path) -> None:
    """Lay out the guest's file system in `tree`."""
    for folder in ("bin", "dev", "etc", "lib", "proc", "root", "run", "sbin", "sys", "tmp", "usr/sbin", "www"):
        (tree / folder).mkdir(parents=True)
    shutil.copy(ingredients.busybox, tree / "bin/busybox")
    for applet in run(ingredients.busybox, "--list").splitlines():
        if not (tree / "bin" / applet).exists():
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "init").symlink_to("bin/init")
    (tree / "sbin/modprobe").symlink_to("../bin/busybox")
    for name, target in GUEST_FILES.items():
        (tree / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(GUEST / name, tree / target)
    _stage_agent(ingredients.agent, tree)
    _stage_drivers(ingredients, tree)


def _stage_agent(agent: Path, tree: Path) -> None:
    shutil.copy(agent, tree / "usr/sbin/qemu-ga")
    for line in run("ldd", agent).splitlines():
        if "not found" in line:
            raise BuildError(
                f"the guest agent lacks a library ({line.strip()}): install qemu-guest-agent, or the library"
            )
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            target = tree / found[1].removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found[1], target)


def _stage_drivers(ingredients: Ingredients, tree: Path) -> None:
    """Copy the drivers with all they depend on, and index them for the guest's modprobe."""
    version, root = ingredients.kernel_version, ingredients.modules_root
    for driver in DRIVERS:
        for line in run("modprobe", "-d", root, "-S", version, "--show-depends", driver).splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "insmod":
                _copy_driver(Path(rest.strip()), tree)
    folder = Path("lib/modules") / version
    for index in ("modules.order", "modules.builtin"):
        shutil.copy(root / folder / index, tree / folder / index)
    run("depmod", "-b", tree, version)


def _copy_driver(driver: Path, tree: Path) -> None:
    """Copy one driver, uncompressed: the guest's modprobe need not know how it was packed."""
    target = tree / "lib/modules" / str(driver).rpartition("/lib/modules/")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    if driver.suffix == ".xz":
        target.with_suffix("").write_bytes(lzma.decompress(driver.read_bytes()))
    else:
        shutil.copy(driver, target)


def _archive(tree: Path) -> bytes:
    """Pack `tree` in the format the kernel unpacks, everything owned by root."""
    names = "\0".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    packed = subprocess.run(
        ["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"],
        input=names.encode(),
        cwd=tree,
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    if packed.returncode:
        raise BuildError(f"cpio could not pack the initramfs: {packed.stderr.decode(errors='replace').strip()}")
    return packed.stdout


# --- the disk -------------------------------------------------------------------------------------------------------


def make_disk(
    raw: Path, files: dict[str, Path], work: Path, *, syslinux_cfg: str = SYSLINUX_CFG, root: Path | None = None
) -> None:
    """Make a disk with a bootable FAT partition that holds `files` and the boot loader, and one for a `root` behind it.

    `root` is a file system of whole sectors.
    """
    root_sectors = 0 if root is None else root.stat().st_size // SECTOR_BYTES
    root_start = PARTITION_START_SECTORS + PARTITION_SECTORS
    with raw.open("wb") as file:
        file.truncate((root_start + root_sectors) * SECTOR_BYTES)
    table = f"label: dos\nstart={PARTITION_START_SECTORS}, size={PARTITION_SECTORS}, type=c, bootable\n"
    run("sfdisk", "--quiet", raw, stdin=table if root is None else f"{table}start={root_start}, type=83\n")
    with raw.open("r+b") as file:
        file.write(MBR.read_bytes())
    offset = PARTITION_START_SECTORS * SECTOR_BYTES
    partition = f"{raw}@@{offset}"
    run("mformat", "-i", partition, "-T", PARTITION_SECTORS, "-h", 64, "-s", 32, "-H", PARTITION_START_SECTORS, "::")
    (work / "syslinux.cfg").write_text(syslinux_cfg)
    for name, source in {**files, "syslinux.cfg": work / "syslinux.cfg"}.items():
        run("mcopy", "-i", partition, source, f"::{name}")
    run("syslinux", "--install", "--offset", offset, raw)
    if root is not None:
        run(
            "dd",
            f"if={root}",
            f"of={raw}",
            f"bs={SECTOR_BYTES * PARTITION_START_SECTORS}",
            f"seek={root_start // PARTITION_START_SECTORS}",
            "conv=notrunc,sparse",
            "status=none",
        )


# --- the rest -------------------------------------------------------------------------------------------------------


def run(*command: object, cwd: Path | None = None, stdin: str = "") -> str:
    """Run a program and return what it printed. Raises `BuildError` when it is missing or fails."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=cwd, env=ENVIRONMENT, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BuildError(f"{words[0]} is not installed: run deploy/demo/bootstrap, or install it by hand") from error
    if done.returncode:
        raise BuildError(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Build the image and print where it is."""
    parser = argparse.ArgumentParser(description="Build the demo's golden image.")
    parser.add_argument("--output", type=Path, metavar="FILE", help="copy the image to FILE as well")
    arguments = parser.parse_args()
    try:
        image = build(CACHE)
    except BuildError as error:
        print(f"golden: {error}", file=sys.stderr)
        return 1
    if arguments.output is not None:
        shutil.copyfile(image, arguments.output)
    print(arguments.output or image)
    return 0


if __name__ == "__main__":
    sys.exit(main())
