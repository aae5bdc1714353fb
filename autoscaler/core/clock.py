"""Keeping memory right when the wall clock is set back."""

from dataclasses import replace

from autoscaler.core.memory import GroupMemory, Memory, RefreshState


def set_back(memory: Memory, at: float) -> tuple[Memory, float]:
    """Shift memory by the difference where `at` is earlier than it; give the seconds it was shifted by.

    Everything remembered keeps its distance to now, so no cooldown or window is frozen until the old time comes again.
    """
    if memory.at is None or at >= memory.at:
        return memory, 0.0
    seconds = memory.at - at
    groups = {name: _shift(group, seconds) for name, group in memory.groups.items()}
    leftovers = {key: began - seconds for key, began in memory.leftovers.items()}
    preempted = {host: when - seconds for host, when in memory.preempted.items()}
    return replace(memory, at=at, groups=groups, leftovers=leftovers, preempted=preempted), seconds


def _shift(group: GroupMemory, seconds: float) -> GroupMemory:
    return replace(
        group,
        samples={
            metric: tuple(replace(sample, at=sample.at - seconds) for sample in samples)
            for metric, samples in group.samples.items()
        },
        wishes=tuple(replace(wish, at=wish.at - seconds) for wish in group.wishes),
        changes=tuple(replace(change, at=change.at - seconds) for change in group.changes),
        scaled_out_at=_earlier(group.scaled_out_at, seconds),
        scaled_in_at=_earlier(group.scaled_in_at, seconds),
        instances={
            name: replace(
                instance,
                started_at=instance.started_at - seconds,
                ready_at=_earlier(instance.ready_at, seconds),
                silent_since=_earlier(instance.silent_since, seconds),
                draining_since=_earlier(instance.draining_since, seconds),
                unwanted_since=_earlier(instance.unwanted_since, seconds),
                unserved_since=_earlier(instance.unserved_since, seconds),
                protected_until=_earlier(instance.protected_until, seconds),
            )
            for name, instance in group.instances.items()
        },
        lives={name: replace(life, since=life.since - seconds) for name, life in group.lives.items()},
        launched=tuple(at - seconds for at in group.launched),
        tripped_at=_earlier(group.tripped_at, seconds),
        override=None if group.override is None else replace(group.override, until=group.override.until - seconds),
        retry_at=_earlier(group.retry_at, seconds),
        removal_retry_at=_earlier(group.removal_retry_at, seconds),
        refresh=None if group.refresh is None else _shift_refresh(group.refresh, seconds),
    )


def _shift_refresh(refresh: RefreshState, seconds: float) -> RefreshState:
    return replace(
        refresh,
        started_at=refresh.started_at - seconds,
        since=refresh.since - seconds,
        progress_at=refresh.progress_at - seconds,
    )


def _earlier(at: float | None, seconds: float) -> float | None:
    return None if at is None else at - seconds
