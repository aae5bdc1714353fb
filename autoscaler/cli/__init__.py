"""The command `autoscaler`."""

from autoscaler.cli.main import main
from autoscaler.cli.operate import COMMANDS
from autoscaler.cli.simulate import record, simulate

for command in (*COMMANDS, record, simulate):
    main.add_command(command)

__all__ = ["main"]
