"""What is said of a refresh: how far it is and what it waits for, or what became of it."""

from collections.abc import Iterator, Sequence

from autoscaler.core.decision import Reason, ReasonCode, because
from autoscaler.core.instances import Instance
from autoscaler.core.memory import GroupMemory, RefreshPhase, RefreshState
from autoscaler.core.policy import Policy
from autoscaler.core.refresh import waits_until
from autoscaler.core.replacing import Refreshing, pinned_image, stands_on
from autoscaler.core.snapshot import RefreshStatus
from autoscaler.core.transition import InstanceState


def refresh_reasons(
    policy: Policy, instances: Sequence[Instance], memory: GroupMemory, at: float
) -> tuple[Reason, ...]:
    """Say how far a refresh is and what it waits for, or what became of it."""
    refresh = memory.refresh
    if refresh is None:
        return ()
    group = Refreshing(policy, memory, tuple(instances), at)
    said = tuple(_progress(refresh, group)) if refresh.running else tuple(_ended(refresh, group))
    pinned = pinned_image(policy, memory)
    if pinned is not None and refresh.refused is not None:
        about = {"image": str(pinned), "refused": str(refresh.refused), "group": policy.group}
        said += (Reason(ReasonCode.LAUNCHES_PINNED, about),)
    return said


def _progress(refresh: RefreshState, group: Refreshing) -> Iterator[Reason]:
    image, wanted, ready = str(refresh.target), group.goal(refresh), group.ready(refresh)
    if refresh.back and refresh.refused is not None:
        yield _why_back(refresh)
    match refresh.phase:
        case RefreshPhase.ASKED:
            yield because(ReasonCode.REFRESH_ASKED, image=image)
        case RefreshPhase.CANARY:
            yield because(ReasonCode.REFRESH_TRIES, image=image, wanted=wanted, made=group.new(refresh), ready=ready)
        case RefreshPhase.SOAK:
            until = waits_until(refresh, group.policy)
            yield because(ReasonCode.REFRESH_SOAKS, image=image, ready=ready, until=until)
        case RefreshPhase.BATCH:
            left = len(group.others(refresh))
            yield because(ReasonCode.REFRESH_REPLACES, image=image, batch=refresh.batch, ready=ready, left=left)
        case RefreshPhase.PAUSE:
            left, until = len(group.others(refresh)), waits_until(refresh, group.policy)
            yield because(ReasonCode.REFRESH_PAUSES, image=image, batch=refresh.batch, left=left, until=until)
    if refresh.held:
        yield because(ReasonCode.REFRESH_STARVED, image=image)
    spared = _spared(refresh, group)
    if spared:
        yield because(ReasonCode.REFRESH_SPARES, protected=spared)


def _ended(refresh: RefreshState, group: Refreshing) -> Iterator[Reason]:
    """Say how it ended: of a failure always, of all else when it happens."""
    image = str(refresh.target)
    if refresh.phase is RefreshPhase.FAILED:
        why = "" if refresh.why is None else refresh.why.value
        yield because(
            ReasonCode.REFRESH_FAILED, image=image, why=why, instance=refresh.culprit or "", group=group.policy.group
        )
    if refresh.since != group.at:
        return
    match refresh.phase:
        case RefreshPhase.DONE:
            yield because(ReasonCode.REFRESH_DONE, image=image, spared=_spared(refresh, group))
        case RefreshPhase.ROLLED_BACK:
            yield because(ReasonCode.REFRESH_ROLLED_BACK, image=image)
        case RefreshPhase.CANCELLED:
            yield because(ReasonCode.REFRESH_CANCELLED, image=image)


def _why_back(refresh: RefreshState) -> Reason:
    assert refresh.refused is not None
    about = {
        "image": str(refresh.target),
        "refused": str(refresh.refused),
        "why": "" if refresh.why is None else refresh.why.value,
        "instance": refresh.culprit or "",
    }
    return Reason(ReasonCode.REFRESH_GOES_BACK, about)


def _spared(refresh: RefreshState, group: Refreshing) -> int:
    """Count what stays on another image because an operator protects it or took it out of the group."""
    kept = [i for i in group.instances if i.protected or i.state is InstanceState.DETACHED]
    return sum(not stands_on(refresh.target, i) for i in kept)


def refresh_status(
    policy: Policy, instances: Sequence[Instance], memory: GroupMemory, at: float
) -> RefreshStatus | None:
    """Show a refresh that is under way, or the last one; None where there was none."""
    refresh = memory.refresh
    if refresh is None:
        return None
    group = Refreshing(policy, memory, tuple(instances), at)
    return RefreshStatus(
        refresh.target,
        refresh.previous,
        refresh.phase,
        refresh.since,
        refresh.started_at,
        refresh.by,
        back=refresh.back,
        refused=refresh.refused,
        why=refresh.why,
        culprit=refresh.culprit,
        batch=refresh.batch,
        old=len(group.others(refresh)),
        new=group.new(refresh),
        ready=group.ready(refresh),
        spared=_spared(refresh, group),
        pinned=pinned_image(policy, memory) is not None,
    )
