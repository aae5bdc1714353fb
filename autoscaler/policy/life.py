"""The policy's sections on an instance's life: when it is ready, well, to be launched, drained and removed."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from autoscaler.core.policy import Drain, Health, Hook, HookKind, HttpCheck, Launch, Ready, Removal, RemovalOrder
from autoscaler.policy.fields import DAY, HOUR, Duration, Flag, Whole, count, duration, duration_or, seconds, written
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    WrongValueError,
    between,
    choice,
    found,
    read_duration,
    read_share,
    read_whole,
    write_duration,
    write_share,
)

_READY, _HTTP, _HEALTH, _LAUNCH, _DRAIN, _REMOVAL = Ready(), HttpCheck(), Health(), Launch(), Drain(), Removal()
_HOOK = Hook(HookKind.COMMAND)

AUTO = "auto"
NEVER = "never"
SHARE_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"})
_MOST_LAUNCHES = 100_000

Port = Annotated[Whole, count(1, 65535)]


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or " " in value:
        raise WrongValueError(f"must be a path such as /healthz, not {found(value)}")
    return value


def read_url(value: object) -> str:
    """Read an HTTP URL."""
    parts = urlsplit(value) if isinstance(value, str) and value.isprintable() else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise WrongValueError(f"must be a URL such as https://lb.example/drain, not {found(value)}")
    return str(value)


def read_argv(value: object) -> list[str]:
    """Read a program with its arguments."""
    if isinstance(value, str):
        raise WrongValueError(f"must be a list of words, as no shell reads it; write [{value}]")
    if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
        raise WrongValueError(f"must be a list of words such as [/usr/local/bin/leave, now], not {found(value)}")
    return value


def _share(value: object) -> float:
    return between(0.0, 1.0, write_share)(read_share(value))


def _given(value: object) -> object:
    """Refuse a key without a value where leaving the key out is what switches it off."""
    if value is None:
        raise WrongValueError("a value is missing")
    return value


def _budget(value: object) -> int | None:
    return None if value == AUTO else between(1, _MOST_LAUNCHES, str)(read_whole(value))


def _max_lifetime(value: object) -> float | None:
    return None if value == NEVER else between(60.0, 365 * DAY, write_duration)(read_duration(value))


def read_warm_up(value: object) -> float | None:
    """Read a duration up to an hour, or `auto`, which gives None."""
    return None if value == AUTO else between(0.0, HOUR, write_duration)(read_duration(value))


class HttpSection(Section):
    """An HTTP GET that a ready instance answers."""

    port: Port = _HTTP.port
    path: Annotated[str, BeforeValidator(_path)] = _HTTP.path
    status: Annotated[Whole, count(100, 599)] = _HTTP.status


class ReadySection(Section):
    """When an instance counts as ready."""

    agent: Flag = _READY.agent
    address: Flag = _READY.address
    tcp: Annotated[Port | None, BeforeValidator(_given)] = None
    http: Annotated[HttpSection | None, BeforeValidator(_given)] = None
    timeout: Annotated[Duration, seconds(1, DAY)] = duration(_READY.timeout_seconds)


class HealthSection(Section):
    """When an instance that was ready is replaced."""

    probe_failures: Annotated[Whole, count(1, 1000)] = _HEALTH.probe_failures
    agent_silent: Annotated[Duration, seconds(1, DAY)] = duration(_HEALTH.agent_silent_seconds)
    max_unhealthy: Annotated[float, BeforeValidator(_share), SHARE_SCHEMA] = written(
        _HEALTH.max_unhealthy_share, write_share(_HEALTH.max_unhealthy_share)
    )


class LaunchSection(Section):
    """What keeps launches that go wrong from being repeated for ever."""

    breaker: Annotated[Whole, count(0, 1000)] = _LAUNCH.breaker
    budget: Annotated[
        int | None,
        BeforeValidator(_budget),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": AUTO}], "examples": [AUTO, 60]}),
    ] = written(_LAUNCH.budget, AUTO)


class HookSection(Section):
    """One thing to be done before an instance leaves."""

    run: Annotated[list[str] | None, BeforeValidator(read_argv)] = None
    url: Annotated[str | None, BeforeValidator(read_url)] = None
    deadline: Annotated[Duration, seconds(1, HOUR)] = duration(_HOOK.deadline_seconds)
    # It comes last, so that it can be held against the others: a key that is left out is not looked at.
    type: Annotated[HookKind, BeforeValidator(choice(HookKind))]

    @field_validator("type")
    @classmethod
    def _complete(cls, kind: HookKind, info: ValidationInfo) -> HookKind:
        needed, other = ("url", "run") if kind is HookKind.WEBHOOK else ("run", "url")
        if info.data.get(needed, "wrong") is None:
            raise WrongValueError(f"a hook of type {kind} needs the key '{needed}'")
        if info.data.get(other) is not None:
            raise WrongValueError(f"a hook of type {kind} takes no '{other}'")
        return kind


class DrainSection(Section):
    """How an instance leaves."""

    deadline: Annotated[Duration, seconds(0, DAY)] = duration(_DRAIN.deadline_seconds)
    idle: Annotated[float | None, BeforeValidator(_share), SHARE_SCHEMA] = None
    wait: Annotated[Duration, seconds(0, DAY)] = duration(_DRAIN.wait_seconds)
    hooks: list[HookSection] = Field(default=[])


class RemovalSection(Section):
    """Which instances leave."""

    order: Annotated[RemovalOrder, BeforeValidator(choice(RemovalOrder))] = _REMOVAL.order
    min_lifetime: Annotated[Duration, seconds(0, 30 * DAY)] = duration(_REMOVAL.min_lifetime_seconds)
    max_lifetime: Annotated[
        float | None,
        BeforeValidator(_max_lifetime),
        duration_or(NEVER),
    ] = written(_REMOVAL.max_lifetime_seconds, NEVER)

    @field_validator("max_lifetime")
    @classmethod
    def _above_min(cls, value: float | None, info: ValidationInfo) -> float | None:
        low = info.data.get("min_lifetime", 0.0)
        if value is not None and value <= low:
            raise WrongValueError(f"{write_duration(value)} is not above min_lifetime, which is {write_duration(low)}")
        return value


def ready_to_core(section: ReadySection) -> Ready:
    """Turn the section into the core's."""
    http = section.http
    check = None if http is None else HttpCheck(port=http.port, path=http.path, status=http.status)
    return Ready(
        agent=section.agent,
        address=section.address,
        tcp_port=section.tcp,
        http=check,
        timeout_seconds=section.timeout,
    )


def health_to_core(section: HealthSection) -> Health:
    """Turn the section into the core's."""
    return Health(
        probe_failures=section.probe_failures,
        agent_silent_seconds=section.agent_silent,
        max_unhealthy_share=section.max_unhealthy,
    )


def launch_to_core(section: LaunchSection) -> Launch:
    """Turn the section into the core's."""
    return Launch(breaker=section.breaker, budget=section.budget)


def drain_to_core(section: DrainSection) -> Drain:
    """Turn the section into the core's."""
    hooks = tuple(
        Hook(kind=hook.type, argv=tuple(hook.run or ()), url=hook.url or "", deadline_seconds=hook.deadline)
        for hook in section.hooks
    )
    return Drain(deadline_seconds=section.deadline, idle=section.idle, wait_seconds=section.wait, hooks=hooks)


def removal_to_core(section: RemovalSection) -> Removal:
    """Turn the section into the core's."""
    return Removal(
        order=section.order,
        min_lifetime_seconds=section.min_lifetime,
        max_lifetime_seconds=section.max_lifetime,
    )


def ready_data(ready: Ready) -> dict[str, object]:
    """Write the section; a gate that is not asked for is left out."""
    data: dict[str, object] = {"agent": ready.agent, "address": ready.address}
    if ready.tcp_port is not None:
        data["tcp"] = ready.tcp_port
    if ready.http is not None:
        data["http"] = {"port": ready.http.port, "path": ready.http.path, "status": ready.http.status}
    return {**data, "timeout": write_duration(ready.timeout_seconds)}


def health_data(health: Health) -> dict[str, object]:
    """Write the section."""
    return {
        "probe_failures": health.probe_failures,
        "agent_silent": write_duration(health.agent_silent_seconds),
        "max_unhealthy": write_share(health.max_unhealthy_share),
    }


def launch_data(launch: Launch) -> dict[str, object]:
    """Write the section."""
    return {"breaker": launch.breaker, "budget": AUTO if launch.budget is None else launch.budget}


def drain_data(drain: Drain) -> dict[str, object]:
    """Write the section; the idleness that is not waited for is left out."""
    idle = {} if drain.idle is None else {"idle": write_share(drain.idle)}
    hooks = [_hook_data(hook) for hook in drain.hooks]
    return {
        "deadline": write_duration(drain.deadline_seconds),
        **idle,
        "wait": write_duration(drain.wait_seconds),
        "hooks": hooks,
    }


def _hook_data(hook: Hook) -> dict[str, object]:
    what: dict[str, object] = {"url": hook.url} if hook.kind is HookKind.WEBHOOK else {"run": list(hook.argv)}
    return {"type": hook.kind.value, **what, "deadline": write_duration(hook.deadline_seconds)}


def removal_data(removal: Removal) -> dict[str, object]:
    """Write the section."""
    longest = removal.max_lifetime_seconds
    return {
        "order": removal.order.value,
        "min_lifetime": write_duration(removal.min_lifetime_seconds),
        "max_lifetime": NEVER if longest is None else write_duration(longest),
    }
