"""The daemon's log: one event per line on stderr, for people or for machines."""

import logging
import os
import sys
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["console", "json"]

_FIRST = ("timestamp", "level", "event")
# syslog's numbers, which systemd's journal reads from the beginning of a line.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def configure(format: Format = "console", level: str = "info") -> None:  # noqa: A002 - it is the option's name
    """Send everything logged, by libraries too, to stderr from `level` on.

    Under systemd no times are written, since the journal has its own, and each line begins with the level as the
    journal takes it (``journalctl -p warning`` then finds what it should). `level` is one of ``debug``, ``info``,
    ``warning`` and ``error``; raises KeyError for another.
    """
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]
    shared.append(structlog.stdlib.ExtraAdder())
    under_systemd = _under_systemd()
    if not under_systemd:
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=format == "json"))
    handler = logging.StreamHandler(sys.stderr)
    formatter = _JournalFormatter if under_systemd else structlog.stdlib.ProcessorFormatter
    handler.setFormatter(
        formatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.getLevelNamesMapping()[level.upper()])
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _rendering(format: Format) -> list[Processor]:  # noqa: A002 - as above
    if format == "json":
        return [structlog.processors.format_exc_info, _order, structlog.processors.JSONRenderer()]
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Put when, how grave and what in front, whoever reads the lines."""
    first = {key: event[key] for key in _FIRST if key in event}
    return first | {key: event[key] for key in sorted(event.keys() - first.keys())}


class _JournalFormatter(structlog.stdlib.ProcessorFormatter):
    """Begins each line with its level, as ``<4>``."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def _under_systemd() -> bool:
    """Tell whether stderr is the journal's own stream, by the device and inode systemd names."""
    stat = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
