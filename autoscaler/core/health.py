"""Whether an instance is ready, and whether one that was is still well: the policy's gates and what is seen of it."""

from dataclasses import dataclass, replace

from autoscaler.core.memory import InstanceMemory
from autoscaler.core.observation import Domain, DomainState, Probe, SlotState, TrafficView, Unknown
from autoscaler.core.policy import Mode, Policy, Ready, WhenDown
from autoscaler.core.transition import TransitionReason


@dataclass(frozen=True, slots=True)
class Balancer:
    """What a group's load balancer has to do with an instance's readiness and health."""

    down: bool = False
    """It does not answer, and the policy lets instances wait for it."""
    failing: frozenset[str] = frozenset()
    """The addresses that its checks find down, where the policy listens to them."""


def balancer_of(policy: Policy, view: TrafficView | Unknown | None) -> Balancer:
    """Read a group's load balancer as its policy has it."""
    traffic = policy.traffic
    if traffic is None or policy.mode is Mode.SHADOW:
        return Balancer()
    if not isinstance(view, TrafficView):
        return Balancer(down=traffic.when_down is WhenDown.WAIT)
    slots = view.slots if traffic.unhealthy else ()
    down = (slot for slot in slots if slot.state is not SlotState.MAINT and slot.healthy is False)
    return Balancer(failing=frozenset(slot.address for slot in down if slot.port == traffic.port))


def passes(ready: Ready, domain: Domain, probe: Probe | None) -> bool | None:
    """Whether a domain passes every gate asked for; None where one was not asked yet and none has failed."""
    gates: list[bool | None] = [domain.state is DomainState.RUNNING]
    if ready.agent:
        gates.append(domain.answers)
    # Addresses are looked for when the agent is asked: before that nobody knows whether there is one.
    addressed = True if domain.addresses else None if domain.answers is None else False
    if ready.address:
        gates.append(addressed)
    if ready.probes:
        gates.append(probe.passed if probe is not None else None if addressed else addressed)
    if False in gates:
        return False
    return None if None in gates else True


def examine(
    memory: InstanceMemory, domain: Domain, seen: tuple[Probe | None, Balancer], policy: Policy, at: float
) -> InstanceMemory:
    """Note whether an instance is ready now, is too late for it, or is unhealthy."""
    if memory.ready_at is None and not memory.timed_out:
        passed = _passes(policy, domain, *seen)
        if passed:
            memory = replace(memory, ready_at=at)
        elif passed is False and _asked(domain) and at - memory.started_at > policy.ready.timeout_seconds:
            memory = replace(memory, timed_out=True)
    memory = replace(memory, silent_since=_silent_since(memory, domain, policy, at))
    return replace(memory, sick=_sickness(memory, domain, seen, policy, at))


def _passes(policy: Policy, domain: Domain, probe: Probe | None, balancer: Balancer) -> bool | None:
    # Without an address nobody can be sent there.
    ready = replace(policy.ready, address=policy.ready.address or policy.traffic is not None)
    passed = passes(ready, domain, probe)
    return None if passed and balancer.down else passed


def _asked(domain: Domain) -> bool:
    """Whether a guest could have answered: one that somebody paused cannot, and has not failed to."""
    return domain.state is DomainState.RUNNING


def _silent_since(memory: InstanceMemory, domain: Domain, policy: Policy, at: float) -> float | None:
    if not policy.ready.agent or memory.ready_at is None or domain.answers is not False:
        return None
    return at if memory.silent_since is None else memory.silent_since


def _sickness(
    memory: InstanceMemory, domain: Domain, seen: tuple[Probe | None, Balancer], policy: Policy, at: float
) -> TransitionReason | None:
    probe, balancer = seen
    if domain.io_error:
        return TransitionReason.IO_ERROR
    if memory.ready_at is None:
        return None
    health = policy.health
    if memory.silent_since is not None and at - memory.silent_since >= health.agent_silent_seconds:
        return TransitionReason.AGENT_SILENT
    failing = probe is not None and not probe.passed and probe.failures >= health.probe_failures
    if policy.ready.probes and failing and domain.state is DomainState.RUNNING:
        return TransitionReason.PROBE_FAILED
    return TransitionReason.BALANCER_DOWN if memory.address in balancer.failing else None
