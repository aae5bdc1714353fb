"""The scheduler plans by the wall clock; a clock set back must not stop the ticks."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = """
import threading, time
from autoscaler.ticker import Ticker

ticker = Ticker(1.0, lambda lateness: print(time.time(), flush=True))
ticker.start()
threading.Event().wait(60)
"""


def _faketime() -> str:
    for library in Path("/usr/lib").glob("*/faketime/libfaketime.so.1"):
        return str(library)
    raise AssertionError("libfaketime is not installed; `apt-get install libfaketime`")


@pytest.mark.parametrize(
    ("first", "then"), [("+0", "-3600"), ("@1970-01-02 00:00:00", "+0")], ids=["an hour back", "from 1970 to now"]
)
def test_ticks_go_on_when_the_clock_is_set(tmp_path: Path, first: str, then: str) -> None:
    offset = tmp_path / "offset"
    offset.write_text(first)
    environment = {
        **os.environ,
        "LD_PRELOAD": _faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        before = [float(process.stdout.readline()) for _ in range(2)][-1]
        offset.write_text(then)
        began = time.monotonic()
        while abs(float(process.stdout.readline()) - before) < 1800:
            assert time.monotonic() - began < 20, "no tick saw the clock set"
        again = [float(process.stdout.readline()) for _ in range(3)]
        assert time.monotonic() - began < 20
        assert again[0] < again[-1] < again[0] + 10
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
