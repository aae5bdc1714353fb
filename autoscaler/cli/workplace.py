"""Where commands about golden images work: on which libvirt, and with which state."""

import os
from pathlib import Path

import click

from autoscaler import config
from autoscaler.core.errors import AutoscalerError

host_option = click.option(
    "--host",
    metavar="HOST",
    help="A host of the configuration, or a libvirt URI; else the only one there is, or qemu:///system.",
)


def libvirt_uri(ctx: click.Context, host: str | None) -> str:
    """Give the URI of the host that is meant. Raises AutoscalerError where that is none, or not clear."""
    if host is not None and "://" in host:
        return host
    known = _configured(ctx)
    hosts = {} if known is None else known.hosts
    if host is None:
        if len(hosts) > 1:
            raise AutoscalerError(f"the configuration has several hosts: name one with --host: {', '.join(hosts)}")
        return next((each.uri for each in hosts.values()), "qemu:///system")
    if host not in hosts:
        named = f"it has {', '.join(hosts)}" if hosts else "there is none"
        raise AutoscalerError(f"--host: no host {host} in the configuration; {named}. A libvirt URI will do, too")
    return hosts[host].uri


def state_dir(ctx: click.Context) -> Path:
    """Give the daemon's state directory; without a configuration, root's usual one or the user's own."""
    known = _configured(ctx)
    if known is not None:
        return known.state_dir
    if os.geteuid() == 0:
        return config.Config.state_dir
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "autoscaler")


def _configured(ctx: click.Context) -> config.Config | None:
    named = ctx.find_root().obj or os.environ.get(config.ENVIRONMENT_VARIABLE)
    if named is None and not config.DEFAULT_PATH.exists():
        return None
    return config.load(ctx.find_root().obj)
