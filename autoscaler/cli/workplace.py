"""Where commands about golden images work: on which libvirt, and with which state."""

import os
from pathlib import Path

import click

from autoscaler import config
from autoscaler.cli import complete
from autoscaler.core.errors import AutoscalerError
from autoscaler.core.words import nearest

host_option = click.option(
    "--host",
    metavar="HOST",
    shell_complete=complete.hosts,
    help="A host of the configuration, or a libvirt URI.  [default: the only host there is]",
)


def libvirt_uri(ctx: click.Context, host: str | None) -> str:
    """Give the URI of the host that is meant. Raises AutoscalerError where that is none, or not clear."""
    if host is not None and "://" in host:
        return host
    hosts = (_configured(ctx) or config.Config()).hosts
    names = ", ".join(hosts)
    if host is None:
        if len(hosts) > 1:
            raise AutoscalerError(f"the configuration has several hosts: name one of them with --host: {names}")
        (only,) = hosts.values()
        return only.uri
    if host not in hosts:
        near = nearest(host, hosts, "hosts")
        raise AutoscalerError(f"--host: there is no host {host}; {near} (a libvirt URI will do, too)")
    return hosts[host].uri


def state_dir(ctx: click.Context) -> Path:
    """Give the daemon's state directory; without a configuration, root's usual one or the user's own."""
    known = _configured(ctx)
    if known is not None or os.geteuid() == 0:
        return (known or config.Config()).state_dir
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state", "autoscaler")


def _configured(ctx: click.Context) -> config.Config | None:
    named = ctx.find_root().obj or os.environ.get(config.ENVIRONMENT_VARIABLE)
    if named is None and not config.DEFAULT_PATH.exists():
        return None
    return config.load(ctx.find_root().obj)
