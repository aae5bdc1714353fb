"""libvirt: the only room that imports it. One `LibvirtHypervisor` speaks to one host."""

from autoscaler.hypervisor.build_site import BuildSite
from autoscaler.hypervisor.connection import is_local
from autoscaler.hypervisor.image_store import ImageStore
from autoscaler.hypervisor.inspection import Inspection
from autoscaler.hypervisor.libvirt_hypervisor import LibvirtHypervisor
from autoscaler.hypervisor.onlooker import Onlooker

__all__ = ["BuildSite", "ImageStore", "Inspection", "LibvirtHypervisor", "Onlooker", "is_local"]
