"""The JSON Schema of policies, and the examples."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from autoscaler.cli import main
from autoscaler.policy.load import load_directory, load_file, schema, show
from autoscaler.policy.yaml_reader import read_file

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((CHECKOUT / "policies").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_valid_for_both(path: Path) -> None:
    assert load_file(path)
    VALIDATOR.validate(read_file(path).data)


def test_the_examples_go_together_and_each_does_what_its_name_says() -> None:
    policies = {policy.group: policy for policy in load_directory(CHECKOUT / "policies")}
    kinds = {
        group: {(type(entry).__name__, getattr(entry, "metric", None)) for entry in policy.scaling}
        for group, policy in policies.items()
    }
    assert kinds["web"] == {("TargetTracking", "guest.cpu")}
    assert kinds["workers"] == {("TargetTracking", "prometheus"), ("StepScaling", "prometheus")}
    assert kinds["office"] == {("TargetTracking", "guest.cpu"), ("Schedule", None)}
    assert kinds["cache"] == {("TargetTracking", "guest.memory"), ("TargetTracking", "guest.cpu")}
    assert policies["workers"].size.min == 0
    assert [rate.per_seconds for rate in policies["from-hpa"].behavior.scale_out.rates] == [15.0, 15.0]
    assert policies["from-aws"].behavior.tolerance_out == 0.0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_what_policy_show_prints_is_the_same_policy_with_every_default(path: Path, tmp_path: Path) -> None:
    policy = load_file(path)
    shown = tmp_path / "shown.yaml"
    shown.write_text(show(policy))
    assert load_file(shown) == policy
    VALIDATOR.validate(read_file(shown).data)
    data = read_file(shown).data
    # Of one direction: without it the behaviour's own counts. The others switch something on by being there.
    optional = {"tolerance", "tcp", "http", "idle", "traffic", "cloud_init"}
    for name, properties in _sections(schema(), ("scaling", "hosts")):
        section: Any = data
        for step in name:
            section = section.get(step, {})
        # Only an image by its name has versions.
        assert properties - section.keys() <= optional | ({"version"} if name == ("image",) else set()), name


def _sections(root: dict[str, Any], without: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
    def walk(node: dict[str, Any], name: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], set[str]]]:
        properties = node.get("properties", {})
        if properties:
            yield name, {key for key, below in properties.items() if below.get("default", "") is not None}
        for key, below in properties.items():
            if key not in without and "$ref" in below:
                yield from walk(_resolved(root, below), (*name, key))

    yield from walk(root, ())


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"szie": {"min": 1, "max": 2}}, "szie"),
        ({"mode": "dry"}, "dry"),
        ({"group": "Web"}, "Web"),
        ({"warm_up": 60}, "60"),
        ({"warm_up": "soon"}, "soon"),
        ({"size": {"min": "one", "max": 2}}, "one"),
        ({"behavior": {"tolerance": "0.1"}}, "0.1"),
        ({"scaling": [{"type": "target_tracking", "metric": "guest.cup", "target": "60%"}]}, "guest.cup"),
        ({"scaling": [{"type": "predict"}]}, "predict"),
        ({"image": {"name": "web", "volume": "b"}}, "volume"),
        ({"image": {"name": "web", "version": 0}}, "0"),
        ({"image": {}}, "{}"),
    ],
)
def test_the_schema_refuses_what_an_editor_can_know_is_wrong(change: dict[str, Any], where: str) -> None:
    good = {"version": 1, "group": "web", "image": {"pool": "a", "volume": "b"}, "size": {"min": 1, "max": 2}}
    VALIDATOR.validate(good)
    VALIDATOR.validate(good | {"image": {"name": "web"}})
    VALIDATOR.validate(good | {"image": {"name": "web", "version": "latest"}})
    with pytest.raises(jsonschema.ValidationError) as error:
        VALIDATOR.validate(good | change)
    assert where in str(error.value)


def test_the_command_prints_the_schema() -> None:
    result = CliRunner().invoke(main, ["schema"])
    assert result.exit_code == 0
    printed = json.loads(result.output)
    assert printed == schema()
    jsonschema.Draft202012Validator.check_schema(printed)


def _resolved(root: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    resolved: dict[str, Any] = root["$defs"][reference.rpartition("/")[2]] if reference else node
    return resolved
