"""The instances of a group: what the hosts list, what is in flight, and what is remembered, put together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from autoscaler.core.action import Clone, Collect, Drain, InFlight, Remove, Start
from autoscaler.core.health import balancer_of, examine
from autoscaler.core.memory import GroupMemory, InstanceMemory
from autoscaler.core.observation import Domain, DomainState, HostInventory, HostSample, Observation, Unknown
from autoscaler.core.policy import Image, Policy
from autoscaler.core.transition import InstanceState, TransitionReason

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
    note: TransitionReason | None = None
    """What somebody did to it that changes no state."""
    protected: bool = False

    @property
    def reachable(self) -> bool:
        """Whether its host is in the configuration."""
        return self.note is not TransitionReason.UNREACHABLE

    @property
    def live(self) -> bool:
        """Whether it serves or will serve, as far as its group can count on it."""
        return self.state in LIVE and self.reachable

    @property
    def image(self) -> Image | None:
        """The golden image it stands on, or will; None where nobody can tell."""
        if self.domain is not None and self.domain.ownership is not None:
            return self.domain.ownership.image
        action = self.in_flight.intent.action if self.in_flight is not None else None
        return action.image if isinstance(action, Clone) else None

    @property
    def owned(self) -> bool:
        """Whether it counts against the maximum: in every state but detached."""
        return self.state is not InstanceState.DETACHED


def domains_by_group(observation: Observation, controller: str) -> dict[str, tuple[Domain, ...]]:
    """List every group's domains by ownership, in one pass over all hosts."""
    groups: dict[str, list[Domain]] = {}
    for inventory in observation.inventory.values():
        for domain in inventory.domains if isinstance(inventory, HostInventory) else ():
            if domain.ownership is not None and domain.ownership.controller == controller:
                groups.setdefault(domain.ownership.group, []).append(domain)
    return {group: tuple(domains) for group, domains in groups.items()}


def serving(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Present what serves beside the ready ones as ready, so that the load it carries is not taken for gone.

    What drains serves on. What is unhealthy may; where its load cannot be told, that is missing and not nothing.
    """
    beside = {InstanceState.DRAINING, InstanceState.UNHEALTHY}
    return tuple(replace(i, state=InstanceState.READY) if i.state in beside and i.reachable else i for i in instances)


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
    group: GroupMemory, policy: Policy, domains: Sequence[Domain], observation: Observation
) -> dict[str, InstanceMemory]:
    """Note when each instance was first seen running, in which boot of its host, when it was ready, and its health.

    What is gone is forgotten, but for what ran on a host that the configuration no longer names.
    """
    at, booted = observation.at, boots(observation)
    balancer = balancer_of(policy, observation.traffic.get(policy.group))
    remembered = {name: known for name, known in group.instances.items() if known.host not in observation.inventory}
    for domain in domains:
        assert domain.ownership is not None
        name = domain.ownership.instance
        boot = booted.get(domain.host)
        memory = group.instances.get(name)
        if domain.state in _RUNNING:
            memory = _seen_running(memory, domain.host, boot, at)
        elif memory is not None or domain.saved:
            memory = _seen_off(memory or InstanceMemory(domain.host, at), domain, boot)
        if memory is not None:
            remembered[name] = examine(memory, domain, (observation.probes.get(name), balancer), policy, at)
    return remembered


def _seen_running(memory: InstanceMemory | None, host: str, boot: str | None, at: float) -> InstanceMemory:
    if memory is None:
        return InstanceMemory(host, at, boot=boot)
    if memory.off or (boot is not None and memory.boot not in {None, boot}):
        return InstanceMemory(
            host,
            at,
            boot=boot or memory.boot,
            returned=True,
            detached=memory.detached,
            protected_until=memory.protected_until,
        )
    return replace(memory, host=host, boot=boot or memory.boot)


def _seen_off(memory: InstanceMemory, domain: Domain, boot: str | None) -> InstanceMemory:
    """Tell what its host's shutdown turned off, or put to sleep, from what ended by itself or by an operator's hand.

    A host that for once does not tell its boot is taken for rebooted: starting an instance does no harm.
    """
    rebooted = memory.boot is not None and memory.boot != boot
    return replace(memory, off=domain.state is DomainState.SHUTOFF and (domain.saved or rebooted))


def flights_by_group(observation: Observation) -> dict[str, tuple[InFlight, ...]]:
    """List what is in flight of every group, in one pass."""
    groups: dict[str, list[InFlight]] = {}
    for flight in observation.in_flight:
        groups.setdefault(flight.intent.action.group, []).append(flight)
    return {group: tuple(flights) for group, flights in groups.items()}


def classify(
    domains: Sequence[Domain], in_flight: Sequence[InFlight], memory: GroupMemory, observation: Observation
) -> tuple[Instance, ...]:
    """List a group's instances, sorted by id; what is in flight of it outranks what is listed."""
    at = observation.at
    instances = {name: _out_of_reach(name, memory) for name in _lost_hosts(memory, observation)}
    for domain in domains:
        assert domain.ownership is not None
        name = domain.ownership.instance
        instances[name] = _of_domain(domain, memory.instances.get(name), at)
    for flight in in_flight:
        action = flight.intent.action
        # What is collected is no instance any more.
        if not isinstance(action, Collect):
            instances[action.instance] = _of_flight(flight, instances.get(action.instance))
    return tuple(instances[key] for key in sorted(instances))


def _lost_hosts(memory: GroupMemory, observation: Observation) -> Iterator[str]:
    """Name the instances that ran on hosts which the configuration no longer names."""
    for name, life in memory.lives.items():
        if life.host not in observation.inventory and name in memory.instances:
            yield name


def _out_of_reach(name: str, memory: GroupMemory) -> Instance:
    life, known = memory.lives[name], memory.instances[name]
    state = InstanceState.DETACHED if known.detached else life.state
    if life.state is InstanceState.DETACHED and not known.detached:
        state = InstanceState.READY
    return Instance(name, life.host, state, life.since, known.started_at, note=TransitionReason.UNREACHABLE)


def _of_domain(domain: Domain, memory: InstanceMemory | None, at: float) -> Instance:
    assert domain.ownership is not None
    ownership = domain.ownership
    state, since, detail = _state(domain, memory, at)
    protected = memory is not None and memory.protected_until is not None and at < memory.protected_until
    return Instance(
        ownership.instance,
        domain.host,
        state,
        since,
        ownership.created_at,
        domain,
        None,
        detail,
        _note(domain, state),
        protected,
    )


_State = tuple[InstanceState, float, str | None]


def _state(domain: Domain, memory: InstanceMemory | None, at: float) -> _State:
    """Tell the state of a listed domain, since when, and what more there is to say."""
    if memory is None:
        if domain.state is DomainState.IN_SHUTDOWN:
            return InstanceState.STOPPING, at, domain.state.value
        return InstanceState.FAILED, at, None if domain.state is DomainState.RUNNING else domain.state.value
    if memory.detached:
        return InstanceState.DETACHED, at, domain.state.value
    if memory.sick is not None:
        return InstanceState.UNHEALTHY, at, memory.sick.value
    return _of_running(domain, memory) if domain.state in _RUNNING else _of_off(domain, memory, at)


def _of_running(domain: Domain, memory: InstanceMemory) -> _State:
    detail = None if domain.state is DomainState.RUNNING else domain.state.value
    if memory.timed_out:
        return InstanceState.FAILED, memory.started_at, TransitionReason.READY_TIMEOUT.value
    if memory.ready_at is None:
        return InstanceState.BOOTING, memory.started_at, detail
    if memory.draining is not None:
        return InstanceState.DRAINING, memory.draining_since or memory.ready_at, memory.draining.value
    return InstanceState.READY, memory.ready_at, detail


def _of_off(domain: Domain, memory: InstanceMemory, at: float) -> _State:
    if domain.state is DomainState.IN_SHUTDOWN:
        return InstanceState.STOPPING, at, domain.state.value
    if memory.off and memory.failed_starts < MAX_FAILED_STARTS:
        why = TransitionReason.SAVED if domain.saved else TransitionReason.HOST_REBOOTED
        return InstanceState.RETURNING, memory.started_at, why.value
    if domain.crashed:
        return InstanceState.FAILED, at, TransitionReason.CRASHED.value
    if memory.ready_at is not None and domain.state is DomainState.SHUTOFF and not memory.off:
        return InstanceState.FAILED, at, TransitionReason.STOPPED_BY_SOMEBODY.value
    return InstanceState.FAILED, at, domain.state.value


def _note(domain: Domain, state: InstanceState) -> TransitionReason | None:
    assert domain.ownership is not None
    if domain.state in {DomainState.PAUSED, DomainState.SUSPENDED} and not domain.io_error:
        return TransitionReason.PAUSED_BY_SOMEBODY
    if domain.name != domain.ownership.instance and state is not InstanceState.STOPPING:
        return TransitionReason.RENAMED_BY_SOMEBODY
    return None


def _of_flight(flight: InFlight, listed: Instance | None) -> Instance:
    action = flight.intent.action
    match action:
        case Clone():
            state = InstanceState.REQUESTED if flight.step is None else InstanceState.CLONING
        case Remove() | Collect():
            state = InstanceState.STOPPING
        case Start():
            state = InstanceState.RETURNING
        case Drain():
            if listed is not None:
                return replace(listed, in_flight=flight)
            # Its domain is gone: it counts for as long as its hooks run, and there is nothing to take back.
            state = InstanceState.STOPPING
    return Instance(
        id=action.instance,
        host=action.host,
        state=state,
        since=flight.intent.at,
        created_at=listed.created_at if listed is not None else flight.intent.at,
        domain=listed.domain if listed is not None else None,
        in_flight=flight,
        detail=flight.step,
        protected=listed.protected if listed is not None else False,
    )
