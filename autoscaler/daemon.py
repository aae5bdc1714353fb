"""The composition root: the one clock, the scheduler, signals, and systemd's notification."""

import gc
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import structlog

from autoscaler.chronicle import Chronicle
from autoscaler.config import Config
from autoscaler.control.server import ControlServer
from autoscaler.core.errors import AutoscalerError, StoreError
from autoscaler.core.memory import Memory
from autoscaler.core.observation import HostInventory
from autoscaler.core.policy import Image, Policy, addressed_groups, metrics_of, pools_of, queries_of, wanted_by
from autoscaler.core.ports import Hypervisor
from autoscaler.core.replacing import images_beside
from autoscaler.core.snapshot import ReloadStatus, Snapshot, TickStatus, Totals
from autoscaler.core.status import (
    Finished,
    accumulate,
    group_statuses,
    host_statuses,
    image_launches,
    room_statuses,
    wanted_traffic,
)
from autoscaler.core.step import step
from autoscaler.desk import Desk
from autoscaler.executor import Executor
from autoscaler.exporter.collector import make_registry
from autoscaler.external.balancers import Balancers, refuse_lacking_slots
from autoscaler.external.probes import Prober, targets
from autoscaler.external.prometheus import Prometheus, Queries, Query
from autoscaler.external.webhooks import Receiver, Webhooks, of_transition
from autoscaler.golden_watch import GoldenWatch, watched_images
from autoscaler.hooks import run_hook
from autoscaler.host.load import HostLoad
from autoscaler.hypervisor import LibvirtHypervisor, is_local
from autoscaler.image_desk import ImageDesk
from autoscaler.log import configure
from autoscaler.notify import lengthen_watchdog, notify, notify_reloading
from autoscaler.policy.calendar import Calendar
from autoscaler.policy.load import load_directory
from autoscaler.sampler import Sampler
from autoscaler.secret_file import read_secret
from autoscaler.store import Journal, TickRecord
from autoscaler.tick_log import TickLog
from autoscaler.ticker import Ticker
from autoscaler.web.server import WebServer
from autoscaler.world import World

log = structlog.get_logger(__name__)

_ACTIONS_DEADLINE_SECONDS = 15.0
_TICK_DEADLINE_SECONDS = 5.0
_HOST_DEADLINES_SECONDS = 25.0
"""How long a tick may wait for one host: to list its domains, give their counters, and tell what it has to give."""
_COMMIT_DEADLINES_SECONDS = 10.0
"""How long a tick may wait for a journal that somebody else locks: to commit, and to keep it in order."""
_SIGNAL_POLL_SECONDS = 0.5
_PRUNE_EVERY_SECONDS = 3600.0
COLLECTOR_THRESHOLDS = (5_000, 10, 50)
"""A tick makes and drops many small values without cycles: Python's default looks through all of them again and again,
and the more groups there are the longer each look takes."""


class Daemon:
    """Everything that lives as long as the process."""

    def __init__(self, config: Config, policies: tuple[Policy, ...], journal: Journal) -> None:
        self._config = config
        self._policies = policies
        self._calendar = Calendar()
        self._journal = journal
        self._memory: Memory = journal.load_memory()
        self._events: queue.SimpleQueue[str | BaseException] = queue.SimpleQueue()
        self._reload_lock = threading.Lock()
        self._tick_lock = threading.Lock()
        self._chronicle = Chronicle(journal)
        self._tick_log = TickLog(self._chronicle)
        self._pruned_at = 0.0
        self._number = 0
        self._ready = False
        self._snapshot_lock = threading.Lock()
        now = time.time()
        self._snapshot = Snapshot(
            version=version("kvm-autoscaler"),
            controller=journal.controller,
            started_at=now,
            at=now,
            interval_seconds=config.interval_seconds,
            reload=ReloadStatus(ok=True, at=now),
        )
        self._ticker = Ticker(config.interval_seconds, self._tick)
        self._hypervisors = _hypervisors(config, journal, self._ticker.wake)
        self._executor = Executor(
            self._hypervisors,
            journal,
            now=time.time,
            workers_per_host=config.workers,
            on_end=self._ticker.wake,
            on_bug=self._events.put,
            run_hook=run_hook,
        )
        loads = {name: HostLoad(name).sample for name, host in config.hosts.items() if is_local(host.uri)}
        self._queries = Queries(prometheus_of(config))
        self._prober = Prober(now=time.time, on_change=self._ticker.wake)
        self._balancers = Balancers(now=time.time, on_change=self._ticker.wake)
        self._webhooks = Webhooks(_receivers(config))
        self._golden = GoldenWatch(
            self._hypervisors,
            journal.images,
            config.interval_seconds,
            on_change=self._ticker.wake,
            on_bug=self._events.put,
        )
        sampler = Sampler(
            self._hypervisors,
            loads,
            config.interval_seconds,
            config.workers,
            external=self._queries.newest,
            probes=self._prober.results,
            traffic=self._balancers.views,
            golden=self._golden.states,
        )
        self._images = ImageDesk(
            journal,
            self._chronicle,
            hosts=frozenset(config.hosts),
            policies=lambda: self._policies,
            refreshing=self._refreshing,
            wake=self._ticker.wake,
            grace_seconds=config.leftover_grace_seconds,
        )
        self._world = World(sampler, journal, self._executor, config.leftover_grace_seconds, self._images.in_hand)

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises what a worker or the tick raised if that was a bug."""
        web = WebServer(self._config.listen.host, self._config.listen.port, self.snapshot, make_registry(self.snapshot))
        control = ControlServer(self._config.control_socket, self._desk())
        web.start()
        control.start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: self._events.put(signal.Signals(number).name))
        log.info(
            "daemon started",
            controller=self._journal.controller,
            policies=len(self._policies),
            metrics=f"http://{self._config.listen.host}:{self._config.listen.port}/metrics",
        )
        if self._journal.pending().ledger_lost:
            log.warning(
                "the journal was lost: instances are adopted by their metadata, and no volume that is left over is "
                "deleted until somebody says so with: autoscaler ledger accept"
            )
        lengthen_watchdog(heartbeat_seconds(self._config))
        self._webhooks.start()
        self._golden.start()
        self._ticker.start()
        try:
            self._serve()
        finally:
            notify("STOPPING=1")
            self._ticker.stop()
            control.stop()
            web.stop()
            self._queries.close()
            self._prober.close()
            self._golden.close()
            self._balancers.close()
            if not self._executor.stop(_ACTIONS_DEADLINE_SECONDS):
                log.warning("actions still under way are left for the next start")
            if self._tick_lock.acquire(timeout=_TICK_DEADLINE_SECONDS):
                self._journal.close()
            self._webhooks.close()
            log.info("daemon stopped, guests run on")

    def _serve(self) -> None:
        while True:
            try:
                # A signal that another thread took is handled here all the same, but wakes no `get` without a timeout.
                event = self._events.get(timeout=_SIGNAL_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(event, BaseException):
                raise event
            if event != "SIGHUP":
                log.info("asked to stop", by=event)
                return
            self.reload(event)

    def _desk(self) -> Desk:
        return Desk(
            self._journal,
            self._chronicle,
            images=self._images,
            snapshot=self.snapshot,
            policies=lambda: self._policies,
            reload=self.reload,
            adopt=self._executor.adopt,
            wake=self._ticker.wake,
        )

    def _refreshing(self) -> list[tuple[Policy, Image]]:
        """Give the images that refreshes use beside what policies name."""
        groups = self._memory.groups
        known = [(policy, groups[policy.group]) for policy in self._policies if policy.group in groups]
        return [(policy, image) for policy, group in known for image in images_beside([group])]

    def snapshot(self) -> Snapshot:
        """Give what the last finished tick left."""
        return self._snapshot

    def reload(self, by: str) -> ReloadStatus:
        """Read the policy files again; wrong ones are refused as a whole and the old ones run on."""
        with self._reload_lock:
            if self._ready:
                notify_reloading()
            status = self._read_policies(by)
            self._chronicle.reload(status, by, len(self._policies))
            self._show(reload=status)
            if self._ready:
                notify("READY=1")
        self._ticker.wake()
        return status

    def _read_policies(self, by: str) -> ReloadStatus:
        try:
            policies = load_directory(self._config.policies_dir, frozenset(self._config.hosts))
            refuse_lacking_slots(policies)
        except AutoscalerError as error:
            log.error("reload refused, the old policies run on", by=by, error=str(error))  # noqa: TRY400 - an operator's error, not a bug
            return ReloadStatus(ok=False, at=time.time(), error=str(error))
        gone = {policy.group for policy in self._policies} - {policy.group for policy in policies}
        for group in sorted(gone):
            log.warning("policy file vanished, its instances run on unmanaged", group=group)
            self._chronicle.note(time.time(), "policy_vanished", group)
        self._policies = policies
        log.info("policies reloaded", by=by, policies=len(policies))
        return ReloadStatus(ok=True, at=time.time())

    # The tick

    def _tick(self, lateness_seconds: float) -> None:
        try:
            with self._tick_lock:
                began = time.monotonic()
                committed = self._decide_and_commit(lateness_seconds, began)
            # A tick that could not be committed came to its end, too: a restart would not empty a full disk.
            notify("WATCHDOG=1")
            if committed and not self._ready:
                self._ready = True
                notify("READY=1")
        except BaseException as error:  # noqa: BLE001 - a bug ends the daemon, from its main thread
            self._events.put(error)

    def _decide_and_commit(self, lateness_seconds: float, began: float) -> bool:
        """Do one tick; tells whether it was committed."""
        at = time.time()
        policies = self._images.resolve(self._policies)
        self._number += 1
        self._look_for(policies)
        try:
            beside = images_beside(self._memory.groups.values())
            wanted = wanted_by(policies, beside, self._images.stored)
            observation = self._world.observe(at, metrics_of(policies), wanted)
            observation = replace(observation, schedules=self._calendar.states(policies, at))
            result = step(policies, observation, self._memory)
            record = TickRecord(
                observation,
                policies,
                result.decisions,
                result.memory,
                duration_seconds=time.monotonic() - began,
                transitions=result.transitions,
            )
            intents = self._world.commit(record, result.actions)
        except StoreError as error:
            self._count_failure("tick not committed, nothing was done", error)
            return False
        self._memory = result.memory
        try:
            self._world.begin(observation, intents)
            self._prune(at)
        except StoreError as error:
            self._count_failure("tick committed, but the journal cannot be kept in order", error)
        self._webhooks.send([of_transition(transition) for transition in result.transitions])
        finished = Finished(policies, observation, result, intents)
        self._tell_others(finished)
        self._tick_log.write(finished, self._snapshot.groups)
        self._publish(finished, TickStatus(self._number, at, time.monotonic() - began, lateness_seconds))
        return True

    def _look_for(self, policies: tuple[Policy, ...]) -> None:
        """Say what these policies want to be told of, beside counters."""
        for name, hypervisor in self._hypervisors.items():
            hypervisor.watch_pools(frozenset(pool for host, pool in pools_of(policies) if host == name))
            hypervisor.watch_addresses(addressed_groups(policies))
        interval = self._config.interval_seconds
        self._queries.watch(Query(key, promql, interval) for key, promql in queries_of(policies).items())
        self._balancers.watch({policy.group: policy.traffic for policy in policies if policy.traffic is not None})

    def _tell_others(self, finished: Finished) -> None:
        """Say whom to ask, and whom to serve, before the next tick."""
        for host, inventory in finished.observation.inventory.items():
            # A host that could not be listed keeps the instances it had.
            if isinstance(inventory, HostInventory):
                watched = targets(finished.policies, inventory.domains, self._journal.controller)
                self._prober.watch(host, watched)
        controller, catalog = self._journal.controller, self._images.catalog
        cloned = [*((policy, policy.image) for policy in finished.policies), *self._refreshing()]
        self._golden.watch(watched_images(cloned, finished.observation, controller, catalog))
        served = wanted_traffic(finished)
        self._balancers.want(wanted for wanted in served.values() if wanted is not None)
        self._balancers.forget(group for group, wanted in served.items() if wanted is None)

    def _count_failure(self, what: str, error: StoreError) -> None:
        log.error(what, error=str(error))
        totals = self._snapshot.totals
        self._show(totals=replace(totals, tick_failures=totals.tick_failures + 1))

    def _show(self, **changes: Any) -> None:
        """Swap in a snapshot with these fields changed."""
        with self._snapshot_lock:
            self._snapshot = replace(self._snapshot, **changes)

    def _publish(self, finished: Finished, tick: TickStatus) -> None:
        totals: Totals = accumulate(self._snapshot.totals, finished)
        self._show(
            at=tick.at,
            tick=tick,
            last_success_at=tick.at,
            hosts=host_statuses(finished.observation),
            groups=group_statuses(finished),
            room=room_statuses(finished),
            webhooks=self._webhooks.counts(),
            images=image_launches(finished),
            totals=replace(totals, ticks=totals.ticks.add(tick.duration_seconds)),
        )

    def _prune(self, at: float) -> None:
        if abs(at - self._pruned_at) >= _PRUNE_EVERY_SECONDS:
            self._journal.prune(at)
            self._pruned_at = at


def prometheus_of(config: Config) -> Prometheus | None:
    """Make the configuration's Prometheus, if it names one."""
    server = config.prometheus
    if server is None:
        return None
    return Prometheus(
        server.url, timeout_seconds=server.timeout_seconds, ca_file=server.ca_file, token_file=server.token_file
    )


def _receivers(config: Config) -> list[Receiver]:
    """Read the receivers' secrets. Raises PolicyError for one that cannot be used."""
    return [
        Receiver(hook.url, b"" if hook.secret_file is None else read_secret(hook.secret_file), frozenset(hook.events))
        for hook in config.webhooks
    ]


def _hypervisors(config: Config, journal: Journal, wake: Callable[[], None]) -> dict[str, Hypervisor]:
    return {
        name: LibvirtHypervisor(
            name,
            host.uri,
            journal.controller,
            recall=journal.recall,
            remember=journal.remember,
            on_change=wake,
            limits=host.limits,
        )
        for name, host in config.hosts.items()
    }


def heartbeat_seconds(config: Config) -> float:
    """Give the longest time between two heartbeats of a daemon that is well while all its hosts hang."""
    tick = _HOST_DEADLINES_SECONDS * len(config.hosts) + _COMMIT_DEADLINES_SECONDS
    return tick + 2 * config.interval_seconds


def run(config: Config) -> int:
    """Run the daemon to its end and give the exit code. Raises AutoscalerError for what an operator can mend."""
    configure(config.log.format, config.log.level)
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    policies = load_directory(config.policies_dir, frozenset(config.hosts))
    journal = Journal.open(config.state_dir)
    code = 0
    try:
        Daemon(config, policies, journal).run()
    except AutoscalerError:
        raise
    except Exception:
        log.exception("bug: the daemon ends, guests run on")
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads stuck in a call to libvirt cannot be cancelled, and must not keep the process from ending.
    os._exit(code)
