"""The whole examination."""

import os
from collections.abc import Iterator
from pathlib import Path

from autoscaler import config as configuration
from autoscaler.core.catalog import resolve_images
from autoscaler.core.errors import PolicyError
from autoscaler.core.finding import Finding, error
from autoscaler.core.policy import Policy
from autoscaler.doctor.catalog import catalog_of, check_image_names
from autoscaler.doctor.files import check_config_file, check_policy_files, check_state
from autoscaler.doctor.hosts import check_host
from autoscaler.doctor.machine import check_clock, check_pressure
from autoscaler.doctor.others import check_others
from autoscaler.doctor.service import check_daemon
from autoscaler.host import clock
from autoscaler.host.load import pressure
from autoscaler.policy.load import load_directory


def examine(path: Path | None) -> Iterator[Finding]:
    """Look at everything, whether a daemon runs or not; `path` is the configuration's, if it is not the usual one.

    Nothing is changed, but that a guest may be booted to try KVM, and thrown away.
    """
    yield check_clock(clock.synchronised())
    yield check_pressure(pressure("cpu"))
    path = path or Path(os.environ.get(configuration.ENVIRONMENT_VARIABLE) or configuration.DEFAULT_PATH)
    try:
        config = configuration.load(path)
    except PolicyError as problem:
        yield _wrong("config", problem)
        return
    yield check_config_file(path, config)
    policies: tuple[Policy, ...] = ()
    try:
        policies = load_directory(config.policies_dir, frozenset(config.hosts))
    except PolicyError as problem:
        yield _wrong("policies", problem)
    else:
        yield check_policy_files(config, len(policies))
    yield check_state(config)
    yield from check_daemon(config)
    yield from check_others(config, policies)
    policies = resolve_images(policies, catalog_of(config))
    yield from check_image_names(policies)
    for name, host in config.hosts.items():
        yield from check_host(name, host.uri, [policy for policy in policies if name in policy.hosts])


def _wrong(code: str, problem: PolicyError) -> Finding:
    return error(code, "\n".join(str(each) for each in problem.problems), "Mend what is said of each line")
