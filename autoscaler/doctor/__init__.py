"""What stands in the daemon's way on this machine and on its hosts, with what to do about each."""

from autoscaler.doctor.examine import examine
from autoscaler.doctor.finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
