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
balancer_unknown            why
balancer_lacks_slots        slots, max
unserved_without_address    instance
kept_in_service             instance, min
waits_for_sessions          instance, sessions (a number, or unknown), until
sessions_cut                instance, sessions (a number, or unknown)
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
    ReasonCode.BALANCER_UNKNOWN: "the load balancer cannot be told whom to serve: {why}",
    ReasonCode.BALANCER_LACKS_SLOTS: (
        "the load balancer has {slots} slots for a group of up to {max}: give its server-template as many, or lower"
        " size.max"
    ),
    ReasonCode.UNSERVED_WITHOUT_ADDRESS: "{instance} is ready and not served: none of its addresses is known",
    ReasonCode.KEPT_IN_SERVICE: "{instance} is to leave, and stays in service until {min} others are",
    ReasonCode.WAITS_FOR_SESSIONS: "{instance} is sent nothing new; sessions to end until {until}: {sessions}",
    ReasonCode.SESSIONS_CUT: "{instance} leaves although not all its sessions have ended: {sessions}",
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
        return value.replace("_", " ") if name == "state" else value
    if name == "until":
        return clock(value)
    if name in ("load", "target", "steal"):
        return percent(value)
    if name == "seconds" or name.endswith("_seconds"):
        return duration(value)
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
