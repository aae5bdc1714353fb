"""docs/reliability.md names tests; each of them is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "reliability.md").read_text()
NAMED = sorted(set(re.findall(r"`(\w+\.py)::(\w+)`", TEXT)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda value: value)
def test_a_named_test_is_there(file: str, test: str) -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob(file)]
    assert texts, f"there is no {file}"
    assert any(re.search(rf"^\s*def {test}\(", text, re.MULTILINE) for text in texts), f"{file} has no {test}"


def test_every_fault_names_a_test() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| what goes wrong")]
    assert len(rows) > 30
    assert [row for row in rows if "::" not in row] == []
