"""The daemon's configuration file: which hosts, where things lie, how often to look."""

import ipaddress
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from autoscaler.core.errors import PolicyError, Problem
from autoscaler.core.observation import HostLimits, Reserve
from autoscaler.core.transition import TransitionReason
from autoscaler.policy.fields import FOLDER, FilePath
from autoscaler.policy.validate import Section, validate
from autoscaler.policy.values import (
    BrokenRulesError,
    WrongValueError,
    between,
    found,
    http_url,
    one_of,
    read_duration,
    read_flag,
    read_http_url,
    read_name,
    read_share,
    read_size,
    read_whole,
    write_duration,
    write_share,
)
from autoscaler.policy.yaml_reader import read_file

ENVIRONMENT_VARIABLE = "AUTOSCALER_CONFIG"
DEFAULT_PATH = Path("/etc/autoscaler/config.yaml")

_PASSWORD = re.compile(r"//[^/@]*:[^/]*@")
_URI = re.compile(r"(qemu(\+[a-z][a-z0-9]*)?|test)://[^\s/]*/\S*")
_LISTEN = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_SOCKET_PATH_BYTES = 107
"""The longest path Linux takes for a unix socket."""

LogFormat = Literal["console", "json"]


@dataclass(frozen=True, slots=True)
class Host:
    """A hypervisor, by its libvirt URI, and what may be used of it."""

    uri: str
    limits: HostLimits = field(default_factory=HostLimits)


@dataclass(frozen=True, slots=True)
class Listen:
    """The address of metrics, page and API; `host` is without the brackets of IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        """Render as HOST:PORT, as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Log:
    """How the daemon logs; the file's `auto` has become one of the two formats."""

    format: LogFormat = "console"
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of transitions; `events` are reasons of transitions, none for all of them."""

    url: str = field(repr=False)
    secret_file: Path | None = None
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PrometheusServer:
    """Where the figures of policies that scale by `prometheus` come from."""

    url: str
    """Without the API's path."""
    timeout_seconds: float = 5.0
    ca_file: Path | None = None
    """Certificate authorities to trust in place of the system's."""
    token_file: Path | None = None
    """Holds a bearer token."""


@dataclass(frozen=True, slots=True)
class Config:
    """The daemon's configuration; every path is absolute."""

    hosts: Mapping[str, Host] = field(default_factory=lambda: {"local": Host("qemu:///system")})
    policies_dir: Path = Path("/etc/autoscaler/policies")
    state_dir: Path = Path("/var/lib/autoscaler")
    control_socket: Path = Path("/run/autoscaler/control.sock")
    listen: Listen = Listen("127.0.0.1", 10177)
    interval_seconds: float = 10.0
    workers: int = 4
    """How many actions may be under way at once on each host."""
    log: Log = Log()
    webhooks: tuple[Webhook, ...] = ()
    prometheus: PrometheusServer | None = None
    leftover_grace_seconds: float = 600.0
    """How long the volumes of an instance that is gone are left before they are deleted."""


def load(path: Path | None = None) -> Config:
    """Read the configuration: from `path`, else from where AUTOSCALER_CONFIG says, else from /etc/autoscaler.

    Raises PolicyError with all problems, also when there is no such file.
    """
    path = path or Path(os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_PATH)
    if not os.path.lexists(path):
        message = f"there is no configuration; write one, or name another with --config or {ENVIRONMENT_VARIABLE}"
        raise PolicyError((Problem(str(path), 1, 1, message),))
    folder = path.absolute().parent
    file = validate(read_file(path), ConfigFile, {FOLDER: folder})
    return Config(
        hosts={name: Host(host.uri, _limits(host)) for name, host in file.hosts.items()},
        policies_dir=file.policies_dir,
        state_dir=file.state_dir,
        control_socket=file.control_socket,
        listen=file.listen,
        interval_seconds=file.interval,
        workers=file.workers,
        log=Log(_log_format(file.log.format), file.log.level),
        webhooks=tuple(Webhook(hook.url, hook.secret_file, tuple(hook.events)) for hook in file.webhooks),
        prometheus=_prometheus(file.prometheus),
        leftover_grace_seconds=file.orphans.grace,
    )


def _prometheus(section: "_PrometheusSection | None") -> PrometheusServer | None:
    if section is None:
        return None
    return PrometheusServer(section.url, section.timeout, section.ca_file, section.token_file)


def _log_format(asked: str) -> LogFormat:
    if asked == "json":
        return "json"
    # In systemd's journal people read as they do on a terminal; elsewhere a program collects the lines.
    for_people = asked == "console" or sys.stderr.isatty() or "JOURNAL_STREAM" in os.environ
    return "console" if for_people else "json"


def _socket(value: Path) -> Path:
    if len(os.fsencode(value)) > _SOCKET_PATH_BYTES:
        raise WrongValueError(f"the path is longer than the {_SOCKET_PATH_BYTES} bytes that Linux takes for a socket")
    return value


def _uri(value: object) -> str:
    if isinstance(value, str) and _PASSWORD.search(value):
        # Not repeated, here or anywhere: what was written into a file by mistake need not spread into logs.
        raise WrongValueError(
            "holds a password, which libvirt does not take from a URI; use an SSH key, or a file of credentials with"
            " ?authfile=FILE, and change that password"
        )
    if not isinstance(value, str) or not _URI.fullmatch(value):
        raise WrongValueError(
            f"must be a libvirt URI such as qemu:///system, qemu+ssh://HOST/system or test:///default,"
            f" not {found(value)}"
        )
    return value


def _server_url(value: object) -> str:
    url = _server(value)
    if urlsplit(url).query or urlsplit(url).fragment:
        raise WrongValueError(f"must be the address of a server, without ? and #, not {found(url)}")
    return url


_server = http_url("http://127.0.0.1:9090", "write a bearer token into a file and name it in token_file")


def _listen(value: object) -> Listen:
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise WrongValueError(f"must be HOST:PORT such as {_DEFAULT.listen}, not {found(value)}")
    host, port = match[1].strip("[]"), int(match[2])
    if ":" in host and not _is_address(host):
        raise WrongValueError(f"{found(host)} is no IPv6 address")
    if not 1 <= port <= 65535:
        raise WrongValueError(f"port {port} is out of bounds; allowed: 1 to 65535")
    return Listen(host, port)


def _reserve(value: object) -> Reserve:
    """Read a share of what there is, or a size."""
    if isinstance(value, str) and value.endswith("%"):
        share = read_share(value)
        if share >= 1:
            raise WrongValueError(f"{value} would leave nothing; allowed: 0% to below 100%")
        return Reserve(share=share)
    if isinstance(value, str) and value[:1].isdigit():
        return Reserve(amount=read_size(value))
    raise WrongValueError(f"must be a share such as 10%, or a size such as 2GiB, not {found(value)}")


def _factor(value: object) -> float:
    """Read a plain number, with or without a fraction."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise WrongValueError(f"must be a number such as 4 or 1.5, not {found(value)}")
    return float(value)


def _plain(value: float) -> str:
    return f"{value:g}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


_DEFAULT = Config()


_LIMITS = HostLimits()
_Reserve = Annotated[Reserve, BeforeValidator(_reserve)]


class _ReserveSection(Section):
    memory: _Reserve = _LIMITS.reserve_memory
    pool_space: _Reserve = _LIMITS.reserve_pool_space
    addresses: Annotated[int, BeforeValidator(read_whole), AfterValidator(between(0, 2**24, str))] = (
        _LIMITS.reserve_addresses
    )


class _OvercommitSection(Section):
    vcpus: Annotated[float, BeforeValidator(_factor), AfterValidator(between(0.1, 100.0, _plain))] = (
        _LIMITS.vcpus_per_core
    )
    pool_space: Annotated[float, BeforeValidator(_factor), AfterValidator(between(1.0, 100.0, _plain))] = (
        _LIMITS.pool_space_overcommit
    )


class _PressureSection(Section):
    memory: Annotated[float, BeforeValidator(read_share), AfterValidator(between(0.01, 1.0, write_share))] = (
        _LIMITS.memory_pressure
    )


class _HostSection(Section):
    uri: Annotated[str, BeforeValidator(_uri)]
    reserve: _ReserveSection = _ReserveSection()
    overcommit: _OvercommitSection = _OvercommitSection()
    pressure: _PressureSection = _PressureSection()
    preemption: Annotated[
        float, BeforeValidator(read_duration), AfterValidator(between(1.0, 3600.0, write_duration))
    ] = _LIMITS.preempt_every_seconds


def _limits(host: _HostSection) -> HostLimits:
    return HostLimits(
        reserve_memory=host.reserve.memory,
        reserve_pool_space=host.reserve.pool_space,
        reserve_addresses=host.reserve.addresses,
        vcpus_per_core=host.overcommit.vcpus,
        pool_space_overcommit=host.overcommit.pool_space,
        memory_pressure=host.pressure.memory,
        preempt_every_seconds=host.preemption,
    )


class _LogSection(Section):
    format: Annotated[str, BeforeValidator(one_of(["auto", "console", "json"]))] = "auto"
    level: Annotated[str, BeforeValidator(one_of(["debug", "info", "warning", "error"]))] = _DEFAULT.log.level


class _WebhookSection(Section):
    url: Annotated[str, BeforeValidator(read_http_url)]
    secret_file: FilePath | None = None
    events: list[Annotated[str, BeforeValidator(one_of(reason.value for reason in TransitionReason))]] = Field(
        default=[]
    )


class _PrometheusSection(Section):
    url: Annotated[str, BeforeValidator(_server_url)]
    timeout: Annotated[float, BeforeValidator(read_duration), AfterValidator(between(0.1, 60.0, write_duration))] = 5.0
    ca_file: FilePath | None = None
    token_file: FilePath | None = None

    @field_validator("token_file")
    @classmethod
    def _not_in_clear(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        url = urlsplit(info.data.get("url", ""))
        if value is not None and url.scheme == "http" and not _is_loopback(url.hostname or ""):
            raise WrongValueError("the token would cross the network in clear; write https:// in url")
        return value


class _OrphansSection(Section):
    grace: Annotated[float, BeforeValidator(read_duration), AfterValidator(between(1.0, 86_400.0, write_duration))] = (
        _DEFAULT.leftover_grace_seconds
    )


class ConfigFile(Section):
    """The configuration file."""

    hosts: dict[Annotated[str, BeforeValidator(read_name)], _HostSection] = Field(
        default={name: _HostSection(uri=host.uri) for name, host in _DEFAULT.hosts.items()}
    )
    policies_dir: FilePath = _DEFAULT.policies_dir
    state_dir: FilePath = _DEFAULT.state_dir
    control_socket: Annotated[FilePath, AfterValidator(_socket)] = _DEFAULT.control_socket
    listen_publicly: Annotated[bool, BeforeValidator(read_flag)] = False
    listen: Annotated[Listen, BeforeValidator(_listen)] = _DEFAULT.listen
    interval: Annotated[float, BeforeValidator(read_duration), AfterValidator(between(1.0, 600.0, write_duration))] = (
        _DEFAULT.interval_seconds
    )
    workers: Annotated[int, BeforeValidator(read_whole), AfterValidator(between(1, 64, str))] = _DEFAULT.workers
    log: _LogSection = _LogSection()
    webhooks: list[_WebhookSection] = Field(default=[])
    prometheus: _PrometheusSection | None = None
    orphans: _OrphansSection = _OrphansSection()

    @field_validator("hosts")
    @classmethod
    def _some_hosts(cls, value: dict[str, _HostSection]) -> dict[str, _HostSection]:
        if not value:
            raise WrongValueError("must name at least one host, such as {local: {uri: 'qemu:///system'}}")
        names: dict[str, str] = {}
        errors = []
        for name, host in value.items():
            first = names.setdefault(host.uri, name)
            if first != name:
                errors.append(WrongValueError(f"is the URI of host '{first}' already", ("hosts", name, "uri")))
        if errors:
            raise BrokenRulesError(errors)
        return value

    @field_validator("listen")
    @classmethod
    def _not_by_mistake(cls, value: Listen, info: ValidationInfo) -> Listen:
        # Where listen_publicly itself is wrong, that is said; a second complaint would only confuse.
        if not info.data.get("listen_publicly", True) and not _is_loopback(value.host):
            raise WrongValueError(
                f"{value} can be reached from other machines, and what is served there asks for no password;"
                " write 127.0.0.1, or say so with listen_publicly: true"
            )
        return value
