"""Lets tests interrupt what they start, and says how many cases of the crash matrices passed, out of how many."""

import signal
from collections import Counter

import pytest

MATRIX = "crash matrix"
WHOLE = "whole crash matrix"


def pytest_configure() -> None:
    # A shell starts what runs in the background with SIGINT ignored, and everything below would ignore it, too.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed: Counter[str] = Counter()
    whole: dict[str, str] = {}
    for report in terminalreporter.stats.get("passed", ()):
        for name, value in getattr(report, "user_properties", ()):
            if name == MATRIX and report.when == "call":
                passed[value] += 1
            elif name == WHOLE:
                matrix, _, size = value.partition(": ")
                whole[matrix] = size
    for matrix, count in sorted(passed.items()):
        terminalreporter.write_line(
            f"crash matrix, {matrix}: {count} passed of {whole.get(matrix, 'an unknown number')}"
        )
