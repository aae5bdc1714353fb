"""libvirt's errors in the words of the core, with what to do next where it is known."""

import errno

import libvirt

from autoscaler.core.errors import HypervisorError, HypervisorErrorKind

_KINDS = {
    libvirt.VIR_ERR_NO_CONNECT: HypervisorErrorKind.UNREACHABLE,
    libvirt.VIR_ERR_INVALID_CONN: HypervisorErrorKind.UNREACHABLE,
    libvirt.VIR_ERR_RPC: HypervisorErrorKind.UNREACHABLE,
    libvirt.VIR_ERR_NO_DOMAIN: HypervisorErrorKind.NOT_FOUND,
    libvirt.VIR_ERR_NO_NETWORK: HypervisorErrorKind.NOT_FOUND,
    libvirt.VIR_ERR_NO_STORAGE_POOL: HypervisorErrorKind.NOT_FOUND,
    libvirt.VIR_ERR_NO_STORAGE_VOL: HypervisorErrorKind.NOT_FOUND,
    libvirt.VIR_ERR_DOM_EXIST: HypervisorErrorKind.EXISTS,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: HypervisorErrorKind.EXISTS,
    libvirt.VIR_ERR_ACCESS_DENIED: HypervisorErrorKind.DENIED,
    libvirt.VIR_ERR_AUTH_CANCELLED: HypervisorErrorKind.DENIED,
    libvirt.VIR_ERR_AUTH_FAILED: HypervisorErrorKind.DENIED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: HypervisorErrorKind.DENIED,
    libvirt.VIR_ERR_OPERATION_DENIED: HypervisorErrorKind.DENIED,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: HypervisorErrorKind.BUSY,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: HypervisorErrorKind.BUSY,
    libvirt.VIR_ERR_RESOURCE_BUSY: HypervisorErrorKind.BUSY,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_INVALID_ARG: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_NO_SUPPORT: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_XML_DETAIL: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_XML_ERROR: HypervisorErrorKind.INVALID,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: HypervisorErrorKind.INVALID,
}
_BY_ERRNO = {
    errno.ENOSPC: HypervisorErrorKind.NO_SPACE,
    errno.EDQUOT: HypervisorErrorKind.NO_SPACE,
    errno.EACCES: HypervisorErrorKind.DENIED,
    errno.EPERM: HypervisorErrorKind.DENIED,
}
# Where libvirt has only a general code; the text comes from the daemon, in its own language or in English.
_BY_TEXT = {
    "No space left on device": HypervisorErrorKind.NO_SPACE,
    "Disk quota exceeded": HypervisorErrorKind.NO_SPACE,
    "asynchronous jobs running": HypervisorErrorKind.BUSY,
    "already exists with uuid": HypervisorErrorKind.EXISTS,
}
_RETRYABLE = frozenset({HypervisorErrorKind.UNREACHABLE, HypervisorErrorKind.DEADLINE, HypervisorErrorKind.BUSY})
_REMEDIES = {
    HypervisorErrorKind.UNREACHABLE: "Does libvirt run there? Check with: virsh -c {uri} list",
    HypervisorErrorKind.DENIED: "May this user manage that libvirt? Check with: virsh -c {uri} list",
    HypervisorErrorKind.NO_SPACE: "Free space in the storage pool or lower size.max",
}


def translate(host: str, uri: str, what: str, error: libvirt.libvirtError) -> HypervisorError:
    """Make the core's error of libvirt's; `what` completes "host H could not …". To be raised `from` it."""
    kind = kind_of(error)
    message = f"host {host} could not {what}: {error.get_error_message() or error}"
    remedy = _REMEDIES.get(kind)
    if remedy is not None:
        message = f"{message}. {remedy.format(uri=uri)}"
    return HypervisorError(kind, message, retryable=kind in _RETRYABLE)


def kind_of(error: libvirt.libvirtError) -> HypervisorErrorKind:
    """Classify one of libvirt's errors."""
    text = str(error)
    for part, kind in _BY_TEXT.items():
        if part in text:
            return kind
    code = error.get_error_code()
    if code in {libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_INTERNAL_ERROR}:
        of_the_line = error.get_error_domain() in {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}
        general = HypervisorErrorKind.UNREACHABLE if of_the_line else HypervisorErrorKind.FAILED
        return _BY_ERRNO.get(error.get_int1() or 0, general) if code == libvirt.VIR_ERR_SYSTEM_ERROR else general
    return _KINDS.get(code or 0, HypervisorErrorKind.FAILED)


def is_code(error: libvirt.libvirtError, *codes: int) -> bool:
    """Whether the error carries one of libvirt's codes."""
    return error.get_error_code() in codes
