"""What is suggested for a word that is not known."""

import pytest

from autoscaler.core.words import nearest

MANY = [f"web-{number:03}" for number in range(25)]


@pytest.mark.parametrize(
    ("word", "known", "said"),
    [
        ("wbe", ["db", "web"], "did you mean 'web'?"),
        ("WEB", ["db", "web"], "did you mean 'web'?"),
        ("Locla", ["Local", "far"], "did you mean 'Local'?"),
        ("x", ["web", "db"], "groups: db, web"),
        ("x", [], "groups: none"),
        ("", ["web"], "groups: web"),
        ("y" * 100_000, ["web"], "groups: web"),
        ("zzz", MANY, f"groups: {', '.join(MANY[:20])} and 5 more"),
    ],
)
def test_the_nearest_is_suggested_or_what_there_is_is_listed(word: str, known: list[str], said: str) -> None:
    assert nearest(word, known, "groups") == said


def test_what_is_allowed_is_listed_unless_something_else_is_said() -> None:
    assert nearest("x", ["web"]) == "allowed: web"
