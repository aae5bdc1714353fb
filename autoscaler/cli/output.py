"""Where commands print to."""

import sys

from rich.console import Console


def console() -> Console:
    """Make a console for plain text: what is shown is data, never markup. A pipe gets lines as long as they are."""
    width = None if sys.stdout is not None and sys.stdout.isatty() else 1000
    return Console(highlight=False, markup=False, emoji=False, width=width)
