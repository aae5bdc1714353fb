"""Whether golden images still are what instances were cloned from.

An overlay holds only what differs from its golden image: once that changes under it, the guest's disk is no one's. What
an instance was cloned from is told by the stamp in its ownership element; what was under that stamp, and what is there
now, by the digests of contents.
"""

from collections.abc import Sequence
from dataclasses import replace

from autoscaler.core.action import Action, Clone
from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.observation import GoldenState, HostInventory, Observation, Ownership
from autoscaler.core.policy import Image, Policy
from autoscaler.core.reconcile import Plan


def golden_key(host: str, image: Image) -> str:
    """Name a golden image of a host in an observation: by its volume, however a policy came to it."""
    return f"{host} {image.pool}/{image.volume}"


def golden_reasons(policy: Policy, instances: Sequence[Instance], observation: Observation) -> tuple[Reason, ...]:
    """Give the alarm for each golden image of a group that is not what it was, with the instances that stand on it."""
    changed: dict[str, tuple[Image, list[str]]] = {}
    for instance in instances:
        owner = instance.domain.ownership if instance.domain is not None else None
        if owner is not None and owner.image is not None:
            key = golden_key(instance.host, owner.image)
            if _changed_under(owner, (observation.golden or {}).get(key)):
                changed.setdefault(key, (owner.image, []))[1].append(instance.id)
    key = golden_key(policy.host, policy.image) if policy.hosts and policy.image.found else ""
    if key not in changed and _spoiled((observation.golden or {}).get(key)):
        changed[key] = (policy.image, [])
    return tuple(
        because(
            ReasonCode.IMAGE_CHANGED,
            image=str(image),
            volume=f"{image.pool}/{image.volume}",
            host=key.partition(" ")[0],
            instances=", ".join(standing) or "none",
        )
        for key, (image, standing) in sorted(changed.items())
    )


def sound(host: str, image: Image, observation: Observation, controller: str) -> ReasonCode | None:
    """Tell what speaks against a clone of an image: it was changed, or what it holds now was not read yet."""
    if observation.golden is None:
        return None
    owners = _owners(observation, host, image, controller)
    state = observation.golden.get(golden_key(host, image))
    if state is None:
        return ReasonCode.HELD_BY_UNREAD_IMAGE if owners or image.name is not None else None
    if _spoiled(state) or any(_changed_under(owner, state) for owner in owners):
        return ReasonCode.HELD_BY_CHANGED_IMAGE
    asked = state.expected is not None or any(owner.image_digest not in {"", state.stamp} for owner in owners)
    return ReasonCode.HELD_BY_UNREAD_IMAGE if asked and state.unread else None


def keep_off(plan: Plan, observation: Observation, controller: str) -> Plan:
    """Take out of a plan the clones that would stand on an image that is not what it was."""
    kept: list[Action] = []
    held: dict[tuple[ReasonCode, str], int] = {}
    known: dict[tuple[str, Image], ReasonCode | None] = {}
    for action in plan.actions:
        if isinstance(action, Clone) and (action.host, action.image) not in known:
            known[action.host, action.image] = sound(action.host, action.image, observation, controller)
        code = known[action.host, action.image] if isinstance(action, Clone) else None
        if code is None or not isinstance(action, Clone):
            kept.append(action)
        else:
            held[code, str(action.image)] = held.get((code, str(action.image)), 0) + 1
    reasons = tuple(because(code, image=image, wanted=count) for (code, image), count in sorted(held.items()))
    return replace(plan, actions=tuple(kept), reasons=plan.reasons + reasons)


def _owners(observation: Observation, host: str, image: Image, controller: str) -> list[Ownership]:
    """Give the ownership of all our instances that stand on an image, whatever their group."""
    inventory = observation.inventory.get(host)
    domains = inventory.domains if isinstance(inventory, HostInventory) else ()
    owners = [domain.ownership for domain in domains if domain.ownership is not None]
    return [
        owner
        for owner in owners
        if owner.controller == controller
        and owner.image is not None
        and (owner.image.pool, owner.image.volume) == (image.pool, image.volume)
    ]


def _changed_under(owner: Ownership, state: GoldenState | None) -> bool:
    if state is None or state.stamp is None or state.content is None or owner.image_digest in {"", state.stamp}:
        return False
    # Where contents are not read, one stamp is one content.
    return state.read.get(owner.image_digest, owner.image_digest) != state.content


def _spoiled(state: GoldenState | None) -> bool:
    """Whether a version of the catalog holds something else than it was stored with."""
    return state is not None and None not in {state.expected, state.content} and state.content != state.expected
