"""The journal: observations, decisions, intents, memory and the ledger of volumes, in one SQLite file."""

from autoscaler.store.journal import LEDGER_LOST, Journal
from autoscaler.store.records import Event, History, Pending, ReplayTick, Rollup, Step, TickRecord
from autoscaler.store.retention import CAP_BYTES

__all__ = [
    "CAP_BYTES",
    "LEDGER_LOST",
    "Event",
    "History",
    "Journal",
    "Pending",
    "ReplayTick",
    "Rollup",
    "Step",
    "TickRecord",
]
