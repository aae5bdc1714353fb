"""Scalars by YAML 1.2's core schema, and where things stand."""

import math
from typing import Literal

import pytest
from pydantic import Field

from autoscaler.core.errors import PolicyError
from autoscaler.policy.validate import Section, validate
from autoscaler.policy.yaml_reader import read, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("NULL", None), ("nUll", "nUll"),
        ("true", True), ("FALSE", False), ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("y", "y"),
        ("0", 0), ("-12", -12), ("+7", 7), ("012", 12), ("0o17", 15), ("0x1F", 31), ("1:30", "1:30"),
        ("1_000", "1_000"), ("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("-.inf", -math.inf),
        (".INF", math.inf), ("1e999", math.inf),
        ("2024-01-01", "2024-01-01"), ("60%", "60%"), ("0b1", "0b1"), ("=", "="), ("<<", "<<"), ("9" * 31, "9" * 31),
    ],
)  # fmt: skip
def test_plain_scalars(text: str, value: object) -> None:
    resolved = resolve(text)
    assert resolved == value
    assert type(resolved) is type(value)
    if text:
        assert read(f"key: {text}\n".encode(), "f").data == {"key": value}


def test_not_a_number_is_one() -> None:
    value = resolve(".nan")
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize("quoted", ["'1'", '"1"', "|-\n  1", ">-\n  1"])
def test_what_is_quoted_is_text(quoted: str) -> None:
    assert read(f"key: {quoted}\n".encode(), "f").data == {"key": "1"}


def test_a_byte_order_mark_and_line_ends_of_other_systems_are_no_fault() -> None:
    document = read("\ufeffa: 1\r\nb: {c: 2}\r\n".encode(), "f")
    assert document.data == {"a": 1, "b": {"c": 2}}
    assert str(document.problem(("b", "c"), "here")) == "f:2:8: b.c: here"


TEXT = b"""\
a:
  - x: 1
    y: [p, q]
  - {z: 2}
b:
"""


@pytest.mark.parametrize(
    ("loc", "at_key", "line"),
    [
        ((), False, "f:1:1: m"),
        (("a",), False, "f:2:3: a: m"),
        (("a",), True, "f:1:1: a: m"),
        (("a", 0), True, "f:2:5: a[0]: m"),
        (("a", 0, "y", 1), False, "f:3:12: a[0].y[1]: m"),
        (("a", 1, "z"), True, "f:4:6: a[1].z: m"),
        (("b",), True, "f:5:1: b: m"),
        # What is no node is skipped: a union's tag, an index beyond the end, a key that is not there.
        (("a", 1, "target_tracking", "z"), False, "f:4:9: a[1].z: m"),
        (("a", 7), False, "f:2:3: a: m"),
        (("c",), False, "f:1:1: m"),
        (("b", "[key]"), True, "f:5:1: b: m"),
    ],
)
def test_places(loc: tuple[int | str, ...], at_key: bool, line: str) -> None:
    assert str(read(TEXT, "f").problem(loc, "m", at_key=at_key)) == line


class One(Section):
    type: Literal["one"]
    speed: int


class Two(Section):
    type: Literal["two"]
    weight: int


class Tagged(Section):
    part: One | Two = Field(discriminator="type")


def test_the_tag_of_a_union_is_no_part_of_the_place() -> None:
    with pytest.raises(PolicyError) as caught:
        validate(read(b"part: {type: two, wight: 1}\n", "f"), Tagged)
    assert (
        str(caught.value)
        == "f:1:1: part: the key 'weight' is missing\nf:1:19: part.wight: unknown key; did you mean 'weight'?"
    )


def test_one_problem_in_the_first_of_two_documents_hides_none_of_the_form() -> None:
    with pytest.raises(PolicyError) as caught:
        read(b"a: &x 1\nb: *x\n---\nc: !t 2\n", "f")
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3, 4]
