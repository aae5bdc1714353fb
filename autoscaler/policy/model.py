"""The policy file, version 1: what may stand in it, within which bounds, and what it becomes for the core.

Defaults are those of the core's dataclasses.
"""

from collections.abc import Iterator
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from autoscaler.core.policy import (
    USER_NETWORK,
    Accelerator,
    Across,
    Behavior,
    DirectionLimits,
    Image,
    Machine,
    Mode,
    Policy,
    Size,
    TargetTracking,
)
from autoscaler.core.signals import FULL, METRICS
from autoscaler.policy.fields import (
    DAY,
    HOUR,
    Bytes,
    Duration,
    Group,
    Name,
    Share,
    Whole,
    count,
    duration,
    seconds,
    tolerable,
    written,
)
from autoscaler.policy.life import (
    AUTO,
    DrainSection,
    HealthSection,
    LaunchSection,
    ReadySection,
    RemovalSection,
    drain_data,
    drain_to_core,
    health_data,
    health_to_core,
    launch_data,
    launch_to_core,
    read_warm_up,
    ready_data,
    ready_to_core,
    removal_data,
    removal_to_core,
)
from autoscaler.policy.traffic import TrafficSection, fits_size, traffic_data, traffic_to_core
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    BrokenRulesError,
    WrongValueError,
    between,
    choice,
    found,
    nearest,
    one_of,
    write_duration,
    write_share,
    write_size,
)

VERSION = 1
KNOWN_HOSTS = "known_hosts"
"""The key of the validation context under which the configuration's host names are given."""

MEASURED_INSIDE = frozenset({"guest.cpu"})
"""Metrics that are measured in the instances, so that a group without any can never tell that it needs one."""

_MIB = 1024**2
_DEFAULT = Policy(group="", image=Image("", ""), size=Size(0, 0))
_UNREACHABLE = "nobody can reach a guest with user-mode networking; give machine.network a libvirt network"
_TRACKING = TargetTracking(metric="", target=1.0)


def _version(value: object) -> int:
    if value != VERSION or isinstance(value, bool | float):
        raise WrongValueError(f"this release reads version {VERSION} of the policy file, not {found(value)}")
    return VERSION


def _target(value: float) -> float:
    if not 0 < value <= FULL:
        raise WrongValueError(f"{write_share(value)} is out of bounds; allowed: above 0% to 100%")
    return value


class ImageSection(Section):
    """The golden image."""

    pool: Name
    volume: Name


class MachineSection(Section):
    """The shape of every instance."""

    vcpus: Annotated[Whole, count(1, 256)] = _DEFAULT.machine.vcpus
    memory: Annotated[Bytes, AfterValidator(between(16 * _MIB, 4 * 1024 * 1024 * _MIB, write_size))] = written(
        _DEFAULT.machine.memory_bytes, write_size(_DEFAULT.machine.memory_bytes)
    )
    network: Name = _DEFAULT.machine.network
    accelerator: Annotated[Accelerator, BeforeValidator(choice(Accelerator))] = _DEFAULT.machine.accelerator


class SizeSection(Section):
    """Bounds on the number of instances."""

    min: Annotated[Whole, count(0, 1000)]
    max: Annotated[Whole, count(1, 1000)]

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
    over: Annotated[Duration, seconds(1, HOUR)] = duration(_TRACKING.over_seconds)


class ScaleOutSection(Section):
    """What slows scaling out."""

    cooldown: Annotated[Duration, seconds(0, DAY)] = duration(_DEFAULT.behavior.scale_out.cooldown_seconds)
    stabilization: Annotated[Duration, seconds(0, HOUR)] = duration(_DEFAULT.behavior.scale_out.stabilization_seconds)


class ScaleInSection(Section):
    """What slows scaling in."""

    cooldown: Annotated[Duration, seconds(0, DAY)] = duration(_DEFAULT.behavior.scale_in.cooldown_seconds)
    stabilization: Annotated[Duration, seconds(0, HOUR)] = duration(_DEFAULT.behavior.scale_in.stabilization_seconds)


class BehaviorSection(Section):
    """What keeps a group steady."""

    tolerance: Annotated[Share, AfterValidator(tolerable)] = written(
        _DEFAULT.behavior.tolerance, write_share(_DEFAULT.behavior.tolerance)
    )
    scale_out: ScaleOutSection = Field(default_factory=ScaleOutSection)
    scale_in: ScaleInSection = Field(default_factory=ScaleInSection)


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
    warm_up: Annotated[
        float | None,
        BeforeValidator(read_warm_up),
        WithJsonSchema({"type": "string", "examples": ["60s", "auto"]}),
    ] = duration(_DEFAULT.warm_up_seconds)
    ready: ReadySection = Field(default_factory=ReadySection)
    health: HealthSection = Field(default_factory=HealthSection)
    launch: LaunchSection = Field(default_factory=LaunchSection)
    drain: DrainSection = Field(default_factory=DrainSection)
    removal: RemovalSection = Field(default_factory=RemovalSection)
    traffic: TrafficSection | None = None

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

    @field_validator("ready")
    @classmethod
    def _can_be_asked(cls, value: ReadySection, info: ValidationInfo) -> ReadySection:
        machine: MachineSection | None = info.data.get("machine")
        gates = {"tcp": value.tcp, "http": value.http}
        if machine is not None and machine.network == USER_NETWORK:
            errors = [
                WrongValueError(_UNREACHABLE, ("ready", key)) for key, asked in gates.items() if asked is not None
            ]
            if errors:
                raise BrokenRulesError(errors)
        return value

    @field_validator("traffic")
    @classmethod
    def _can_be_served(cls, value: TrafficSection | None, info: ValidationInfo) -> TrafficSection | None:
        size: SizeSection | None = info.data.get("size")
        machine: MachineSection | None = info.data.get("machine")
        if value is not None and machine is not None and machine.network == USER_NETWORK:
            raise WrongValueError(_UNREACHABLE)
        if value is not None and size is not None:
            fits_size(value, Size(size.min, size.max))
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
        warm_up_seconds=_DEFAULT.warm_up_seconds if file.warm_up is None else file.warm_up,
        warm_up_auto=file.warm_up is None,
        ready=ready_to_core(file.ready),
        health=health_to_core(file.health),
        launch=launch_to_core(file.launch),
        drain=drain_to_core(file.drain),
        removal=removal_to_core(file.removal),
        traffic=traffic_to_core(file.traffic),
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
        "warm_up": AUTO if policy.warm_up_auto else write_duration(policy.warm_up_seconds),
        "ready": ready_data(policy.ready),
        "health": health_data(policy.health),
        "launch": launch_data(policy.launch),
        "drain": drain_data(policy.drain),
        "removal": removal_data(policy.removal),
        **({} if policy.traffic is None else {"traffic": traffic_data(policy.traffic)}),
    }


def _limits_data(limits: DirectionLimits) -> dict[str, object]:
    return {
        "cooldown": write_duration(limits.cooldown_seconds),
        "stabilization": write_duration(limits.stabilization_seconds),
    }
