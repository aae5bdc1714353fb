"""The command `autoscaler`."""

from autoscaler.cli.main import main
from autoscaler.cli.operate import COMMANDS

for command in COMMANDS:
    main.add_command(command)

__all__ = ["main"]
