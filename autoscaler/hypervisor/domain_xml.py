"""The domain XML of an instance, and the ownership element in its metadata."""

import math
import uuid
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from autoscaler.core.action import Clone
from autoscaler.core.observation import Ownership
from autoscaler.core.policy import USER_NETWORK, Image

OWNERSHIP_NAMESPACE = "urn:kvm-autoscaler:ownership:1"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
_BALLOON_PERIOD_SECONDS = 5

ET.register_namespace("autoscaler", OWNERSHIP_NAMESPACE)


@dataclass(frozen=True, slots=True)
class Platform:
    """What a host runs guests with: libvirt's domain type, and the emulator and machine it names for it."""

    domain_type: str
    arch: str
    machine: str
    emulator: str


@dataclass(frozen=True, slots=True)
class Files:
    """Where, on the host, an instance's disk is, its console is logged, and cloud-init's seed is."""

    disk: str
    console_log: str | None
    seed: str | None = None


def domain_uuid(controller: str, instance: str) -> str:
    """Give an instance's domain UUID: the same for the same controller and instance, so it can be looked up."""
    return str(uuid.uuid5(uuid.UUID(controller), instance))


def mac_address(domain: str) -> str:
    """Derive a domain's MAC address, of those set aside for QEMU, from its UUID."""
    low = uuid.UUID(domain).bytes[-3:]
    return ":".join(["52", "54", "00", *(f"{byte:02x}" for byte in low)])


def domain_xml(clone: Clone, identity: str, ownership: Ownership | None, platform: Platform, files: Files) -> str:
    """Build the whole definition of a domain; `identity` is its UUID, and without ownership it is no instance."""
    machine = clone.machine
    root = ET.Element("domain", type=platform.domain_type)
    _text(root, "name", clone.instance)
    _text(root, "uuid", identity)
    if ownership is not None:
        ET.SubElement(root, "metadata").append(ownership_element(ownership))
    _text(root, "memory", str(machine.memory_bytes // 1024), unit="KiB")
    if machine.hugepages:
        ET.SubElement(ET.SubElement(root, "memoryBacking"), "hugepages")
    _text(root, "vcpu", str(machine.vcpus))
    boot = ET.SubElement(root, "os")
    _text(boot, "type", "hvm", arch=platform.arch, machine=platform.machine)
    ET.SubElement(boot, "boot", dev="hd")
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if platform.domain_type == "kvm":
        ET.SubElement(root, "cpu", mode="host-passthrough")
    ET.SubElement(root, "clock", offset="utc")
    _text(root, "on_poweroff", "destroy")
    _text(root, "on_reboot", "restart")
    _text(root, "on_crash", "destroy")
    devices = ET.SubElement(root, "devices")
    _text(devices, "emulator", platform.emulator)
    _disk(devices, files.disk)
    if files.seed is not None:
        _seed(devices, files.seed)
    _interface(devices, machine.network, mac_address(identity))
    _console(devices, files.console_log)
    _agent_channel(devices)
    balloon = ET.SubElement(devices, "memballoon", model="virtio")
    ET.SubElement(balloon, "stats", period=str(_BALLOON_PERIOD_SECONDS))
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    return to_text(root)


def ownership_element(ownership: Ownership) -> ET.Element:
    """Build the element that says whose a domain is."""
    image = ownership.image
    return ET.Element(
        f"{{{OWNERSHIP_NAMESPACE}}}instance",
        {
            "controller": ownership.controller,
            "group": ownership.group,
            "instance": ownership.instance,
            **({} if image is None else _image_attributes(image)),
            "image-digest": ownership.image_digest,
            "created-at": repr(ownership.created_at),
        },
    )


def parse_ownership(text: str) -> Ownership | None:
    """Read the element back; None for one that we did not write like this."""
    try:
        element = ET.fromstring(text)  # noqa: S314 - expat expands no external entities, and libvirt parsed it before
        ownership = Ownership(
            str(uuid.UUID(element.attrib["controller"])),
            element.attrib["group"],
            element.attrib["instance"],
            element.attrib["image-digest"],
            float(element.attrib["created-at"]),
            _image(element),
        )
    except (ET.ParseError, KeyError, ValueError):
        return None
    return ownership if math.isfinite(ownership.created_at) else None


def _image_attributes(image: Image) -> dict[str, str]:
    called = {"image-name": image.name, "image-version": image.version}
    own = {"image-pool": image.pool, "image-volume": image.volume}
    return own | {name: str(value) for name, value in called.items() if value is not None}


def _image(element: ET.Element) -> Image | None:
    """Read the image that an instance stands on. Raises ValueError where we did not write it like this."""
    pool, volume, version = (element.get(f"image-{name}") for name in ("pool", "volume", "version"))
    if pool is None or volume is None:
        return None
    return Image(pool, volume, element.get("image-name"), None if version is None else int(version))


def agent_connected(live_xml: str) -> bool | None:
    """Whether a guest holds the agent channel of a running domain open; None where there is no such channel."""
    channel = ET.fromstring(live_xml).find(f"./devices/channel/target[@name='{AGENT_CHANNEL}']")  # noqa: S314 - as above
    return None if channel is None else channel.get("state") == "connected"


def to_text(root: ET.Element) -> str:
    """Write an element as libvirt takes it."""
    ET.indent(root)
    return ET.tostring(root, encoding="unicode")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text


def _disk(devices: ET.Element, path: str) -> None:
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    # Freed blocks go back to the pool: thin clones stay thin.
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")


def _seed(devices: ET.Element, path: str) -> None:
    """Add what cloud-init finds by its label; a disk, as not every machine has a controller for CD-ROM drives."""
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="raw")
    ET.SubElement(disk, "source", file=path)
    ET.SubElement(disk, "target", dev="vdb", bus="virtio")
    ET.SubElement(disk, "readonly")


def _interface(devices: ET.Element, network: str, mac: str) -> None:
    if network == USER_NETWORK:
        interface = ET.SubElement(devices, "interface", type="user")
    else:
        interface = ET.SubElement(devices, "interface", type="network")
        ET.SubElement(interface, "source", network=network)
    ET.SubElement(interface, "mac", address=mac)
    ET.SubElement(interface, "model", type="virtio")


def _console(devices: ET.Element, log: str | None) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    if log is not None:
        ET.SubElement(serial, "log", file=log, append="off")
    ET.SubElement(serial, "target", port="0")


def _agent_channel(devices: ET.Element) -> None:
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name=AGENT_CHANNEL)
