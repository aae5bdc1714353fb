"""The policy file, version 1: what may stand in it, within which bounds, and what it becomes for the core.

Defaults are those of the core's dataclasses.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from autoscaler.core.policy import (
    Accelerator,
    Across,
    Behavior,
    DirectionLimits,
    Drain,
    Image,
    Machine,
    Mode,
    Policy,
    Ready,
    Size,
    Starved,
    TargetTracking,
)
from autoscaler.core.signals import FULL, METRICS
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    GROUP_PATTERN,
    BrokenRulesError,
    WrongValueError,
    between,
    choice,
    found,
    nearest,
    one_of,
    read_duration,
    read_flag,
    read_group,
    read_name,
    read_share,
    read_size,
    read_whole,
    write_duration,
    write_share,
    write_size,
)

VERSION = 1
KNOWN_HOSTS = "known_hosts"
"""The key of the validation context under which the configuration's host names are given."""

MEASURED_INSIDE = frozenset({"guest.cpu"})
"""Metrics that are measured in the instances, so that a group without any can never tell that it needs one."""

_HOUR = 3600.0
_DAY = 24 * _HOUR
_MIB = 1024**2
_DEFAULT = Policy(group="", image=Image("", ""), size=Size(0, 0))
_TRACKING = TargetTracking(metric="", target=1.0)

Group = Annotated[str, BeforeValidator(read_group), WithJsonSchema({"type": "string", "pattern": GROUP_PATTERN})]
Name = Annotated[str, BeforeValidator(read_name)]
Flag = Annotated[bool, BeforeValidator(read_flag)]
Whole = Annotated[int, BeforeValidator(read_whole)]
Duration = Annotated[
    float,
    BeforeValidator(read_duration),
    WithJsonSchema({"type": "string", "examples": ["90s", "5m", "1h30m", "500ms"]}),
]
Share = Annotated[
    float, BeforeValidator(read_share), WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"})
]
Bytes = Annotated[
    int, BeforeValidator(read_size), WithJsonSchema({"type": "string", "examples": ["192MiB", "2GiB", "1GB"]})
]


def _seconds(low: float, high: float) -> AfterValidator:
    return AfterValidator(between(low, high, write_duration))


def _count(low: int, high: int) -> AfterValidator:
    return AfterValidator(between(low, high, str))


def _written(value: object, text: str) -> Any:
    """Give a field its default, and let the schema show it as people write it."""
    return Field(default=value, json_schema_extra={"default": text})


def _duration(seconds: float) -> Any:
    return _written(seconds, write_duration(seconds))


def _version(value: object) -> int:
    if value != VERSION or isinstance(value, bool | float):
        raise WrongValueError(f"this release reads version {VERSION} of the policy file, not {found(value)}")
    return VERSION


def _target(value: float) -> float:
    if not 0 < value <= FULL:
        raise WrongValueError(f"{write_share(value)} is out of bounds; allowed: above 0% to 100%")
    return value


def _tolerance(value: float) -> float:
    if value >= 1:
        raise WrongValueError(f"{write_share(value)} is out of bounds; allowed: 0% to below 100%")
    return value


class ImageSection(Section):
    """The golden image."""

    pool: Name
    volume: Name


class MachineSection(Section):
    """The shape of every instance."""

    vcpus: Annotated[Whole, _count(1, 256)] = _DEFAULT.machine.vcpus
    memory: Annotated[Bytes, AfterValidator(between(16 * _MIB, 4 * 1024 * 1024 * _MIB, write_size))] = _written(
        _DEFAULT.machine.memory_bytes, write_size(_DEFAULT.machine.memory_bytes)
    )
    network: Name = _DEFAULT.machine.network
    accelerator: Annotated[Accelerator, BeforeValidator(choice(Accelerator))] = _DEFAULT.machine.accelerator
    hugepages: Flag = _DEFAULT.machine.hugepages


class SizeSection(Section):
    """Bounds on the number of instances."""

    min: Annotated[Whole, _count(0, 1000)]
    max: Annotated[Whole, _count(1, 1000)]

    @field_validator("max")
    @classmethod
    def _above_min(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min", 0):
            raise WrongValueError(f"{value} is less than min, which is {info.data['min']}")
        return value


class TargetTrackingSection(Section):
    """Keep the load near a target."""

    type: Annotated[
        str,
        BeforeValidator(one_of(["target_tracking"])),
        WithJsonSchema({"type": "string", "const": "target_tracking"}),
    ]
    metric: Annotated[
        str, BeforeValidator(one_of(METRICS)), WithJsonSchema({"type": "string", "enum": sorted(METRICS)})
    ]
    target: Annotated[Share, AfterValidator(_target)]
    across: Annotated[Across, BeforeValidator(choice(Across))] = _TRACKING.across
    over: Annotated[Duration, _seconds(1, _HOUR)] = _duration(_TRACKING.over_seconds)


class ScaleOutSection(Section):
    """What slows scaling out."""

    cooldown: Annotated[Duration, _seconds(0, _DAY)] = _duration(_DEFAULT.behavior.scale_out.cooldown_seconds)
    stabilization: Annotated[Duration, _seconds(0, _HOUR)] = _duration(
        _DEFAULT.behavior.scale_out.stabilization_seconds
    )


class ScaleInSection(Section):
    """What slows scaling in."""

    cooldown: Annotated[Duration, _seconds(0, _DAY)] = _duration(_DEFAULT.behavior.scale_in.cooldown_seconds)
    stabilization: Annotated[Duration, _seconds(0, _HOUR)] = _duration(_DEFAULT.behavior.scale_in.stabilization_seconds)


class BehaviorSection(Section):
    """What keeps a group steady."""

    tolerance: Annotated[Share, AfterValidator(_tolerance)] = _written(
        _DEFAULT.behavior.tolerance, write_share(_DEFAULT.behavior.tolerance)
    )
    scale_out: ScaleOutSection = Field(default_factory=ScaleOutSection)
    scale_in: ScaleInSection = Field(default_factory=ScaleInSection)


class ReadySection(Section):
    """When an instance counts as ready."""

    agent: Flag = _DEFAULT.ready.agent
    timeout: Annotated[Duration, _seconds(1, _DAY)] = _duration(_DEFAULT.ready.timeout_seconds)


class DrainSection(Section):
    """How an instance leaves."""

    deadline: Annotated[Duration, _seconds(0, _DAY)] = _duration(_DEFAULT.drain.deadline_seconds)


def _host(value: str, info: ValidationInfo) -> str:
    known = (info.context or {}).get(KNOWN_HOSTS)
    if known is not None and value not in known:
        raise WrongValueError(f"the configuration has no host '{value}'; {nearest(value, known)}")
    return value


class PolicyFile(Section):
    """One group's policy."""

    version: Annotated[int, BeforeValidator(_version), WithJsonSchema({"type": "integer", "const": VERSION})]
    group: Group
    hosts: list[Annotated[Name, AfterValidator(_host)]] = Field(
        default=list(_DEFAULT.hosts), json_schema_extra={"minItems": 1, "maxItems": 1}
    )
    mode: Annotated[Mode, BeforeValidator(choice(Mode))] = _DEFAULT.mode
    image: ImageSection
    machine: MachineSection = Field(default_factory=MachineSection)
    size: SizeSection
    behavior: BehaviorSection = Field(default_factory=BehaviorSection)
    scaling: list[TargetTrackingSection] = Field(default=[])
    warm_up: Annotated[Duration, _seconds(0, _HOUR)] = _duration(_DEFAULT.warm_up_seconds)
    ready: ReadySection = Field(default_factory=ReadySection)
    drain: DrainSection = Field(default_factory=DrainSection)
    priority: Annotated[Whole, _count(0, 100)] = _DEFAULT.priority
    starved: Annotated[Starved, BeforeValidator(choice(Starved))] = _DEFAULT.starved

    @field_validator("hosts", mode="before")
    @classmethod
    def _one_host(cls, value: object) -> object:
        if isinstance(value, str):
            raise WrongValueError(f"must be a list; write [{value}]")
        if value == []:
            raise WrongValueError("a group needs a host; write the name of one")
        if isinstance(value, list) and len(value) > 1:
            raise WrongValueError("a group runs on one host for now; remove the others", ("hosts", 1))
        return value

    @field_validator("scaling")
    @classmethod
    def _can_scale(cls, value: list[TargetTrackingSection], info: ValidationInfo) -> list[TargetTrackingSection]:
        errors = [
            *_twice(value),
            *_unreachable(value, info.data.get("behavior")),
            *_blind(value, info.data.get("size")),
        ]
        if errors:
            raise BrokenRulesError(errors)
        return value


def _twice(scaling: list[TargetTrackingSection]) -> Iterator[WrongValueError]:
    seen: dict[tuple[str, Across, float], int] = {}
    for index, entry in enumerate(scaling):
        first = seen.setdefault((entry.metric, entry.across, entry.over), index)
        if first != index:
            message = (
                f"{entry.metric} {entry.across} over {write_duration(entry.over)} has a target, in scaling[{first}]"
            )
            yield WrongValueError(message, ("scaling", index))


def _unreachable(scaling: list[TargetTrackingSection], behavior: BehaviorSection | None) -> Iterator[WrongValueError]:
    """Find targets so high that a group under full load would still be within its tolerance."""
    for index, entry in enumerate(scaling):
        if behavior is not None and entry.target * (1 + behavior.tolerance) >= FULL:
            target, tolerance = write_share(entry.target), write_share(behavior.tolerance)
            message = (
                f"{target} with a tolerance of {tolerance} reaches 100%, and no load is above that: the group would"
                " never scale out; lower the target or behavior.tolerance"
            )
            yield WrongValueError(message, ("scaling", index, "target"))


def _blind(scaling: list[TargetTrackingSection], size: SizeSection | None) -> Iterator[WrongValueError]:
    """Find what could never leave zero."""
    for metric in sorted({entry.metric for entry in scaling} & MEASURED_INSIDE):
        if size is not None and size.min == 0:
            message = f"must be at least 1 with scaling by {metric}: without an instance nothing runs to be measured"
            yield WrongValueError(message, ("size", "min"))


def to_core(file: PolicyFile) -> Policy:
    """Turn a validated file into the core's policy."""
    behavior = file.behavior
    return Policy(
        group=file.group,
        image=Image(pool=file.image.pool, volume=file.image.volume),
        size=Size(min=file.size.min, max=file.size.max),
        hosts=tuple(file.hosts),
        mode=file.mode,
        machine=Machine(
            vcpus=file.machine.vcpus,
            memory_bytes=file.machine.memory,
            network=file.machine.network,
            accelerator=file.machine.accelerator,
            hugepages=file.machine.hugepages,
        ),
        scaling=tuple(
            TargetTracking(metric=entry.metric, target=entry.target, across=entry.across, over_seconds=entry.over)
            for entry in file.scaling
        ),
        behavior=Behavior(
            tolerance=behavior.tolerance,
            scale_out=_limits(behavior.scale_out),
            scale_in=_limits(behavior.scale_in),
        ),
        warm_up_seconds=file.warm_up,
        ready=Ready(agent=file.ready.agent, timeout_seconds=file.ready.timeout),
        drain=Drain(deadline_seconds=file.drain.deadline),
        priority=file.priority,
        starved=file.starved,
    )


def _limits(section: ScaleOutSection | ScaleInSection) -> DirectionLimits:
    return DirectionLimits(cooldown_seconds=section.cooldown, stabilization_seconds=section.stabilization)


def to_data(policy: Policy) -> dict[str, object]:
    """Turn a core policy into the plain data of its file, with every default written out."""
    machine, behavior = policy.machine, policy.behavior
    return {
        "version": VERSION,
        "group": policy.group,
        "hosts": list(policy.hosts),
        "mode": policy.mode.value,
        "image": {"pool": policy.image.pool, "volume": policy.image.volume},
        "machine": {
            "vcpus": machine.vcpus,
            "memory": write_size(machine.memory_bytes),
            "network": machine.network,
            "accelerator": machine.accelerator.value,
            "hugepages": machine.hugepages,
        },
        "size": {"min": policy.size.min, "max": policy.size.max},
        "scaling": [
            {
                "type": "target_tracking",
                "metric": entry.metric,
                "target": write_share(entry.target),
                "across": entry.across.value,
                "over": write_duration(entry.over_seconds),
            }
            for entry in policy.scaling
        ],
        "behavior": {
            "tolerance": write_share(behavior.tolerance),
            "scale_out": _limits_data(behavior.scale_out),
            "scale_in": _limits_data(behavior.scale_in),
        },
        "warm_up": write_duration(policy.warm_up_seconds),
        "ready": {"agent": policy.ready.agent, "timeout": write_duration(policy.ready.timeout_seconds)},
        "drain": {"deadline": write_duration(policy.drain.deadline_seconds)},
        "priority": policy.priority,
        "starved": policy.starved.value,
    }


def _limits_data(limits: DirectionLimits) -> dict[str, object]:
    return {
        "cooldown": write_duration(limits.cooldown_seconds),
        "stabilization": write_duration(limits.stabilization_seconds),
    }
