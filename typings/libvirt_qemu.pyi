# The part of libvirt-python's QEMU module this project uses, with libvirt's own names.
# ruff: noqa: N802

import libvirt

def qemuAgentCommand(domain: libvirt.virDomain, cmd: str, timeout: int, flags: int) -> str: ...
