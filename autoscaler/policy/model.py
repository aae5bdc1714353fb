"""The policy file, version 1: what may stand in it, within which bounds, and what it becomes for the core.

Defaults are those of the core's dataclasses.
"""

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from autoscaler.core.metrics import METRICS, Source
from autoscaler.core.policy import (
    USER_NETWORK,
    Accelerator,
    Behavior,
    DirectionLimits,
    Image,
    Machine,
    Mode,
    Policy,
    Rate,
    Select,
    Size,
    Starved,
    TrafficKind,
)
from autoscaler.core.words import nearest
from autoscaler.policy import scaling
from autoscaler.policy.cloud_init import CloudInitSection, cloud_init_data, cloud_init_to_core
from autoscaler.policy.fields import (
    DAY,
    HOUR,
    Bytes,
    Duration,
    Flag,
    Group,
    Name,
    Share,
    Whole,
    duration,
    duration_or,
    seconds,
    tolerable,
    written,
)
from autoscaler.policy.fields import count as counted
from autoscaler.policy.image import ImageSection, image_data, image_to_core
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
from autoscaler.policy.refresh import RefreshSection, refresh_data, refresh_to_core
from autoscaler.policy.scaling import SignalSection, StrategySection
from autoscaler.policy.traffic import TrafficSection, fits_size, traffic_data, traffic_to_core
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    BrokenRulesError,
    WrongValueError,
    between,
    choice,
    found,
    write_duration,
    write_share,
    write_size,
)

VERSION = 1
KNOWN_HOSTS = "known_hosts"
"""The key of the validation context under which the configuration's host names are given."""

_MIB = 1024**2
_DEFAULT = Policy(group="", image=Image("", ""), size=Size(0, 0))
_UNREACHABLE = "nobody can reach a guest with user-mode networking; give machine.network a libvirt network"


def _version(value: object) -> int:
    if value != VERSION or isinstance(value, bool | float):
        raise WrongValueError(f"this release reads version {VERSION} of the policy file, not {found(value)}")
    return VERSION


class MachineSection(Section):
    """The shape of every instance."""

    vcpus: Annotated[Whole, counted(1, 256)] = _DEFAULT.machine.vcpus
    memory: Annotated[Bytes, AfterValidator(between(16 * _MIB, 4 * 1024 * 1024 * _MIB, write_size))] = written(
        _DEFAULT.machine.memory_bytes, write_size(_DEFAULT.machine.memory_bytes)
    )
    network: Name = _DEFAULT.machine.network
    accelerator: Annotated[Accelerator, BeforeValidator(choice(Accelerator))] = _DEFAULT.machine.accelerator
    hugepages: Flag = _DEFAULT.machine.hugepages


class SizeSection(Section):
    """Bounds on the number of instances."""

    min: Annotated[Whole, counted(0, 1000)]
    max: Annotated[Whole, counted(1, 1000)]

    @field_validator("max")
    @classmethod
    def _above_min(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min", 0):
            raise WrongValueError(f"{value} is less than min, which is {info.data['min']}")
        return value


def _above_zero(value: float) -> float:
    if value <= 0:
        raise WrongValueError(f"{write_share(value)} is out of bounds; allowed: above 0%")
    return value


_Instances = Annotated[Whole, counted(1, 1000)]


class RateSection(Section):
    """At most so much change within a period."""

    count: _Instances | None = None
    percent: Annotated[Share, AfterValidator(_above_zero)] | None = None
    per: Annotated[Duration, seconds(1, HOUR)]

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.count is None) == (self.percent is None):
            raise WrongValueError("a rate is a number or a share; write one of count and percent")
        return self


class _DirectionSection(Section):
    """What slows scaling in one direction."""

    enabled: Flag = True
    tolerance: Annotated[Share, AfterValidator(tolerable)] | None = None
    rate: list[RateSection] = Field(default=[])
    select: Annotated[Select, BeforeValidator(choice(Select))] = _DEFAULT.behavior.scale_out.select


class ScaleOutSection(_DirectionSection):
    """What slows scaling out."""

    cooldown: Annotated[Duration, seconds(0, DAY)] = duration(_DEFAULT.behavior.scale_out.cooldown_seconds)
    stabilization: Annotated[Duration, seconds(0, HOUR)] = duration(_DEFAULT.behavior.scale_out.stabilization_seconds)


class ScaleInSection(_DirectionSection):
    """What slows scaling in."""

    cooldown: Annotated[Duration, seconds(0, DAY)] = duration(_DEFAULT.behavior.scale_in.cooldown_seconds)
    stabilization: Annotated[Duration, seconds(0, HOUR)] = duration(_DEFAULT.behavior.scale_in.stabilization_seconds)


def _quorum(value: float) -> float:
    if not 0 < value <= 1:
        raise WrongValueError(f"{write_share(value)} is out of bounds; allowed: above 0% to 100%")
    return value


class BehaviorSection(Section):
    """What keeps a group steady."""

    tolerance: Annotated[Share, AfterValidator(tolerable)] = written(
        _DEFAULT.behavior.tolerance, write_share(_DEFAULT.behavior.tolerance)
    )
    quorum: Annotated[Share, AfterValidator(_quorum)] = written(
        _DEFAULT.behavior.quorum, write_share(_DEFAULT.behavior.quorum)
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
    scaling: list[StrategySection] = Field(default=[])
    warm_up: Annotated[
        float | None,
        BeforeValidator(read_warm_up),
        duration_or(AUTO),
    ] = duration(_DEFAULT.warm_up_seconds)
    ready: ReadySection = Field(default_factory=ReadySection)
    health: HealthSection = Field(default_factory=HealthSection)
    launch: LaunchSection = Field(default_factory=LaunchSection)
    drain: DrainSection = Field(default_factory=DrainSection)
    removal: RemovalSection = Field(default_factory=RemovalSection)
    refresh: RefreshSection = Field(default_factory=RefreshSection)
    priority: Annotated[Whole, counted(0, 100)] = _DEFAULT.priority
    starved: Annotated[Starved, BeforeValidator(choice(Starved))] = _DEFAULT.starved
    traffic: TrafficSection | None = None
    cloud_init: CloudInitSection | None = None

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

    @model_validator(mode="after")
    def _has_a_balancer(self) -> Self:
        asked = self.traffic is not None and self.traffic.type is TrafficKind.HAPROXY
        errors = [
            WrongValueError(f"{entry.metric} is told by traffic of type haproxy, and there is none", ("scaling", index))
            for index, entry in enumerate(self.scaling)
            if isinstance(entry, SignalSection) and METRICS[entry.metric].source is Source.BALANCER and not asked
        ]
        if errors:
            raise BrokenRulesError(errors)
        return self

    @field_validator("scaling")
    @classmethod
    def _can_scale(cls, value: list[StrategySection], info: ValidationInfo) -> list[StrategySection]:
        image, size, behavior = (info.data.get(name) for name in ("image", "size", "behavior"))
        strategies = [entry.to_core((image.pool if image is not None else "") or "") for entry in value]
        errors = [*scaling.twice(strategies), *(scaling.poolless(strategies) if image is not None else ())]
        if behavior is not None:
            own = behavior.scale_out.tolerance
            errors += scaling.unreachable(strategies, behavior.tolerance if own is None else own)
        if size is not None:
            bounds = Size(size.min, size.max)
            errors += [*scaling.blind(strategies, bounds), *scaling.beyond(strategies, bounds)]
        if errors:
            raise BrokenRulesError(errors)
        return value


def to_core(file: PolicyFile) -> Policy:
    """Turn a validated file into the core's policy."""
    behavior = file.behavior
    return Policy(
        group=file.group,
        image=image_to_core(file.image),
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
        scaling=tuple(entry.to_core(file.image.pool or "") for entry in file.scaling),
        behavior=Behavior(
            tolerance=behavior.tolerance,
            scale_out=_limits(behavior.scale_out),
            scale_in=_limits(behavior.scale_in),
            quorum=behavior.quorum,
        ),
        warm_up_seconds=_DEFAULT.warm_up_seconds if file.warm_up is None else file.warm_up,
        warm_up_auto=file.warm_up is None,
        ready=ready_to_core(file.ready),
        health=health_to_core(file.health),
        launch=launch_to_core(file.launch),
        drain=drain_to_core(file.drain),
        removal=removal_to_core(file.removal),
        refresh=refresh_to_core(file.refresh),
        priority=file.priority,
        starved=file.starved,
        traffic=traffic_to_core(file.traffic),
        cloud_init=cloud_init_to_core(file.cloud_init),
    )


def _limits(section: ScaleOutSection | ScaleInSection) -> DirectionLimits:
    return DirectionLimits(
        cooldown_seconds=section.cooldown,
        stabilization_seconds=section.stabilization,
        enabled=section.enabled,
        rates=tuple(Rate(rate.per, rate.count, rate.percent) for rate in section.rate),
        select=section.select,
        tolerance=section.tolerance,
    )


def to_data(policy: Policy) -> dict[str, object]:
    """Turn a core policy into the plain data of its file, with every default written out."""
    machine, behavior = policy.machine, policy.behavior
    return {
        "version": VERSION,
        "group": policy.group,
        "hosts": list(policy.hosts),
        "mode": policy.mode.value,
        "image": image_data(policy.image),
        "machine": {
            "vcpus": machine.vcpus,
            "memory": write_size(machine.memory_bytes),
            "network": machine.network,
            "accelerator": machine.accelerator.value,
            "hugepages": machine.hugepages,
        },
        "size": {"min": policy.size.min, "max": policy.size.max},
        "scaling": [scaling.to_data(entry) for entry in policy.scaling],
        "behavior": {
            "tolerance": write_share(behavior.tolerance),
            "quorum": write_share(behavior.quorum),
            "scale_out": _limits_data(behavior.scale_out),
            "scale_in": _limits_data(behavior.scale_in),
        },
        "warm_up": AUTO if policy.warm_up_auto else write_duration(policy.warm_up_seconds),
        "ready": ready_data(policy.ready),
        "health": health_data(policy.health),
        "launch": launch_data(policy.launch),
        "drain": drain_data(policy.drain),
        "removal": removal_data(policy.removal),
        "refresh": refresh_data(policy.refresh),
        "priority": policy.priority,
        "starved": policy.starved.value,
        **({} if policy.traffic is None else {"traffic": traffic_data(policy.traffic)}),
        **({} if policy.cloud_init is None else {"cloud_init": cloud_init_data(policy.cloud_init)}),
    }


def _limits_data(limits: DirectionLimits) -> dict[str, object]:
    data: dict[str, object] = {
        "enabled": limits.enabled,
        "cooldown": write_duration(limits.cooldown_seconds),
        "stabilization": write_duration(limits.stabilization_seconds),
        "rate": [_rate_data(rate) for rate in limits.rates],
        "select": limits.select.value,
    }
    return data if limits.tolerance is None else {**data, "tolerance": write_share(limits.tolerance)}


def _rate_data(rate: Rate) -> dict[str, object]:
    size = {"count": rate.count} if rate.share is None else {"percent": write_share(rate.share)}
    return {**size, "per": write_duration(rate.per_seconds)}
