"""What policies have to be told of before they can be decided by."""

from collections.abc import Iterable
from dataclasses import dataclass

from autoscaler.core.policy.group import Policy
from autoscaler.core.policy.machine import USER_NETWORK, Image


def metrics_of(policies: Iterable[Policy]) -> frozenset[str]:
    """Name the metrics that some policy scales by."""
    return frozenset(signal.metric for policy in policies for signal in policy.signals)


def queries_of(policies: Iterable[Policy]) -> dict[str, str]:
    """Give the PromQL expressions that some policy scales by, by the key their answer has in an observation."""
    return {signal.source: signal.query for policy in policies for signal in policy.signals if signal.query is not None}


def pools_of(policies: Iterable[Policy]) -> frozenset[tuple[str, str]]:
    """Name the pools whose free space some policy scales by, each as (host, pool)."""
    return frozenset(
        (policy.host, signal.pool) for policy in policies for signal in policy.signals if signal.pool is not None
    )


def addressed_groups(policies: Iterable[Policy]) -> frozenset[str]:
    """Name the groups whose instances' addresses somebody wants: a gate, a probe, a drain hook, a load balancer."""
    return frozenset(
        policy.group
        for policy in policies
        if policy.ready.address or policy.ready.probes or policy.drain.hooks or policy.traffic is not None
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of the hosts' pools and networks has to be read, because some policy uses it."""

    images: frozenset[Image] = frozenset()
    networks: frozenset[str] = frozenset()
    stored: frozenset[Image] = frozenset()
    """Images that no policy needs be made of: like those that one is, they are written to by nobody."""


def wanted_by(
    policies: Iterable[Policy], images: Iterable[Image] = (), stored: frozenset[Image] = frozenset()
) -> Wanted:
    """Name what these policies use; `images` are cloned beside the policies' own, `stored` is what else there is."""
    chosen = tuple(policies)
    networks = frozenset(policy.machine.network for policy in chosen) - {USER_NETWORK}
    used = {*(policy.image for policy in chosen), *images}
    return Wanted(frozenset(image for image in used if image.found), networks, stored)
