"""Policy files in, core policies out; and back, for those who want to see every default."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from autoscaler.core.errors import PolicyError, Problem
from autoscaler.core.policy import Policy
from autoscaler.policy.fields import FOLDER
from autoscaler.policy.model import KNOWN_HOSTS, PolicyFile, to_core, to_data
from autoscaler.policy.scaling import UnknownKindSection
from autoscaler.policy.validate import validate
from autoscaler.policy.yaml_reader import Document, read_file, reason, resolve

_SUFFIXES = frozenset({".yaml", ".yml"})


def load_file(path: Path, known_hosts: frozenset[str] | None = None) -> Policy:
    """Read one policy file; without `known_hosts` the names of hosts are not checked.

    Raises PolicyError with all problems.
    """
    return _policy(read_file(path), known_hosts)


def load_directory(directory: Path, known_hosts: frozenset[str] | None = None) -> tuple[Policy, ...]:
    """Read every `*.yaml` and `*.yml` in a directory but those whose name starts with a dot; sorted by group.

    Raises PolicyError with all problems of all files.
    """
    try:
        entries = sorted(directory.iterdir())
    except OSError as error:
        problem = Problem(str(directory), 1, 1, f"the folder of policies cannot be read: {reason(error)}")
        raise PolicyError((problem,)) from error
    return load_files((path for path in entries if _is_policy(path)), known_hosts)


def load_files(paths: Iterable[Path], known_hosts: frozenset[str] | None = None) -> tuple[Policy, ...]:
    """Read several policy files; sorted by group.

    Raises PolicyError with all problems of all files, and where a second file is for the group of another.
    """
    policies: list[Policy] = []
    problems: list[Problem] = []
    groups: dict[object, str] = {}
    for path in dict.fromkeys(paths):
        try:
            document = read_file(path)
            problems += _repeated(document, groups)
            policies.append(_policy(document, known_hosts))
        except PolicyError as error:
            problems += error.problems
    if problems:
        raise PolicyError(tuple(problems))
    return tuple(sorted(policies, key=lambda policy: policy.group))


def show(policy: Policy) -> str:
    """Render a policy as YAML with every default; it loads back to an equal policy."""
    return yaml.dump(to_data(policy), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def schema() -> dict[str, Any]:
    """Give the JSON Schema of the policy file, for editors; it refuses no file that is valid."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    made = PolicyFile.model_json_schema()
    # The kind that stands for all that are not known is for better errors only.
    del made["$defs"][UnknownKindSection.__name__]
    kinds = made["properties"]["scaling"]["items"]
    kinds["oneOf"] = [kind for kind in kinds["oneOf"] if not kind["$ref"].endswith(UnknownKindSection.__name__)]
    return {"$schema": dialect, **made, "title": "Policy of kvm-autoscaler"}


def _is_policy(path: Path) -> bool:
    return path.suffix in _SUFFIXES and not path.name.startswith(".")


def _policy(document: Document, known_hosts: frozenset[str] | None) -> Policy:
    folder = Path(document.file).parent.absolute()
    return to_core(validate(document, PolicyFile, {KNOWN_HOSTS: known_hosts, FOLDER: folder}))


def _repeated(document: Document, groups: dict[object, str]) -> list[Problem]:
    group = document.data.get("group")
    if not isinstance(group, str):
        return []
    first = groups.setdefault(group, document.file)
    if first == document.file:
        return []
    return [document.problem(("group",), f"the group '{group}' has a policy already, in {first}")]


class _Dumper(yaml.SafeDumper):
    """Writes lists indented below their key, as people do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - PyYAML's signature
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML quotes what YAML 1.1 takes for something else; `1e5` and `0o17` are text there and numbers here.
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if isinstance(resolve(text), str) else '"')


_Dumper.add_representer(str, _text)
