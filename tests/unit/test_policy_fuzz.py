"""Policy files that people, editors and broken disks have been at: a located error or a valid policy, nothing else."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import jsonschema
import pytest

from autoscaler.core.errors import PolicyError, Problem
from autoscaler.policy.load import load_file, schema, show
from autoscaler.policy.yaml_reader import read_file

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "policies").glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(schema())
TOKENS = (
    *(
        "",
        "~",
        "null",
        "true",
        "no",
        "on",
        "0",
        "-1",
        "1",
        "1e400",
        "0x10",
        "0o17",
        ".inf",
        ".nan",
        "1:30",
        "2024-01-01",
    ),
    *("60%", "0%", "100%", "1000%", "0s", "5m", "1h30m", "999999999h", "192MiB", "1TB", "99999999999999999999"),
    *(
        "[]",
        "{}",
        "[[[]]]",
        "{a: {a: {a: 1}}}",
        "'",
        '"',
        "#",
        "|",
        ">",
        "&a",
        "*a",
        "!!python/none",
        "!x",
        "%",
        "@",
        "`",
    ),
    *(
        "---",
        "...",
        "- ",
        "? ",
        ": ",
        "<<: {}",
        "\t",
        "\x00",
        "\x07",
        "\u2028",
        "\ufeff",
        "\ud7ff",
        "💥",
        "é",
        "\r",
        "\n\n",
    ),
    *(
        "guest.cpu",
        "prometheus",
        "target_tracking",
        "threshold",
        "schedule",
        "step",
        "avg",
        "p99",
        "p100",
        "max",
        "sum",
    ),
    *("query: up", "steps: []", "exact: 3", "cron: '* * * * *'", "timezone: Mars/Base", "samples: 3 of 2", "for: 1m"),
)

Mutation = Callable[[random.Random, str], str]


def _drop(chance: random.Random, text: str) -> str:
    begin = chance.randrange(len(text) + 1)
    return text[:begin] + text[begin + chance.choice((1, 1, 2, 10, 200)) :]


def _insert(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(TOKENS) + text[at:]


def _value(chance: random.Random, text: str) -> str:
    """Put another value behind a key."""
    lines = text.split("\n")
    with_keys = [number for number, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("#")]
    if not with_keys:
        return _insert(chance, text)
    number = chance.choice(with_keys)
    key, _, _ = lines[number].partition(": ")
    lines[number] = f"{key}: {chance.choice(TOKENS)}"
    return "\n".join(lines)


def _lines(chance: random.Random, text: str) -> str:
    """Repeat, remove, move or indent a line."""
    lines = text.split("\n")
    number, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(4):
        case 0:
            lines.insert(other, lines[number])
        case 1:
            del lines[number]
        case 2:
            lines[number], lines[other] = lines[other], lines[number]
        case _:
            lines[number] = " " * chance.randrange(6) + lines[number].lstrip()
    return "\n".join(lines)


def _word(chance: random.Random, text: str) -> str:
    """Misspell something."""
    words = text.split(" ")
    number = chance.randrange(len(words))
    letters = list(words[number])
    chance.shuffle(letters)
    words[number] = "".join(letters)
    return " ".join(words)


MUTATIONS: Sequence[Mutation] = (_drop, _insert, _value, _value, _lines, _word)


def mutated(chance: random.Random, texts: Sequence[str]) -> bytes:
    text = chance.choice(texts)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        text = chance.choice(MUTATIONS)(chance, text)
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.05 and data:
        at = chance.randrange(len(data))
        data = data[:at] + chance.randbytes(2) + data[at + 1 :]
    return data


def check_problems(problems: Sequence[Problem], path: Path, data: bytes) -> None:
    lines = sum(data.count(end) for end in (b"\n", b"\r", "\x85".encode(), "\u2028".encode())) + 2
    assert problems
    for problem in problems:
        assert problem.file == str(path)
        assert 1 <= problem.line <= lines
        assert problem.column >= 1
        assert problem.message
        assert "\n" not in problem.message


def check(path: Path, data: bytes) -> bool:
    """Load it; tells whether it is valid. A valid one is valid for the schema too, and shows as itself."""
    path.write_bytes(data)
    try:
        policy = load_file(path)
    except PolicyError as error:
        check_problems(error.problems, path, data)
        return False
    VALIDATOR.validate(read_file(path).data)
    path.write_text(show(policy))
    assert load_file(path) == policy
    return True


def mutate(count: int, seed: int, path: Path) -> int:
    chance = random.Random(seed)
    texts = [example.read_text() for example in EXAMPLES]
    valid = 0
    for number in range(count):
        data = mutated(chance, texts)
        try:
            valid += check(path, data)
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {seed}: {data!r}") from error
    return valid


def test_mutations_end_in_located_errors_or_valid_policies(tmp_path: Path) -> None:
    valid = mutate(500, 20, tmp_path / "policy.yaml")
    assert 50 < valid < 450, "neither all are broken nor all are whole"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_mutations(tmp_path: Path) -> None:
    valid = mutate(10_000, 21, tmp_path / "policy.yaml")
    assert 1000 < valid < 9000
