"""Plain English for reason codes, for commands, page and log.

Each code comes with these parameters (times are seconds since the epoch, loads and targets fractions of one):

=========================== ==========================================
code                        parameters
=========================== ==========================================
fixed_size                  count
target_exceeded             metric, load, target, count
target_underrun             metric, load, target, count
within_target               metric, load, target, count
within_tolerance            metric, load, target, count
no_signal                   metric
held_by_operator            count, until, by
raised_to_min               min, wanted
scale_out_limited_by_max    max, wanted
lowered_to_max              max, current
held_by_stabilization       direction (out, in), wanted, window_seconds, extreme
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
=========================== ==========================================
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise

from autoscaler.core.decision import Parameter, Reason, ReasonCode

SENTENCES: Mapping[ReasonCode, str] = {
    ReasonCode.FIXED_SIZE: "the policy has no scaling: the size is fixed at {count}",
    ReasonCode.TARGET_EXCEEDED: "{metric} is {load}, above its target of {target}: calls for {count}",
    ReasonCode.TARGET_UNDERRUN: "{metric} is {load}, below its target of {target}: calls for {count}",
    ReasonCode.WITHIN_TARGET: "{metric} is {load}, and its target of {target} calls for {count}",
    ReasonCode.WITHIN_TOLERANCE: "{metric} is {load}, within tolerance of its target of {target}: {count} will do",
    ReasonCode.NO_SIGNAL: "{metric} was measured on no instance, so it calls for nothing",
    ReasonCode.HELD_BY_OPERATOR: "held at {count} by {by} until {until}",
    ReasonCode.RAISED_TO_MIN: "raised from {wanted} to the minimum of {min}",
    ReasonCode.SCALE_OUT_LIMITED_BY_MAX: "{wanted} wanted, limited to the maximum of {max}",
    ReasonCode.LOWERED_TO_MAX: "lowered from {current} to the maximum of {max}",
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
}


class _Shown(dict[str, str]):
    """Parameters as text; one that an older journal lacks shows as a question mark instead of ending the command."""

    def __missing__(self, name: str) -> str:
        return "?"


def describe(reason: Reason) -> str:
    """Say `reason` in one plain clause, with local times and loads in percent."""
    return SENTENCES[reason.code].format_map(_Shown({k: _show(k, v) for k, v in reason.parameters.items()}))


def _show(name: str, value: Parameter) -> str:
    if isinstance(value, str):
        return value.replace("_", " ") if name in ("state", "resource") else value
    if name == "until":
        return clock(value)
    if name in ("load", "target", "steal", "limit"):
        return percent(value)
    if name == "seconds" or name.endswith("_seconds"):
        return duration(value)
    if name.endswith("_bytes"):
        return size(value)
    return f"{value:g}"


def clock(at: float) -> str:
    """Render seconds since the epoch as local time of day."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%H:%M:%S")


def moment(at: float) -> str:
    """Render seconds since the epoch as local date and time."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def percent(share: float) -> str:
    """Render a fraction of one as whole percent."""
    return f"{share:.0%}"


def size(size_bytes: float) -> str:
    """Render bytes by their largest binary unit: ``192 MiB``, ``1.5 GiB``."""
    for unit, bound in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20)):
        if abs(size_bytes) >= bound:
            return f"{size_bytes / bound:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size_bytes / 2**10:.0f} KiB" if size_bytes else "0 B"


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
