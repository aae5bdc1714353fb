"""Run the demo: the real daemon scales real guests out and in on a load that is burnt inside them.

deploy/demo/run.py            # KEEP=1 in the environment leaves it running at the end
deploy/demo/run.py --stop     # stop a demo that was left running, or clear away one that was killed
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import yaml
from rich.console import Console

from autoscaler.codec import decode
from autoscaler.control.client import request
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.snapshot import Snapshot
from deploy.demo import footprint, golden, libvirt_env, processes
from deploy.demo.footprint import DemoError
from deploy.demo.libvirt_env import Environment
from deploy.demo.live import View, view
from deploy.demo.load import Load
from deploy.demo.story import Story, find_group, ready_instances

POLICY = golden.CHECKOUT / "policies/demo.yaml"
LOG = golden.CACHE / "demo.log"
LOAD = 0.9
"""Of one vCPU, in all."""
PORT = 10177
LIMIT_SECONDS = 230.0
"""From the daemon's start to the end of the story."""
HOLD_SECONDS = 6.0
"""How long the load goes on when the group is large enough."""
_POLL_SECONDS = 0.5


Show = Callable[[Console, str], AbstractContextManager[View]]
"""Shows a demo on a console, with the address of its metrics."""


class StoppedError(BaseException):
    """A signal asked the demo to end; not an `Exception`, so that nothing on the way takes it for a fault."""


class Demo:
    """One run of the daemon, with the load and the view."""

    def __init__(self, environment: Environment, console: Console, show: Show = view) -> None:
        self._environment = environment
        self._console = console
        self._show = show
        self._folder = footprint.folder()
        self._socket = self._folder / "control.sock"
        self._golden = environment.pool_path / "golden.qcow2"
        self.address = f"http://127.0.0.1:{free_port(PORT)}/metrics"
        self.story = Story(time.time())
        self._burning = 0.0
        self._pid = 0
        self._log_read = 0

    def play(self) -> None:
        """Play the whole story. Raises `DemoError` when a part of it did not come about."""
        self._import_golden()
        self._write_configuration()
        self._start_daemon()
        self._console.print(f"metrics: {self.address}", highlight=False)
        load = Load(self._environment.uri)
        try:
            with self._show(self._console, self.address) as shown:
                self._act(load, shown)
        finally:
            load.close()

    def _act(self, load: Load, shown: View) -> None:
        story = self.story
        shown.say("waiting for the first instance")
        self._watch(lambda: story.first_ready is not None, "the first instance was not ready", load, shown)

        shown.say(f"burning {LOAD:g} of one vCPU, shared among the ready guests: the group should grow to 3")
        self._burn(load, LOAD)
        story.load_begun = time.time()
        self._watch(lambda: story.scaled_out is not None, "three instances were not ready", load, shown)
        until = time.monotonic() + HOLD_SECONDS
        self._watch(lambda: time.monotonic() >= until, "the load could not be held", load, shown)

        shown.say("the load ends: the group should shrink to 1")
        self._burn(load, 0.0)
        story.load_ended = time.time()
        self._watch(lambda: story.scaled_in is not None, "more than one instance was left", load, shown)
        shown.say("done: scaled out and in")

    def _burn(self, load: Load, total: float) -> None:
        self._burning = total
        load.burn(total)

    def _pass_on_warnings(self, shown: View) -> None:
        """Show the daemon's new warnings, and which accelerator it chose: what it says besides is in its log."""
        with LOG.open() as log:
            log.seek(self._log_read)
            # A line that is still being written is left for the next time.
            while (line := log.readline()).endswith("\n"):
                self._log_read = log.tell()
                entry = read_entry(line)
                if entry["level"] != "info" or "kvm" in entry["event"]:
                    shown.warn(time.time(), one_line(entry))

    def _watch(self, until: Callable[[], bool], otherwise: str, load: Load, shown: View) -> None:
        """Follow the daemon until something has happened. Raises `DemoError` when the time or the daemon ended."""
        while True:
            self._pass_on_warnings(shown)
            snapshot = self._look()
            if snapshot is not None:
                group = find_group(snapshot)
                ready = ready_instances(group) if group is not None else []
                load.share_among(ready)
                if self.story.load_begun is None:
                    self.story.first = frozenset(ready)
                self.story.note(snapshot)
                shown.show(snapshot, self._burning if ready else 0.0)
            if until():
                return
            if time.time() > self.story.started + LIMIT_SECONDS:
                raise DemoError(f"{otherwise} within {LIMIT_SECONDS:g} s of the daemon's start; its log is {LOG}")
            time.sleep(_POLL_SECONDS)

    def _look(self) -> Snapshot | None:
        """Ask the daemon for its state; None while it does not answer yet."""
        if not processes.is_running(self._pid):
            raise DemoError(f"the daemon ended, which it should not; its log is {LOG}:\n{tail(LOG)}")
        try:
            return decode(request(self._socket, "status", timeout_seconds=5), Snapshot)
        except AutoscalerError:
            return None

    def check_golden(self) -> None:
        """Raise `DemoError` unless the image that all guests ran on is what it was."""
        if sha256(self._golden) != sha256(golden.build(golden.CACHE)):
            raise DemoError("the golden image changed under the guests")
        self._console.print(f"golden image unchanged: SHA-256 {sha256(self._golden)}", highlight=False, soft_wrap=True)

    def _import_golden(self) -> None:
        shutil.copyfile(golden.build(golden.CACHE), self._golden)
        self._golden.chmod(0o444)
        libvirt_env.refresh(self._environment)

    def _write_configuration(self) -> None:
        environment = self._environment
        policies = self._folder / "policies"
        policies.mkdir()
        policy = yaml.safe_load(POLICY.read_text())
        policy["image"]["pool"] = environment.pool
        policy["machine"]["network"] = environment.network
        (policies / POLICY.name).write_text(yaml.safe_dump(policy, sort_keys=False))
        configuration = {
            "hosts": {"local": {"uri": environment.uri}},
            "policies_dir": str(policies),
            "state_dir": str(self._folder / "state"),
            "control_socket": str(self._socket),
            "listen": self.address.removeprefix("http://").removesuffix("/metrics"),
            "interval": "2s",
            "log": {"format": "json"},
        }
        (self._folder / "state").mkdir(mode=0o700)
        self.configuration.write_text(yaml.safe_dump(configuration, sort_keys=False))

    @property
    def configuration(self) -> Path:
        """The daemon's configuration file."""
        return self._folder / "config.yaml"

    def _start_daemon(self) -> None:
        LOG.unlink(missing_ok=True)
        program = Path(sys.executable).parent / "autoscaler"
        self.story = Story(time.time())
        self._pid = processes.start("daemon", [program, "run", "--config", self.configuration], LOG)


def free_port(wanted: int) -> int:
    """Return the port, or one that is free where something listens on it."""
    for port in (wanted, 0):
        with socket.socket() as tried:
            # As the daemon does: what a connection that ended holds on to does not count.
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise DemoError("no port is free on 127.0.0.1")


def read_entry(line: str) -> dict[str, str]:
    """Read one line of the daemon's log; one that is no JSON, as of a crash, comes back as a warning."""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {"level": "warning", "event": line.rstrip()}


def one_line(entry: dict[str, str]) -> str:
    """Say a log entry in one line; the log has all of it."""
    text = " ".join(": ".join(entry[key] for key in ("event", "error") if key in entry).split())
    return text if len(text) <= 200 else f"{text[:199]}…"


def sha256(path: Path) -> str:
    """Compute a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tail(log: Path, lines: int = 15) -> str:
    """Return the end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def print_summary(story: Story, console: Console) -> None:
    """Print when everything happened."""
    console.print("\nseconds since the daemon's start, and since what each waited for:", highlight=False)
    for what, at, after in story.summary():
        when = "     -" if at is None else f"{at:6.1f}"
        since = "" if after is None else f"  (+{after:.1f})"
        console.print(f"  {when}  {what}{since}", highlight=False)
    console.print(f"  most instances ready at once: {story.most_ready}", highlight=False)


def run(console: Console, *, keep: bool, show: Show = view) -> int:
    """Run the demo from beginning to end, and return the exit code."""
    left = footprint.load()
    if left is not None and left.kept and processes.find("daemon"):
        raise DemoError("a demo was left running: stop it with `make demo-stop`")
    if left is not None:
        console.print("clearing away what a demo left that did not end by itself", highlight=False)
        libvirt_env.clear(left)
    console.print(f"golden image: {golden.build(golden.CACHE)}", highlight=False, soft_wrap=True)
    with libvirt_env.environment() as environment:
        demo = Demo(environment, console, show)
        try:
            demo.play()
        finally:
            print_summary(demo.story, console)
        demo.check_golden()
        if keep:
            keep_running(demo, environment, console)
            return 0
        console.print("stopping the daemon and removing what the demo made", highlight=False)
    console.print("done: scaled out and in, and what the demo made is gone", highlight=False)
    return 0


def keep_running(demo: Demo, environment: Environment, console: Console) -> None:
    """Leave everything as it is, and say what can be done with it."""
    left = footprint.load()
    assert left is not None
    footprint.save(replace(left, kept=True))
    program = Path(sys.executable).parent / "autoscaler"
    console.print(
        f"""
It goes on running:
  {program} status --config {demo.configuration}
  virsh -c {environment.uri} list --all
  {demo.address}
Stop it with: make demo-stop""",
        highlight=False,
        soft_wrap=True,
    )


def stop(console: Console) -> int:
    """Take away a demo that was left running, or killed."""
    left = footprint.load()
    if left is None:
        console.print("no demo is running", highlight=False)
        return 0
    libvirt_env.clear(left)
    console.print("the demo is stopped, and what it made is gone", highlight=False)
    return 0


def raise_stopped(_signal: int, _frame: FrameType | None) -> None:
    """End the demo by way of its clearing away; further signals change nothing."""
    for which in libvirt_env.STOP_SIGNALS:
        signal.signal(which, lambda *_: None)
    raise StoppedError


def main() -> int:
    """Run or stop the demo."""
    parser = argparse.ArgumentParser(description="The demo: real guests, scaled out and in on real load.")
    parser.add_argument("--stop", action="store_true", help="stop a demo that was left running")
    arguments = parser.parse_args()
    console = Console()
    for which in libvirt_env.STOP_SIGNALS:
        signal.signal(which, raise_stopped)
    try:
        with footprint.lock():
            return stop(console) if arguments.stop else run(console, keep=os.environ.get("KEEP", "") not in ("", "0"))
    except (DemoError, golden.BuildError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except StoppedError:
        libvirt_env.clear_unkept()  # in case the signal came just as the clearing began
        print("demo: stopped; what it made was removed", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
