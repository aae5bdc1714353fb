"""The section `image` of a policy: a volume, or the name of an image in the catalog."""

import re
from typing import Annotated, Self

from pydantic import BeforeValidator, ConfigDict, WithJsonSchema, model_validator

from autoscaler.core.policy import IMAGE_NAME, Image
from autoscaler.policy.fields import Name, written
from autoscaler.policy.validate import Section
from autoscaler.policy.values import BrokenRulesError, WrongValueError, found

LATEST = "latest"
_AT_ALL = "write either pool and volume, or name"


def read_image_name(value: object) -> str:
    """Read the name of an image. Raises WrongValueError."""
    if not isinstance(value, str) or not re.fullmatch(IMAGE_NAME, value):
        quoted = "; if that is its name, put it in quotes" if isinstance(value, int | float) else ""
        rule = "up to 63 lowercase letters and digits, and between them dots, dashes and underscores"
        raise WrongValueError(f"must be the name of an image such as web ({rule}), not {found(value)}{quoted}")
    return value


def _version(value: object) -> int | None:
    if value == LATEST:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise WrongValueError(f"must be {LATEST} or the number of a version, from 1 on, not {found(value)}")
    return value


class ImageSection(Section):
    """The golden image: a volume, or a name of the catalog."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["pool", "volume"], "not": {"anyOf": [{"required": ["name"]}, {"required": ["version"]}]}},
                {"required": ["name"], "not": {"anyOf": [{"required": ["pool"]}, {"required": ["volume"]}]}},
            ]
        }
    )

    pool: Name | None = None
    volume: Name | None = None
    name: (
        Annotated[str, BeforeValidator(read_image_name), WithJsonSchema({"type": "string", "pattern": IMAGE_NAME})]
        | None
    ) = None
    version: Annotated[
        int | None,
        BeforeValidator(_version),
        WithJsonSchema({"anyOf": [{"const": LATEST}, {"type": "integer", "minimum": 1}]}),
    ] = written(None, LATEST)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = {key for key in ("pool", "volume", "name") if getattr(self, key) is not None}
        if not given:
            raise WrongValueError(f"says of no image which: {_AT_ALL}")
        if "name" in given:
            errors = [
                WrongValueError(f"an image by its name stands where the catalog has it; {_AT_ALL}", below=(key,))
                for key in ("pool", "volume")
                if key in given
            ]
        else:
            errors = [WrongValueError(f"the key '{key}' is missing") for key in ("pool", "volume") if key not in given]
            if "version" in self.model_fields_set:
                errors.append(WrongValueError("only an image by its name has versions", below=("version",)))
        if errors:
            raise BrokenRulesError(errors)
        return self


def image_to_core(section: ImageSection) -> Image:
    """Give the core's image; one by its name has neither pool nor volume yet."""
    return Image(section.pool or "", section.volume or "", section.name, section.version)


def image_data(image: Image) -> dict[str, object]:
    """Give the section of an image."""
    if image.name is None:
        return {"pool": image.pool, "volume": image.volume}
    return {"name": image.name, "version": LATEST if image.version is None else image.version}
