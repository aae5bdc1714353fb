"""Every way a policy or configuration file can be wrong, with the exact line the operator gets."""

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autoscaler import config
from autoscaler.core.errors import PolicyError
from autoscaler.policy.load import load_directory, load_file

GOLDEN = Path(__file__).parent.parent / "golden" / "policy_errors.txt"
REGENERATE = "REGENERATE_GOLDEN"

GOOD = """\
version: 1
group: web
hosts: [local]
mode: active
image: {pool: default, volume: golden.qcow2}
machine: {vcpus: 1, memory: 192MiB, network: default, accelerator: auto}
size:
  min: 1
  max: 4
scaling:
  - {type: target_tracking, metric: guest.cpu, target: 60%, across: avg, over: 60s}
behavior:
  tolerance: 10%
  scale_out: {cooldown: 0s, stabilization: 0s}
  scale_in: {cooldown: 5m, stabilization: 5m}
warm_up: 60s
ready: {agent: true, timeout: 5m}
drain: {deadline: 60s}
"""

GOOD_CONFIG = """\
hosts:
  local: {uri: "qemu:///system"}
policies_dir: policies
state_dir: /var/lib/autoscaler
control_socket: /run/autoscaler/control.sock
listen: 127.0.0.1:10177
interval: 10s
workers: 4
log: {format: auto, level: info}
"""


def but(old: str, new: str, text: str = GOOD) -> str:
    """Change one place of a good file."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def scaling(entry: str) -> str:
    """Change what a good file scales by."""
    return but("{type: target_tracking, metric: guest.cpu, target: 60%, across: avg, over: 60s}", entry)


BYTES: dict[str, bytes] = {
    "not UTF-8": b"version: 1\ngroup: caf\xe9\n",
    "a control character": b"version: 1\ngroup: w\x07b\n",
    "too large": b"#" * 200_000,
    "nested too deep": b"version: 1\nscaling: " + b"[" * 50_000,
}

POLICIES: dict[str, str] = {
    # The form of the file
    "empty": "",
    "only a comment": "# nothing yet\n",
    "not a mapping": "- version: 1\n",
    "a bare word": "web\n",
    "a tab": but("  min: 1", "\tmin: 1"),
    "an open brace": but("192MiB, network: default, accelerator: auto}", "192MiB"),
    "an open bracket": but("hosts: [local]", "hosts: [local"),
    "an open quote": but("group: web", 'group: "web'),
    "a value with a colon": but("group: web", "group: web: 1"),
    "a line without a colon": but("mode: active", "mode active"),
    "wrong indentation": but("  max: 4", "   max: 4"),
    "a value that starts with @": but("group: web", "group: @web"),
    "an unknown escape": but("group: web", r'group: "\w"'),
    "an escape of no character": but("group: web", r'group: "\UFFFFFFFF"'),
    "duplicate keys": but("mode: active", "mode: active\ngroup: other\nmode: shadow"),
    "duplicate keys inside": but("vcpus: 1,", "vcpus: 1, vcpus: 2,"),
    "duplicate keys, one quoted": but("mode: active", 'mode: active\n"group": other'),
    "two documents": GOOD + "---\n" + GOOD,
    "anchor and alias": but("mode: active", "mode: &mode active\nwarm_up: *mode"),
    "an alias to nowhere": but("mode: active", "mode: *nowhere"),
    "an unprintable key": but("mode: active", r'"mo\nde": active'),
    "an unprintable key twice": but("mode: active", '"mo\\nde": active\n"mo\\nde": active'),
    "a merge key": but("mode: active", "<<: {mode: active}"),
    "tags": but("group: web", "group: !!python/name:os.system web"),
    "a number as key": but("mode: active", "1: active"),
    "a list as key": but("mode: active", "? [mode]\n: active"),
    "no key": but("mode: active", ": active"),
    # Keys
    "unknown keys, near": but("hosts:", "host:")
    .replace("vcpus", "vcpu")
    .replace("stabilization: 5m", "stabilisation: 5m"),
    "unknown keys, far": but("drain:", "frobnicate:").replace("deadline", "x"),
    "unknown key in a list": but("across: avg", "acros: avg"),
    "missing keys": "scaling: [{target: 60%}]\n",
    "missing keys below": but("pool: default, ", "").replace("  max: 4\n", ""),
    "values left out": but("web", "").replace("mode: active", "mode:").replace("  max: 4", "  max:"),
    "sections left out": but("{agent: true, timeout: 5m}", "").replace("hosts: [local]", "hosts:"),
    "a list with nothing in it": but("hosts: [local]", "hosts:\n  -"),
    "text for a section": but("{deadline: 60s}", "60s"),
    "a list for a section": but("{deadline: 60s}", "[60s]"),
    "a section for a list": but("- {type", "{type"),
    # The life of an instance
    "a gate without its port": but("{agent: true, timeout: 5m}", "{tcp: , timeout: 5m}"),
    "a port that is none": but("{agent: true, timeout: 5m}", "{tcp: 70000, timeout: 5m}"),
    "a path without a slash": but("{agent: true, timeout: 5m}", "{http: {path: healthz}}"),
    "a status that is none": but("{agent: true, timeout: 5m}", "{http: {status: 99}}"),
    "a number that is none": but("metric: guest.cpu, target: 60%", "metric: host.load, target: much"),
    "a figure of a balancer that is not there": but(
        "metric: guest.cpu, target: 60%", "metric: haproxy.queue, target: 5"
    ),
    "traffic of an unknown type": GOOD + "traffic: {type: haprox}\n",
    "traffic without what its type needs": GOOD + "traffic: {type: haproxy, backend: web}\n",
    "traffic with what its type does not take": GOOD + "traffic: {type: webhook, url: 'http://x', path: /x}\n",
    "a socket that is none": GOOD + "traffic: {type: haproxy, socket: admin.sock, backend: web, slots: web}\n",
    "a name that HAProxy would read as more": GOOD
    + "traffic: {type: haproxy, socket: /s, backend: 'web; disable', slots: web}\n",
    "a file without its whole path": GOOD + "traffic: {type: file_sd, path: targets.json}\n",
    "a reload for a shell": GOOD + "traffic: {type: file, template: /t, path: /p, reload: reload now}\n",
    "no weight": GOOD + "traffic: {type: file_sd, path: /p, weight_warming: 0%}\n",
    "more in service than there may be": GOOD + "traffic: {type: file_sd, path: /p, min_in_service: 2}\n",
    "traffic that cannot arrive": but("network: default", "network: user") + "traffic: {type: file_sd, path: /p}\n",
    "a share above all": GOOD + "health: {max_unhealthy: 101%}\n",
    "no failure at all": GOOD + "health: {probe_failures: 0}\n",
    "a budget of nothing": GOOD + "launch: {budget: 0, breaker: -1}\n",
    "a budget as text": GOOD + "launch: {budget: much}\n",
    "a hook of an unknown kind": but("{deadline: 60s}", "{hooks: [{type: shell, run: [true]}]}"),
    "a hook as one text": but("{deadline: 60s}", '{hooks: [{type: command, run: "leave now"}]}'),
    "a hook without its command": but("{deadline: 60s}", "{hooks: [{type: command}]}"),
    "a command with a URL": but("{deadline: 60s}", '{hooks: [{type: agent, run: [leave], url: "http://x"}]}'),
    "a webhook without a URL": but("{deadline: 60s}", "{hooks: [{type: webhook}]}"),
    "a webhook to nowhere": but("{deadline: 60s}", "{hooks: [{type: webhook, url: lb.example}]}"),
    "an order that is none": GOOD + "removal: {order: random}\n",
    "a life shorter than its minimum": GOOD + "removal: {min_lifetime: 2h, max_lifetime: 1h}\n",
    "a life that is no duration": GOOD + "removal: {max_lifetime: always}\n",
    "a batch that is nothing": GOOD + "refresh: {batch: true}\n",
    "a batch of none": GOOD + "refresh: {batch: 0%}\n",
    "a batch of too many": GOOD + "refresh: {batch: 1001}\n",
    "more than all in service": GOOD + "refresh: {min_in_service: 101%}\n",
    "fewer than none in service": GOOD + "refresh: {min_in_service: -1}\n",
    "canaries that are a share": GOOD + "refresh: {canary: 10%}\n",
    "a refresh without time": GOOD + "refresh: {timeout: 1s}\n",
    "a warm-up that is none": but("warm_up: 60s", "warm_up: automatic"),
    "text in a list of sections": but("  - {type", "  - guest.cpu\n  - {type"),
    # Version, group, mode
    "version from the future": but("version: 1", "version: 2"),
    "version as text": but("version: 1", 'version: "1"'),
    "version as fraction": but("version: 1", "version: 1.0"),
    "version as boolean": but("version: 1", "version: true"),
    "group is a number": but("group: web", "group: 1"),
    "group is a quoted number": but("group: web", 'group: "1"'),
    "group with capitals": but("group: web", "group: Web"),
    "group with underscore": but("group: web", "group: web_1"),
    "group too long": but("group: web", "group: " + "w" * 41),
    "group is a section": but("group: web", "group: {name: web}"),
    "group with a line break": but("group: web", r'group: "web\n"'),
    "mode unknown, near": but("mode: active", "mode: Shadows"),
    "mode unknown, far": but("mode: active", "mode: off"),
    "mode is a boolean": but("mode: active", "mode: true"),
    # Hosts
    "host unknown, near": but("[local]", "[locale]"),
    "host unknown, far": but("[local]", "[rack7]"),
    "host not in a list": but("[local]", "local"),
    "no host": but("[local]", "[]"),
    "two hosts": but("[local]", "[local, other]"),
    "host is a number": but("[local]", "[7]"),
    # Image and machine
    "volume with a slash": but("golden.qcow2", "../golden.qcow2"),
    "pool with a dash in front": but("pool: default", "pool: -default"),
    "pool with a dot in front": but("pool: default", "pool: ..."),
    "pool with a space in front": but("pool: default", 'pool: " default"'),
    "pool is empty": but("pool: default", 'pool: ""'),
    "volume with control character": but("golden.qcow2", r'"a\u0007b"'),
    "volume with half a character": but("golden.qcow2", r'"\ud800"'),
    "volume name too long": but("golden.qcow2", "v" * 201),
    "network is a boolean": but("network: default", "network: true"),
    "network is a number": but("network: default", "network: 1e5"),
    "no vcpus": but("vcpus: 1,", "vcpus: 0,"),
    "vcpus as text": but("vcpus: 1,", "vcpus: '1',"),
    "vcpus as fraction": but("vcpus: 1,", "vcpus: 1.5,"),
    "vcpus endless": but("vcpus: 1,", f"vcpus: {'9' * 5000},"),
    "vcpus infinite": but("vcpus: 1,", "vcpus: .inf,"),
    "memory without unit": but("192MiB", "192"),
    "memory with a short unit": but("192MiB", "192M"),
    "memory with a unit in lower case": but("192MiB", "192mib"),
    "memory with an unknown unit": but("192MiB", "192pages"),
    "memory as fraction": but("192MiB", "1.5GiB"),
    "memory too small": but("192MiB", "1MiB"),
    "memory too large": but("192MiB", "5TiB"),
    "memory is a boolean": but("192MiB", "false"),
    "accelerator unknown": but("accelerator: auto", "accelerator: kwm"),
    # Size
    "max below min": but("min: 1", "min: 5"),
    "min below nothing": but("min: 1", "min: -1"),
    "max is zero": but("min: 1", "min: 0").replace("max: 4", "max: 0"),
    "max too large": but("max: 4", "max: 30000"),
    "min zero with scaling by load": but("min: 1", "min: 0"),
    # Scaling
    "strategy unknown": but("target_tracking", "target-tracking"),
    "metric unknown": but("guest.cpu", "guest.cpus"),
    "metric is a list": but("guest.cpu", "[guest.cpu]"),
    "target as fraction": but("60%", "0.6"),
    "target without percent": but("60%", "60"),
    "target is text": but("60%", "most"),
    "target zero": but("60%", "0%"),
    "target too high": but("60%", "101%"),
    "target never reached": but("60%", "95%"),
    "across unknown": but("across: avg", "across: average"),
    "over without unit": but("over: 60s", "over: 60"),
    "over zero": but("over: 60s", "over: 0"),
    "over in base 60": but("over: 60s", "over: 1:30"),
    "over in unknown units": but("over: 60s", "over: 1 minute"),
    "over in wrong order": but("over: 60s", "over: 30s1m"),
    "over with foreign digits": but("over: 60s", "over: \u0666\u0660s"),
    "a target twice": but("  - {type", "  - {type: target_tracking, metric: guest.cpu, target: 50%}\n  - {type"),
    "rules broken together": but("min: 1", "min: 0").replace("60%", "100%"),
    # Signals
    "target in another unit": scaling("{type: target_tracking, metric: guest.net.rx_bytes, target: 60%}"),
    "target of a load is a share": scaling("{type: target_tracking, metric: host.load, target: 60%}"),
    "target of a load is negative": scaling("{type: target_tracking, metric: host.load, target: -1}"),
    "target of a query is zero": scaling("{type: target_tracking, metric: prometheus, query: up, target: 0}"),
    "target infinite": scaling("{type: target_tracking, metric: host.load, target: .inf}"),
    "target of what falls": scaling("{type: target_tracking, metric: host.memory_available, target: 2GiB}"),
    "target of a sum": scaling("{type: target_tracking, metric: guest.cpu, across: sum, target: 60%}"),
    "across one value": scaling("{type: target_tracking, metric: host.cpu, across: max, target: 60%}"),
    "across a percentile too high": scaling("{type: target_tracking, metric: guest.cpu, across: p100, target: 60%}"),
    "take unknown": scaling("{type: target_tracking, metric: guest.cpu, take: sum, target: 60%}"),
    "query missing": scaling("{type: target_tracking, metric: prometheus, target: 60}"),
    "query empty": scaling("{type: target_tracking, metric: prometheus, query: '', target: 60}"),
    "query of a guest": scaling(
        "{type: target_tracking, metric: guest.cpu, query: up, per_instance: true, target: 60%}"
    ),
    "pool of a guest": scaling("{type: target_tracking, metric: guest.cpu, pool: default, target: 60%}"),
    "min zero with a query per instance": scaling(
        "{type: target_tracking, metric: prometheus, query: up, per_instance: true, target: 60}"
    ).replace("min: 1", "min: 0"),
    # Steps
    "steps left out": scaling("{type: step, metric: guest.cpu}"),
    "no steps": scaling("{type: step, metric: guest.cpu, steps: []}"),
    "step of unknown keys": scaling("{type: step, metric: guest.cpu, target: 60%, steps: [{form: 60%, add: 1}]}"),
    "step without bound, without change, with two": scaling(
        "{type: step, metric: guest.cpu, steps: [{add: 1}, {from: 60%}, {to: 20%, remove: 1, exact: 2}]}"
    ),
    "step with bounds of other units": scaling(
        "{type: step, metric: guest.cpu, steps: [{from: 60, add: 1}, {to: 2MiB, remove: 1}, {from: 101%, add: 1}]}"
    ),
    "step from above to": scaling("{type: step, metric: guest.cpu, steps: [{from: 60%, to: 60%, add: 1}]}"),
    "steps overlap": scaling("{type: step, metric: guest.cpu, steps: [{from: 60%, add: 1}, {from: 80%, add: 2}]}"),
    "step adds nothing": scaling("{type: step, metric: guest.cpu, steps: [{from: 60%, add: 0}, {to: 9%, remove: 0%}]}"),
    "step adds a fraction": scaling("{type: step, metric: guest.cpu, steps: [{from: 60%, add: 0.5}]}"),
    "step to more than max": scaling("{type: step, metric: guest.cpu, steps: [{from: 60%, exact: 5}]}"),
    # Thresholds
    "threshold without a line": scaling("{type: threshold, metric: guest.cpu, for: 2m}"),
    "threshold below above": scaling("{type: threshold, metric: guest.cpu, above: 20%, below: 80%}"),
    "threshold in another unit": scaling("{type: threshold, metric: guest.disk.read_ops, above: 20%}"),
    "threshold with duration and samples": scaling(
        "{type: threshold, metric: guest.cpu, above: 80%, for: 2m, samples: 3 of 5}"
    ),
    "threshold of more samples than there are": scaling(
        "{type: threshold, metric: guest.cpu, above: 80%, samples: 6 of 5}"
    ),
    "threshold adds nothing": scaling("{type: threshold, metric: guest.cpu, above: 80%, add: 0}"),
    # Schedules
    "weekdays by number": scaling("{type: schedule, cron: '0 8 * * 1-5', for: 8h, min: 2}"),
    "cron of six fields": scaling("{type: schedule, cron: '0 0 8 * * mon', for: 8h, min: 2}"),
    "cron out of range": scaling("{type: schedule, cron: '0 25 * * mon', for: 8h, min: 2}"),
    "cron of no words": scaling("{type: schedule, cron: '@daily', for: 8h, min: 2}"),
    "cron of a day that never comes": scaling("{type: schedule, cron: '0 8 31 feb *', for: 8h, min: 2}"),
    "time zone unknown, near": scaling(
        "{type: schedule, cron: '0 8 * * mon', timezone: Europe/Berln, for: 8h, min: 2}"
    ),
    "time zone unknown, far": scaling("{type: schedule, cron: '0 8 * * mon', timezone: 7, for: 8h, min: 2}"),
    "schedule without end": scaling("{type: schedule, cron: '0 8 * * mon', min: 2}"),
    "schedule too long": scaling("{type: schedule, cron: '0 8 * * mon', for: 200h, min: 2}"),
    "schedule that changes nothing": scaling("{type: schedule, cron: '0 8 * * mon', for: 8h}"),
    "schedule with max below min": scaling("{type: schedule, cron: '0 8 * * mon', for: 8h, min: 3, max: 2}"),
    "schedule beyond the size": scaling("{type: schedule, cron: '0 8 * * mon', for: 8h, min: 0, max: 5, desired: 9}"),
    # Behaviour and the rest
    "rate without a limit, with two": but(
        "scale_out: {cooldown: 0s", "scale_out: {rate: [{per: 15s}, {count: 4, percent: 100%, per: 15s}], cooldown: 0s"
    ),
    "rate without a period": but("scale_out: {cooldown: 0s", "scale_out: {rate: [{count: 0}], cooldown: 0s"),
    "rate of nothing": but("scale_out: {cooldown: 0s", "scale_out: {rate: [{percent: 0%, per: 15s}], cooldown: 0s"),
    "rates unselected": but("scale_out: {cooldown: 0s", "scale_out: {select: larger, cooldown: 0s"),
    "scale-in off by a word": but("  scale_in: {cooldown: 5m, stabilization: 5m}", "  scale_in: off"),
    "tolerance of a direction too high": but("scale_in: {cooldown: 5m", "scale_in: {tolerance: 100%, cooldown: 5m"),
    "quorum of nobody": but("tolerance: 10%", "tolerance: 10%\n  quorum: 0%"),
    "tolerance too high": but("10%", "100%"),
    "tolerance negative": but("10%", "-10%"),
    "cooldown negative": but("cooldown: 5m", "cooldown: -5m"),
    "cooldown too long": but("cooldown: 5m", "cooldown: 25h"),
    "stabilization too long": but("stabilization: 5m", "stabilization: 61m"),
    "warm-up is a boolean": but("warm_up: 60s", "warm_up: no").replace("agent: true", "agent: yes"),
    "warm-up too long": but("warm_up: 60s", "warm_up: 2h"),
    "agent is a number": but("agent: true", "agent: 1"),
    "agent is a word": but("agent: true", "agent: maybe"),
    "ready timeout zero": but("timeout: 5m", "timeout: 0s"),
    "probes of user-mode networking": but(
        "agent: true, timeout", "tcp: 22, http: {port: 80}, timeout", but("network: default", "network: user")
    ),
    "image by nothing": but("{pool: default, volume: golden.qcow2}", "{}"),
    "image by both": but("{pool: default, volume: golden.qcow2}", "{pool: default, name: web, volume: a}"),
    "image by a version alone": but("{pool: default, volume: golden.qcow2}", "{version: 3}"),
    "version of a volume": but("volume: golden.qcow2}", "volume: golden.qcow2, version: 3}"),
    "image with another name": but("{pool: default, volume: golden.qcow2}", "{name: Web/1}"),
    "image named by a number": but("{pool: default, volume: golden.qcow2}", "{name: 1}"),
    "version zero": but("{pool: default, volume: golden.qcow2}", "{name: web, version: 0}"),
    "version by another word": but("{pool: default, volume: golden.qcow2}", "{name: web, version: newest}"),
    "version is true": but("{pool: default, volume: golden.qcow2}", "{name: web, version: true}"),
    "no pool to look at": scaling("{type: threshold, metric: host.pool_free, below: 20GiB, add: 1}").replace(
        "{pool: default, volume: golden.qcow2}", "{name: web}"
    ),
    "drain deadline too long": but("deadline: 60s", "deadline: 99999h"),
    "everything at once": "version: 3\ngroup: 7\nhots: [x]\nimage: {pool: 1}\nsize: {min: 4, max: 2}\nwarm_up: 60\n",
}

CONFIGS: dict[str, str] = {
    "not a mapping": "[hosts]\n",
    "unknown key": but("policies_dir", "policy_dir", GOOD_CONFIG),
    "webhook to no URL": GOOD_CONFIG + "webhooks: [{url: 7}]\n",
    "webhook to a file": GOOD_CONFIG + "webhooks: [{url: 'file:///etc/passwd'}]\n",
    "webhook with a password": GOOD_CONFIG + "webhooks: [{url: 'https://bob:hunter2@chat/'}]\n",
    "webhook of an unknown event": GOOD_CONFIG + "webhooks: [{url: 'https://chat/', events: [became_redy]}]\n",
    "no hosts": but('\n  local: {uri: "qemu:///system"}', " {}", GOOD_CONFIG),
    "hosts is a list": but('\n  local: {uri: "qemu:///system"}', " [local]", GOOD_CONFIG),
    "host without uri": but('uri: "qemu:///system"', "", GOOD_CONFIG),
    "overcommit as text": but(
        'uri: "qemu:///system"', 'uri: "qemu:///system", overcommit: {vcpus: "16", pool_space: 0.5}', GOOD_CONFIG
    ),
    "host with other keys": but("uri:", "url:", GOOD_CONFIG),
    "host is text": but('{uri: "qemu:///system"}', "qemu:///system", GOOD_CONFIG),
    "host with a slash in its name": but("local:", "a/b:", GOOD_CONFIG),
    "uri of another kind": but("qemu:///system", "xen:///system", GOOD_CONFIG),
    "uri without slashes": but("qemu:///system", "qemu:system", GOOD_CONFIG),
    "uri without a path": but("qemu:///system", "qemu://far", GOOD_CONFIG),
    "uri twice": but("policies_dir", '  again: {uri: "qemu:///system"}\npolicies_dir', GOOD_CONFIG),
    "path is a number": but("policies_dir: policies", "policies_dir: 7", GOOD_CONFIG),
    "path is empty": but("policies_dir: policies", 'policies_dir: ""', GOOD_CONFIG),
    "path with a tilde": but("policies_dir: policies", "policies_dir: ~/policies", GOOD_CONFIG),
    "path left out": but("policies_dir: policies", "policies_dir:", GOOD_CONFIG),
    "path with control character": but("policies_dir: policies", r'policies_dir: "a\0b"', GOOD_CONFIG),
    "socket path too long": but("/run/", f"/{'run' * 40}/", GOOD_CONFIG),
    "listen without port": but(":10177", "", GOOD_CONFIG),
    "listen with a bare port": but("127.0.0.1:10177", "10177", GOOD_CONFIG),
    "listen on port zero": but("10177", "0", GOOD_CONFIG),
    "listen on a port too high": but("10177", "65536", GOOD_CONFIG),
    "listen on a wrong IPv6 address": but("127.0.0.1:10177", '"[::1::]:10177"', GOOD_CONFIG),
    "listen for everybody": but("127.0.0.1", "0.0.0.0", GOOD_CONFIG),
    "listen for everybody by name": but("127.0.0.1", "kvm7.example.org", GOOD_CONFIG),
    "listen publicly is text": but("127.0.0.1:10177", "0.0.0.0:10177\nlisten_publicly: yes", GOOD_CONFIG),
    "interval too short": but("10s", "500ms", GOOD_CONFIG),
    "interval without unit": but("10s", "10", GOOD_CONFIG),
    "workers zero": but("workers: 4", "workers: 0", GOOD_CONFIG),
    "log format unknown": but("format: auto", "format: jason", GOOD_CONFIG),
    "log level unknown": but("level: info", "level: INFORMATION", GOOD_CONFIG),
    "several": but("10s", "10", GOOD_CONFIG)
    .replace("workers: 4", "workers: many")
    .replace("level: info", "level: loud"),
}


def refusal(load: Callable[[], object]) -> str:
    """Give the problems' lines."""
    with pytest.raises(PolicyError) as caught:
        load()
    assert caught.value.problems
    for problem in caught.value.problems:
        assert "\n" not in str(problem)
        assert "Input should" not in problem.message
        assert "Value error" not in problem.message
    return str(caught.value)


def policy_refusals() -> dict[str, str]:
    refusals = {}
    path = Path("policy.yaml")
    contents = {**BYTES, **{name: text.encode() for name, text in POLICIES.items()}}
    for name, content in contents.items():
        path.write_bytes(content)
        refusals[f"policy: {name}"] = refusal(lambda: load_file(path, frozenset({"local", "other"})))
    return refusals


TEMPLATES: dict[str, tuple[str, bytes]] = {
    "a template that is not there": ("{user_data: none}", b""),
    "a template that is not text": ("{user_data: template}", b"#!/bin/sh\n\xff"),
    "a template that is too long": ("{user_data: template}", b"#!" + b"x" * 65_536),
    "a template in a home": ("{user_data: ~/template}", b""),
    "a template that is no path": ("{user_data: 7}", b""),
    "a template that is empty text": ("{user_data: ''}", b""),
    "placeholders that are unknown": ("{user_data: template}", b"#cloud-config\na: '@{instnce}'\nb: @{secret:db}\n"),
    "a placeholder that is open": ("{user_data: template}", b"#!/bin/sh\necho @{instance\n"),
    "user-data of no kind": ("{user_data: template}", b"hostname: x\n"),
    "user-data that is no YAML": ("{user_data: template}", b"#cloud-config\na: b: c\n"),
    "meta-data that is the same for all": ("{meta_data: template}", b"instance-id: '@{group}'\n"),
    "a network-config without keys": ("{network_config: template}", b"dhcp\n"),
    "a secret of a strange name": ("{secrets: {DB: x}}", b""),
    "cloud-init's own key": ("{user-data: template}", b""),
}


def template_refusals() -> dict[str, str]:
    refusals = {}
    path, folder = Path("policy.yaml"), f"{Path.cwd()}/"
    for name, (section, template) in TEMPLATES.items():
        path.write_text(f"{GOOD}cloud_init: {section}\n")
        Path("template").write_bytes(template)
        refusals[f"cloud-init: {name}"] = refusal(lambda: load_file(path)).replace(folder, "")
    return refusals


def config_refusals() -> dict[str, str]:
    refusals = {}
    path = Path("config.yaml")
    for name, text in CONFIGS.items():
        path.write_text(text)
        refusals[f"configuration: {name}"] = refusal(lambda: config.load(path))
    return refusals


def file_refusals() -> dict[str, str]:
    Path("dir.yaml").mkdir()
    Path("loop.yaml").symlink_to("loop.yaml")
    group = Path("group")
    group.mkdir()
    (group / "a.yaml").write_text(GOOD)
    (group / "b.yml").write_text(GOOD)
    (group / "c.yaml").write_text(but("mode: active", "mode: of"))
    (group / "d.yaml").symlink_to("nowhere")
    return {
        "file: missing": refusal(lambda: load_file(Path("none.yaml"))),
        "file: a folder": refusal(lambda: load_file(Path("dir.yaml"))),
        "file: links to itself": refusal(lambda: load_file(Path("loop.yaml"))),
        "file: a name with NUL": refusal(lambda: load_file(Path("a\0b"))).replace("\0", "\\0"),
        "file: does not let itself be read": refusal(lambda: load_file(Path("/proc/self/mem"))),
        "folder: missing": refusal(lambda: load_directory(Path("none"))),
        "folder: a file": refusal(lambda: load_directory(group / "a.yaml")),
        "folder: two policies for a group, a wrong one, a broken link": refusal(lambda: load_directory(group)),
        "configuration: missing": refusal(lambda: config.load(Path("none.yaml"))),
    }


def test_every_problem_reads_as_in_the_golden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refusals = {**policy_refusals(), **template_refusals(), **config_refusals(), **file_refusals()}
    text = "\n".join(f"# {name}\n{lines}\n" for name, lines in refusals.items())
    if os.environ.get(REGENERATE):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), (
        f"if the new texts are meant, run once with {REGENERATE}=1 and look at the difference"
    )


def _templates(source: str) -> Iterator[tuple[int, str]]:
    """Give every message that the source makes an error of: its line, and a regular expression of its fixed parts."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        texts = {
            target.id: node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "WrongValueError":
                first = node.args[0]
                message = texts.get(first.id, first) if isinstance(first, ast.Name) else first
                parts = message.values if isinstance(message, ast.JoinedStr) else [message]
                if isinstance(message, ast.JoinedStr | ast.Constant):
                    fixed = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".*" for p in parts]
                    yield node.lineno, "".join(fixed)


@pytest.mark.parametrize(
    "module", ["values", "model", "scaling", "calendar", "fields", "traffic", "refresh", "cloud_init"]
)
def test_the_golden_file_has_every_error_of_the_policy(module: str) -> None:
    golden = GOLDEN.read_text()
    source = (Path(__file__).parent.parent.parent / "autoscaler" / "policy" / f"{module}.py").read_text()
    templates = list(_templates(source))
    assert templates
    missing = [f"{module}.py:{line}: {text}" for line, text in templates if not re.search(text, golden)]
    assert not missing, "add a file to POLICIES above that is wrong in this way"


def test_the_good_files_are_good(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(GOOD)
    (tmp_path / "config.yaml").write_text(GOOD_CONFIG)
    load_file(tmp_path / "policy.yaml", frozenset({"local"}))
    config.load(tmp_path / "config.yaml")
