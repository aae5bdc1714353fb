"""What the hosts can carry of what the groups want, and who goes first where that is not all.

All groups share one ledger per host. In a first round every group is granted clones up to its minimum, in a second
what it wants beyond; both in the order of priority, then of names. A group that is refused claims what it lacks, if
less urgent groups could give it: these get no more of it, and one after another their surplus is drained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from autoscaler.core.action import Clone
from autoscaler.core.capacity import RELEASED, Expected, Key, Ledger, Need, Resource, Shortage, need_of, open_ledger
from autoscaler.core.decision import Decision, Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import LoadSample
from autoscaler.core.observation import HostCapacity, HostInventory, Observation
from autoscaler.core.policy import Policy, Starved
from autoscaler.core.starvation import starvation
from autoscaler.core.transition import InstanceState

REFUSALS: Mapping[ReasonCode, str] = {
    **{ReasonCode(f"refused_for_{resource.value}"): resource.value for resource in Resource},
    ReasonCode.REFUSED_FOR_UNREAD_CAPACITY: "unread_capacity",
}
"""The reasons that refuse clones, with the name of what is scarce."""
MADE_ROOM_FOR = frozenset(ReasonCode(f"refused_for_{resource.value}") for resource in RELEASED)
"""The refusals that end when an instance of the group has gone."""
_GOING = frozenset({InstanceState.STOPPING, InstanceState.FAILED})
_LEAVING = frozenset({InstanceState.STOPPING, InstanceState.DRAINING})
_IN_BYTES = frozenset({Resource.MEMORY, Resource.HUGEPAGES, Resource.POOL_SPACE})


@dataclass(frozen=True, slots=True)
class Asking:
    """What one group wants, and what it has."""

    policy: Policy
    decision: Decision
    instances: tuple[Instance, ...]
    acts: bool
    """Whether it may start instances now; one that may not is told how it would fare after all others."""
    lacking: int
    """How many clones it wants, also to replace what is still there."""
    samples: Mapping[str, tuple[LoadSample, ...]] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The group's name."""
        return self.policy.group

    @property
    def live(self) -> int:
        """How many instances serve, or will."""
        return sum(instance.live for instance in self.instances)

    @property
    def surplus(self) -> int:
        """How many instances could be drained for a more urgent group; none of what an operator holds."""
        if not self.acts or any(reason.code is ReasonCode.HELD_BY_OPERATOR for reason in self.decision.reasons):
            return 0
        idle = sum(i.live and i.in_flight is None and not i.protected for i in self.instances)
        leaving = max(0, self.live - self.decision.desired)
        return max(0, min(self.live - leaving - self.policy.size.min, idle - leaving))


@dataclass(frozen=True, slots=True)
class Admission:
    """The decisions after the hosts' limits, the ledgers with what was granted, and when hosts last made room."""

    decisions: Mapping[str, Decision]
    remembered: Mapping[str, int]
    """The count each group's next decision starts from: a replacement that has to wait is not forgotten."""
    clones: Mapping[str, int]
    """How many clones each group was granted."""
    ledgers: Mapping[str, Ledger]
    preempted: Mapping[str, float]
    """When an instance was last drained for a more urgent group, by host."""


@dataclass(slots=True)
class _Turn:
    """A group while it is being admitted."""

    asking: Asking
    need: Need
    wanted: int
    granted: int = 0
    shortage: Shortage | None = None
    yields_to: tuple[Policy, Key] | None = None
    drained: int = 0
    reasons: tuple[Reason, ...] = ()

    @property
    def policy(self) -> Policy:
        return self.asking.policy

    @property
    def host(self) -> str:
        return self.asking.policy.host

    @property
    def refused(self) -> int:
        return self.wanted - self.granted


def admit(askings: Sequence[Asking], observation: Observation, preempted: Mapping[str, float]) -> Admission:
    """Grant each group what its host can carry; `preempted` is what the admission before gave."""
    capacities = _capacities(observation)
    ledgers = {host: _open(capacity, askings, observation) for host, capacity in capacities.items()}
    turns = [_turn(asking, capacities, observation) for asking in sorted(askings, key=_urgency)]
    acting = [turn for turn in turns if turn.asking.acts]
    claims = _grant_all(acting, ledgers)
    # What does not act takes nothing: it is told how it would fare.
    _grant_all([turn for turn in turns if not turn.asking.acts], dict(ledgers), claims)
    times = {host: at for host, at in preempted.items() if host in observation.inventory}
    for host, capacity in capacities.items():
        due = host not in times or observation.at - times[host] >= capacity.limits.preempt_every_seconds
        if due and _make_room([turn for turn in claims if turn.host == host], turns, ledgers):
            times[host] = observation.at
    decisions = {turn.asking.group: _decision(turn) for turn in turns}
    clones = {turn.asking.group: turn.granted for turn in turns}
    return Admission(
        decisions, {turn.asking.group: _remembered(turn, decisions) for turn in turns}, clones, ledgers, times
    )


def _grant_all(turns: Sequence[_Turn], ledgers: dict[str, Ledger], claims: Sequence[_Turn] = ()) -> list[_Turn]:
    """Grant in two rounds; gives the claims of those that were refused."""
    for turn in turns:
        _grant(turn, ledgers, turn.policy.size.min - turn.asking.live, ())
    made = list(claims)
    for turn in turns:
        _grant(turn, ledgers, turn.wanted, made)
        if turn.shortage is not None and _can_be_released(turn, turns, ledgers):
            made.append(turn)
    return made


def _remembered(turn: _Turn, decisions: Mapping[str, Decision]) -> int:
    decision = decisions[turn.asking.group]
    return decision.admitted if turn.drained else max(decision.admitted, min(decision.current, decision.desired))


def _urgency(asking: Asking) -> tuple[bool, int, str]:
    return not asking.acts, -asking.policy.priority, asking.group


def _capacities(observation: Observation) -> dict[str, HostCapacity]:
    return {
        host: inventory.capacity
        for host, inventory in sorted(observation.inventory.items())
        if isinstance(inventory, HostInventory) and inventory.capacity is not None
    }


def _open(capacity: HostCapacity, askings: Sequence[Asking], observation: Observation) -> Ledger:
    """Open a host's ledger with all our instances there, each once, and clones of groups that have no policy."""
    ours = {
        instance.id: Expected(instance.id, instance.image or asking.policy.image, asking.policy.machine)
        for asking in askings
        for instance in asking.instances
        if instance.host == capacity.host and instance.owned and instance.state not in _GOING
    }
    for flight in observation.in_flight:
        action = flight.intent.action
        if isinstance(action, Clone) and action.host == capacity.host:
            ours[action.instance] = Expected(action.instance, action.image, action.machine)
    return open_ledger(capacity, observation.hosts.get(capacity.host), ours.values())


def _turn(asking: Asking, capacities: Mapping[str, HostCapacity], observation: Observation) -> _Turn:
    policy, decision = asking.policy, asking.decision
    capacity = capacities.get(policy.host)
    need = need_of(policy.machine, policy.image, capacity) if capacity is not None else {}
    turn = _Turn(asking, need, asking.lacking)
    starved = starvation(policy, asking.samples, observation)
    if starved is None or policy.starved is Starved.IGNORE:
        return turn
    held = next((r for r in decision.reasons if r.code is ReasonCode.HELD_BY_STARVED_GUESTS), None)
    about: dict[str, int | float | str] = {
        "steal": starved.steal,
        "wanted": held.parameters["wanted"] if held is not None else decision.desired,
        "culprits": starved.describe_culprits(),
    }
    grows = decision.desired > decision.current
    if policy.starved is Starved.ALARM:
        if decision.desired != decision.current:
            turn.reasons = (Reason(ReasonCode.ACTS_THOUGH_STARVED, about),)
    elif grows or held is not None:
        if grows:
            most = max(decision.current, policy.size.min)
            turn.wanted = max(0, asking.lacking - max(0, decision.desired - most))
        turn.reasons = (Reason(ReasonCode.STARVED, about),)
    return turn


def _grant(turn: _Turn, ledgers: dict[str, Ledger], most: int, claims: Sequence[_Turn]) -> None:
    """Grant clones one by one, up to `most` of them, until something is scarce."""
    turn.shortage = None
    ledger = ledgers.get(turn.host)
    while turn.granted < min(turn.wanted, most):
        if ledger is not None:
            turn.yields_to = _claimed(turn, claims)
            turn.shortage = ledger.shortage(turn.need)
            if turn.yields_to is not None or turn.shortage is not None:
                return
            ledger = ledgers[turn.host] = ledger.take(turn.need)
        turn.granted += 1


def _claimed(turn: _Turn, claims: Sequence[_Turn]) -> tuple[Policy, Key] | None:
    """Tell who, more urgent, waits for something that this group needs as well."""
    for claim in claims:
        key = _scarce(claim)
        if claim.host == turn.host and turn.need.get(key, 0) and claim.policy.priority > turn.policy.priority:
            return claim.policy, key
    return None


def _scarce(turn: _Turn) -> Key:
    assert turn.shortage is not None
    return turn.shortage.key


def _can_be_released(turn: _Turn, turns: Sequence[_Turn], ledgers: Mapping[str, Ledger]) -> bool:
    """Whether draining less urgent groups down to their minimum would make room for one more."""
    key = _scarce(turn)
    if not turn.asking.acts or key.resource not in RELEASED or (turn.shortage and turn.shortage.why is not None):
        return False
    surplus = sum(other.asking.surplus * other.need.get(key, 0) for other in _lesser(turn, turns))
    return _free(ledgers[turn.host], key) + _leaving(turn.host, key, turns) + surplus >= turn.need[key]


def _make_room(claims: Sequence[_Turn], turns: Sequence[_Turn], ledgers: Mapping[str, Ledger]) -> bool:
    """Drain one instance of a less urgent group for the most urgent claim, unless enough is being drained already."""
    for claim in claims:
        key = _scarce(claim)
        if _free(ledgers[claim.host], key) + _leaving(claim.host, key, turns) >= claim.need[key]:
            continue
        victims = [t for t in _lesser(claim, turns) if t.asking.surplus and t.need.get(key, 0) and not t.granted]
        if not victims:
            continue
        victim = min(victims, key=lambda t: (t.policy.priority, -t.asking.surplus, t.asking.group))
        victim.drained, victim.yields_to = 1, (claim.policy, key)
        about = because(
            ReasonCode.TAKES_ROOM_FROM,
            group=victim.asking.group,
            priority=victim.policy.priority,
            host=claim.host,
            resource=key.resource.value,
        )
        claim.reasons = (*claim.reasons, about)
        return True
    return False


def _lesser(turn: _Turn, turns: Sequence[_Turn]) -> list[_Turn]:
    return [other for other in turns if other.host == turn.host and other.policy.priority < turn.policy.priority]


def _free(ledger: Ledger, key: Key) -> int:
    account = ledger.account(key)
    return account.free if account is not None else 0


def _leaving(host: str, key: Key, turns: Sequence[_Turn]) -> int:
    """Sum up what instances on their way out will give back, and what groups that scale in will."""
    total = 0
    for turn in turns:
        stopping = sum(i.state in _LEAVING and i.host == host for i in turn.asking.instances)
        surplus = max(0, turn.asking.live - turn.asking.decision.desired) if turn.host == host else 0
        total += (stopping + (surplus if turn.asking.acts else 0)) * turn.need.get(key, 0)
    return total


def _decision(turn: _Turn) -> Decision:
    decision, asking = turn.asking.decision, turn.asking
    reasons = decision.reasons + turn.reasons
    # A replacement that is refused leaves the count as it is: what it would have replaced is still there.
    served = min(decision.desired, asking.live + turn.granted)
    admitted = max(decision.desired - (asking.lacking - turn.granted), served)
    if turn.drained:
        admitted = min(admitted, asking.live) - turn.drained
    if turn.yields_to is not None and (turn.refused or turn.drained):
        policy, key = turn.yields_to
        about: dict[str, str | int] = {"group": policy.group, "priority": policy.priority, "host": turn.host}
        reasons += (
            Reason(ReasonCode.YIELDS_TO_GROUP, {**about, "resource": key.resource.value, "drained": turn.drained}),
        )
    if turn.shortage is not None:
        reasons += (_refusal(turn, turn.shortage),)
    return replace(decision, admitted=admitted, reasons=reasons)


def _refusal(turn: _Turn, shortage: Shortage) -> Reason:
    key = shortage.key
    about: dict[str, int | float | str] = {"refused": turn.refused, "host": turn.host}
    if shortage.why is not None:
        return Reason(ReasonCode.REFUSED_FOR_UNREAD_CAPACITY, {**about, "resource": str(key), "why": shortage.why})
    if key.resource is Resource.PRESSURE:
        return Reason(ReasonCode.REFUSED_FOR_PRESSURE, {**about, "load": shortage.have, "limit": shortage.need})
    if key.resource in (Resource.POOL_SPACE, Resource.ADDRESSES):
        about["name"] = key.name
    unit = "_bytes" if key.resource in _IN_BYTES else ""
    about |= {f"need{unit}": shortage.need, f"have{unit}": shortage.have}
    return Reason(ReasonCode(f"refused_for_{key.resource.value}"), about)
