"""The policy's section on refreshes: how a new version of the golden image replaces the instances."""

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from autoscaler.core.policy import CountOrShare, Refresh
from autoscaler.policy.fields import DAY, Duration, Flag, Whole, count, duration, seconds, written
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    WrongValueError,
    between,
    found,
    read_share,
    write_duration,
    write_share,
)

_REFRESH = Refresh()
_MOST = 1000


def _count_or_share(low: int) -> BeforeValidator:
    """Make a reader of a count from `low` on, or of a share that comes to as much."""

    def read(value: object) -> CountOrShare:
        if isinstance(value, int) and not isinstance(value, bool):
            return CountOrShare(between(low, _MOST, str)(value))
        if not isinstance(value, str):
            raise WrongValueError(
                f"must be a number of instances such as 2, or a share such as 25%, not {found(value)}"
            )
        share = between(0.0, 1.0, write_share)(read_share(value))
        if low and not share:
            raise WrongValueError(f"{write_share(share)} is out of bounds; allowed: above 0% to 100%")
        return CountOrShare(share=share)

    return BeforeValidator(read)


def _write(value: CountOrShare) -> str | int:
    return write_share(value.share) if value.count is None else value.count


def _schema(low: int) -> WithJsonSchema:
    choices = [
        {"type": "integer", "minimum": low, "maximum": _MOST},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"},
    ]
    return WithJsonSchema({"anyOf": choices, "examples": [2, "25%"]})


class RefreshSection(Section):
    """How a new version of the golden image replaces the instances."""

    canary: Annotated[Whole, count(0, _MOST)] = _REFRESH.canary
    canary_soak: Annotated[Duration, seconds(0, DAY)] = duration(_REFRESH.canary_soak_seconds)
    batch: Annotated[CountOrShare, _count_or_share(1), _schema(1)] = written(
        _REFRESH.batch, str(_write(_REFRESH.batch))
    )
    pause: Annotated[Duration, seconds(0, DAY)] = duration(_REFRESH.pause_seconds)
    min_in_service: Annotated[CountOrShare, _count_or_share(0), _schema(0)] = written(
        _REFRESH.min_in_service, str(_write(_REFRESH.min_in_service))
    )
    timeout: Annotated[Duration, seconds(60, 7 * DAY)] = duration(_REFRESH.timeout_seconds)
    rollback: Flag = _REFRESH.rollback


def refresh_to_core(section: RefreshSection) -> Refresh:
    """Turn the section into the core's."""
    return Refresh(
        canary=section.canary,
        canary_soak_seconds=section.canary_soak,
        batch=section.batch,
        pause_seconds=section.pause,
        min_in_service=section.min_in_service,
        timeout_seconds=section.timeout,
        rollback=section.rollback,
    )


def refresh_data(refresh: Refresh) -> dict[str, object]:
    """Write the section."""
    return {
        "canary": refresh.canary,
        "canary_soak": write_duration(refresh.canary_soak_seconds),
        "batch": _write(refresh.batch),
        "pause": write_duration(refresh.pause_seconds),
        "min_in_service": _write(refresh.min_in_service),
        "timeout": write_duration(refresh.timeout_seconds),
        "rollback": refresh.rollback,
    }
