"""Plain English for reason codes, for commands, page and log.

Each code comes with these parameters (times are seconds since the epoch; loads and targets are in `unit`, one of
`autoscaler.core.metrics.Unit`, and fractions of one without it):

=========================== ==========================================
code                        parameters
=========================== ==========================================
fixed_size                  count
target_exceeded             metric, load, target, unit, count
target_underrun             metric, load, target, unit, count
within_target               metric, load, target, unit, count
within_tolerance            metric, load, target, unit, count
step_out                    metric, load, unit, count
step_in                     metric, load, unit, count
within_steps                metric, load, unit, count
above_threshold             metric, load, target, unit, count
below_threshold             metric, load, target, unit, count
within_thresholds           metric, load, unit, count
schedule_desires            cron, edge, count
schedule_sets_min           cron, edge, min
schedule_sets_max           cron, edge, max
schedule_inactive           cron, edge
schedule_unknown            cron
no_signal                   metric
held_by_operator            count, until, by
raised_to_min               min, wanted
scale_out_limited_by_max    max, wanted
lowered_to_max              max, current
scale_out_off               wanted
scale_in_off                wanted
limited_by_rate             direction (out, in), wanted, extreme, window_seconds, until
limited_by_projection       metric, load, unit, wanted, extreme
held_by_stabilization       direction (out, in), wanted, window_seconds, extreme, until
held_by_cooldown            direction (out, in), wanted, until
held_by_missing_load        missing, wanted
held_by_starved_guests      steal, wanted
held_by_unfilled_window     metric, window_seconds, wanted
held_by_unknown_inventory   host, why
held_by_launch_backoff      failures, until
held_by_removal_backoff     until
limited_to_trial_launch     failures, wanted
held_by_occupied_max        owned, max, wanted
paused                      -
shadow                      -
replaces_failed_instance    instance, state
ready_timeout               instance, timeout_seconds
brought_back                instance, state (host_rebooted, saved)
return_waits                waiting
held_by_return              returning, wanted
replaces_unhealthy_instance instance, state
replaces_old_instance       instance, lifetime_seconds
replacement_stopped         unhealthy, owned
drains                      instance
taken_back                  instance
spared_by_protection        protected, wanted
spared_by_min_lifetime      young, lifetime_seconds, wanted
held_by_unknown_image       image, host, wanted
held_by_changed_image       image, wanted
held_by_unread_image        image, wanted
image_changed               image, volume, host, instances (their names, or none)
held_by_breaker             failures, wanted, group
held_by_budget              budget, wanted, until
attach_refused_by_max       instance, owned, max
paused_by_somebody          instance
undefined_by_somebody       instance
unreachable_instances       host, count
clock_set_back              seconds
refused_for_memory          refused, host, need_bytes, have_bytes
refused_for_vcpus           refused, host, need, have
refused_for_hugepages       refused, host, need_bytes, have_bytes
refused_for_pool_space      refused, host, name, need_bytes, have_bytes
refused_for_addresses       refused, host, name, need, have
refused_for_pressure        refused, host, load, limit
refused_for_unread_capacity refused, host, resource, why
yields_to_group             group, priority, host, resource, drained
takes_room_from             group, priority, host, resource
starved                     steal, wanted, culprits
acts_though_starved         steal, wanted, culprits
balancer_unknown            why
balancer_lacks_slots        slots, max
unserved_without_address    instance
kept_in_service             instance, min
waits_for_sessions          instance, sessions (a number, or unknown), until
sessions_cut                instance, sessions (a number, or unknown)
refresh_asked               image
refresh_tries               image, wanted, made, ready
refresh_soaks               image, ready, until
refresh_replaces            image, batch, ready, left
refresh_pauses              image, batch, left, until
refresh_goes_back           image, refused, why, instance (or nothing)
refresh_lacks_room          ready, min, max
refresh_waits_for_service   ready, min
refresh_starved             image
refresh_spares              protected
refresh_done                image, spared
refresh_cancelled           image
refresh_rolled_back         image
refresh_failed              image, why, instance (or nothing), group
launches_pinned             image, refused, group
=========================== ==========================================
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import pairwise

from autoscaler.core.decision import ButFor, Parameter, Reason, ReasonCode
from autoscaler.core.memory import Setback
from autoscaler.core.metrics import Unit

SENTENCES: Mapping[ReasonCode, str] = {
    ReasonCode.FIXED_SIZE: "the policy has no scaling: the size is fixed at {count}",
    ReasonCode.TARGET_EXCEEDED: "{metric} is {load}, above its target of {target}: calls for {count}",
    ReasonCode.TARGET_UNDERRUN: "{metric} is {load}, below its target of {target}: calls for {count}",
    ReasonCode.WITHIN_TARGET: "{metric} is {load}, and its target of {target} calls for {count}",
    ReasonCode.WITHIN_TOLERANCE: "{metric} is {load}: {count} will do, within tolerance of the target of {target}",
    ReasonCode.STEP_OUT: "{metric} is {load}, where a step adds: calls for {count}",
    ReasonCode.STEP_IN: "{metric} is {load}, where a step removes: calls for {count}",
    ReasonCode.WITHIN_STEPS: "{metric} is {load}, where no step changes anything: {count} will do",
    ReasonCode.ABOVE_THRESHOLD: "{metric} is {load} and has stayed above {target}: calls for {count}",
    ReasonCode.BELOW_THRESHOLD: "{metric} is {load} and has stayed below {target}: calls for {count}",
    ReasonCode.WITHIN_THRESHOLDS: "{metric} is {load} and has not stayed beyond a threshold: {count} will do",
    ReasonCode.SCHEDULE_DESIRES: "the schedule '{cron}' calls for {count} until {edge}",
    ReasonCode.SCHEDULE_SETS_MIN: "the schedule '{cron}' asks for at least {min} until {edge}",
    ReasonCode.SCHEDULE_SETS_MAX: "the schedule '{cron}' allows at most {max} until {edge}",
    ReasonCode.SCHEDULE_INACTIVE: "the schedule '{cron}' is not active before {edge}",
    ReasonCode.SCHEDULE_UNKNOWN: "whether the schedule '{cron}' is active could not be told",
    ReasonCode.NO_SIGNAL: "{metric} was not measured, so it calls for nothing",
    ReasonCode.HELD_BY_OPERATOR: "held at {count} by {by} until {until}",
    ReasonCode.RAISED_TO_MIN: "raised from {wanted} to the minimum of {min}",
    ReasonCode.SCALE_OUT_LIMITED_BY_MAX: "{wanted} wanted, limited to the maximum of {max}",
    ReasonCode.LOWERED_TO_MAX: "lowered from {current} to the maximum of {max}",
    ReasonCode.SCALE_OUT_OFF: "{wanted} wanted, but scaling out is switched off",
    ReasonCode.SCALE_IN_OFF: "{wanted} wanted, but scaling in is switched off",
    ReasonCode.LIMITED_BY_RATE: (
        "scale-{direction} to {wanted} stops at {extreme}: its rate per {window_seconds} allows no more before {until}"
    ),
    ReasonCode.LIMITED_BY_PROJECTION: (
        "scale-in to {wanted} stops at {extreme}: {metric} would rise to {load}, which calls for more again"
    ),
    ReasonCode.HELD_BY_STABILIZATION: (
        "scale-{direction} to {wanted} waits at {extreme} until it was wished for all of {window_seconds}"
    ),
    ReasonCode.HELD_BY_COOLDOWN: "scale-{direction} to {wanted} waits for the cooldown to end at {until}",
    ReasonCode.HELD_BY_STARVED_GUESTS: (
        "scale-in to {wanted} waits: the host withholds {steal} of the guests' time, so their load says too little"
    ),
    ReasonCode.HELD_BY_MISSING_LOAD: "scale-in to {wanted} waits: instances whose load is missing: {missing}",
    ReasonCode.HELD_BY_UNFILLED_WINDOW: (
        "scale-in to {wanted} waits: samples of {metric} do not yet cover its window of {window_seconds}"
    ),
    ReasonCode.HELD_BY_UNKNOWN_INVENTORY: "nothing changes: the domains of host {host} could not be listed: {why}",
    ReasonCode.HELD_BY_LAUNCH_BACKOFF: "no launch before {until}: launches that failed in a row: {failures}",
    ReasonCode.HELD_BY_REMOVAL_BACKOFF: "no removal before {until}: the last one failed",
    ReasonCode.LIMITED_TO_TRIAL_LAUNCH: (
        "wanted {wanted} more, but after {failures} failed launches in a row one at a time is tried"
    ),
    ReasonCode.HELD_BY_OCCUPIED_MAX: (
        "{wanted} more wanted, but {owned} of at most {max} places are taken, by instances on their way out too"
    ),
    ReasonCode.PAUSED: "paused by an operator: decided, but not acted upon",
    ReasonCode.SHADOW: "shadow mode: decided and recorded, nothing is done",
    ReasonCode.REPLACES_FAILED_INSTANCE: "{instance} failed ({state}) and is replaced",
    ReasonCode.READY_TIMEOUT: "{instance} was not ready within {timeout_seconds}",
    ReasonCode.BROUGHT_BACK: "{instance} is brought back ({state})",
    ReasonCode.RETURN_WAITS: "to be brought back when others on their host are up: {waiting}",
    ReasonCode.HELD_BY_RETURN: "{wanted} more wanted, but none is cloned while instances are brought back: {returning}",
    ReasonCode.REPLACES_UNHEALTHY_INSTANCE: "{instance} is unhealthy ({state}) and is replaced",
    ReasonCode.REPLACES_OLD_INSTANCE: "{instance} is older than {lifetime_seconds} and is replaced",
    ReasonCode.REPLACEMENT_STOPPED: (
        "alarm: {unhealthy} of {owned} instances are unhealthy, so none is replaced: look for what they have in common"
    ),
    ReasonCode.DRAINS: "{instance} drains before it is removed",
    ReasonCode.TAKEN_BACK: "{instance} was to leave, and is taken back instead of cloning another",
    ReasonCode.SPARED_BY_PROTECTION: "{wanted} too many, but {protected} of them an operator protects",
    ReasonCode.SPARED_BY_MIN_LIFETIME: "{wanted} too many, but {young} of them are younger than {lifetime_seconds}",
    ReasonCode.HELD_BY_UNKNOWN_IMAGE: (
        "{wanted} more wanted, but no image {image} is published for host {host}: `autoscaler image list` tells what "
        "there is"
    ),
    ReasonCode.HELD_BY_CHANGED_IMAGE: (
        "{wanted} more wanted, but image {image} is not what it was, and nothing is cloned from it"
    ),
    ReasonCode.HELD_BY_UNREAD_IMAGE: (
        "{wanted} more wait until it is read what image {image} holds now: it was touched, or the daemon just started"
    ),
    ReasonCode.IMAGE_CHANGED: (
        "alarm: golden image {volume} on host {host} was changed after instances were made of it; on it stand: "
        "{instances}. Put back what it held, or replace them; a new image belongs under a new name or version"
    ),
    ReasonCode.HELD_BY_BREAKER: (
        "{wanted} more wanted, but {failures} launches failed in a row: none is tried until `autoscaler reset {group}`"
    ),
    ReasonCode.HELD_BY_BUDGET: (
        "{wanted} more wanted, but the launches of this hour, at most {budget}, are used up until {until}"
    ),
    ReasonCode.ATTACH_REFUSED_BY_MAX: "{instance} stays detached: {owned} of at most {max} places are taken",
    ReasonCode.PAUSED_BY_SOMEBODY: (
        "{instance} was paused by somebody and is left so: `virsh resume` or `autoscaler detach` it"
    ),
    ReasonCode.UNDEFINED_BY_SOMEBODY: "{instance} was undefined by somebody and is gone",
    ReasonCode.UNREACHABLE_INSTANCES: (
        "{count} on host {host}, which the configuration no longer names, count against the maximum until it does, "
        "or they are detached"
    ),
    ReasonCode.CLOCK_SET_BACK: "the clock was set back by {seconds}: what is remembered was shifted with it",
    ReasonCode.REFUSED_FOR_MEMORY: (
        "host {host} has no memory for {refused} more: one needs {need_bytes}, and {have_bytes} may still be given; "
        "stop a guest, or lower the host's reserve of memory"
    ),
    ReasonCode.REFUSED_FOR_VCPUS: (
        "host {host} has no vCPUs for {refused} more: one needs {need}, and {have} may still be given; "
        "stop a guest, or raise the host's overcommit of vcpus"
    ),
    ReasonCode.REFUSED_FOR_HUGEPAGES: (
        "host {host} has no huge pages for {refused} more: one needs {need_bytes}, and {have_bytes} are free; "
        "set more of them aside, or stop a guest that has some"
    ),
    ReasonCode.REFUSED_FOR_POOL_SPACE: (
        "pool {name} on host {host} has no space for {refused} more: one may grow to {need_bytes}, and {have_bytes} "
        "are left when the others have grown; enlarge it, or delete volumes"
    ),
    ReasonCode.REFUSED_FOR_ADDRESSES: (
        "network {name} on host {host} has no address for {refused} more: {have} left; widen its DHCP range, or "
        "shorten its leases"
    ),
    ReasonCode.REFUSED_FOR_PRESSURE: (
        "host {host} is short of memory at this moment: its processes waited for some in {load} of the time, and from "
        "{limit} on nothing is cloned; {refused} more wait until it has recovered"
    ),
    ReasonCode.REFUSED_FOR_UNREAD_CAPACITY: (
        "host {host} cannot be told to have room for {refused} more, {resource} could not be read: {why}"
    ),
    ReasonCode.YIELDS_TO_GROUP: (
        "leaves {resource} of host {host} to group {group}, whose priority is {priority}; drained for it: {drained}"
    ),
    ReasonCode.TAKES_ROOM_FROM: (
        "an instance of group {group}, whose priority is {priority}, is drained to make room: {resource} of host {host}"
    ),
    ReasonCode.STARVED: (
        "starved, so {wanted} is not acted upon: the host withholds {steal} of the guests' time; "
        "its greediest: {culprits}"
    ),
    ReasonCode.ACTS_THOUGH_STARVED: (
        "scaled to {wanted} although starved: the host withholds {steal} of the guests' time; its greediest: {culprits}"
    ),
    ReasonCode.BALANCER_UNKNOWN: "the load balancer cannot be told whom to serve: {why}",
    ReasonCode.BALANCER_LACKS_SLOTS: (
        "the load balancer has {slots} slots for a group of up to {max}: give its server-template as many, or lower"
        " size.max"
    ),
    ReasonCode.UNSERVED_WITHOUT_ADDRESS: "{instance} is ready and not served: none of its addresses is known",
    ReasonCode.KEPT_IN_SERVICE: "{instance} is to leave, and stays in service until {min} others are",
    ReasonCode.WAITS_FOR_SESSIONS: "{instance} is sent nothing new; sessions to end until {until}: {sessions}",
    ReasonCode.SESSIONS_CUT: "{instance} leaves although not all its sessions have ended: {sessions}",
    ReasonCode.REFRESH_ASKED: "a refresh to {image} was asked for",
    ReasonCode.REFRESH_TRIES: "refresh to {image}: {wanted} to try it with, {made} made, {ready} ready",
    ReasonCode.REFRESH_SOAKS: "refresh to {image}: the first are ready, and watched until {until}: {ready}",
    ReasonCode.REFRESH_REPLACES: (
        "refresh to {image}, batch {batch}: {ready} ready on it, {left} still to be replaced"
    ),
    ReasonCode.REFRESH_PAUSES: (
        "refresh to {image}: pauses after batch {batch} until {until}, {left} still to be replaced"
    ),
    ReasonCode.REFRESH_GOES_BACK: "goes back from {refused} to {image}: {why}",
    ReasonCode.REFRESH_LACKS_ROOM: (
        "the refresh waits: size.max, {max}, has no room for one more, and refresh.min_in_service keeps {min} of "
        "{ready} in service, so nobody can make room; raise the one or lower the other"
    ),
    ReasonCode.REFRESH_WAITS_FOR_SERVICE: (
        "the refresh waits: {ready} are in service, and refresh.min_in_service lets none go before there are more than "
        "{min}"
    ),
    ReasonCode.REFRESH_STARVED: "the refresh waits: the host withholds CPU that the guests want",
    ReasonCode.REFRESH_SPARES: "the refresh leaves protected and detached instances as they are: {protected}",
    ReasonCode.REFRESH_DONE: "refreshed to {image}; protected or detached, and left on another image: {spared}",
    ReasonCode.REFRESH_CANCELLED: "the refresh to {image} was cancelled: what was replaced stays so",
    ReasonCode.REFRESH_ROLLED_BACK: "rolled back to {image}",
    ReasonCode.REFRESH_FAILED: (
        "alarm: the refresh to {image} has stopped where it was: {why}; `autoscaler refresh {group} --status` shows "
        "how far it came"
    ),
    ReasonCode.LAUNCHES_PINNED: (
        "new instances are made of {image}, as {refused} was found bad or rolled back, until the policy names another "
        "image or `autoscaler refresh {group}` tries it again"
    ),
}


class _Shown(dict[str, str]):
    """Parameters as text; one that an older journal lacks shows as a question mark instead of ending the command."""

    def __missing__(self, name: str) -> str:
        return "?"


def describe(reason: Reason) -> str:
    """Say `reason` in one plain clause, with local times and loads in their unit."""
    unit = Unit(str(reason.parameters.get("unit", Unit.SHARE.value)))
    shown = {k: _show(k, v, unit) for k, v in reason.parameters.items()}
    if reason.code in _SETBACKS:
        shown["why"] = describe_setback(shown.get("why", "?"), shown.get("instance", ""))
    return SENTENCES[reason.code].format_map(_Shown(shown))


_SETBACKS = frozenset({ReasonCode.REFRESH_GOES_BACK, ReasonCode.REFRESH_FAILED})
_WHY_BACK: Mapping[str, str] = {
    Setback.ASKED: "an operator wants it",
    Setback.CANARY_NOT_MADE: "no instance could be made of it: {instance}",
    Setback.CANARY_NOT_READY: "{instance} did not become ready in time",
    Setback.CANARY_FAILED: "{instance} went off",
    Setback.CANARY_UNHEALTHY: "{instance} was unhealthy",
    Setback.LAUNCHES_FAILED: "launches from it failed one after another",
    Setback.NO_PROGRESS: "it came no further within refresh.timeout",
}


def describe_setback(why: str, instance: str) -> str:
    """Say why a refresh went back or stopped; `why` is a `Setback`, or what another release calls it."""
    return _WHY_BACK.get(why, why.replace("_", " ")).format(instance=instance or "an instance")


_LIMITERS: Mapping[ReasonCode, str] = {
    ReasonCode.SCALE_OUT_LIMITED_BY_MAX: "the maximum",
    ReasonCode.RAISED_TO_MIN: "the minimum",
    ReasonCode.SCALE_OUT_OFF: "scaling out being off",
    ReasonCode.SCALE_IN_OFF: "scaling in being off",
    ReasonCode.LIMITED_BY_RATE: "the rate limit",
    ReasonCode.LIMITED_BY_PROJECTION: "the load that fewer would have to carry",
    ReasonCode.HELD_BY_STABILIZATION: "the stabilization window",
    ReasonCode.HELD_BY_COOLDOWN: "the cooldown",
    ReasonCode.HELD_BY_MISSING_LOAD: "the missing load",
    ReasonCode.HELD_BY_STARVED_GUESTS: "the time withheld from the guests",
    ReasonCode.HELD_BY_UNFILLED_WINDOW: "the window that is not full",
}


def describe_but_for(found: ButFor) -> str:
    """Say what one limiter kept a decision from: ``2 more but for the cooldown until 12:04:10``."""
    change = f"{found.more} more" if found.more > 0 else f"{-found.more} fewer"
    until = f" until {clock(found.until)}" if found.until is not None else ""
    return f"{change} but for {_LIMITERS[found.reason.code]}{until}"


def _show(name: str, value: Parameter, unit: Unit) -> str:
    if isinstance(value, str):
        return value.replace("_", " ") if name in ("state", "resource") else value
    if name in _TIMES:
        return _TIMES[name](value)
    if name in ("load", "target", "steal", "limit"):
        return figure(value, Unit.SHARE if name == "steal" else unit)
    if name == "seconds" or name.endswith("_seconds"):
        return duration(value)
    if name.endswith("_bytes"):
        return size(value)
    return f"{value:g}"


def clock(at: float) -> str:
    """Render seconds since the epoch as local time of day, with the date where that is not today's."""
    today = datetime.fromtimestamp(time.time(), UTC).astimezone().date()
    return _local(at, "%H:%M:%S" if datetime.fromtimestamp(at, UTC).astimezone().date() == today else _MOMENT)


def moment(at: float) -> str:
    """Render seconds since the epoch as local date and time, to the second."""
    return _local(at, _MOMENT)


def minute(at: float) -> str:
    """Render seconds since the epoch as local date and time, to the minute."""
    return _local(at, "%Y-%m-%d %H:%M")


def _local(at: float, form: str) -> str:
    local = datetime.fromtimestamp(at, UTC).astimezone()
    # In autumn an hour comes twice: which of the two is told by the zone's name.
    naive = local.replace(tzinfo=None)
    twice = naive.replace(fold=0).astimezone().utcoffset() != naive.replace(fold=1).astimezone().utcoffset()
    return local.strftime(f"{form} %Z" if twice else form)


def percent(share: float) -> str:
    """Render a fraction of one as whole percent."""
    return f"{share:.0%}"


def figure(value: float, unit: Unit) -> str:
    """Render a metric's value: ``60%``, ``20 MiB``, ``1.5 MiB/s``, ``340/s`` or ``17.2``."""
    match unit:
        case Unit.SHARE:
            return percent(value)
        case Unit.BYTES:
            return size(value)
        case Unit.BYTES_PER_SECOND:
            return f"{size(value)}/s"
        case Unit.PER_SECOND:
            return f"{value:.4g}/s"
    return f"{value:.4g}"


def size(size_bytes: float) -> str:
    """Render bytes by their largest binary unit: ``192 MiB``, ``1.5 GiB``."""
    for name, factor in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if abs(size_bytes) >= factor:
            return f"{size_bytes / factor:.4g} {name}"
    return f"{size_bytes:.4g} B"


_MOMENT = "%Y-%m-%d %H:%M:%S"
_TIMES: Mapping[str, Callable[[float], str]] = {"until": clock, "edge": minute}


def duration(seconds: float) -> str:
    """Render a duration by its two largest units: ``45 s``, ``1 min 30 s``, ``2 h``, ``3 d 4 h``."""
    if 0 < seconds < 1:
        return f"{seconds:.1g} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    for (unit, size), (smaller, smaller_size) in pairwise(units):
        if left >= size:
            rest = left % size // smaller_size
            return f"{left // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{left} s"
