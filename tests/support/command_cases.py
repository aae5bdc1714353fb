"""A run of every command whose output is worth reading. One more command needs one more line here."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """The words after `autoscaler` and the command, and how it ends; `json` are those that make it print JSON."""

    words: str = ""
    code: int = 0
    json: str | None = "--json"
    wide: bool = False
    """Whether it prints something for programs, whose lines are as long as they are."""


CASES: Mapping[str, Case] = {
    "attach": Case("web-1"),
    "capacity": Case("web --to 6", code=1),
    "completion": Case("bash", json=None, wide=True),
    "detach": Case("web-1"),
    "doctor": Case(code=1),
    "events": Case("--since 2h"),
    "explain": Case("web"),
    "group delete": Case("web --yes"),
    "history": Case("web --since 1h"),
    "hosts": Case(),
    "image build": Case("web --location TREE --initrd-inject load.csv --os-variant debain11", code=1),
    "image import": Case("text.qcow2 --name web", code=1, json=None),
    "image lint": Case("text.qcow2", code=1),
    "image list": Case(),
    "image prune": Case(code=1, json=None),
    "image publish": Case("web"),
    "image rollback": Case("web"),
    "image show": Case("web"),
    "ledger accept": Case(),
    "pause": Case("web"),
    "policy show": Case("web.yaml"),
    "protect": Case("web-1 --for 2h"),
    "record": Case("--since 1d --out seen.csv"),
    "refresh": Case("web"),
    "reload": Case(),
    "reset": Case("web"),
    "resume": Case("web"),
    "run": Case("--config nowhere.yaml", code=1, json=None),
    "scale": Case("web 3 --for 90m"),
    "schema": Case(json="", wide=True),
    "simulate": Case("--policy web.yaml --load load.csv --step 10m", json="--json -"),
    "status": Case(),
    "top": Case("--once"),
    "traffic": Case("web"),
    "unprotect": Case("web-1"),
    "validate": Case("web.yaml bad.yaml", code=1),
}
"""By the words that call a command. The folder that they run in is made by tests/unit/test_every_command.py."""
