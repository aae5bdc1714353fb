"""The journal of one kind of work, which one process at a time may do."""

from pathlib import Path

from autoscaler.core.errors import StateInUseError, StoreError
from autoscaler.store import Journal
from autoscaler.store.lock import unusable


def open_bench(state_dir: Path, work: str) -> Journal:
    """Open the journal in the folder `work` of the state directory. Raises StoreError, also while another has it."""
    folder = state_dir / work
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(state_dir, error) from error
    try:
        return Journal.open(folder)
    except StateInUseError as error:
        raise StoreError(
            f"{folder}: another command does this already (pid {error.pid}). Wait until it has ended, or stop it"
        ) from error
