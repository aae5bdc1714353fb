"""Commands that need no hosts: rehearsing a policy on a load, and saving a journal's load."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from autoscaler import config
from autoscaler.cli import arguments
from autoscaler.cli.command import config_option, json_option
from autoscaler.cli.output import console, is_live, say
from autoscaler.cli.show_simulation import show_contest, show_rehearsals
from autoscaler.core.errors import AutoscalerError, PolicyError
from autoscaler.core.policy import Policy
from autoscaler.core.words import nearest
from autoscaler.policy import load as policy_files
from autoscaler.policy.yaml_reader import read_file
from autoscaler.reasons import clock, duration
from autoscaler.simulate import page
from autoscaler.simulate.against import Row, contest, contest_policy
from autoscaler.simulate.baselines import ALGORITHMS, NAMES
from autoscaler.simulate.load import MAX_STEPS, Load, read_load, write_load
from autoscaler.simulate.plant import Conditions
from autoscaler.simulate.recording import GroupRecording, Recording, RecordingError, replay
from autoscaler.simulate.rehearsal import Scenario
from autoscaler.simulate.report import Rehearsal, row_data

GIVEN = frozenset({"guest.cpu"})
"""The metrics that a load gives."""
MEASURED = "measured"
_FILE = click.Path(dir_okay=False, path_type=Path)

Step = Callable[[int], None]


def _boot_delay(context: click.Context, parameter: click.Parameter, value: str) -> float | str | None:
    return value if value == MEASURED else arguments.duration(context, parameter, value)


def _names(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(","))) if value else ()
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"{name!r} is not known; {nearest(name, NAMES)}")
    return names


@click.command()
@click.option("--policy", "policy_file", type=_FILE, metavar="FILE", help="The policy; hosts and image are ignored.")
@click.option("--load", "load_file", type=_FILE, metavar="FILE", help="The load: rows of timestamp,value.")
@click.option(
    "--recording",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="STATE_DIR",
    help="The load in a daemon's journal. Without --policy: decide its ticks again, and compare.",
)
@click.option("--group", metavar="NAME", help="The group of the recording, if it has several.")
@click.option(
    "--instance-capacity",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="X",
    help="What one instance carries at 100 %, in the load's unit.",
)
@click.option(
    "--boot-delay",
    default="180s",
    show_default=True,
    callback=_boot_delay,
    metavar="DURATION|measured",
    help="From asking for an instance to its being ready; measured: as the recording's launches took.",
)
@arguments.duration_option(
    "--step",
    default="15s",
    help="Between decisions.",
)
@arguments.share_option(
    "--line",
    default="70%",
    help="The utilisation that should not be exceeded.",
)
@arguments.share_option(
    "--within",
    default="1%",
    help="The share of time above the line that still counts as keeping it.",
)
@arguments.share_option("--failures", default="0%", help="Launches that fail.")
@click.option("--slow-boots", is_flag=True, help="One launch in ten takes three times as long.")
@click.option("--hosts-capacity", type=click.IntRange(min=1), metavar="N", help="Instances the hosts have room for.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of what is drawn by chance.")
@click.option("--allow-gaps", is_flag=True, help="Draw a line across gaps in the load.")
@click.option("--compare", type=_FILE, metavar="FILE", help="A second policy on the same load.")
@click.option(
    "--against", callback=_names, metavar="NAMES", help=f"Published algorithms on the same load: {','.join(NAMES)}."
)
@click.option("--json", "json_out", type=_FILE, metavar="OUT", help="Write arrays and figures as JSON; - prints them.")
@click.option("--html", "html_out", type=_FILE, metavar="OUT", help="Write a page with chart and decisions.")
@click.pass_context
def simulate(
    ctx: click.Context,
    /,
    policy_file: Path | None,
    load_file: Path | None,
    recording: Path | None,
    **options: Any,
) -> None:
    """Rehearse a policy on a recorded load.

    The decisions are the daemon's own; no daemon, hosts or image are needed.

    Example: autoscaler simulate --policy web.yaml --load monday.csv
    """
    if (load_file is None) == (recording is None):
        raise click.UsageError("give either --load or --recording")
    if load_file is not None and policy_file is None:
        raise click.UsageError("--load wants a --policy to rehearse")
    if options["line"] == 0:
        raise click.BadParameter("the line is above 0%", param_hint="--line")
    if options["boot_delay"] == MEASURED and recording is None:
        raise click.UsageError("--boot-delay measured wants a --recording to be measured in")
    policies = [_policy(path) for path in (policy_file, options["compare"]) if path is not None]
    recorded = None if recording is None else _replay(recording)
    if recorded is not None and policy_file is None:
        ctx.exit(_show_replay(recorded, options["json_out"]))
    scenario = _scenario(policies[0], load_file, recorded, options)
    _rehearse(scenario, policies, options)


def _policy(path: Path) -> Policy:
    """Read a policy that the load can speak to. Raises PolicyError for a signal that it does not give."""
    policy = policy_files.load_file(path)
    document = read_file(path)
    problems = tuple(
        document.problem(
            ("scaling", index, "metric"),
            f"the load does not give {metric}; a rehearsal has {', '.join(sorted(GIVEN))} only",
        )
        for index, strategy in enumerate(policy.scaling)
        if (metric := getattr(strategy, "metric", None)) is not None and metric not in GIVEN
    )
    if problems:
        raise PolicyError(problems)
    return policy


def _replay(state_dir: Path) -> Recording:
    with _progress("deciding again", None) as step:
        return replay(state_dir, progress=step)


def _show_replay(recorded: Recording, json_out: Path | None) -> int:
    difference = recorded.difference
    if json_out is not None:
        data = {
            "ticks": recorded.ticks,
            "decisions": recorded.decisions,
            "identical": difference is None,
            "difference": None if difference is None else asdict(difference),
        }
        _write(json_out, json.dumps(data, indent=2) + "\n")
    else:
        for name, group in sorted(recorded.groups.items()):
            say(f"group {name}: {_hidden(group)}")
    if difference is not None:
        say(f"error: {difference}", err=True)
        return 1
    if json_out is None:
        say(f"{recorded.decisions} decisions, all identical")
    return 0


def _hidden(group: GroupRecording) -> str:
    """Say what the recording does not tell of the load."""
    ticks = len(group.times) + group.unseen
    parts = [f"load seen at {len(group.times)} of {ticks} ticks"]
    if group.saturated:
        parts.append(f"at {group.saturated} of them the instances were full, and what they could not carry is hidden")
    return "; ".join(parts)


def _scenario(policy: Policy, load_file: Path | None, recorded: Recording | None, options: dict[str, Any]) -> Scenario:
    delays: tuple[float, ...] = (options["boot_delay"],)
    if recorded is not None:
        name = recorded.group_name(options["group"] or (policy.group if policy.group in recorded.groups else None))
        load = recorded.load(name)
        say(f"group {name}: {_hidden(recorded.groups[name])}", err=True)
        if options["boot_delay"] == MEASURED:
            delays = _measured(recorded, name)
    else:
        assert load_file is not None
        load = read_load(load_file, allow_gaps=options["allow_gaps"]).scaled(options["instance_capacity"])
    _refuse_endless(load, options["step"])
    conditions = Conditions(
        delays, options["failures"], options["slow_boots"], options["hosts_capacity"], options["seed"]
    )
    demand = load.at_steps(options["step"])
    return Scenario(demand, options["step"], policy.size, options["line"], conditions, load.times[0])


def _measured(recorded: Recording, group: str) -> tuple[float, ...]:
    delays = tuple(recorded.boot_delays.get(group, ()))
    if not delays:
        raise RecordingError(f"the journal holds no launch of group {group} that ended; give --boot-delay a duration")
    say(f"boot delays of {len(delays)} launches: {min(delays):.0f} to {max(delays):.0f} s", err=True)
    return delays


def _refuse_endless(load: Load, step_seconds: float) -> None:
    if load.duration_seconds / step_seconds > MAX_STEPS:
        raise click.BadParameter(
            f"a load of {duration(load.duration_seconds)} has over {MAX_STEPS:,} such steps; make them longer",
            param_hint="--step",
        )


def _rehearse(scenario: Scenario, policies: list[Policy], options: dict[str, Any]) -> None:
    names = options["against"]
    # How many targets are tried depends on how they fare: the bar is an estimate.
    runs = len(policies) * (8 if names else 1) + sum(7 if name in ALGORITHMS else 2 for name in names)
    with _progress("rehearsing", runs * len(scenario.demand)) as step:
        rehearsals = tuple(Rehearsal.of(replace(scenario, size=each.size), each, step) for each in policies)
        within = options["within"]
        rows = [contest_policy(scenario, each, within, step) for each in policies] if names else []
        rows += [contest(scenario, name, within, step) for name in names]
    if options["html_out"] is not None:
        _write(options["html_out"], page.render(rehearsals, _title(rehearsals)))
    if options["json_out"] is not None:
        _write(options["json_out"], json.dumps(_data(rehearsals, rows)) + "\n")
    if options["json_out"] != Path("-"):
        _show(rehearsals, rows, within)


def _show(rehearsals: tuple[Rehearsal, ...], rows: list[Row], within: float) -> None:
    out = console(pipe_width=80)
    show_rehearsals(out, rehearsals)
    if rows:
        out.print()
        show_contest(out, rows, within)


def _title(rehearsals: tuple[Rehearsal, ...]) -> str:
    scenario = rehearsals[0].scenario
    names = " and ".join(each.policy.group for each in rehearsals)
    return f"Rehearsal of {names}: {duration(len(scenario.demand) * scenario.step_seconds)}"


def _data(rehearsals: tuple[Rehearsal, ...], rows: list[Row]) -> dict[str, Any]:
    data = rehearsals[0].data()
    if len(rehearsals) > 1:
        data["compared"] = rehearsals[1].data()
    if rows:
        data["against"] = [row_data(row) for row in rows]
    return data


def _write(path: Path, text: str) -> None:
    if path == Path("-"):
        click.echo(text, nl=False)
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AutoscalerError(f"{path}: cannot be written: {error.strerror}") from error


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Step]:
    """Show a bar on a terminal's standard error, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    out = console(err=True)
    with Progress(*columns, console=out, transient=True, disable=not is_live(out)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda steps: bar.advance(task, steps)


@click.command()
@click.option(
    "--since",
    callback=arguments.since,
    metavar="TIME",
    help="From when on: 14:05, 2026-11-23T14:05, or 6h back from now; else all that there is.",
)
@click.option("--out", required=True, type=_FILE, metavar="FILE", help="The CSV file to write.")
@click.option("--group", metavar="NAME", help="The group, if the journal has several.")
@json_option
@config_option
@click.pass_context
def record(ctx: click.Context, since: float | None, out: Path, group: str | None, as_json: bool) -> None:
    """Save the load that a daemon saw, for a rehearsal.

    Writes rows of timestamp,value, in busy instances. Reads the journal, beside
    a running daemon too. Ticks are kept for 24 hours.

    Example: autoscaler record --since 6h --out monday.csv
    """
    settings = config.load(ctx.find_root().obj)
    with _progress("reading the journal", None) as step:
        recorded = replay(settings.state_dir, since=since, progress=step)
    name = recorded.group_name(group)
    load = recorded.load(name)
    try:
        write_load(out, load)
    except OSError as error:
        raise AutoscalerError(f"{out}: cannot be written: {error.strerror}") from error
    seen = recorded.groups[name]
    if as_json:
        data = {"group": name, "rows": len(load.times), "from": load.times[0], "to": load.times[-1]}
        click.echo(json.dumps({**data, "saturated": seen.saturated, "unseen": seen.unseen}, indent=2))
        return
    say(
        f"{out}: {len(load.times)} rows of group {name}, from {clock(load.times[0])} to {clock(load.times[-1])}; "
        f"{_hidden(seen)}"
    )


COMMANDS: tuple[click.Command, ...] = (simulate, record)
