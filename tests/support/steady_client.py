"""A client that asks again and again, on a connection of its own each time, and never tries anything twice.

Run as a program it asks until its standard input ends, then prints what became of it. It belongs into the network
namespace of whom it asks, so it is a program.
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

PAUSE_SECONDS = 0.2


@dataclass
class Answers:
    """What became of all requests; a failure is when it happened, in seconds since the epoch, and what."""

    asked: int = 0
    failures: list[tuple[float, str]] = field(default_factory=list)
    said: set[str] = field(default_factory=set)


class SteadyClient:
    """Asks while the context is open, with as many threads; `inside` is put before its command."""

    def __init__(self, host: str, port: int, *, threads: int = 2, path: str = "/", inside: Sequence[str] = ()) -> None:
        self._command = [*inside, sys.executable, str(Path(__file__)), host, str(port), str(threads), path]
        self.answers = Answers()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        said, _ = self._process.communicate("", timeout=90)
        data = json.loads(said)
        failures = [(at, why) for at, why in data["failures"]]
        self.answers = Answers(data["asked"], failures, set(data["said"]))


def _ask(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=60)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        text = response.read().decode()
        if response.status != 200:
            raise OSError(f"status {response.status}")
        return text
    finally:
        connection.close()


def main(host: str, port: str, threads: str, path: str) -> None:
    """Ask until standard input ends."""
    ended = threading.Event()
    lock = threading.Lock()
    answers = Answers()

    def run() -> None:
        while not ended.is_set():
            try:
                said, why = _ask(host, int(port), path), ""
            except (OSError, http.client.HTTPException) as error:
                said, why = "", f"{type(error).__name__}: {error}"
            with lock:
                answers.asked += 1
                if why:
                    answers.failures.append((time.time(), why))
                else:
                    answers.said.add(said)
            ended.wait(PAUSE_SECONDS)

    workers = [threading.Thread(target=run) for _ in range(int(threads))]
    for worker in workers:
        worker.start()
    sys.stdin.read()
    ended.set()
    for worker in workers:
        worker.join()
    print(json.dumps({"asked": answers.asked, "failures": answers.failures, "said": sorted(answers.said)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
