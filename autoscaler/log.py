"""The daemon's log: one event per line on stderr, for people or for machines."""

import logging
import os
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

Format = Literal["console", "json"]


def configure(format: Format = "console", level: str = "info") -> None:  # noqa: A002 - it is the option's name
    """Send everything logged, by libraries too, to stderr from `level` on.

    Under systemd no times are written: the journal has its own. `level` is one of ``debug``, ``info``, ``warning``
    and ``error``; raises KeyError for another.
    """
    shared: list[Processor] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level]
    shared.append(structlog.stdlib.ExtraAdder())
    if not _under_systemd():
        shared.append(structlog.processors.TimeStamper(fmt="iso", utc=format == "json"))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
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
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(sort_keys=True)]
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _under_systemd() -> bool:
    """Tell whether stderr is the journal's own stream, by the device and inode systemd names."""
    stat = os.fstat(sys.stderr.fileno())
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
