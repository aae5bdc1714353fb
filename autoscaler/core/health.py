"""Whether an instance is ready, and whether one that was is still well: the policy's gates and what is seen of it."""

from dataclasses import replace

from autoscaler.core.memory import InstanceMemory
from autoscaler.core.observation import Domain, DomainState, Probe
from autoscaler.core.policy import Policy, Ready
from autoscaler.core.transition import TransitionReason


def passes(ready: Ready, domain: Domain, probe: Probe | None) -> bool | None:
    """Whether a domain passes every gate asked for; None where one was not asked yet and none has failed."""
    gates: list[bool | None] = [domain.state is DomainState.RUNNING]
    if ready.agent:
        gates.append(domain.answers)
    if ready.address:
        gates.append(bool(domain.addresses))
    if ready.probes:
        gates.append(None if probe is None else probe.passed)
    if False in gates:
        return False
    return None if None in gates else True


def examine(memory: InstanceMemory, domain: Domain, probe: Probe | None, policy: Policy, at: float) -> InstanceMemory:
    """Note whether an instance is ready now, is too late for it, or is unhealthy."""
    if memory.ready_at is None and not memory.timed_out:
        passed = passes(policy.ready, domain, probe)
        if passed:
            memory = replace(memory, ready_at=at)
        elif passed is False and _asked(domain) and at - memory.started_at > policy.ready.timeout_seconds:
            memory = replace(memory, timed_out=True)
    memory = replace(memory, silent_since=_silent_since(memory, domain, policy, at))
    return replace(memory, sick=_sickness(memory, domain, probe, policy, at))


def _asked(domain: Domain) -> bool:
    """Whether a guest could have answered: one that somebody paused cannot, and has not failed to."""
    return domain.state is DomainState.RUNNING


def _silent_since(memory: InstanceMemory, domain: Domain, policy: Policy, at: float) -> float | None:
    if not policy.ready.agent or memory.ready_at is None or domain.answers is not False:
        return None
    return at if memory.silent_since is None else memory.silent_since


def _sickness(
    memory: InstanceMemory, domain: Domain, probe: Probe | None, policy: Policy, at: float
) -> TransitionReason | None:
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
    return None
