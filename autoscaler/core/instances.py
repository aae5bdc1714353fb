"""The instances of a group: what the hosts list, what is in flight, and what is remembered, put together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.action import Clone, Collect, InFlight, Remove, Start
from autoscaler.core.memory import GroupMemory, InstanceMemory
from autoscaler.core.observation import Domain, DomainState, HostInventory, HostSample, Observation, Unknown
from autoscaler.core.policy import Policy, Ready
from autoscaler.core.snapshot import InstanceState

READY_TIMEOUT = "ready_timeout"
"""The detail of an instance that failed because it did not become ready in time."""
HOST_REBOOTED = "host_rebooted"
SAVED = "saved"
"""The details of an instance that is to be brought back."""

MAX_FAILED_STARTS = 3
"""After so many failed attempts to bring an instance back it is replaced."""

LIVE = frozenset(
    {
        InstanceState.REQUESTED,
        InstanceState.CLONING,
        InstanceState.BOOTING,
        InstanceState.READY,
        InstanceState.RETURNING,
    }
)
_RUNNING = frozenset({DomainState.RUNNING, DomainState.PAUSED, DomainState.SUSPENDED})


@dataclass(frozen=True, slots=True)
class Instance:
    """One owned instance in any state, or a clone in flight."""

    id: str
    host: str
    state: InstanceState
    since: float
    created_at: float
    domain: Domain | None = None
    in_flight: InFlight | None = None
    detail: str | None = None

    @property
    def live(self) -> bool:
        """Whether it serves or will serve."""
        return self.state in LIVE


def owned_domains(observation: Observation, controller: str, group: str) -> Iterator[Domain]:
    """Yield every listed domain that carries our controller's ownership element for this group, in any state."""
    for inventory in observation.inventory.values():
        if isinstance(inventory, HostInventory):
            for domain in inventory.domains:
                ownership = domain.ownership
                if ownership is not None and ownership.controller == controller and ownership.group == group:
                    yield domain


def unread_hosts(
    observation: Observation, policy: Policy, known: Mapping[str, InstanceMemory]
) -> tuple[tuple[str, str], ...]:
    """Name the hosts whose inventory could not be read, each with the reason: the policy's, and of known instances.

    A host that the configuration no longer names counts for neither.
    """
    elsewhere = {memory.host for memory in known.values() if memory.host in observation.inventory}
    unread = []
    for host in sorted({*policy.hosts, *elsewhere}):
        inventory = observation.inventory.get(host, Unknown("not observed"))
        if isinstance(inventory, Unknown):
            unread.append((host, inventory.why))
    return tuple(unread)


def boots(observation: Observation) -> dict[str, str]:
    """Give the boot each host is in, of those that tell."""
    samples = (sample for sample in observation.hosts.values() if isinstance(sample, HostSample))
    return {sample.host: sample.boot for sample in samples if sample.boot is not None}


def remember(
    known: Mapping[str, InstanceMemory],
    domains: Sequence[Domain],
    ready: Ready,
    boots: Mapping[str, str],
    at: float,
) -> dict[str, InstanceMemory]:
    """Note when each instance was first seen running, in which boot of its host, and when it first was ready.

    What is gone is forgotten.
    """
    remembered: dict[str, InstanceMemory] = {}
    for domain in domains:
        assert domain.ownership is not None
        boot = boots.get(domain.host)
        memory = known.get(domain.ownership.instance)
        if domain.state in _RUNNING:
            memory = _seen_running(memory, domain.host, boot, at)
        elif memory is not None or domain.saved:
            memory = _seen_off(memory or InstanceMemory(domain.host, at), domain, boot)
        if memory is None:
            continue
        answers = domain.answers is True or not ready.agent
        if memory.ready_at is None and answers and domain.state is DomainState.RUNNING:
            memory = replace(memory, ready_at=at)
        remembered[domain.ownership.instance] = memory
    return remembered


def _seen_running(memory: InstanceMemory | None, host: str, boot: str | None, at: float) -> InstanceMemory:
    if memory is None:
        return InstanceMemory(host, at, boot=boot)
    if memory.off or (boot is not None and memory.boot not in {None, boot}):
        return InstanceMemory(host, at, boot=boot or memory.boot, returned=True)
    return replace(memory, host=host, boot=boot or memory.boot)


def _seen_off(memory: InstanceMemory, domain: Domain, boot: str | None) -> InstanceMemory:
    """Tell what its host's shutdown turned off, or put to sleep, from what ended by itself or by an operator's hand.

    A host that for once does not tell its boot is taken for rebooted: starting an instance does no harm.
    """
    rebooted = memory.boot is not None and memory.boot != boot
    return replace(memory, off=domain.state is DomainState.SHUTOFF and (domain.saved or rebooted))


def classify(
    policy: Policy, domains: Sequence[Domain], in_flight: Sequence[InFlight], memory: GroupMemory, at: float
) -> tuple[Instance, ...]:
    """List the group's instances, sorted by id; what is in flight outranks what is listed."""
    instances = {
        domain.ownership.instance: _of_domain(domain, memory.instances.get(domain.ownership.instance), policy.ready, at)
        for domain in domains
        if domain.ownership is not None
    }
    for flight in in_flight:
        action = flight.intent.action
        # What is collected is no instance any more.
        if action.group == policy.group and not isinstance(action, Collect):
            instances[action.instance] = _of_flight(flight, instances.get(action.instance))
    return tuple(instances[key] for key in sorted(instances))


def _of_domain(domain: Domain, memory: InstanceMemory | None, ready: Ready, at: float) -> Instance:
    assert domain.ownership is not None
    state, since = InstanceState.FAILED, at
    detail = None if domain.state is DomainState.RUNNING else domain.state.value
    if memory is not None and domain.state in _RUNNING:
        if memory.ready_at is not None:
            state, since = InstanceState.READY, memory.ready_at
        elif at - memory.started_at <= ready.timeout_seconds or domain.answers is None:
            # A guest that was not asked yet, as after a restart of the daemon, has not failed to answer.
            state, since = InstanceState.BOOTING, memory.started_at
        else:
            since, detail = memory.started_at, READY_TIMEOUT
    elif domain.state is DomainState.IN_SHUTDOWN:
        state = InstanceState.STOPPING
    elif memory is not None and memory.off and memory.failed_starts < MAX_FAILED_STARTS:
        state, since, detail = InstanceState.RETURNING, memory.started_at, SAVED if domain.saved else HOST_REBOOTED
    ownership = domain.ownership
    return Instance(ownership.instance, domain.host, state, since, ownership.created_at, domain, None, detail)


def _of_flight(flight: InFlight, listed: Instance | None) -> Instance:
    action = flight.intent.action
    match action:
        case Clone():
            state = InstanceState.REQUESTED if flight.step is None else InstanceState.CLONING
        case Remove() | Collect():
            state = InstanceState.STOPPING
        case Start():
            state = InstanceState.RETURNING
    return Instance(
        id=action.instance,
        host=action.host,
        state=state,
        since=flight.intent.at,
        created_at=listed.created_at if listed is not None else flight.intent.at,
        domain=listed.domain if listed is not None else None,
        in_flight=flight,
        detail=flight.step,
    )
