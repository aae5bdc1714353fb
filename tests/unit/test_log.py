import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EMIT = """
import logging, sys, structlog
from autoscaler import log
log.configure(sys.argv[1], sys.argv[2])
structlog.get_logger("autoscaler.control").info("control_change", by="alice", count=3)
logging.getLogger("apscheduler").warning("missed by %s", 2)
def divide(planted):
    return 1 / (len(planted) - len(planted))
try:
    divide("planted-secret")
except ZeroDivisionError:
    structlog.get_logger().exception("broke")
"""


def emit(tmp_path: Path, *arguments: str, under_systemd: bool = False) -> list[str]:
    """What the log writes, from a process of its own: logging is configured for a whole process."""
    with (tmp_path / "log").open("w+") as stream:
        stat = os.fstat(stream.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{stat.st_dev}:{stat.st_ino}"} if under_systemd else os.environ
        subprocess.run([sys.executable, "-c", EMIT, *arguments], stderr=stream, env=environment, check=True)
        stream.seek(0)
        return stream.read().splitlines()


def test_json_is_one_object_per_line_with_library_events_and_faults(tmp_path: Path) -> None:
    events = [json.loads(line) for line in emit(tmp_path, "json", "info")]
    assert [event["event"] for event in events] == ["control_change", "missed by 2", "broke"]
    assert events[0] | {"timestamp": ""} == {
        "event": "control_change", "by": "alice", "count": 3, "level": "info", "timestamp": "",
    }  # fmt: skip
    assert events[0]["timestamp"].endswith("Z")
    assert {tuple(event)[:3] for event in events} == {("timestamp", "level", "event")}
    assert "ZeroDivisionError" in events[2]["exception"]


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_fault_is_logged_without_the_values_it_met(tmp_path: Path, format: str) -> None:  # noqa: A002 - as below
    text = "\n".join(emit(tmp_path, format, "info"))
    assert "ZeroDivisionError" in text
    assert "planted-secret" not in text


def test_console_lines_are_plain_where_no_terminal_is(tmp_path: Path) -> None:
    lines = emit(tmp_path, "console", "info")
    assert "control_change" in lines[0]
    assert "by=alice" in lines[0]
    assert "\x1b" not in "".join(lines)
    assert lines[0][:2] == "20"


def test_the_level_drops_what_is_below(tmp_path: Path) -> None:
    assert "control_change" not in "".join(emit(tmp_path, "console", "warning"))


@pytest.mark.parametrize("format", ["console", "json"])
def test_under_systemd_the_journal_has_the_time(tmp_path: Path, format: str) -> None:  # noqa: A002 - the option's name
    lines = emit(tmp_path, format, "info", under_systemd=True)
    assert lines[0].startswith('<6>{"level": "info", "event": "control_change"' if format == "json" else "<6>[")
    assert lines[1].startswith("<4>")
    assert {line[:3] for line in lines[2:]} == {"<3>"}, "a traceback's lines have its level, too"
    assert "timestamp" not in lines[0]
