"""Random load and random faults on real guests, for as long as it is told to; ends with 0 if every invariant held.

`make soak MINUTES=5 SEED=7` does the same things in the same order as the last run with seed 7, if not to the same
millisecond: guests and hosts have a timing of their own.
"""

import argparse
import contextlib
import os
import random
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libvirt

from autoscaler.core.errors import AutoscalerError
from autoscaler.core.observation import DomainState
from deploy.demo.golden import build
from tests.support import killing_daemon
from tests.support.daemon import COMMAND, DaemonProcess, burn
from tests.support.image_versions import BROKEN, make_version
from tests.support.invariants import Before, check_always, listed, look, until_settled
from tests.support.private_libvirtd import PrivateLibvirtd
from tests.support.registry import all_steps

CACHE = Path(__file__).resolve().parents[1] / ".cache"
POOL = "soak"
MOST = 3
IMAGES = ("golden.qcow2", "second.qcow2", "bad.qcow2")
POLICY = {
    "size": {"min": 1, "max": MOST},
    "drain": {"deadline": "2s"},
    "cloud_init": {},
    "ready": {"agent": True, "timeout": "45s"},
    "refresh": {"canary_soak": "3s", "batch": 1, "pause": "1s", "min_in_service": "50%"},
}
SETTLE_EVERY_SECONDS = 90.0
SETTLED_WITHIN_SECONDS = 180.0


@dataclass
class Soak:
    """One daemon, one group, one libvirtd, and what may happen to them."""

    daemon: DaemonProcess
    libvirtd: PrivateLibvirtd
    before: Before
    dice: random.Random
    done: Counter[str] = field(default_factory=Counter)
    checks: int = 0
    controller: str = ""

    def run(self, seconds: float) -> None:
        """Do something at random, look, and again; in the end everything must settle."""
        self.daemon.start()
        self.controller = self.daemon.snapshot().controller
        end = time.monotonic() + seconds
        settle_at = time.monotonic() + SETTLE_EVERY_SECONDS
        while time.monotonic() < end:
            what = self.dice.choice(self._happenings())
            name = what.__name__.strip("_")
            print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
            with contextlib.suppress(libvirt.libvirtError, AutoscalerError, FileNotFoundError, ProcessLookupError):
                # The guest it was meant for may be gone by now, or the daemon not be listening yet.
                what()
            self.done[name] += 1
            for _ in range(self.dice.randint(2, 6)):
                time.sleep(1.0)
                self.look()
            if time.monotonic() > settle_at:
                self.settle()
                settle_at = time.monotonic() + SETTLE_EVERY_SECONDS
        self.settle()

    def look(self) -> set[str]:
        """Check what holds at every moment."""
        self.checks += 1
        self._restart_if_killed()
        return check_always(self.before, self.controller, MOST)

    def settle(self) -> None:
        """Leave it alone until nothing is under way or left over."""
        print(f"{time.strftime('%H:%M:%S')} settles", flush=True)
        if self.daemon.environment:
            # One that is to kill itself at a step it may never come to.
            self.daemon.kill()
        self._restart_if_killed()
        self.daemon.until(lambda snapshot: snapshot.tick is not None, 30, "a first tick")
        until_settled(self.before, self.daemon, MOST, SETTLED_WITHIN_SECONDS)

    def _restart_if_killed(self) -> None:
        process = self.daemon.process
        assert process is not None
        if process.poll() is not None:
            assert process.returncode == -signal.SIGKILL, f"it ended by itself:\n{self.daemon.text()[-6000:]}"
            self.daemon.command, self.daemon.environment = [COMMAND], {}
            self.daemon.start()

    def _happenings(self) -> list[Callable[[], None]]:
        return [
            self._scale,
            self._scale,
            self._follow_the_load,
            self._load,
            self._load,
            self._kill_the_daemon,
            self._stop_the_daemon,
            self._kill_the_daemon_at_a_step,
            self._kill_the_daemon_at_a_step,
            self._kill_libvirtd,
            self._freeze_libvirtd,
            self._kill_a_guest,
            self._freeze_a_guest,
            self._undefine_a_guest,
            self._bring_out,
            self._bring_out,
            self._change_the_refresh,
        ]

    def _scale(self) -> None:
        self.daemon.ask("scale", group="web", count=self.dice.randint(1, MOST), for_seconds=600.0)

    def _follow_the_load(self) -> None:
        self.daemon.ask("scale", group="web", count="auto")

    def _load(self) -> None:
        share = self.dice.choice([0.0, 0.3, 0.9])
        for instance in self._running():
            burn(self.daemon.uri, instance, share)

    def _kill_the_daemon(self) -> None:
        self.daemon.kill()

    def _stop_the_daemon(self) -> None:
        armed = bool(self.daemon.environment)
        code = self.daemon.stop(60)
        assert code == 0 or (armed and code == -signal.SIGKILL), f"asked to stop, it ended with {code}"
        self.daemon.command, self.daemon.environment = [COMMAND], {}
        self.daemon.start(wait=False)

    def _kill_the_daemon_at_a_step(self) -> None:
        action, step = self.dice.choice(all_steps())
        moment = self.dice.choice(["before", "after"])
        print(f"         {action.__name__.lower()} {step.name} {moment}", flush=True)
        self.daemon.kill()
        self.daemon.command = [Path(sys.executable), Path(killing_daemon.__file__)]
        self.daemon.environment = {killing_daemon.VARIABLE: f"{action.__name__.lower()} {step.name} {moment}"}
        self.daemon.start(wait=False)

    def _kill_libvirtd(self) -> None:
        self.libvirtd.kill()
        time.sleep(self.dice.uniform(0.0, 3.0))
        self.libvirtd.restart()

    def _freeze_libvirtd(self) -> None:
        self.libvirtd.freeze()
        time.sleep(self.dice.uniform(1.0, 12.0))
        self.libvirtd.thaw()

    def _kill_a_guest(self) -> None:
        for instance in self._running()[:1]:
            os.kill(self.libvirtd.qemu_pid(instance), signal.SIGKILL)

    def _freeze_a_guest(self) -> None:
        for instance in self._running()[:1]:
            pid = self.libvirtd.qemu_pid(instance)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.dice.uniform(1.0, 5.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _undefine_a_guest(self) -> None:
        for instance in self._running()[:1]:
            connection = libvirt.open(self.daemon.uri)
            try:
                domain = connection.lookupByName(instance)
                domain.undefine()
                domain.destroy()
            finally:
                connection.close()

    def _bring_out(self) -> None:
        self.daemon.write_policy(**POLICY, image={"pool": POOL, "volume": self.dice.choice(IMAGES)})
        self.daemon.ask("reload")
        self.daemon.ask("refresh", group="web")

    def _change_the_refresh(self) -> None:
        self.daemon.ask(self.dice.choice(["cancel_refresh", "roll_back"]), group="web")

    def _running(self) -> list[str]:
        ours = [
            domain.ownership.instance
            for domain in listed(self.daemon.uri)
            if domain.ownership is not None and domain.state is DomainState.RUNNING
        ]
        return self.dice.sample(sorted(ours), len(ours))


@contextlib.contextmanager
def ground(dice: random.Random) -> Iterator[Soak]:
    """A libvirtd of its own, a pool in it, and a daemon on both; all gone afterwards."""
    CACHE.mkdir(exist_ok=True)
    golden = build(CACHE)
    with contextlib.ExitStack() as stack:
        libvirtd = PrivateLibvirtd()
        stack.callback(libvirtd.close)
        pool = libvirtd.root / POOL
        pool.mkdir(mode=0o711)
        shutil.copyfile(golden, pool / "golden.qcow2")
        shutil.copyfile(golden, pool / "second.qcow2")
        make_version(golden, pool / "bad.qcow2", BROKEN)
        connection = libvirt.open(libvirtd.uri)
        connection.storagePoolDefineXML(
            f"<pool type='dir'><name>{POOL}</name><target><path>{pool}</path></target></pool>"
        )
        connection.storagePoolLookupByName(POOL).create()
        connection.close()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        daemon = DaemonProcess(directory, libvirtd.uri, POOL, **POLICY)
        daemon.configure(orphans={"grace": "5s"})
        stack.callback(daemon.close)
        yield Soak(daemon, libvirtd, look(libvirtd.uri, pool, seeded=True), dice)


def main() -> int:
    """Soak, and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    seed: int = secrets.randbelow(1_000_000) if given.seed is None else given.seed
    print(f"soak of {given.minutes:g} minutes, seed {seed}", flush=True)
    # libvirt prints each error to stderr otherwise; they are raised as exceptions all the same.
    libvirt.registerErrorHandler(lambda *_: None, None)
    with ground(random.Random(seed)) as soak:
        began = time.monotonic()
        try:
            soak.run(given.minutes * 60)
        except AssertionError as error:
            print(f"FAILED after {time.monotonic() - began:.0f} s, seed {seed}: {error}")
            return 1
        finally:
            print(f"{sum(soak.done.values())} happenings: {dict(sorted(soak.done.items()))}")
            print(f"{soak.checks} looks at what holds always")
        assert soak.daemon.stop(60) == 0
    print(f"ok: every invariant held for {given.minutes:g} minutes, seed {seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
