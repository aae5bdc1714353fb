"""How long launches take, per image, from clone to ready, and what follows from it for the warm-up."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil

from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory
from autoscaler.core.policy import Image, Policy
from autoscaler.core.transition import InstanceState, Transition, TransitionReason

KEPT = 50
"""How many launches of an image are remembered."""
SHORTEST_WARM_UP_SECONDS, LONGEST_WARM_UP_SECONDS = 10.0, 600.0
_COMING = frozenset({InstanceState.REQUESTED, InstanceState.CLONING, InstanceState.BOOTING})
_FAILURES = frozenset(
    {
        TransitionReason.LAUNCH_FAILED,
        TransitionReason.READY_TIMEOUT,
        TransitionReason.CRASHED,
        TransitionReason.IO_ERROR,
    }
)


def image_name(image: Image) -> str:
    """Name an image among the measured launches: all versions of a name are one."""
    return image.name or str(image)


def launched_seconds(
    group: GroupMemory, policy: Policy, instances: Sequence[Instance], at: float
) -> tuple[tuple[Image, float], ...]:
    """Give how long the launches took that end now, and of which image; `group.lives` are those of the tick before.

    What was adopted or brought back was no launch.
    """
    found = []
    for instance in instances:
        life, known = group.lives.get(instance.id), group.instances.get(instance.id)
        if life is None or life.state not in _COMING or life.reason is TransitionReason.ADOPTED or known is None:
            continue
        if known.ready_at == at and not known.returned:
            found.append((instance.image or policy.image, max(at - instance.created_at, 0.0)))
    return tuple(found)


def failed_launch(transition: Transition) -> bool:
    """Tell whether an instance was lost before it ever was ready."""
    return transition.before in _COMING and transition.reason in _FAILURES


def note_launches(launches: dict[str, tuple[float, ...]], found: Sequence[tuple[Image, float]]) -> None:
    """Add launches to the last ones of their image, in place."""
    for image, seconds in found:
        name = image_name(image)
        launches[name] = (*launches.get(name, ()), seconds)[-KEPT:]


def quantile(values: Sequence[float], share: float) -> float | None:
    """Give the smallest value that this share of all does not exceed (the nearest rank); None without values."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else None


def with_warm_up(policy: Policy, launches: Mapping[str, tuple[float, ...]]) -> Policy:
    """Put the measured warm-up into a policy that asks for it.

    It is the median from clone to ready, within bounds: what takes long to boot takes about as long to warm up.
    """
    median = quantile(launches.get(image_name(policy.image), ()), 0.5)
    if not policy.warm_up_auto or median is None:
        return policy
    return replace(policy, warm_up_seconds=min(max(median, SHORTEST_WARM_UP_SECONDS), LONGEST_WARM_UP_SECONDS))
