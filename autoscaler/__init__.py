"""A load-driven autoscaler for plain KVM hosts, through libvirt."""
