"""The commands. Exit codes: 0 done, 1 refused or found wrong, 2 wrong usage, 3 the daemon does not answer."""

import click

from autoscaler.cli import completion, images, look, operate, policies, refresh, simulate, top
from autoscaler.cli.command import Commands, config_option, json_option, settings
from autoscaler.cli.show_findings import report


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.version_option(package_name="kvm-autoscaler", prog_name="autoscaler")
@config_option
def main() -> None:
    """Scale virtual machines on KVM hosts by their load.

    Ends with 0 when it is done, 1 when it was refused or something was found
    wrong, 2 for a wrong command line, and 3 when the daemon does not answer.

    Example: autoscaler status
    """


@main.command()
@config_option
@click.pass_context
def run(ctx: click.Context) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    Example: autoscaler run --config ./config.yaml
    """
    from autoscaler import daemon  # noqa: PLC0415 - what talks to libvirt is loaded for the daemon only

    ctx.exit(daemon.run(settings(ctx)))


@main.command()
@json_option
@config_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Look for what stands in the daemon's way, and say what to do.

    Works with and without a running daemon. To try KVM it boots a guest, which
    is thrown away. Ends with 1 when something has to be mended.

    Example: autoscaler doctor
    """
    from autoscaler.doctor import examine  # noqa: PLC0415 - what talks to libvirt is loaded when needed

    report(ctx, examine(ctx.find_root().obj), as_json=as_json)


for _command in (
    *look.COMMANDS,
    *operate.COMMANDS,
    *refresh.COMMANDS,
    *policies.COMMANDS,
    *simulate.COMMANDS,
    *images.COMMANDS,
    *top.COMMANDS,
    *completion.COMMANDS,
):
    main.add_command(_command)
