"""Others that the daemon speaks to over a network, and the secrets that it has for them and for instances."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoscaler.config import Config
from autoscaler.core.errors import PolicyError
from autoscaler.core.finding import Finding, error, ok
from autoscaler.core.policy import Policy, Traffic, TrafficKind
from autoscaler.daemon import prometheus_of
from autoscaler.external.haproxy import BalancerError, HAProxy, slots_lacking
from autoscaler.external.prometheus import Prometheus, QueryError
from autoscaler.secret_file import read_secret

_ALWAYS_ONE = "vector(1)"


def check_others(config: Config, policies: Sequence[Policy]) -> Iterator[Finding]:
    """Ask each of them something that changes nothing; what nothing is configured for is not spoken of."""
    prometheus = prometheus_of(config)
    if prometheus is not None:
        yield _check_prometheus(prometheus)
    for hook in config.webhooks:
        if hook.secret_file is not None:
            yield _check_secret("webhook", hook.secret_file, "secret_file in webhooks")
    for policy in policies:
        if policy.traffic is not None and policy.traffic.kind is TrafficKind.HAPROXY:
            yield _check_haproxy(policy.group, policy.traffic, policy.size.max)
        for secret in policy.cloud_init.secrets if policy.cloud_init is not None else ():
            key = f"cloud_init.secrets.{secret.name} of group {policy.group}"
            yield _check_secret("cloud-init", Path(secret.path), key)


def _check_secret(code: str, path: Path, key: str) -> Finding:
    try:
        read_secret(path)
    except PolicyError as problem:
        return error(code, str(problem), f"Mend that file, or name another as {key}")
    return ok(code, f"the secret in {path} can be read")


def _check_prometheus(prometheus: Prometheus) -> Finding:
    try:
        prometheus.ask(_ALWAYS_ONE)
    except QueryError as problem:
        return error("prometheus", str(problem), "Mend `prometheus` in the configuration, or start that Prometheus")
    return ok("prometheus", "it answers queries")


def _check_haproxy(group: str, traffic: Traffic, most: int) -> Finding:
    try:
        lacking = slots_lacking(HAProxy(traffic, time.time).view(None), traffic, most)
    except BalancerError as problem:
        return error("balancer", f"group {group}: {problem}", "Mend `traffic` in its policy, or start that HAProxy")
    if lacking is not None:
        what, _, remedy = lacking.partition(": ")
        return error("balancer", f"group {group}: {what}", remedy)
    return ok("balancer", f"group {group}: backend {traffic.backend} at {traffic.socket} has slots for {most}")
