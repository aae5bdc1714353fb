"""A thread for each group's load balancer: looks at what it has, puts right what differs, and says what it has now.

Nothing of this is noted in the journal before it is done, as actions on hosts are: a correction is made from what the
balancer has at that moment, can be repeated without harm, leaves nothing behind, and is found again by the next look
when it was lost. A slow balancer holds up neither a tick nor another group's.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from autoscaler.core.observation import SlotState, TrafficView, Unknown
from autoscaler.core.policy import Mode, Policy, Traffic, TrafficKind
from autoscaler.core.traffic import Wanted, corrections
from autoscaler.external.haproxy import BalancerError, HAProxy, slots_lacking
from autoscaler.external.served_files import PrometheusTargets, TemplatedFile
from autoscaler.external.served_webhook import ServedWebhook

log = structlog.get_logger(__name__)

LOOK_EVERY_SECONDS = 1.0
Views = Mapping[str, TrafficView | Unknown]


class Balancer(Protocol):
    """Something that is told whom to serve. Both methods raise BalancerError."""

    def view(self, wanted_at: float | None) -> TrafficView:
        """Give what it has, after the wishes of that tick were put there."""
        ...

    def put(self, wanted: Wanted) -> None:
        """Bring it as near to what is wanted as it can be now; doing so again changes nothing."""
        ...


class HAProxyBalancer:
    """HAProxy, corrected slot by slot."""

    def __init__(self, group: str, haproxy: HAProxy) -> None:
        self._group = group
        self._haproxy = haproxy

    def view(self, wanted_at: float | None) -> TrafficView:
        """Read it."""
        return self._haproxy.view(wanted_at)

    def put(self, wanted: Wanted) -> None:
        """Correct what differs, in order; what follows on one that fails waits for the next look."""
        for correction in corrections(self._haproxy.view(wanted.at), wanted):
            self._haproxy.apply(correction)
            log.info("load balancer corrected", group=self._group, correction=repr(correction))


def make(group: str, traffic: Traffic, now: Callable[[], float]) -> Balancer:
    """Make the balancer of a policy."""
    match traffic.kind:
        case TrafficKind.HAPROXY:
            return HAProxyBalancer(group, HAProxy(traffic, now))
        case TrafficKind.FILE:
            return TemplatedFile(traffic, now)
        case TrafficKind.FILE_SD:
            return PrometheusTargets(traffic, now)
        case TrafficKind.WEBHOOK:
            return ServedWebhook(traffic, now)


def refuse_lacking_slots(policies: Iterable[Policy]) -> None:
    """Raise BalancerError for every group that may grow beyond its HAProxy's slots, each with the remedy.

    One whose HAProxy does not answer is let pass; its decisions will say what is the matter.
    """
    lacking = []
    for policy in policies:
        traffic = policy.traffic
        if traffic is None or traffic.kind is not TrafficKind.HAPROXY or policy.mode is Mode.SHADOW:
            continue
        try:
            view = HAProxy(traffic, time.time).view(None)
        except BalancerError:
            continue
        why = slots_lacking(view, traffic, policy.size.max)
        if why is not None:
            lacking.append(f"group {policy.group}: {why}")
    if lacking:
        raise BalancerError("\n".join(lacking))


class Balancers:
    """All groups' balancers. `on_change` is called when one has something to tell that a tick may wait for."""

    def __init__(self, now: Callable[[], float], on_change: Callable[[], None]) -> None:
        self._now = now
        self._on_change = on_change
        self._lines: dict[str, _Line] = {}

    def watch(self, traffics: Mapping[str, Traffic]) -> None:
        """Look at these groups' balancers from now on, and at no others; what those have is left as it is."""
        for group in [group for group, line in self._lines.items() if traffics.get(group) != line.traffic]:
            self._lines.pop(group).close()
        for group in traffics.keys() - self._lines.keys():
            traffic = traffics[group]
            self._lines[group] = _Line(group, traffic, make(group, traffic, self._now), self._on_change)

    def want(self, wanted: Iterable[Wanted]) -> None:
        """Put these wishes in place of the groups' earlier ones; returns at once."""
        for each in wanted:
            if each.group in self._lines:
                self._lines[each.group].want(each)

    def forget(self, groups: Iterable[str]) -> None:
        """Wish nothing for these groups any more: their balancers are only looked at."""
        for group in groups:
            if group in self._lines:
                self._lines[group].want(None)

    def views(self) -> Views:
        """Give what was seen last; a balancer that was not looked at yet is not among them."""
        views = {group: line.seen() for group, line in self._lines.items()}
        return {group: view for group, view in views.items() if view is not None}

    def close(self) -> None:
        """Look no more."""
        self.watch({})


class _Line:
    def __init__(self, group: str, traffic: Traffic, balancer: Balancer, on_change: Callable[[], None]) -> None:
        self.traffic = traffic
        self._group = group
        self._balancer = balancer
        self._on_change = on_change
        self._wanted: Wanted | None = None
        self._seen: TrafficView | Unknown | None = None
        self._closed = False
        self._woken = threading.Condition()
        threading.Thread(target=self._run, name=f"balancer of {group}", daemon=True).start()

    def want(self, wanted: Wanted | None) -> None:
        with self._woken:
            self._wanted = wanted
            self._woken.notify()

    def seen(self) -> TrafficView | Unknown | None:
        return self._seen

    def close(self) -> None:
        with self._woken:
            self._closed = True
            self._woken.notify()

    def _run(self) -> None:
        done: Wanted | None = None
        while not self._closed:
            with self._woken:
                # Wishes that came while others were put are not slept over.
                if self._wanted is done:
                    self._woken.wait(LOOK_EVERY_SECONDS)
                done = self._wanted
            if not self._closed:
                self._note(self._look(done))

    def _look(self, wanted: Wanted | None) -> TrafficView | Unknown:
        try:
            if wanted is None:
                return self._balancer.view(None)
            self._balancer.put(wanted)
            return self._balancer.view(wanted.at)
        except BalancerError as error:
            return Unknown(str(error))

    def _note(self, view: TrafficView | Unknown) -> None:
        before, self._seen = self._seen, view
        if isinstance(view, Unknown):
            if not isinstance(before, Unknown) or before.why != view.why:
                log.error("load balancer cannot be told whom to serve", group=self._group, why=view.why)
        elif isinstance(before, Unknown):
            log.info("load balancer answers", group=self._group)
        if _news(before) != _news(view):
            self._on_change()


def _news(view: TrafficView | Unknown | None) -> object:
    """Give what a tick may wait for: who is in service, and whose sessions have ended."""
    if not isinstance(view, TrafficView):
        return type(view)
    return [
        (slot.name, slot.address, slot.state, slot.healthy, slot.state is SlotState.DRAIN and slot.sessions == 0)
        for slot in view.slots
    ]
