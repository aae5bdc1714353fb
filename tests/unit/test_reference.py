"""The reference of the commands and their man pages: as the commands are, and without a fault of form."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.install.install import COMPLETIONS, completion, man_pages
from deploy.reference.commands import markdown, pages, write_man_pages
from tests.support.commands import every_command

REFERENCE = Path(__file__).parents[2] / "docs/commands.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_man_pages(tmp_path_factory.mktemp("man"))


def test_the_reference_is_current() -> None:
    assert REFERENCE.read_text() == markdown(), "the commands have changed: run `make reference`"


def test_every_command_has_a_section_and_a_page(written: list[Path]) -> None:
    paths = [path for path, _ in every_command()]
    assert [page.path for page in pages()] == paths
    assert {page.stem for page in written} == {"-".join(("autoscaler", *path)) for path in paths}


def test_a_page_has_all_that_the_help_has(written: list[Path]) -> None:
    for page, path in zip(pages(), written, strict=True):
        done = subprocess.run(["mandoc", "-Tutf8", "-Owidth=78", path], capture_output=True, text=True, check=True)
        # Bold is written as a letter over itself.
        words = " ".join(re.sub(".\x08", "", done.stdout).split())
        for expected in (page.summary, *page.paragraphs, *page.examples, *(what for _, what in page.options)):
            assert " ".join(expected.split()) in words, page.title


def test_the_installer_puts_pages_and_completions_to_where_they_are_looked_for() -> None:
    environment = Path(sys.prefix)
    pages_put = dict(man_pages(environment))
    assert Path("/usr/local/share/man/man1/autoscaler-top.1") in pages_put
    assert len(pages_put) == len(list(every_command()))
    for shell, path in COMPLETIONS.items():
        assert b"autoscaler" in completion(environment, shell), path


def test_mandoc_has_nothing_to_say(written: list[Path]) -> None:
    done = subprocess.run(["mandoc", "-Tlint", "-Wall", *written], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")


def test_man_warns_of_nothing(written: list[Path]) -> None:
    for page in written:
        done = subprocess.run(
            ["man", "--warnings", "--encoding=UTF-8", "--local-file", page],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
        )
        assert done.stderr == ""
        assert "SEE ALSO" in done.stdout
