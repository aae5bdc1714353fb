"""What stands in the daemon's way on this machine and on its hosts, with what to do about each."""

from autoscaler.core.finding import Finding, Level
from autoscaler.doctor.examine import examine

__all__ = ["Finding", "Level", "examine"]
