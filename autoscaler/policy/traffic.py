"""The policy's section on the load balancer: who sends the instances their requests, and how it is told of them."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from autoscaler.core.policy import Size, Traffic, TrafficKind, WhenDown
from autoscaler.policy.fields import DAY, Duration, Flag, Share, Whole, count, duration, seconds, written
from autoscaler.policy.life import Port, read_argv, read_url
from autoscaler.policy.validate import Section
from autoscaler.policy.values import (
    BrokenRulesError,
    WrongValueError,
    between,
    choice,
    found,
    write_duration,
    write_share,
)

_TRAFFIC = Traffic(TrafficKind.HAPROXY)
_HAPROXY_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_NEEDS = {
    TrafficKind.HAPROXY: ("socket", "backend", "slots"),
    TrafficKind.FILE: ("template", "path"),
    TrafficKind.FILE_SD: ("path",),
    TrafficKind.WEBHOOK: ("url",),
}
_TAKES = {TrafficKind.HAPROXY: ("unhealthy",), TrafficKind.FILE: ("reload",)}
_ALWAYS = frozenset({"type", "port", "weight_warming", "drain", "when_down", "min_in_service"})


def _name(value: object) -> str:
    if not isinstance(value, str) or not _HAPROXY_NAME.fullmatch(value):
        rule = "letters, digits and _ . : -"
        raise WrongValueError(f"must be a name of HAProxy's configuration such as web ({rule}), not {found(value)}")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise WrongValueError(f"must be a whole path such as /etc/nginx/conf.d/web.conf, not {found(value)}")
    return value


def _socket(value: object) -> str:
    if isinstance(value, str) and value.isprintable():
        host, _, port = value.rpartition(":")
        if value.startswith("/") or (host and port.isdecimal() and 0 < int(port) < 65536):
            return value
    raise WrongValueError(
        f"must be the path of HAProxy's admin socket, such as /run/haproxy/admin.sock, or HOST:PORT, not {found(value)}"
    )


class TrafficDrainSection(Section):
    """How long sessions may take to end."""

    deadline: Annotated[Duration, seconds(0, DAY)] = duration(_TRAFFIC.drain_seconds)


class TrafficSection(Section):
    """Who sends the group's instances their requests."""

    type: Annotated[TrafficKind, BeforeValidator(choice(TrafficKind))]
    port: Port = _TRAFFIC.port
    socket: Annotated[str | None, BeforeValidator(_socket)] = None
    backend: Annotated[str | None, BeforeValidator(_name)] = None
    slots: Annotated[str | None, BeforeValidator(_name)] = None
    template: Annotated[str | None, BeforeValidator(_path)] = None
    path: Annotated[str | None, BeforeValidator(_path)] = None
    reload: Annotated[
        list[str], BeforeValidator(read_argv), WithJsonSchema({"type": "array", "items": {"type": "string"}})
    ] = Field(default=[])
    url: Annotated[str | None, BeforeValidator(read_url)] = None
    weight_warming: Annotated[Share, AfterValidator(between(0.01, 1.0, write_share))] = written(
        _TRAFFIC.weight_warming, write_share(_TRAFFIC.weight_warming)
    )
    drain: TrafficDrainSection = Field(default_factory=TrafficDrainSection)
    unhealthy: Flag = _TRAFFIC.unhealthy
    when_down: Annotated[WhenDown, BeforeValidator(choice(WhenDown))] = _TRAFFIC.when_down
    min_in_service: Annotated[Whole, count(0, 1000)] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        needs = _NEEDS[self.type]
        given = self.model_fields_set
        lacking = [
            WrongValueError(f"type {self.type} needs the key '{key}'", ("traffic",))
            for key in needs
            if key not in given
        ]
        strange = sorted(given - _ALWAYS - set(needs) - set(_TAKES.get(self.type, ())))
        errors = [
            *lacking,
            *(WrongValueError(f"type {self.type} takes no '{key}'", ("traffic", key)) for key in strange),
        ]
        if errors:
            raise BrokenRulesError(errors)
        return self


def fits_size(section: TrafficSection, size: Size) -> None:
    """Raise WrongValueError when more are to be left in service than there may be."""
    if section.min_in_service is not None and section.min_in_service > size.min:
        raise WrongValueError(
            f"{section.min_in_service} is more than size.min, which is {size.min}: none could ever leave",
            ("traffic", "min_in_service"),
        )


def traffic_to_core(section: TrafficSection | None) -> Traffic | None:
    """Turn the section into the core's."""
    if section is None:
        return None
    return Traffic(
        kind=section.type,
        port=section.port,
        socket=section.socket or "",
        backend=section.backend or "",
        slots=section.slots or "",
        template=section.template or "",
        path=section.path or "",
        reload=tuple(section.reload),
        url=section.url or "",
        weight_warming=section.weight_warming,
        drain_seconds=section.drain.deadline,
        unhealthy=section.unhealthy,
        when_down=section.when_down,
        min_in_service=section.min_in_service,
    )


def traffic_data(traffic: Traffic) -> dict[str, object]:
    """Write the section: what its type needs, and every default that it has."""
    values: dict[str, object] = {
        "socket": traffic.socket,
        "backend": traffic.backend,
        "slots": traffic.slots,
        "template": traffic.template,
        "path": traffic.path,
        "reload": list(traffic.reload),
        "url": traffic.url,
        "unhealthy": traffic.unhealthy,
    }
    own = {key: values[key] for key in (*_NEEDS[traffic.kind], *_TAKES.get(traffic.kind, ())) if values[key] != []}
    asked = {} if traffic.min_in_service is None else {"min_in_service": traffic.min_in_service}
    return {
        "type": traffic.kind.value,
        **own,
        "port": traffic.port,
        "weight_warming": write_share(traffic.weight_warming),
        "drain": {"deadline": write_duration(traffic.drain_seconds)},
        "when_down": traffic.when_down.value,
        **asked,
    }
