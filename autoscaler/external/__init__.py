"""Everything spoken to over a network that is not libvirt."""
