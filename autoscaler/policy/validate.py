"""A document against a pydantic model: all its problems, each in our words and at its place in the file."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from autoscaler.core.errors import PolicyError, Problem
from autoscaler.core.words import nearest
from autoscaler.policy.values import BrokenRulesError, WrongValueError, found
from autoscaler.policy.yaml_reader import Document

M = TypeVar("M", bound=BaseModel)

_NO_VALUE = "a value is missing"
_EXPECTED = {
    "model_type": "keys and values, KEY: VALUE",
    "dict_type": "keys and values, KEY: VALUE",
    "list_type": "a list, such as [one, two]",
    "string_type": "text",
}


class Section(BaseModel):
    """A mapping in a file: unknown keys are refused, and nothing is changed after reading."""

    TAG: ClassVar[str | None] = None
    """The word by which a section is chosen among several kinds."""

    # A trailing underscore keeps a key that is a word of Python's, such as `for`, from being one.
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=lambda name: name.rstrip("_"))


def validate(document: Document, model: type[M], context: Mapping[str, object] | None = None) -> M:
    """Make a model of a document. Raises PolicyError with every problem."""
    try:
        return model.model_validate(document.data, context=dict(context or {}))
    except ValidationError as error:
        problems = {
            problem for details in error.errors(include_url=False) for problem in _problems(document, model, details)
        }
        raise PolicyError(tuple(problems)) from error


def _problems(document: Document, model: type[BaseModel], error: ErrorDetails) -> list[Problem]:
    if error["type"] != "value_error":
        return [_problem(document, model, error)]
    loc, cause = error["loc"], error["ctx"]["error"]
    if error["input"] is None:
        return [document.problem(loc, _NO_VALUE, at_key=True)]
    causes = cause.errors if isinstance(cause, BrokenRulesError) else (cause,)
    at_key = loc[-1:] == ("[key]",)
    return [document.problem(_blamed(cause, loc), str(cause), at_key=at_key) for cause in causes]


def _blamed(cause: ValueError, loc: Sequence[int | str]) -> Sequence[int | str]:
    if not isinstance(cause, WrongValueError):
        return loc
    return cause.loc if cause.loc is not None else (*loc, *cause.below)


def _problem(document: Document, model: type[BaseModel], error: ErrorDetails) -> Problem:
    loc, kind, value = error["loc"], error["type"], error["input"]
    match kind:
        case "missing":
            return document.problem(loc[:-1], f"the key '{loc[-1]}' is missing", at_key=True)
        case "extra_forbidden":
            known = _keys(model, loc[:-1])
            message = f"unknown key; {nearest(str(loc[-1]), known)}"
            return document.problem(loc, message, at_key=True)
    if value is None:
        return document.problem(loc, _NO_VALUE, at_key=True)
    return document.problem(loc, f"must be {_EXPECTED.get(kind, error['msg'])}, not {found(value)}")


def _keys(model: type[BaseModel], loc: Sequence[int | str]) -> set[str]:
    """Give the keys that are known in the mapping at `loc`."""
    sections = [model]
    for step in loc:
        fields = [section.model_fields[step] for section in sections if step in section.model_fields]
        below = [section for field in fields for section in _sections(field.annotation)]
        # A step that is no field is a union's tag, a list's index or a mapping's own key: the section stays the same.
        sections = below or [section for section in sections if step == getattr(section, "TAG", None)] or sections
    return {field.alias or name for section in sections for name, field in section.model_fields.items()}


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Find the models in an annotation."""
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for argument in get_args(annotation) for section in _sections(argument)]
