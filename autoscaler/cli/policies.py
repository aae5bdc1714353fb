"""Commands on policy files; none needs a daemon."""

import os
from functools import partial
from pathlib import Path

import click

from autoscaler import config
from autoscaler.cli.command import config_option, json_option, print_json, settings
from autoscaler.cli.output import harmless
from autoscaler.codec import encode
from autoscaler.core.errors import PolicyError, Problem
from autoscaler.core.policy import Policy
from autoscaler.policy import load


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@json_option
@config_option
@click.pass_context
def validate(ctx: click.Context, paths: tuple[Path, ...], as_json: bool) -> None:
    """Check policy files, or folders of them, and print every error.

    Host names are checked when there is a configuration that names them.

    Example: autoscaler validate /etc/autoscaler/policies
    """
    hosts = _known_hosts(ctx)
    files = [path for path in paths if not path.is_dir()]
    reads = [partial(load.load_files, files), *(partial(load.load_directory, path) for path in paths if path.is_dir())]
    policies: list[Policy] = []
    problems: list[Problem] = []
    for read in reads:
        try:
            policies += read(hosts)
        except PolicyError as error:
            problems += error.problems
    if as_json:
        print_json({"ok": not problems, "problems": encode(problems), "policies": encode(policies)})
    else:
        click.echo(harmless("".join(f"{problem}\n" for problem in problems)), err=True, nl=False)
        click.echo("".join(f"group {policy.group}: good\n" for policy in policies), nl=False)
    ctx.exit(1 if problems else 0)


def _known_hosts(ctx: click.Context) -> frozenset[str] | None:
    named = ctx.find_root().obj or os.environ.get(config.ENVIRONMENT_VARIABLE)
    if named is None and not config.DEFAULT_PATH.exists():
        return None
    return frozenset(settings(ctx).hosts)


@click.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors.

    It knows keys and kinds of values; `autoscaler validate` knows the rest.

    Example: autoscaler schema > policy.schema.json
    """
    print_json(load.schema())


@click.group()
def policy() -> None:
    """Look at policy files.

    Example: autoscaler policy show web.yaml
    """


@policy.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
@config_option
@click.pass_context
def show(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Print a policy with every default filled in.

    Example: autoscaler policy show web.yaml
    """
    loaded = load.load_file(file, _known_hosts(ctx))
    if as_json:
        print_json(encode(loaded))
    else:
        click.echo(load.show(loaded), nl=False)


COMMANDS: tuple[click.Command, ...] = (validate, schema, policy)
