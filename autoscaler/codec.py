"""JSON of the core's types, in one place: the journal, the control socket and `--json` all speak it.

Canonical means: keys sorted, no white space, floats by their shortest exact form, so that equal values are equal text.
"""

import json
from typing import Any, TypeVar

import cattrs
from cattrs.strategies import configure_tagged_union

from autoscaler.core.action import Action
from autoscaler.core.decision import Parameter
from autoscaler.core.observation import ExternalSample, HostInventory, HostSample, TrafficView, Unknown
from autoscaler.core.policy import Strategy, TargetTracking

T = TypeVar("T")

MISFITS = (cattrs.BaseValidationError, AttributeError, KeyError, TypeError, ValueError)
"""What `decode` may raise for data that does not fit."""

converter = cattrs.Converter(forbid_extra_keys=False)
# A whole number written into a float field would come back as another text than it went out.
converter.register_unstructure_hook(float, float)
# JSON already tells whole numbers, fractions and text apart; converting would change what was written.
converter.register_structure_hook(Parameter, lambda value, _: value)
configure_tagged_union(Action, converter, tag_name="kind", tag_generator=lambda cls: cls.__name__.lower())
# Target tracking was the only strategy once, and was written without a tag.
configure_tagged_union(
    Strategy, converter, tag_name="type", tag_generator=lambda cls: cls.__name__.lower(), default=TargetTracking
)
configure_tagged_union(HostSample | Unknown, converter, tag_name="kind")
configure_tagged_union(HostInventory | Unknown, converter, tag_name="kind")
configure_tagged_union(ExternalSample | Unknown, converter, tag_name="kind")
configure_tagged_union(TrafficView | Unknown, converter, tag_name="kind")


def encode(value: object, as_type: object = None) -> Any:
    """Turn a core value into plain JSON data; give `as_type` for a union or a container of core types."""
    return converter.unstructure(value, unstructure_as=as_type)


def decode(data: object, as_type: type[T]) -> T:
    """Turn plain JSON data into a core value. Raises cattrs' errors when the data does not fit."""
    return converter.structure(data, as_type)


def canonical(value: object, as_type: object = None) -> str:
    """Render a core value as canonical JSON."""
    return json.dumps(encode(value, as_type), sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse(text: str, as_type: type[T]) -> T:
    """Read what `canonical` wrote."""
    return decode(json.loads(text), as_type)
