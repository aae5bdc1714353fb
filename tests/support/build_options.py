"""Every option of `autoscaler image build` that changes virt-install's command line, by a name for the case."""

TREE = "TREE"
"""Stands for an installer's tree."""
PRESEED = "PRESEED"
"""Stands for a preseed file."""

CASES: dict[str, tuple[str, ...]] = {
    "as little as there may be": ("--initrd-inject", PRESEED),
    "--os-variant": ("--initrd-inject", PRESEED, "--os-variant", "debian11"),
    "--initrd-inject twice": ("--initrd-inject", PRESEED, "--initrd-inject", PRESEED),
    "--extra-args": ("--extra-args", "auto=true priority=critical", "--extra-args", "url=http://192.0.2.1/preseed.cfg"),
    "--extra-args with a console": ("--extra-args", "auto console=ttyS1,115200"),
    "--unattended": ("--os-variant", "debian11", "--unattended"),
    "--unattended with its options": ("--os-variant", "debian11", "--unattended", "profile=jeos,reg-login=me"),
    "--memory": ("--initrd-inject", PRESEED, "--memory", "1536MiB"),
    "--vcpus": ("--initrd-inject", PRESEED, "--vcpus", "4"),
    "--disk": ("--initrd-inject", PRESEED, "--disk", "2560MiB"),
    "--network user": ("--initrd-inject", PRESEED, "--network", "user"),
    "--accelerator tcg": ("--initrd-inject", PRESEED, "--accelerator", "tcg"),
    "--accelerator kvm": ("--initrd-inject", PRESEED, "--accelerator", "kvm"),
    "--volume": ("--initrd-inject", PRESEED, "--volume", "web,1.qcow2"),
    "further options": ("--initrd-inject", PRESEED, "--", "--boot", "menu=off", "--tpm", "none"),
}
