"""The command `autoscaler`."""

from autoscaler.cli.main import main
from autoscaler.cli.simulate import record, simulate

main.add_command(simulate)
main.add_command(record)

__all__ = ["main"]
