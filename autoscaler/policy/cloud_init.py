"""The policy's section on cloud-init: what a new instance is told of itself, and which secrets it gets."""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, model_validator

from autoscaler.core.policy import CloudInit, Secret, Template
from autoscaler.images.cloud_init import META_DATA, NETWORK_CONFIG, USER_DATA, faults
from autoscaler.policy.fields import FilePath, read_path
from autoscaler.policy.validate import Section
from autoscaler.policy.values import BrokenRulesError, WrongValueError, found
from autoscaler.policy.yaml_reader import reason

_SECRET_NAME = r"[a-z][a-z0-9_-]{0,39}"  # noqa: S105 - a pattern
_LARGEST_BYTES = 64 * 1024


def _read_template(value: object, info: ValidationInfo) -> Template:
    path = read_path(value, info)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        text = content.decode()
    except UnicodeDecodeError as error:
        raise WrongValueError(f"{path} is no text in UTF-8, from its byte {error.start} on") from error
    except (OSError, ValueError) as error:
        raise WrongValueError(f"{path} cannot be read: {reason(error)}") from error
    if len(content) > _LARGEST_BYTES:
        raise WrongValueError(f"{path} is longer than {_LARGEST_BYTES // 1024} KiB; let the instance fetch the rest")
    return Template(str(path), text)


def _secret_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(_SECRET_NAME, value):
        rule = "a lowercase letter, then lowercase letters, digits, _ and -"
        raise WrongValueError(f"a secret's name is {rule}, not {found(value)}")
    return value


_File = Annotated[Template, BeforeValidator(_read_template), WithJsonSchema({"type": "string"})]


class CloudInitSection(Section):
    """What cloud-init finds in a new instance."""

    user_data: _File | None = None
    meta_data: _File | None = None
    network_config: _File | None = None
    secrets: dict[Annotated[str, BeforeValidator(_secret_name)], FilePath] = Field(default={})

    @model_validator(mode="after")
    def _can_be_filled_in(self) -> Self:
        core = cloud_init_to_core(self)
        assert core is not None
        errors = [
            WrongValueError(f"{template.path}:{fault.line}:{fault.column}: {fault.message}", below=(key,))
            for key, (kind, template) in _templates(core).items()
            if template is not None
            for fault in faults(kind, template, core.secrets)
        ]
        if errors:
            raise BrokenRulesError(errors)
        return self


def cloud_init_to_core(section: CloudInitSection | None) -> CloudInit | None:
    """Turn the section into the core's."""
    if section is None:
        return None
    return CloudInit(
        user_data=section.user_data,
        meta_data=section.meta_data,
        network_config=section.network_config,
        secrets=tuple(Secret(name, str(path)) for name, path in section.secrets.items()),
    )


def cloud_init_data(cloud_init: CloudInit) -> dict[str, object]:
    """Write the section; what is not given is left out."""
    files = {key: template.path for key, (_, template) in _templates(cloud_init).items() if template is not None}
    return {**files, "secrets": {secret.name: secret.path for secret in cloud_init.secrets}}


def _templates(cloud_init: CloudInit) -> dict[str, tuple[str, Template | None]]:
    return {
        "user_data": (USER_DATA, cloud_init.user_data),
        "meta_data": (META_DATA, cloud_init.meta_data),
        "network_config": (NETWORK_CONFIG, cloud_init.network_config),
    }
