import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from autoscaler import reasons
from autoscaler.core.decision import LIMITERS, Parameter, Reason, ReasonCode, but_for
from autoscaler.core.metrics import Unit
from autoscaler.reasons import SENTENCES, describe, describe_but_for, duration, figure
from tests.samples import NOW, SCALING_OUT

GOLDEN = Path(__file__).parent.parent / "golden" / "reasons.txt"

LOAD: dict[str, Parameter] = {"metric": "guest.cpu", "load": 0.897, "target": 0.6, "unit": "share", "count": 3}
BYTES: dict[str, Parameter] = {
    "metric": "guest.net.rx_bytes",
    "load": 41943040.0,
    "unit": "bytes_per_second",
    "count": 3,
}
SCHEDULE: dict[str, Parameter] = {"cron": "0 8 * * mon-fri", "edge": 1_700_000_000.0}
EXAMPLES: dict[ReasonCode, dict[str, Parameter]] = {
    ReasonCode.FIXED_SIZE: {"count": 2},
    ReasonCode.TARGET_EXCEEDED: LOAD,
    ReasonCode.TARGET_UNDERRUN: {**LOAD, "load": 0.12, "count": 1},
    ReasonCode.WITHIN_TARGET: {**LOAD, "load": 0.5, "count": 2},
    ReasonCode.WITHIN_TOLERANCE: {**LOAD, "load": 0.63, "count": 2},
    ReasonCode.STEP_OUT: BYTES,
    ReasonCode.STEP_IN: {**BYTES, "load": 900.0, "count": 1},
    ReasonCode.WITHIN_STEPS: {**BYTES, "load": 2_000_000.0, "count": 2},
    ReasonCode.ABOVE_THRESHOLD: {**LOAD, "metric": "prometheus", "load": 340.26, "target": 200.0, "unit": "number"},
    ReasonCode.BELOW_THRESHOLD: {
        **LOAD,
        "metric": "host.pool_free",
        "load": 6 * 2.0**30,
        "target": 2.0**34,
        "unit": "bytes",
        "count": 1,
    },
    ReasonCode.WITHIN_THRESHOLDS: {"metric": "guest.disk.read_ops", "load": 812.4, "unit": "per_second", "count": 2},
    ReasonCode.SCHEDULE_DESIRES: {**SCHEDULE, "count": 4},
    ReasonCode.SCHEDULE_SETS_MIN: {**SCHEDULE, "min": 3},
    ReasonCode.SCHEDULE_SETS_MAX: {**SCHEDULE, "max": 5},
    ReasonCode.SCHEDULE_INACTIVE: SCHEDULE,
    ReasonCode.SCHEDULE_UNKNOWN: {"cron": "0 8 * * mon-fri"},
    ReasonCode.NO_SIGNAL: {"metric": "guest.cpu"},
    ReasonCode.HELD_BY_OPERATOR: {"count": 3, "until": 1_700_000_000.0, "by": "alice (uid 1000, pid 4242)"},
    ReasonCode.RAISED_TO_MIN: {"min": 1, "wanted": 0},
    ReasonCode.SCALE_OUT_LIMITED_BY_MAX: {"max": 4, "wanted": 7},
    ReasonCode.LOWERED_TO_MAX: {"max": 4, "current": 6},
    ReasonCode.SCALE_OUT_OFF: {"wanted": 4},
    ReasonCode.SCALE_IN_OFF: {"wanted": 1},
    ReasonCode.LIMITED_BY_RATE: {
        "direction": "out",
        "wanted": 9,
        "extreme": 6,
        "window_seconds": 15.0,
        "until": 1_700_000_000.0,
    },
    ReasonCode.LIMITED_BY_PROJECTION: {"metric": "guest.cpu", "load": 0.85, "unit": "share", "wanted": 1, "extreme": 2},
    ReasonCode.HELD_BY_STABILIZATION: {
        "direction": "in",
        "wanted": 1,
        "window_seconds": 300.0,
        "extreme": 2,
        "until": 1_700_000_000.0,
    },
    ReasonCode.HELD_BY_COOLDOWN: {"direction": "out", "wanted": 4, "until": 1_700_000_000.0},
    ReasonCode.HELD_BY_MISSING_LOAD: {"missing": 1, "wanted": 1},
    ReasonCode.HELD_BY_STARVED_GUESTS: {"steal": 0.42, "wanted": 1},
    ReasonCode.HELD_BY_UNFILLED_WINDOW: {"metric": "guest.cpu", "window_seconds": 60.0, "wanted": 1},
    ReasonCode.HELD_BY_UNKNOWN_INVENTORY: {"host": "local", "why": "the connection was closed"},
    ReasonCode.HELD_BY_LAUNCH_BACKOFF: {"failures": 3, "until": 1_700_000_000.0},
    ReasonCode.HELD_BY_REMOVAL_BACKOFF: {"until": 1_700_000_000.0},
    ReasonCode.LIMITED_TO_TRIAL_LAUNCH: {"failures": 3, "wanted": 2},
    ReasonCode.HELD_BY_OCCUPIED_MAX: {"owned": 3, "max": 4, "wanted": 2},
    ReasonCode.PAUSED: {},
    ReasonCode.SHADOW: {},
    ReasonCode.REPLACES_FAILED_INSTANCE: {"instance": "web-7", "state": "ready_timeout"},
    ReasonCode.READY_TIMEOUT: {"instance": "web-7", "timeout_seconds": 300.0},
    ReasonCode.BROUGHT_BACK: {"instance": "web-7", "state": "host_rebooted"},
    ReasonCode.RETURN_WAITS: {"waiting": 6},
    ReasonCode.HELD_BY_RETURN: {"returning": 3, "wanted": 1},
    ReasonCode.REPLACES_UNHEALTHY_INSTANCE: {"instance": "web-7", "state": "agent_silent"},
    ReasonCode.REPLACES_OLD_INSTANCE: {"instance": "web-7", "lifetime_seconds": 86400.0},
    ReasonCode.REPLACEMENT_STOPPED: {"unhealthy": 3, "owned": 4},
    ReasonCode.DRAINS: {"instance": "web-7"},
    ReasonCode.TAKEN_BACK: {"instance": "web-7"},
    ReasonCode.SPARED_BY_PROTECTION: {"protected": 1, "wanted": 2},
    ReasonCode.SPARED_BY_MIN_LIFETIME: {"young": 1, "lifetime_seconds": 600.0, "wanted": 2},
    ReasonCode.HELD_BY_UNKNOWN_IMAGE: {"image": "web version 3", "host": "local", "wanted": 2},
    ReasonCode.HELD_BY_CHANGED_IMAGE: {"image": "web version 3", "wanted": 2},
    ReasonCode.HELD_BY_UNREAD_IMAGE: {"image": "web version 3", "wanted": 2},
    ReasonCode.IMAGE_CHANGED: {
        "image": "web version 3",
        "volume": "default/web@3.qcow2",
        "host": "local",
        "instances": "web-7, web-8",
    },
    ReasonCode.HELD_BY_BREAKER: {"failures": 5, "wanted": 2, "group": "web"},
    ReasonCode.HELD_BY_BUDGET: {"budget": 60, "wanted": 2, "until": 1_700_000_000.0},
    ReasonCode.ATTACH_REFUSED_BY_MAX: {"instance": "web-7", "owned": 4, "max": 4},
    ReasonCode.PAUSED_BY_SOMEBODY: {"instance": "web-7"},
    ReasonCode.UNDEFINED_BY_SOMEBODY: {"instance": "web-7"},
    ReasonCode.UNREACHABLE_INSTANCES: {"host": "rack7", "count": 2},
    ReasonCode.CLOCK_SET_BACK: {"seconds": 3600.0},
    ReasonCode.REFUSED_FOR_MEMORY: {"refused": 2, "host": "local", "need_bytes": 344457216, "have_bytes": 104857600},
    ReasonCode.REFUSED_FOR_VCPUS: {"refused": 1, "host": "local", "need": 4, "have": 3},
    ReasonCode.REFUSED_FOR_HUGEPAGES: {"refused": 1, "host": "local", "need_bytes": 2147483648, "have_bytes": 0},
    ReasonCode.REFUSED_FOR_POOL_SPACE: {
        "refused": 1,
        "host": "local",
        "name": "default",
        "need_bytes": 10737418240,
        "have_bytes": 4831838208,
    },
    ReasonCode.REFUSED_FOR_ADDRESSES: {"refused": 3, "host": "local", "name": "default", "need": 1, "have": 0},
    ReasonCode.REFUSED_FOR_PRESSURE: {"refused": 1, "host": "local", "load": 0.31, "limit": 0.2},
    ReasonCode.REFUSED_FOR_UNREAD_CAPACITY: {
        "refused": 1,
        "host": "local",
        "resource": "pool_space default",
        "why": "the storage driver does not answer",
    },
    ReasonCode.YIELDS_TO_GROUP: {"group": "shop", "priority": 90, "host": "local", "resource": "memory", "drained": 1},
    ReasonCode.TAKES_ROOM_FROM: {"group": "batch", "priority": 10, "host": "local", "resource": "memory"},
    ReasonCode.STARVED: {
        "steal": 0.52,
        "wanted": 3,
        "culprits": "yes (pid 4242) 0.9 cores, guest db (pid 7) 0.4 cores",
    },
    ReasonCode.ACTS_THOUGH_STARVED: {"steal": 0.52, "wanted": 3, "culprits": "yes (pid 4242) 0.9 cores"},
    ReasonCode.BALANCER_UNKNOWN: {"why": "HAProxy at /run/haproxy/admin.sock: Connection refused"},
    ReasonCode.BALANCER_LACKS_SLOTS: {"slots": 2, "max": 4},
    ReasonCode.UNSERVED_WITHOUT_ADDRESS: {"instance": "web-7"},
    ReasonCode.KEPT_IN_SERVICE: {"instance": "web-7", "min": 1},
    ReasonCode.WAITS_FOR_SESSIONS: {"instance": "web-7", "sessions": 3, "until": 1_700_000_000.0},
    ReasonCode.SESSIONS_CUT: {"instance": "web-7", "sessions": 3},
    ReasonCode.REFRESH_ASKED: {"image": "default/v2.qcow2"},
    ReasonCode.REFRESH_TRIES: {"image": "default/v2.qcow2", "wanted": 2, "made": 1, "ready": 0},
    ReasonCode.REFRESH_SOAKS: {"image": "default/v2.qcow2", "ready": 1, "until": 1_700_000_000.0},
    ReasonCode.REFRESH_REPLACES: {"image": "default/v2.qcow2", "batch": 2, "ready": 3, "left": 5},
    ReasonCode.REFRESH_PAUSES: {"image": "default/v2.qcow2", "batch": 2, "left": 4, "until": 1_700_000_000.0},
    ReasonCode.REFRESH_GOES_BACK: {
        "image": "default/v1.qcow2",
        "refused": "default/v2.qcow2",
        "why": "canary_not_ready",
        "instance": "web-7",
    },
    ReasonCode.REFRESH_LACKS_ROOM: {"ready": 4, "min": 4, "max": 4},
    ReasonCode.REFRESH_WAITS_FOR_SERVICE: {"ready": 3, "min": 3},
    ReasonCode.REFRESH_STARVED: {"image": "default/v2.qcow2"},
    ReasonCode.REFRESH_SPARES: {"protected": 1},
    ReasonCode.REFRESH_DONE: {"image": "default/v2.qcow2", "spared": 0},
    ReasonCode.REFRESH_CANCELLED: {"image": "default/v2.qcow2"},
    ReasonCode.REFRESH_ROLLED_BACK: {"image": "default/v1.qcow2"},
    ReasonCode.REFRESH_FAILED: {
        "image": "default/v2.qcow2",
        "why": "no_progress",
        "instance": "",
        "group": "web",
    },
    ReasonCode.LAUNCHES_PINNED: {"image": "default/v1.qcow2", "refused": "default/v2.qcow2", "group": "web"},
}


pytestmark = pytest.mark.usefixtures("berlin")


def test_every_code_reads_as_in_the_golden_file() -> None:
    lines = [f"{code}: {describe(Reason(code, EXAMPLES[code]))}" for code in ReasonCode]
    text = "\n".join(lines) + "\n"
    if os.environ.get("REGENERATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_every_limiter_has_its_counterfactual() -> None:
    for code in LIMITERS:
        assert "wanted" in EXAMPLES[code]
        decision = replace(SCALING_OUT, admitted=2, reasons=(Reason(code, {**EXAMPLES[code], "wanted": 4}),))
        (found,) = but_for(decision)
        until = " until 23:13:20" if "until" in EXAMPLES[code] else ""
        assert re.fullmatch(rf"2 more but for (the|scaling) [\w -]+{until}", describe_but_for(found)), code
    assert describe_but_for(replace(found, more=-1)).startswith("1 fewer but for ")


def test_what_changed_nothing_has_no_counterfactual() -> None:
    assert but_for(replace(SCALING_OUT, admitted=5)) == ()


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.625, Unit.SHARE, "62%"),
        (20 * 2.0**20, Unit.BYTES, "20 MiB"),
        (1.5 * 2**30, Unit.BYTES_PER_SECOND, "1.5 GiB/s"),
        (12.0, Unit.BYTES_PER_SECOND, "12 B/s"),
        (340.0, Unit.PER_SECOND, "340/s"),
        (17.25, Unit.NUMBER, "17.25"),
    ],
)
def test_figures_read_in_their_unit(value: float, unit: Unit, text: str) -> None:
    assert figure(value, unit) == text


@pytest.mark.parametrize("code", list(ReasonCode))
def test_sentences_name_documented_parameters_only(code: ReasonCode) -> None:
    row = re.search(rf"^{code} +(.+)$", reasons.__doc__ or "", re.MULTILINE)
    assert row is not None, "the table at the top of the module lacks the code"
    documented = set(re.sub(r"\(.*?\)", "", row[1]).replace("-", "").replace(",", " ").split())
    assert documented == set(EXAMPLES[code])
    assert set(re.findall(r"{(\w+)}", SENTENCES[code])) <= documented


def test_a_parameter_that_is_not_there_shows_as_a_question_mark() -> None:
    assert describe(Reason(ReasonCode.FIXED_SIZE)).endswith("fixed at ?")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.2 s"),
        (45, "45 s"),
        (59.7, "1 min"),
        (60, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400 * 3 + 4 * 3600 + 59, "3 d 4 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        pytest.param(NOW, "23:13:20", id="today"),
        pytest.param(NOW + 3600, "2023-11-15 00:13:20", id="tomorrow"),
        pytest.param(NOW - 86400, "2023-11-13 23:13:20", id="yesterday"),
        pytest.param(1_698_539_400.0, "2023-10-29 02:30:00 CEST", id="the first of two half past two"),
        pytest.param(1_698_543_000.0, "2023-10-29 02:30:00 CET", id="the second of them"),
        pytest.param(1_679_792_399.0, "2023-03-26 01:59:59", id="before an hour that is left out"),
        pytest.param(1_679_792_400.0, "2023-03-26 03:00:00", id="after it"),
    ],
)
def test_a_time_is_the_operators_with_its_date_unless_it_is_todays(at: float, shown: str) -> None:
    assert reasons.clock(at) == shown
    assert reasons.moment(at).endswith(shown)
    assert reasons.minute(at).startswith(shown[:-10]) or shown == "23:13:20"
