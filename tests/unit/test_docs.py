"""The documentation's links, words and examples, and the site that is made of it."""

import io
import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click
import pytest
import yaml
from click.testing import CliRunner
from markdown_it.token import Token
from mdit_py_plugins.anchors.index import slugify
from rich.console import Console

from autoscaler import config
from autoscaler.cli import main
from autoscaler.policy.load import load_file, schema
from tests.pictures import explain, explained, in_utc, pictures
from tests.support.guide import FILES, PAGES, ROOT, Block, Shell, blocks, is_shown, prompts, tokens

TEXTS = (*PAGES, ROOT / "CHANGELOG.md")
of_every_text = pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.name)


def inline(page: Path) -> Iterator[Token]:
    """Give what stands in a page's paragraphs, headings and tables, piece by piece."""
    for token in tokens(page):
        yield from token.children or ()


# --- links -----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    parsed = tokens(page)
    return {slugify(text.content) for opening, text in pairwise(parsed) if opening.type == "heading_open"}


@of_every_text
def test_every_link_of_a_text_leads_somewhere(page: Path) -> None:
    links = [str(found.attrs.get("href") or found.attrs.get("src") or "") for found in inline(page)]
    for link in filter(None, links):
        parts = urlsplit(link)
        if parts.scheme:
            continue
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.exists(), f"{link} leads nowhere"
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        if parts.fragment:
            assert parts.fragment in anchors(target), f"{link}: no such heading"


class Page(HTMLParser):
    """Collects what a page of the site has, loads and links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if "src" in given:
            self.loaded.add(given["src"])
        if "href" in given:
            (self.links if tag == "a" else self.loaded).add(given["href"])


def test_the_site_is_made_without_a_warning_and_needs_nothing_else(tmp_path: Path) -> None:
    """Sphinx warns of broken links and anchors, of pages that are in no menu, and of code that is not what it says."""
    site = tmp_path / "site"
    made = subprocess.run(["make", "site", f"SITE={site}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    pages = {path: Page(path.read_text()) for path in site.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} < {path.stem for path in pages}
    for path, page in pages.items():
        for loaded in filter(None, page.loaded):
            parts = urlsplit(loaded)
            assert not parts.netloc, f"{path.name} loads {loaded}"
            assert parts.scheme == "data" or (path.parent / unquote(parts.path)).exists(), f"{path.name} lacks {loaded}"
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.stem in {"genindex", "search"}:
                continue
            target = path.parent / unquote(parts.path) if parts.path else path
            assert target.exists(), f"{path.name}: {link} leads nowhere"
            if parts.fragment and target in pages:
                assert parts.fragment in pages[target].ids, f"{path.name}: {link}: no such place"
    for path in (each for each in site.rglob("*") if each.suffix in {".css", ".svg"}):
        assert not re.search(r"(url\(\s*[\"']?|@import\s+[\"'])(https?:)?//", path.read_text()), path.name


# --- words -----------------------------------------------------------------------------------------------------------

OTHERS_WORDS = ("coming-from.md", "words.md", "elasticity.md")
"""The first two are about what others say, the last quotes the sources of its loads."""


def words_not_used() -> dict[str, re.Pattern[str]]:
    """Read the table's last column: what is not said, with a pattern that finds it in any number and case."""
    rows = re.findall(r"^\| (?!word|-)[^|]+ \| [^|]+ \| ([^|]*)\|$", (ROOT / "docs/words.md").read_text(), re.MULTILINE)
    words = [word.strip() for row in rows for word in row.split(",") if word.strip()]
    # In any number; virt-manager is somebody's name.
    return {word: re.compile(rf"(?<![\w-]){word}s?(?![\w-])".replace(" ", r"\s+"), re.IGNORECASE) for word in words}


SAID = [*sorted((ROOT / "tests/golden").glob("cli_*.txt")), ROOT / "tests/golden/reasons.txt"]


@pytest.mark.parametrize("said", SAID, ids=lambda path: path.stem)
def test_the_commands_say_it_as_the_pages_do(said: Path) -> None:
    assert [word for word, pattern in words_not_used().items() if pattern.search(said.read_text())] == []


@of_every_text
def test_one_thing_has_one_name(page: Path) -> None:
    if page.name in OTHERS_WORDS:
        return
    prose = " ".join(token.content for token in inline(page) if token.type in {"text", "softbreak"})
    found = [word for word, pattern in words_not_used().items() if pattern.search(prose)]
    assert found == [], "docs/words.md has what is said for these"


def test_no_name_in_the_code_says_nothing() -> None:
    empty = re.compile(
        r"^\s*(?:class|def|async def) \w*(?:manager|helper|utils|utilit)\w*", re.IGNORECASE | re.MULTILINE
    )
    code = [path for folder in ("autoscaler", "deploy", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert [str(path) for path in code if empty.search(f"class {path.stem}") or empty.search(path.read_text())] == []


def test_the_list_of_words_is_read() -> None:
    words = words_not_used()
    assert {"scale up", "base image", "cool-down", "manager"} < words.keys()
    assert words["scale up"].search("It scales\nup") is None
    assert words["scale up"].search("to Scale\nup.")


# --- examples --------------------------------------------------------------------------------------------------------

POLICY: dict[str, Any] = {
    "version": 1,
    "group": "web",
    "image": {"pool": "default", "volume": "golden.qcow2"},
    "size": {"min": 1, "max": 4},
    "traffic": {"type": "haproxy", "socket": "/run/haproxy/admin.sock", "backend": "web", "slots": "web"},
}
"""What is put around an example that shows a part of a policy."""


def examples(*languages: str) -> list[Block]:
    return [block for page in PAGES for block in blocks(page, *languages)]


def written_files() -> list[Block]:
    """Give the YAML files that the commands of a page write."""
    written = re.compile(r"^.*\btee \S+\.yaml .*<<'EOF'\n(.*?)^EOF$", re.DOTALL | re.MULTILINE)
    return [replace(block, text=text) for block in examples("sh") for text in written.findall(block.text)]


OTHERS = re.compile(r"[\w-]+'s own")
"""The note before an example of another program's YAML says whose it is."""
CHOICE = "one of these lines"
"""The note before an example of which each line is one by itself."""


@pytest.mark.parametrize("block", examples("yaml") + written_files(), ids=str)
def test_every_yaml_example_is_read_as_it_would_be(block: Block, tmp_path: Path) -> None:
    """An example is a policy, a part of one, a configuration, or a part of one; a note says where it is not."""
    if block.note is not None and OTHERS.fullmatch(block.note):
        assert yaml.safe_load(block.text)
        return
    assert block.note in {None, CHOICE}, f"{block}: a note that says nothing here"
    for text in block.text.splitlines() if block.note == CHOICE else [block.text]:
        read(text, tmp_path / "example.yaml")


def read(text: str, path: Path) -> None:
    given = yaml.safe_load(text)
    seed = given.get("cloud_init") or {}
    for name in (seed[key] for key in ("user_data", "meta_data") if key in seed):
        (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (path.parent / name).write_text("#cloud-config\n")
    if given.keys() <= schema()["properties"].keys() and not isinstance(given.get("hosts"), dict):
        lacking = {key: value for key, value in POLICY.items() if key not in given}
        path.write_text(f"{text}\n{yaml.safe_dump(lacking) if lacking else ''}")
        load_file(path)
    else:
        path.write_text(text)
        config.load(path)


@pytest.mark.parametrize("block", examples("json"), ids=str)
def test_every_json_example_is_json(block: Block) -> None:
    json.loads(block.text)


def test_every_block_says_what_it_is() -> None:
    known = {"sh", "console", "yaml", "json", "python", "text", "toml", "ini", "promql", "{toctree}", "{include}"}
    assert [str(block) for block in examples() if block.language not in known] == []


# --- what is run -----------------------------------------------------------------------------------------------------

RUN = {Path(page).name for page in FILES} | {"install.md", "tutorial.md"}
"""The pages whose commands tests/systemd/test_guides.py runs."""
EXAMPLES = {"commands.md", "runbook.md"}
"""Pages whose commands are for any group, file and fault: they are read by the command they are for, and not run."""
NOT_RUN = {"README.md": 3, "images-build.md": 2, "refresh.md": 1}
"""How many blocks of a page are not run; the reason stands before each in the page's source."""


def test_every_command_is_run_or_excepted_with_a_reason() -> None:
    guides = [block for block in examples("sh", "console") if block.page.name not in EXAMPLES]
    shown = [block for block in guides if block.not_run is None]
    assert {block.page.name for block in shown} == RUN
    excepted = Counter(block.page.name for block in guides if block.not_run is not None)
    assert excepted == NOT_RUN
    assert [str(block) for block in guides if block.note is not None and not block.not_run] == []


def test_the_guide_to_rehearsals(tmp_path: Path) -> None:
    """The one guide that needs no host; tests/systemd/test_guides.py runs the others."""
    page = ROOT / "docs/simulate.md"
    for name, text in FILES["docs/simulate.md"].items():
        (tmp_path / name).write_text(text)
    shell = Shell("bash", "--noprofile", "--norc")
    try:
        shell.run(f"cd {tmp_path}; PATH={Path(sys.executable).parent}:$PATH", "the test")
        for block in blocks(page, "sh", "console"):
            shell.follow(block)
    finally:
        shell.close()
    assert "web" in (tmp_path / "monday.html").read_text()


WITH_MISTAKES = """\
version: 1
group: web
image: {pool: default, volume: golden.qcow2}
size: {min: 3, max: 2}
scaling:
  - {type: target_tracking, metric: guest.cpus, target: 60%}
warm_up: 90
"""


def test_the_mistakes_that_the_readme_shows_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.yaml").write_text(WITH_MISTAKES)
    (block,) = blocks(ROOT / "README.md", "console")
    ((command, shown),) = prompts(block)
    result = CliRunner().invoke(main, command.split()[1:])
    assert result.exit_code == 1
    assert result.output.splitlines() == shown


def test_what_a_page_shows_is_looked_for_in_order() -> None:
    output = "  web: 3 ready of 3\n\nINSTANCE   STATE\nweb-1a    ready   5 s\n"
    assert is_shown(["web: 3 ready of 3", "web-… ready …"], output)
    assert is_shown([], output)
    assert not is_shown(["web-… ready …", "web: 3 ready of 3"], output)
    assert not is_shown(["web: 3 ready"], output)


def test_a_shell_does_as_a_terminal_does(tmp_path: Path) -> None:
    shell = Shell("bash", "--noprofile", "--norc")
    try:
        shell.run(f"cd {tmp_path}\nname=web\nsleep 100 &", "here")
        assert shell.run("kill %1; echo $name; pwd; cat", "here").split() == ["web", str(tmp_path)]
        shell.run("cat > a <<'EOF'\n$name 'is' \"kept\"\nEOF", "here")
        assert (tmp_path / "a").read_text() == "$name 'is' \"kept\"\n"
        shell.look("echo . >> b; wc -l < b", ["2"], "here")
        with pytest.raises(AssertionError, match="a command failed"):
            shell.run("false\ntouch c", "here")
        assert not (tmp_path / "c").exists()
    finally:
        shell.close()


# --- commands --------------------------------------------------------------------------------------------------------


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Give every command of ours that a page shows, with the words behind `autoscaler`."""
    shown = [token.content for token in inline(page) if token.type == "code_inline"]
    for block in blocks(page, "sh", "console"):
        lines = block.text if block.language == "sh" else "\n".join(command for command, _ in prompts(block))
        lines = lines.replace("\\\n", " ")
        shown += re.sub(r"<<'EOF'\n.*?^EOF$", "", lines, flags=re.DOTALL | re.MULTILINE).splitlines()
    for text in shown:
        found = re.match(r"(?:sudo )?(?:\S*/)?autoscaler (?!COMMAND)([^|>&;]+)", " ".join(text.split()))
        if found and "[OPTIONS]" not in text:
            yield text, shlex.split(re.sub(r"[\[\]…]", " ", found[1]), comments=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_of_ours(page: Path) -> None:
    for text, words in commands(page):
        try:
            take(main, words)
        except click.UsageError as error:
            pytest.fail(f"{text}: {error.format_message()}")


def take(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Read words as the command would, but for the values: pages write GROUP and N. Raises UsageError."""
    context = click.Context(command, parent=parent, info_name=command.name, **command.context_settings)
    _, rest, _ = command.make_parser(context).parse_args(list(words))
    if isinstance(command, click.Group):
        if rest:
            _, found, below = command.resolve_command(context, rest)
            assert found is not None
            take(found, below, context)
    elif rest:
        raise click.UsageError(f"one word too many: {rest}")


@pytest.mark.parametrize("words", [["sacle", "web", "3"], ["scale", "web", "3", "4"], ["scale", "web", "--four", "1h"]])
def test_a_command_that_is_not_ours_is_found(words: list[str]) -> None:
    with pytest.raises(click.UsageError):
        take(main, words)


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo.svg", "status.svg", "explain.svg"])
def test_the_pictures_are_as_the_commands_print(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == pictures()[name], "draw them anew: make pictures"


def test_the_example_of_a_decision_is_as_explain_prints_it() -> None:
    (block,) = blocks(ROOT / "docs/decisions.md", "text")
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False)
    with in_utc():
        explain(console, explained())
    assert isinstance(console.file, io.StringIO)
    assert block.text == console.file.getvalue()
