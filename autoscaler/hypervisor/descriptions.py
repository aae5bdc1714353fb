"""What the definitions, and the running selves, of all of a host's domains say."""

from collections.abc import Iterator
from xml.etree import ElementTree as ET

import libvirt

from autoscaler.hypervisor.errors import is_code


def descriptions(connection: libvirt.virConnect) -> Iterator[tuple[str, ET.Element]]:
    """Give each domain's name with what it is now, and again with what it is defined as."""
    for domain in connection.listAllDomains():
        try:
            texts = (domain.XMLDesc(), domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            name = domain.name()
        except libvirt.libvirtError as error:
            # Only this one means that it ended while the list was read.
            if not is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
                raise
            continue
        for text in texts:
            yield name, ET.fromstring(text)  # noqa: S314 - libvirt's own output
