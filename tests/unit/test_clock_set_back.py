"""The scheduler plans by the wall clock; a clock set back must not stop the ticks."""

import os
import subprocess
import sys
import time
from pathlib import Path

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


def test_ticks_go_on_when_the_clock_is_set_back_an_hour(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("+0")
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
        offset.write_text("-3600")
        began = time.monotonic()
        while (at := float(process.stdout.readline())) > before - 1800:
            assert time.monotonic() - began < 20, "no tick saw the clock set back"
        again = [float(process.stdout.readline()) for _ in range(3)]
        assert time.monotonic() - began < 20
        assert at < again[0] < again[-1] < before - 3000
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
