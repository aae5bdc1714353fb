"""Writes the dashboards beside this file, as JSON to import into Grafana: `make generate`."""

import json
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard, DashboardLink, Row
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType

from deploy.grafana.parts import ALARM, Marks, figure, graph, rows, source_variable, spans, stacked, variable

HERE = Path(__file__).resolve().parent
OVERVIEW, GROUP = "autoscaler-overview", "autoscaler-group"
RATIO = "percentunit"
LATE = ((None, "green"), (2, "yellow"), (3, "red"))
READY = ', state="ready"'
SIZES = ("min", "max", "recommended", "desired", "admitted")
HOLDS = "scale_out_limited_by_max|refused_for_.+|yields_to_group|held_by_breaker|held_by_launch_backoff|starved"
"""The reasons that keep a group smaller than its load calls for."""


def overview() -> Dashboard:
    """Show whether anything is wrong, then all groups, launches, hosts and the daemon itself."""
    board = _dashboard(OVERVIEW, "Autoscaler: overview", "All groups and hosts: is anything wrong, and where?")
    board.with_variable(variable("host", "Host", "label_values(autoscaler_libvirt_connected, host)", many=True))
    _marks(board, "")
    _wrong(board)
    _groups(board)
    _launches(board, "", "{{group}}")
    _hosts(board)
    _daemon(board)
    return board


def group() -> Dashboard:
    """Show one group: why it has the size it has, its instances, launches, room and traffic."""
    board = _dashboard(GROUP, "Autoscaler: group", "One group: why has it the size it has, and what comes of it?")
    board.with_variable(variable("group", "Group", "label_values(autoscaler_group_managed, group)", many=False))
    mine = ', group="$group"'
    _marks(board, mine)
    _state(board, mine)
    _decision(board, mine)
    _instances(board, mine)
    _launches(board, mine, "")
    _room(board, mine)
    _traffic(board, mine)
    return board


def _dashboard(uid: str, title: str, about: str) -> Dashboard:
    others = DashboardLink("Autoscaler").type(DashboardLinkType.DASHBOARDS).tags(["autoscaler"])
    board = Dashboard(title).uid(uid).description(about).tags(["autoscaler"]).refresh("10s").time("now-1h", "now")
    board.timezone("browser").tooltip(DashboardCursorSync.CROSSHAIR)
    board.with_variable(source_variable())
    board.with_variable(variable("daemon", "Daemon", "label_values(autoscaler_build_info, instance)", many=True))
    return board.link(others.include_vars(True).keep_time(True))


def _of(family: str, more: str = "") -> str:
    """Select a family's series of the chosen daemons."""
    return f'{family}{{instance=~"$daemon"{more}}}'


def _marks(board: Dashboard, mine: str) -> None:
    scaled = _of("autoscaler_last_scaling_timestamp_seconds", mine)
    board.annotation(Marks("Scaled", scaled, "{{group}} scaled {{direction}}", "{{reason}}", "blue"))
    reload = _of("autoscaler_policy_reload_timestamp_seconds")
    board.annotation(Marks("Policies read", reload, "policies read", "{{instance}}", "purple"))
    start = _of("autoscaler_start_time_seconds")
    board.annotation(Marks("Daemon started", start, "daemon started", "{{instance}}", "orange"))


def _wrong(board: Dashboard) -> None:
    board.with_row(Row("Is anything wrong?"))
    behind = f"(time() - {_of('autoscaler_last_success_timestamp_seconds')})"
    late = f"max({behind} / {_of('autoscaler_tick_interval_seconds')})"
    board.with_panel(
        figure("Last tick", "Intervals since a tick last finished: above 3 it does not tick.", late, steps=LATE)
    )
    out = f"sum(1 - {_of('autoscaler_libvirt_connected')})"
    board.with_panel(
        figure("Hosts out of reach", "Hosts whose libvirt does not answer; their groups are held.", out, steps=ALARM)
    )
    held = _of("autoscaler_group_reason", f', reason=~"{HOLDS}"')
    board.with_panel(
        figure(
            "Groups held back",
            "Groups smaller than their load calls for.",
            f"count(count by (instance, group) ({held})) or vector(0)",
            steps=ALARM,
        )
    )
    lost = f"sum(increase({_of('autoscaler_launch_failures_total')}[1h]))"
    board.with_panel(figure("Launches lost, 1 h", "Instances lost before they ever were ready.", lost, steps=ALARM))
    refused = f"sum({_of('autoscaler_policy_reload_success')} == bool 0)"
    board.with_panel(
        figure("Reloads refused", "Daemons whose policy files were wrong when last read.", refused, steps=ALARM)
    )
    ready = f"sum({_of('autoscaler_group_instances', READY)})"
    board.with_panel(figure("Instances ready", "Instances of all groups that are ready.", ready))


def _groups(board: Dashboard) -> None:
    board.with_row(Row("Groups"))
    pressure = f"max by (group) ({_load()} / {_target()})"
    columns = [
        ("ready", f"sum by (group) ({_of('autoscaler_group_instances', READY)})"),
        ("admitted", f"sum by (group) ({_of('autoscaler_group_size_admitted')})"),
        ("desired", f"sum by (group) ({_of('autoscaler_group_size_desired')})"),
        ("min", f"sum by (group) ({_of('autoscaler_group_size_min')})"),
        ("max", f"sum by (group) ({_of('autoscaler_group_size_max')})"),
        ("load / target", pressure),
        ("more would fit", f"sum by (group) ({_of('autoscaler_group_fitting')})"),
        ("paused", f"max by (group) ({_of('autoscaler_group_paused')})"),
        ("scaled, s ago", f"time() - max by (group) ({_of('autoscaler_last_scaling_timestamp_seconds')})"),
    ]
    link = f"/d/{GROUP}?var-group=${{__data.fields.group}}&${{datasource:queryparam}}&${{__url_time_range}}"
    board.with_panel(rows("Groups", "Each group now; its name leads to its own dashboard.", "group", columns, link))
    admitted = _of("autoscaler_group_size_admitted")
    board.with_panel(graph("Size", "What each group is moved toward.", [("{{group}}", admitted)]))
    about = "Above 100 % a group has more load than its policy aims at; of several metrics the one that presses most."
    board.with_panel(graph("Load against target", about, [("{{group}}", pressure)], RATIO))
    reasons = _of("autoscaler_group_reason")
    about = "What made each size what it is: limits, or what was called for where none applied."
    board.with_panel(spans("What decides", about, "{{group}}: {{reason}}", reasons, width=24))


def _state(board: Dashboard, mine: str) -> None:
    board.with_row(Row("What is it doing?"))
    for title, about, family in (
        ("Ready", "Instances that are ready.", f"sum({_of('autoscaler_group_instances', READY + mine)})"),
        ("Admitted", "What the group is moved toward.", f"sum({_of('autoscaler_group_size_admitted', mine)})"),
        ("Maximum", "The policy's upper bound.", f"sum({_of('autoscaler_group_size_max', mine)})"),
    ):
        board.with_panel(figure(title, about, family, width=3))
    pressure = f"max({_load(mine)} / {_target(mine)})"
    steps = ((None, "green"), (1, "yellow"), (1.5, "red"))
    board.with_panel(
        figure("Load / target", "Of several metrics the one that presses most.", pressure, RATIO, steps, 3)
    )
    ago = f"time() - max({_of('autoscaler_last_scaling_timestamp_seconds', mine)})"
    board.with_panel(figure("Last scaled, ago", "Since the daemon started.", ago, "s", width=3))
    stopped = f"max({_of('autoscaler_group_breaker_open', mine)} + {_of('autoscaler_group_paused', mine)})"
    about = "1 while launches are stopped by the breaker, or the group is paused."
    board.with_panel(figure("Stopped", about, stopped, steps=ALARM, width=3))
    starved = f"max({_of('autoscaler_group_starved', mine)})"
    board.with_panel(figure("Starved", "1 while its guests get too little CPU.", starved, steps=ALARM, width=3))
    lost = f"sum(increase({_of('autoscaler_launch_failures_total', mine)}[1h]))"
    board.with_panel(figure("Launches lost, 1 h", "Lost before they ever were ready.", lost, steps=ALARM, width=3))


def _decision(board: Dashboard, mine: str) -> None:
    board.with_row(Row("Why has it this size?"))
    sizes = [(name, _of(f"autoscaler_group_size_{name}", mine)) for name in SIZES]
    board.with_panel(graph("Size", "From what the load calls for to what the hosts grant.", sizes))
    loads = [("{{metric}}", _load(mine)), ("target of {{metric}}", _target(mine))]
    board.with_panel(graph("Load and target", "The load over the policy's window, in the metric's own unit.", loads))
    reasons = _of("autoscaler_group_reason", mine)
    about = "What made the size what it is: limits, or what was called for where none applied."
    board.with_panel(spans("What decides", about, "{{reason}}", reasons))
    ages = [("{{metric}}", _of("autoscaler_group_load_age_seconds", mine))]
    board.with_panel(graph("Age of the load", "How old the newest sample was at each tick.", ages, "s"))


def _instances(board: Dashboard, mine: str) -> None:
    board.with_row(Row("Instances"))
    states = [("{{state}}", f"sum by (state) ({_of('autoscaler_group_instances', mine)})")]
    board.with_panel(stacked("Instances by state", "In any state, clones under way too.", states))
    loads = [("{{exported_instance}}", _of("autoscaler_instance_load_ratio", mine))]
    board.with_panel(graph("Load of each instance", "The latest, as a share of its capacity.", loads, RATIO))


def _launches(board: Dashboard, mine: str, legend: str) -> None:
    board.with_row(Row("Launches"))
    for title, about, family in (
        ("Time to launch", "From the decision to clone until ready, of the last hour's launches.", "launch"),
        ("Time to remove", "From the decision to remove until nothing was left, of the last hour's.", "removal"),
    ):
        buckets = f"sum by (le, group) (increase({_of(f'autoscaler_{family}_duration_seconds_bucket', mine)}[1h]))"
        shares = [(f"{legend} p{p}".strip(), f"histogram_quantile(0.{p}, {buckets})") for p in (50, 95)]
        board.with_panel(graph(title, about, shares, "s", width=8))
    lost = f"sum by (group) (increase({_of('autoscaler_launch_failures_total', mine)}[$__rate_interval]))"
    failed = f"sum by (kind) (increase({_of('autoscaler_action_failures_total', mine)}[$__rate_interval]))"
    about = "Launches that were lost, and actions that failed by kind of error."
    board.with_panel(
        graph("Failures", about, [(f"{legend} launches lost".strip(), lost), ("{{kind}}", failed)], width=8)
    )


def _hosts(board: Dashboard) -> None:
    on = ', host=~"$host"'
    board.with_row(Row("Hosts: how busy, how full, who waits"))
    busy = [("{{host}} busy", _of("autoscaler_host_cpu_busy_ratio", on))]
    waits = [("{{host}} waits for {{resource}}", _of("autoscaler_host_pressure_ratio", on))]
    about = "Share of the processors' time that was not idle, and of the time in which something waited (PSI)."
    board.with_panel(graph("CPU and pressure", about, busy + waits, RATIO, 8))
    total = _of("autoscaler_host_memory_total_bytes", on)
    memory = [
        ("{{host}} used", f"1 - {_of('autoscaler_host_memory_available_bytes', on)} / {total}"),
        ("{{host}} committed", f"{_of('autoscaler_host_memory_committed_bytes', on)} / {total}"),
    ]
    about = "Of the host's memory: what is in use, and what all guests may take."
    board.with_panel(graph("Memory", about, memory, RATIO, 8))
    vcpus = f"{_of('autoscaler_host_vcpus_committed', on)} / {_of('autoscaler_host_vcpus_limit', on)}"
    about = "vCPUs of all guests, of those the configuration allows."
    board.with_panel(graph("vCPUs committed", about, [("{{host}}", vcpus)], RATIO, 8))
    size, used = _of("autoscaler_pool_capacity_bytes", on), _of("autoscaler_pool_used_bytes", on)
    pools = [
        ("{{host}} {{pool}} used", f"{used} / {size}"),
        ("{{host}} {{pool}} promised", f"({used} + {_of('autoscaler_pool_growth_bytes', on)}) / {size}"),
    ]
    about = "What is in use, and what it would be if every thin volume grew to its size."
    board.with_panel(graph("Pools", about, pools, RATIO, 8))
    taken = f"{_of('autoscaler_network_addresses_committed', on)} / {_of('autoscaler_network_addresses', on)}"
    board.with_panel(graph("Addresses taken", "Of the DHCP ranges.", [("{{host}} {{network}}", taken)], RATIO, 8))
    wait = [
        ("{{group}} refused for {{resource}}", _of("autoscaler_admission_refused")),
        ("{{group}} starved", _of("autoscaler_group_starved")),
    ]
    about = "Clones that a host has no room for, and groups whose guests get too little CPU."
    board.with_panel(graph("Refused and starved", about, wait, width=8))


def _daemon(board: Dashboard) -> None:
    board.with_row(Row("The daemon"))
    ticks = f"sum by (le, instance) (increase({_of('autoscaler_tick_duration_seconds_bucket')}[5m]))"
    times = [
        ("p95 duration", f"histogram_quantile(0.95, {ticks})"),
        ("lateness", _of("autoscaler_tick_lateness_seconds")),
        ("interval", _of("autoscaler_tick_interval_seconds")),
    ]
    about = "How long ticks take and how late they begin; both stay far below the interval."
    board.with_panel(graph("Ticks", about, times, "s", 8))
    failed = f"increase({_of('autoscaler_tick_failures_total')}[$__rate_interval])"
    about = "Ticks whose journal could not be written: nothing was done by them."
    board.with_panel(graph("Ticks not committed", about, [("{{instance}}", failed)], width=8))
    scalings = f"sum by (direction) (increase({_of('autoscaler_scalings_total')}[1h]))"
    board.with_panel(graph("Scalings, 1 h", "Decisions that changed a size.", [("{{direction}}", scalings)], width=8))


def _room(board: Dashboard, mine: str) -> None:
    board.with_row(Row("Room"))
    fitting = [("{{host}}", _of("autoscaler_group_fitting", mine))]
    board.with_panel(graph("More would fit", "How many more instances the host could carry.", fitting))
    refused = [("{{resource}}", _of("autoscaler_admission_refused", mine))]
    board.with_panel(graph("Refused", "Clones that the host has no room for, by what is scarce.", refused))


def _traffic(board: Dashboard, mine: str) -> None:
    board.with_row(Row("Traffic (groups behind a load balancer)"))
    slots = [
        ("{{state}}", _of("autoscaler_traffic_slots", ', state!="maint"' + mine)),
        ("wanted", _of("autoscaler_traffic_wanted", mine)),
    ]
    about = "Who is served, drained or down, and how many should be served."
    board.with_panel(graph("Servers", about, slots, width=8))
    requests = [
        ("sessions", _of("autoscaler_traffic_sessions", mine)),
        ("queue", _of("autoscaler_traffic_queue", mine)),
    ]
    board.with_panel(graph("Sessions and queue", "Requests under way, and those that wait.", requests, width=8))
    responses = [("mean", _of("autoscaler_traffic_response_seconds", mine))]
    board.with_panel(graph("Response time", "Mean over the last 1024 requests.", responses, "s", 8))


def _load(mine: str = "") -> str:
    return _of("autoscaler_group_load_ratio", mine)


def _target(mine: str = "") -> str:
    return _of("autoscaler_group_load_target_ratio", mine)


def render(board: Dashboard) -> str:
    """Give a dashboard's JSON, each panel with a number that links to it can name."""
    data = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    data["panels"] = [{"id": number, **panel} for number, panel in enumerate(data["panels"], 1)]
    return json.dumps(data, indent=1) + "\n"


DASHBOARDS = {OVERVIEW: overview, GROUP: group}

if __name__ == "__main__":
    for name, make in DASHBOARDS.items():
        (HERE / f"{name}.json").write_text(render(make()))
