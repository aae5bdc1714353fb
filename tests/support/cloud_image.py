"""A golden image that the distribution's cloud-init, systemd, SSH server and guest agent run in; built as root.

The file system is made of the distribution's packages, without mounts, and boots from a small partition in front of it.
What is switched off is what takes long under emulation and nobody looks at.
"""

import hashlib
import tempfile
from pathlib import Path

from deploy.demo import golden

SUITE = "bookworm"
PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "ifupdown", "iproute2", "e2fsprogs", "busybox", "initramfs-tools"),
    *("linux-image-cloud-amd64", "cloud-init", "openssh-server", "qemu-guest-agent"),
)
ROOT_BYTES = 900 * 1024 * 1024
LEFT_OUT = ("doc", "man", "locale", "i18n", "info")
FILES = {
    "etc/hostname": "localhost\n",
    "etc/machine-id": "",
    "etc/fstab": "/dev/vda2 / ext4 noatime 0 0\n",
    "etc/network/interfaces": "auto lo\niface lo inet loopback\nsource /etc/network/interfaces.d/*\n",
    "etc/cloud/cloud.cfg.d/99-test.cfg": """\
datasource_list: [NoCloud]
ssh_genkeytypes: [ed25519]
manage_etc_hosts: false
cloud_init_modules: [seed_random, bootcmd, write-files, set_hostname, update_hostname, users-groups, ssh]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts-user, final-message]
""",
}
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "fstrim.timer"),
    *("e2scrub_reap.service", "getty@tty1.service", "serial-getty@ttyS0.service", "cloud-init-hotplugd.socket"),
    *("modprobe@drm.service", "modprobe@fuse.service", "kmod-static-nodes.service", "systemd-binfmt.service"),
)
SYSLINUX_CFG = """\
default linux
prompt 0
timeout 0
label linux
    kernel vmlinuz
    initrd initrd.img
    append root=/dev/vda2 ro console=ttyS0 no_timer_check mitigations=off quiet
"""
# The initial file system holds the drivers of the disk only.
_FEW_DRIVERS = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d" && echo MODULES=list > "$1/etc/initramfs-tools/conf.d/list" && '
    'printf "virtio_pci\\nvirtio_blk\\next4\\n" > "$1/etc/initramfs-tools/modules"'
)


def build(cache_dir: Path) -> Path:
    """Return the image in `cache_dir`, building it when it is not there yet: a minute, and packages of 100 MB.

    Raises `golden.BuildError` naming the step that failed.
    """
    recipe = b"".join(path.read_bytes() for path in (Path(__file__), Path(golden.__file__)))
    image = cache_dir / f"cloud-{hashlib.sha256(recipe).hexdigest()[:16]}.qcow2"
    if not image.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix="building-") as work:
            finished = _make_image(Path(work))
            finished.chmod(0o444)
            finished.replace(image)
    return image


def _make_image(work: Path) -> Path:
    tree = work / "tree"
    _install(tree)
    _as_a_clone_finds_it(tree)
    root = work / "root.ext4"
    golden.run("mke2fs", "-q", "-t", "ext4", "-d", tree, root, f"{ROOT_BYTES // 1024}k")
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    (initrd,) = (tree / "boot").glob("initrd.img-*")
    raw = work / "cloud.raw"
    files = {"vmlinuz": kernel, "initrd.img": initrd}
    golden.make_disk(raw, files, work, syslinux_cfg=SYSLINUX_CFG, root=root)
    image = work / "cloud.qcow2"
    golden.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image)
    return image


def _install(tree: Path) -> None:
    golden.run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT),
        f"--essential-hook={_FEW_DRIVERS}",
        f"--include={','.join(PACKAGES)}",
        SUITE,
        tree,
    )


def _as_a_clone_finds_it(tree: Path) -> None:
    """Leave nothing in it that clones must not share."""
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (tree / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    for name, text in FILES.items():
        (tree / name).write_text(text)
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
