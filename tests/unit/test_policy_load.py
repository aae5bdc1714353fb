"""From file to core policy and back."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from autoscaler import config
from autoscaler.core.errors import PolicyError
from autoscaler.core.metrics import METRICS
from autoscaler.core.policy import (
    IMAGE_NAME,
    Accelerator,
    Behavior,
    CloudInit,
    DirectionLimits,
    Drain,
    Health,
    Hook,
    HookKind,
    HttpCheck,
    Image,
    Launch,
    Machine,
    Mode,
    Policy,
    Rate,
    Ready,
    Removal,
    RemovalOrder,
    Schedule,
    Secret,
    Select,
    Size,
    Starved,
    Step,
    StepScaling,
    TargetTracking,
    Template,
    ThresholdScaling,
    Traffic,
    TrafficKind,
    WhenDown,
)
from autoscaler.policy.load import load_directory, load_file, load_files, schema, show
from autoscaler.policy.model import PolicyFile, RateSection, to_core, to_data
from autoscaler.policy.scaling import (
    ScheduleSection,
    StepScalingSection,
    TargetTrackingSection,
    ThresholdSection,
    read_figure,
    write_figure,
)
from autoscaler.policy.validate import Section, validate
from autoscaler.policy.values import read_duration, read_share, read_size, write_duration, write_share, write_size
from autoscaler.policy.yaml_reader import read, resolve
from tests.unit.test_policy_errors import GOOD, but

SWITCHED_OFF = frozenset(
    {
        *(f"image.{key}" for key in ("pool", "volume", "name", "version")),
        *(f"ready.{key}" for key in ("tcp", "http.port", "http.path", "http.status")),
        "drain.idle",
        *(f"drain.hooks[].{key}" for key in ("type", "run", "url", "deadline")),
        *(f"traffic.{key}" for key in ("type", "port", "socket", "backend", "slots", "template", "path", "reload")),
        *(f"traffic.{key}" for key in ("url", "weight_warming", "drain.deadline", "unhealthy", "when_down")),
        "traffic.min_in_service",
        *(f"cloud_init.{key}" for key in ("user_data", "meta_data", "network_config", "secrets")),
    }
)
"""Keys that switch something on by being there."""

ROOT = Path(__file__).parent.parent.parent
MINIMAL = "version: 1\ngroup: web\nimage: {pool: default, volume: golden.qcow2}\nsize: {min: 2, max: 4}\n"


def parse(text: str) -> Policy:
    return to_core(validate(read(text.encode(errors="surrogatepass"), "policy.yaml"), PolicyFile))


def test_everything_arrives() -> None:
    text = """\
version: 1
group: db-2
hosts: [rack7]
mode: shadow
image: {pool: "1", volume: a b.qcow2}
machine: {vcpus: 3, memory: 1GB, network: user, accelerator: tcg, hugepages: true}
size: {min: 2, max: 9}
scaling:
  - {type: target_tracking, metric: guest.cpu, target: 62.5%, across: max, over: 90s}
  - {type: target_tracking, metric: guest.cpu, target: 50%}
behavior:
  tolerance: 5%
  scale_out: {cooldown: 1m, stabilization: 500ms}
  scale_in: {cooldown: 1h30m}
warm_up: 0
ready: {agent: false, timeout: 1h}
drain: {deadline: 2m}
priority: 80
starved: alarm
"""
    assert parse(text) == Policy(
        group="db-2",
        hosts=("rack7",),
        mode=Mode.SHADOW,
        image=Image("1", "a b.qcow2"),
        machine=Machine(3, 10**9, "user", Accelerator.TCG, hugepages=True),
        size=Size(2, 9),
        scaling=(
            TargetTracking("guest.cpu", 0.625, across="max", over_seconds=90.0),
            TargetTracking("guest.cpu", 0.5, across="avg", over_seconds=60.0),
        ),
        behavior=Behavior(0.05, DirectionLimits(60.0, 0.5), DirectionLimits(5400.0, 300.0)),
        warm_up_seconds=0.0,
        ready=Ready(agent=False, timeout_seconds=3600.0),
        drain=Drain(120.0),
        priority=80,
        starved=Starved.ALARM,
    )


def test_what_is_left_out_is_as_in_the_core() -> None:
    assert parse(MINIMAL) == Policy("web", Image("default", "golden.qcow2"), Size(2, 4))


@pytest.mark.parametrize(
    ("section", "image"),
    [
        ("{name: web}", Image("", "", "web")),
        ("{name: web, version: latest}", Image("", "", "web")),
        ("{name: web-2.1_b, version: 12}", Image("", "", "web-2.1_b", 12)),
    ],
)
def test_an_image_may_be_followed_by_its_name(section: str, image: Image) -> None:
    policy = parse(but("{pool: default, volume: golden.qcow2}", section, MINIMAL))
    assert policy.image == image
    assert not policy.image.found


def test_none_may_run_where_nothing_scales_by_load() -> None:
    assert parse(but("min: 2", "min: 0", MINIMAL)).size == Size(0, 4)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1h1s", 3601),
        ("500ms", 0.5),
        ("1m500ms", 60.5),
        (0, 0),
        ("0m", 0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert read_duration(text) == seconds
    assert read_duration(write_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "s", "m5", "5 m", "5M", "1.5h", "5m ", "5min", "1s1s", "-1s", None, True, [], 1])
def test_wrong_durations(text: object) -> None:
    with pytest.raises(ValueError, match=r"duration|unit"):
        read_duration(text)


@given(st.integers(0, 10**9 - 1))
@settings(derandomize=True, deadline=None)
def test_every_duration_is_written_as_it_is_read(milliseconds: int) -> None:
    assert read_duration(write_duration(milliseconds / 1000)) == milliseconds / 1000


@given(st.decimals(0, 100, places=7))
@settings(derandomize=True, deadline=None)
def test_every_share_is_written_as_it_is_read(percent: object) -> None:
    share = read_share(f"{percent:f}%")
    assert read_share(write_share(share)) == share


@given(st.integers(0, 10**15))
@settings(derandomize=True, deadline=None)
def test_every_size_is_written_as_it_is_read(size: int) -> None:
    assert read_size(write_size(size)) == size


_names = st.from_regex(
    r"[A-Za-z0-9_:~%#é][A-Za-z0-9_:~%#é' +e.-]{0,6}[A-Za-z0-9_:%]", fullmatch=True
) | st.sampled_from(
    [
        "1",
        "1e5",
        "0o17",
        "0x1F",
        "1:30",
        "on",
        "no",
        "true",
        "null",
        "~",
        "=",
        "<<",
        "2024-01-01",
        "x" * 200,
        "a b " * 40 + "c",
    ]
)
_seconds = st.integers(1000, 3_600_000).map(lambda milliseconds: milliseconds / 1000)
_counts = st.integers(1, 9)
_shares = st.integers(1, 2000).map(lambda n: n / 1000)
_rates = st.builds(Rate, _seconds, count=_counts) | st.builds(Rate, _seconds, share=_shares)
_limits = st.builds(
    DirectionLimits,
    _seconds,
    _seconds,
    st.booleans(),
    st.lists(_rates, max_size=2).map(tuple),
    st.sampled_from(Select),
    st.none() | st.integers(0, 99).map(lambda n: n / 100),
)
_over_guests = {"metric": st.just("guest.cpu"), "across": st.sampled_from(["avg", "max", "min", "p95"])}
_elsewhere: list[dict[str, st.SearchStrategy[Any]]] = [
    {"metric": st.just("host.load")},
    {"metric": st.just("host.pool_free"), "pool": _names},
    {"metric": st.just("prometheus"), "query": _names, "per_instance": st.booleans()},
    {"metric": st.just("guest.disk.write_ops"), "across": st.just("sum")},
]
_windows: dict[str, st.SearchStrategy[Any]] = {
    "over_seconds": _seconds,
    "take": st.sampled_from(["avg", "max", "last", "p5"]),
}
_bytes = st.integers(0, 2**50).map(float)


def _steps(bounds: list[float], amounts: list[dict[str, Any]]) -> tuple[Step, ...]:
    return tuple(Step(low, high, **by) for (low, high), by in zip(pairwise(bounds), amounts, strict=False))


def _amounts() -> st.SearchStrategy[dict[str, Any]]:
    sign = st.sampled_from([1, -1])
    return (
        st.builds(lambda sign, n: {"change": sign * n}, sign, _counts)
        | st.builds(lambda sign, share: {"percent": sign * share}, sign, _shares)
        | st.builds(lambda: {"exact": 1})
    )


def _of_any_kind(where: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    bounds = st.lists(_bytes, min_size=2, max_size=4, unique=True).map(sorted)
    steps = st.builds(_steps, bounds, st.lists(_amounts(), min_size=3, max_size=3))
    for_steps = st.builds(StepScaling, steps=steps, **where, **_windows)
    lines = st.builds(lambda one, other: (max(one, other), min(one, other)), _bytes, _bytes)
    samples = st.none() | st.tuples(_counts, _counts).map(sorted)
    for_lines = st.builds(
        lambda lines, samples, over, add, where: ThresholdScaling(
            above=lines[0],
            below=lines[1],
            add=add,
            over_seconds=over if samples is None else 60.0,
            breaches=samples and samples[0],
            samples=samples and samples[1],
            **where,
        ),
        lines,
        samples,
        _seconds,
        _counts,
        st.fixed_dictionaries(where),
    )
    return for_steps | for_lines


_schedules = st.builds(
    Schedule,
    st.sampled_from(["0 8 * * mon-fri", "*/5 * 1 jan,feb *"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    _seconds,
    desired=st.just(1),
)
_trackings = st.builds(TargetTracking, target=st.integers(1, 499).map(lambda n: n / 1000), **_over_guests, **_windows)
_strategies = st.lists(
    st.one_of(_trackings, _schedules, *map(_of_any_kind, _elsewhere)),
    unique_by=lambda strategy: replace(strategy, target=1.0) if isinstance(strategy, TargetTracking) else strategy,
    max_size=4,
).map(tuple)
_hooks = st.builds(
    Hook, st.sampled_from([HookKind.COMMAND, HookKind.AGENT]), st.just(("leave", "now")), deadline_seconds=_seconds
) | st.builds(Hook, st.just(HookKind.WEBHOOK), url=st.just("https://lb.example/drain"), deadline_seconds=_seconds)
_shared_traffic = {
    "port": st.integers(1, 65535),
    "weight_warming": st.integers(1, 100).map(lambda n: n / 100),
    "drain_seconds": _seconds,
    "when_down": st.sampled_from(WhenDown),
    "min_in_service": st.none() | st.just(0),
}
_traffic = st.one_of(
    st.builds(
        Traffic,
        st.just(TrafficKind.HAPROXY),
        socket=st.sampled_from(["/run/haproxy/admin.sock", "127.0.0.1:9999", "[::1]:9999"]),
        backend=st.sampled_from(["web", "be_1.x:y"]),
        slots=st.just("web"),
        unhealthy=st.booleans(),
        **_shared_traffic,
    ),
    st.builds(
        Traffic,
        st.just(TrafficKind.FILE),
        template=st.just("/etc/web.template"),
        path=st.just("/etc/web.conf"),
        reload=st.sampled_from([(), ("/usr/sbin/nginx", "-s", "reload")]),
        **_shared_traffic,
    ),
    st.builds(Traffic, st.just(TrafficKind.FILE_SD), path=st.just("/srv/web.json"), **_shared_traffic),
    st.builds(Traffic, st.just(TrafficKind.WEBHOOK), url=st.just("https://lb.example/web"), **_shared_traffic),
)
_policies = st.builds(
    Policy,
    group=st.from_regex(r"[a-z][a-z0-9-]{0,39}", fullmatch=True),
    image=st.one_of(
        st.builds(Image, _names, _names),
        st.builds(
            Image,
            st.just(""),
            st.just(""),
            st.from_regex(IMAGE_NAME.removesuffix("$"), fullmatch=True),
            st.none() | st.integers(1, 10**6),
        ),
    ),
    size=st.builds(Size, st.just(1), st.integers(1, 1000)),
    hosts=st.tuples(_names),
    mode=st.sampled_from(Mode),
    machine=st.builds(
        Machine, st.integers(1, 256), st.integers(2**24, 2**42), _names, st.sampled_from(Accelerator)
    ),
    scaling=_strategies,
    behavior=st.builds(
        Behavior,
        st.integers(0, 99).map(lambda n: n / 100),
        _limits,
        _limits,
        st.integers(1, 100).map(lambda n: n / 100),
    ),
    warm_up_seconds=_seconds,
    warm_up_auto=st.just(False),
    ready=st.builds(
        Ready,
        st.booleans(),
        st.booleans(),
        st.none() | st.integers(1, 65535),
        st.none() | st.builds(HttpCheck, st.integers(1, 65535), st.just("/healthz"), st.integers(100, 599)),
        _seconds,
    ),
    health=st.builds(Health, st.integers(1, 1000), _seconds, st.integers(0, 100).map(lambda n: n / 100)),
    launch=st.builds(Launch, st.integers(0, 1000), st.none() | st.integers(1, 100_000)),
    drain=st.builds(
        Drain,
        _seconds,
        st.none() | st.integers(0, 100).map(lambda n: n / 100),
        _seconds,
        st.lists(_hooks, max_size=2).map(tuple),
    ),
    removal=st.builds(
        Removal, st.sampled_from(RemovalOrder), st.just(0.0), st.none() | st.integers(60, 86400).map(float)
    ),
    traffic=st.none() | _traffic,
)  # fmt: skip


@given(_policies)
@settings(derandomize=True, deadline=None)
def test_what_is_shown_loads_back(policy: Policy) -> None:
    assert parse(show(policy)) == policy


def test_show_writes_every_key() -> None:
    shown = yaml.safe_load(show(parse(GOOD)))
    assert _own(_leaves(shown)) - SWITCHED_OFF == _always_there("## Keys") - SWITCHED_OFF
    (entry,) = shown["scaling"]
    assert set(entry) == _always_there("### target_tracking") - {"per_instance"}


EVERY_GATE_AND_HOOK = """\
ready: {tcp: 80, http: {port: 8080, path: /healthz, status: 204}, address: true}
drain:
  idle: 5%
  hooks:
    - {type: command, run: [/usr/local/bin/leave, now]}
    - {type: webhook, url: "https://lb.example/drain", deadline: 5s}
    - {type: agent, run: [/sbin/leave]}
"""


EVERY_TRAFFIC = (
    "traffic: {type: haproxy, socket: /run/s, backend: web, slots: web, min_in_service: 1}\n",
    "traffic: {type: file, template: /t, path: /p, reload: [nginx, -s, reload]}\n",
    "traffic: {type: webhook, url: 'https://lb.example/web'}\n",
)


_TEMPLATE = Template("/t", "")
EVERY_TEMPLATE = CloudInit(_TEMPLATE, _TEMPLATE, _TEMPLATE, (Secret("db", "/p"),))


def test_show_writes_what_is_switched_on() -> None:
    policy = parse(MINIMAL + EVERY_GATE_AND_HOOK)
    assert policy.ready == Ready(True, True, 80, HttpCheck(8080, "/healthz", 204))
    assert policy.drain.hooks == (
        Hook(HookKind.COMMAND, ("/usr/local/bin/leave", "now")),
        Hook(HookKind.WEBHOOK, url="https://lb.example/drain", deadline_seconds=5.0),
        Hook(HookKind.AGENT, ("/sbin/leave",)),
    )
    hooks = policy.drain.hooks
    shown = {
        leaf
        for each in hooks
        for leaf in _leaves(yaml.safe_load(show(replace(policy, drain=replace(policy.drain, hooks=(each,))))))
    }
    for text in EVERY_TRAFFIC:
        shown |= set(_leaves(yaml.safe_load(show(parse(MINIMAL + text)))))
    shown |= set(_leaves(to_data(replace(policy, cloud_init=EVERY_TEMPLATE))))
    shown |= set(
        _leaves(yaml.safe_load(show(parse(but("{pool: default, volume: golden.qcow2}", "{name: a}", MINIMAL)))))
    )
    assert {leaf.replace("secrets.db", "secrets") for leaf in shown} >= SWITCHED_OFF


def test_the_warm_up_may_follow_the_launches() -> None:
    policy = parse(MINIMAL + "warm_up: auto\n")
    assert (policy.warm_up_auto, policy.warm_up_seconds) == (True, 60.0)
    assert yaml.safe_load(show(policy))["warm_up"] == "auto"


_FRAGMENTS = st.sampled_from(
    ["\t", "\n", " ", ":", ": ", "- ", "[", "]", "{", "}", ",", "#", "&a ", "*a", "!!int ", "'", '"', "\\", "|", ">",
     "%", "?", "---\n", "...\n", "0", "-", "1e5", "null", "~", "true", "\0", "\x85", "\u2028", "\ufeff", "é",
     "\ud800", '"\\ud800"', "<<"]
)  # fmt: skip


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.sampled_from([0, 0, 1, 1, 2, 5, 30])))
        text = text[:start] + draw(_FRAGMENTS | st.just("") | st.text(max_size=3)) + text[end:]
    return text


def _judge(text: str) -> None:
    """Accept a policy, or problems that stand in one line each, within the file; anything else fails."""
    try:
        policy = parse(text)
    except PolicyError as error:
        problems = error.problems
    else:
        assert parse(show(policy)) == policy
        return
    assert problems
    for problem in problems:
        assert len(str(problem).splitlines()) == 1
        assert 1 <= problem.line <= len(text.splitlines()) + 1
        assert not re.search(r"Input should|Value error|pydantic", problem.message)


@given(_mutated())
@settings(derandomize=True, deadline=None, max_examples=300)
def test_a_damaged_file_is_a_policy_or_a_policy_error(text: str) -> None:
    _judge(text)


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["60%", "5m", "1GiB", "local"])
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def _paths(data: object, path: tuple[int | str, ...] = ()) -> list[tuple[int | str, ...]]:
    below = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(deeper for key, value in below for deeper in _paths(value, (*path, key)))]


@given(st.data())
@settings(derandomize=True, deadline=None, max_examples=150)
def test_any_value_at_any_key_is_a_policy_or_a_policy_error(data: st.DataObject) -> None:
    document = read(GOOD.encode(), "policy.yaml").data
    path = data.draw(st.sampled_from(_paths(document)[1:]))
    node: object = document
    for step in path[:-1]:
        assert isinstance(node, dict | list)
        node = node[step]  # type: ignore[index] # a list's steps are indices, a mapping's are keys
    assert isinstance(node, dict | list)
    node[path[-1]] = data.draw(_VALUES)  # type: ignore[index] # as above
    _judge(yaml.safe_dump(document, allow_unicode=True))


def test_a_folder_is_read_whole_and_sorted_by_group(tmp_path: Path) -> None:
    for name, group in (
        ("b.yaml", "alpha"),
        ("a.yml", "beta"),
        (".hidden.yaml", "x"),
        ("c.yaml~", "y"),
        ("README", "z"),
    ):
        (tmp_path / name).write_text(but("group: web", f"group: {group}", MINIMAL))
    assert [policy.group for policy in load_directory(tmp_path)] == ["alpha", "beta"]


def test_an_empty_folder_has_no_policies(tmp_path: Path) -> None:
    assert load_directory(tmp_path, frozenset({"local"})) == ()


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(MINIMAL)
    assert load_files([path, path]) == (load_file(path),)


def test_the_group_of_a_wrong_file_counts_too(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(but("version: 1", "version: 2", MINIMAL))
    (tmp_path / "b.yaml").write_text(MINIMAL)
    with pytest.raises(PolicyError) as caught:
        load_directory(tmp_path)
    assert [(Path(problem.file).name, problem.line) for problem in caught.value.problems] == [
        ("a.yaml", 1),
        ("b.yaml", 2),
    ]


def test_hosts_are_checked_only_where_they_are_known(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(MINIMAL + "hosts: [rack7]\n")
    assert load_file(path).host == "rack7"
    with pytest.raises(PolicyError, match="no host 'rack7'"):
        load_file(path, frozenset({"local"}))


@pytest.mark.parametrize("path", sorted((ROOT / "policies").glob("*.yaml")), ids=lambda path: path.name)
def test_the_policies_that_come_along_are_right(path: Path) -> None:
    load_file(path, frozenset({"local"}))


def test_the_example_shows_every_key() -> None:
    example = yaml.safe_load((ROOT / "policies" / "web.yaml").read_text())
    assert _own(_leaves(example)) - SWITCHED_OFF == _always_there("## Keys") - SWITCHED_OFF


def _documented(heading: str, page: str = "policies.md") -> dict[str, str]:
    """Give the keys of a table in the reference, with the default as it stands there."""
    text = (ROOT / "docs" / page).read_text().split(f"\n{heading}\n")[1]
    section = re.split(r"\n###? ", text)[0]
    return dict(re.findall(r"^\| `([\w.\[\]]+)` \| (.+?) \| ", section, re.MULTILINE))


def _always_there(heading: str) -> set[str]:
    """Name the documented keys that have a value in every policy."""
    return {key for key, default in _documented(heading).items() if default != "`none`"}


def _own(leaves: list[str]) -> set[str]:
    """Leave out what lists hold whose entries have a table of their own."""
    return {re.sub(r"(?<=scaling)\[\].*", "", leaf) for leaf in leaves}


def _leaves(data: object, path: str = "") -> list[str]:
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in _leaves(value, f"{path}.{key}" if path else key)]
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return _leaves(data[0], f"{path}[]")
    return [path]


_TOLD_APART = ("scaling", "rate")
"""Lists whose entries have a table of their own."""


def _of_optional(part: dict[str, Any], whole: dict[str, object], path: str) -> dict[str, str]:
    """Give the leaves of what is switched off by being left out."""
    sections = [choice for choice in part.get("anyOf", ()) if "$ref" in choice]
    return _defaults(sections[0], whole, path) if sections else {path: "`none`"}


def _defaults(part: dict[str, object], whole: dict[str, object], path: str = "") -> dict[str, str]:
    """Give every leaf of a schema, with its default as the reference writes it."""
    reference = part.get("$ref")
    if isinstance(reference, str):
        definitions = whole["$defs"]
        assert isinstance(definitions, dict)
        found = {**definitions[reference.removeprefix("#/$defs/")], **part}
        found.pop("$ref")
        return _defaults(found, whole, path)
    items, properties = part.get("items"), part.get("properties")
    if isinstance(items, dict) and "$ref" in items and "default" not in part:
        return _defaults(items, whole, f"{path}[]")
    if not isinstance(properties, dict):
        default = part.get("default")
        if isinstance(default, list):
            listed = isinstance(items, dict) and "$ref" in items and not path.endswith(_TOLD_APART)
            below = _defaults(items, whole, f"{path}[]") if listed and isinstance(items, dict) else {}
            return {path: f"`[{', '.join(default)}]`", **below}
        if default is None and "default" in part:
            return _of_optional(part, whole, path)
        text = str(default).lower() if isinstance(default, bool | None) else str(default)
        return {path: f"`{text}`" if "default" in part else "required"}
    leaves: dict[str, str] = {}
    for key, below in properties.items():
        leaves |= _defaults(below, whole, f"{path}.{key}" if path else key)
    return leaves


def test_the_reference_tells_every_key_and_default() -> None:
    assert _documented("## Keys") == _defaults(schema(), schema())


@pytest.mark.parametrize(
    ("heading", "section"),
    [
        ("### target_tracking", TargetTrackingSection),
        ("### step", StepScalingSection),
        ("### threshold", ThresholdSection),
        ("### schedule", ScheduleSection),
        ("## Rates", RateSection),
    ],
)
def test_the_reference_tells_every_key_of_what_lists_hold(heading: str, section: type[Section]) -> None:
    assert _documented(heading) == _defaults(section.model_json_schema(), section.model_json_schema())


def test_the_reference_tells_every_metric() -> None:
    text = (ROOT / "docs" / "policies.md").read_text().split("\n## Metrics\n")[1].split("\n\n")[0].strip()
    rows = [line.split(" | ")[:2] for line in text.splitlines()[2:]]
    written = {name: example.strip("`") for names, example in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert set(written) == set(METRICS)
    for name, example in written.items():
        assert write_figure(read_figure(resolve(example), name), name) == resolve(example)


def test_the_reference_tells_every_key_of_the_configuration() -> None:
    assert set(_documented("## Keys", "configuration.md")) == _keys(config.ConfigFile)


def test_the_reference_tells_every_default_of_the_configuration(tmp_path: Path) -> None:
    """What is written out as the reference has it is read as if nothing had been written."""
    tree: dict[str, Any] = {"prometheus": {"url": "http://127.0.0.1:9090"}}
    for key, default in _documented("## Keys", "configuration.md").items():
        name, _, value = default.rpartition(": ")
        if value.startswith("`") and "[]" not in key:
            *above, last = key.replace("NAME", name.strip("`") or "local").split(".")
            section = tree
            for part in above:
                section = section.setdefault(part, {})
            section[last] = yaml.safe_load(value.strip("`"))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert len(tree) >= 11
    empty = tmp_path / "empty.yaml"
    empty.touch()
    prometheus = config.PrometheusServer("http://127.0.0.1:9090")
    assert config.load(path) == replace(config.load(empty), prometheus=prometheus)


def _keys(section: type[BaseModel], path: str = "") -> set[str]:
    """Name every leaf of a section; a mapping by names has NAME in its path, a list []."""
    known: set[str] = set()
    for name, field in section.model_fields.items():
        inner, below = field.annotation, f"{path}{name}"
        if get_origin(inner) is dict:
            inner, below = get_args(inner)[1], f"{below}.NAME"
        # A section that may be left out is one of two types.
        types = (inner, *get_args(inner))
        sections = [each for each in types if isinstance(each, type) and issubclass(each, BaseModel)]
        if get_origin(inner) is list:
            known.add(below)
            below = f"{below}[]"
        known |= {key for each in sections for key in _keys(each, f"{below}.")} or {below.removesuffix("[]")}
    return known
