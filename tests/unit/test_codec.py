"""What is written is read back as the same value and the same text, whatever core type it is."""

import types
from collections.abc import Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.codec import canonical, parse
from autoscaler.core.action import Action, InFlight, Intent, Outcome
from autoscaler.core.decision import Decision
from autoscaler.core.memory import Memory
from autoscaler.core.observation import HostSample, Observation, Unknown
from autoscaler.core.policy import Image, Policy, Size
from autoscaler.core.snapshot import Snapshot

EXACT = 2**53
"""Whole numbers up to here are floats without loss."""

FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-EXACT, EXACT)
"""Code writes `60` where a field says float; type checkers allow it, so the codec meets it."""

PLAIN: dict[object, st.SearchStrategy[Any]] = {
    float: FLOATS,
    int: st.integers(),
    str: st.text(max_size=8),
    bool: st.booleans(),
    type(None): st.none(),
}


def values(of: Any) -> st.SearchStrategy[Any]:
    """Any value of a core type, every field drawn."""
    if of in PLAIN:
        return PLAIN[of]
    if get_origin(of) is not None:
        return containers(get_origin(of), get_args(of))
    if issubclass(of, Enum):
        return st.sampled_from(of)
    hints = get_type_hints(of)
    return st.builds(of, **{field.name: values(hints[field.name]) for field in fields(of)})


def containers(origin: object, parts: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin in {Union, types.UnionType}:
        return st.one_of([values(part) for part in parts])
    if origin is Mapping:
        return st.dictionaries(values(parts[0]), values(parts[1]), max_size=2)
    assert origin is tuple, f"no strategy for {origin}"
    if parts[-1] is Ellipsis:
        return st.lists(values(parts[0]), max_size=2).map(tuple)
    return st.tuples(*[values(part) for part in parts])


def assert_round_trip(value: object, as_type: Any) -> None:
    text = canonical(value, as_type)
    back = parse(text, as_type)
    assert back == value
    assert canonical(back, as_type) == text


TYPES = [Observation, Memory, Decision, Snapshot, Policy, Intent, InFlight, Outcome, Action, tuple[Policy, ...]]


@pytest.mark.parametrize("as_type", TYPES, ids=str)
def test_round_trip(as_type: Any) -> None:
    @given(values(as_type))
    def check(value: object) -> None:
        assert_round_trip(value, as_type)

    check()


def test_whole_numbers_in_float_fields_are_written_as_floats() -> None:
    assert canonical(Observation(at=5, interval_seconds=10)) == canonical(Observation(at=5.0, interval_seconds=10.0))


def test_whole_numbers_in_optional_and_nested_float_fields_too() -> None:
    whole = Observation(5.0, 10.0, hosts={"a": HostSample("a", 2, 1, None, 5, 6), "b": Unknown("why")})
    real = Observation(5.0, 10.0, hosts={"a": HostSample("a", 2, 1.0, None, 5, 6), "b": Unknown("why")})
    assert canonical(whole) == canonical(real)


def test_canonical_does_not_depend_on_the_order_of_keys() -> None:
    one = Observation(1.0, 1.0, hosts={"a": Unknown("x"), "b": Unknown("y")})
    other = Observation(1.0, 1.0, hosts={"b": Unknown("y"), "a": Unknown("x")})
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical(Observation(number, 10.0))


def test_policies_as_a_tuple_keep_their_order() -> None:
    policies = tuple(Policy(group, Image("p", "v"), Size(1, 2)) for group in ("b", "a"))
    assert parse(canonical(policies, tuple[Policy, ...]), tuple[Policy, ...]) == policies
