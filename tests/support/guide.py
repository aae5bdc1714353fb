"""What the documentation shows in fenced blocks, and a shell in which its commands are run as they stand there.

- ```` ```sh ````: commands; each must succeed, in one shell from the page's first block to its last.
- ```` ```console ````: a command after `$ `, and below it lines of what it prints, in their order; `…` is any text. The
  command is repeated until it prints them, as a reader would look again: it must be one that only looks.
- An HTML comment right before a block, `<!-- not run: the reason -->`, excepts it.
"""

import base64
import contextlib
import queue
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKDOWN = MarkdownIt("commonmark").enable("table")

_POLICY = (ROOT / "policies/web.yaml").read_text()
_LOAD = "timestamp,value\n" + "".join(f"{60 * minute},{200 + 150 * (minute % 40 > 20)}\n" for minute in range(240))
FILES = {
    "README.md": {"web.yaml": _POLICY, "careful.yaml": _POLICY.replace("target: 60%", "target: 45%")},
    "docs/images.md": {},
    "docs/monitoring.md": {},
    "docs/operate.md": {},
    "docs/simulate.md": {"web.yaml": _POLICY, "monday.csv": _LOAD},
    "docs/traffic.md": {},
    "docs/webhooks.md": {},
}
"""The pages whose commands go to a service that runs, with what lies in the reader's folder."""

_NOTE = re.compile(r"<!--\s*(.*?)\s*-->\s*", re.DOTALL)
_MARK = "--- the block has ended ---"
_PATIENCE_SECONDS = 150.0
_BLOCK_SECONDS = 300.0


@dataclass(frozen=True)
class Block:
    """One fenced block; `note` is what the comment right before it says."""

    page: Path
    line: int
    language: str
    text: str
    note: str | None

    def __str__(self) -> str:
        """Render as the place to look at."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def not_run(self) -> str | None:
        """Why it is not run, or None."""
        return self.note.removeprefix("not run: ") if self.note and self.note.startswith("not run: ") else None


def tokens(page: Path) -> list[Token]:
    """Parse a page."""
    return MARKDOWN.parse(page.read_text())


def blocks(page: Path, *languages: str) -> Iterator[Block]:
    """Give a page's fenced blocks in these languages, or all of them."""
    before: Token | None = None
    for token in tokens(page):
        if token.type == "fence":
            language = token.info.split()[0] if token.info else ""
            if not languages or language in languages:
                note = _NOTE.fullmatch(before.content) if before is not None and before.type == "html_block" else None
                line = token.map[0] + 1 if token.map else 0
                yield Block(page, line, language, token.content, note[1] if note else None)
        before = token


def prompts(block: Block) -> Iterator[tuple[str, list[str]]]:
    """Give each command of a console block with the lines that are shown of its output."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, [line.strip() for line in shown if line.strip() not in {"", "…"}]


def is_shown(lines: Sequence[str], output: str) -> bool:
    """Whether the lines are among the output's, in their order."""
    rest = iter(output.splitlines())
    return all(any(_pattern(line).fullmatch(" ".join(found.split())) for found in rest) for line in lines)


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in " ".join(line.split()).split("…")))


class Shell:
    """One bash that runs block after block, somewhere: `command` starts it there."""

    def __init__(self, *command: str) -> None:
        self._bash = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._send("set -e")

    def follow(self, block: Block) -> None:
        """Run a block as it stands there; fails with what was printed where it does not do what the page says."""
        if block.language == "sh":
            self.run(block.text, str(block))
            return
        for command, shown in prompts(block):
            self.look(command, shown, str(block))

    def run(self, commands: str, where: str) -> str:
        """Run commands that must succeed; gives what they print."""
        ended, output = self._say(f"eval {_quoted(commands)} < /dev/null")
        assert ended, f"{where}: a command failed:\n{commands}\n{output}"
        return output

    def look(self, command: str, shown: Sequence[str], where: str) -> str:
        """Repeat a command until its output has the lines; gives the output."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while True:
            ended, output = self._say(f"if ! eval {_quoted(command)} < /dev/null; then echo 'it failed'; fi")
            assert ended, f"{where}: the shell ended at {command}:\n{output}"
            if is_shown(shown, output) and "it failed" not in output:
                return output
            assert time.monotonic() < end, f"{where}: {command}\nnever printed {list(shown)}, at last:\n{output}"
            time.sleep(1.0)

    def close(self) -> None:
        """End the shell, and what runs in its background."""
        assert self._bash.stdin is not None
        if self._bash.poll() is None:
            self._send("kill $(jobs -p) 2> /dev/null || true")
        with contextlib.suppress(BrokenPipeError):
            self._bash.stdin.close()
        self._bash.wait(20)
        self._reader.join(20)
        if self._bash.stdout is not None:
            self._bash.stdout.close()

    def _say(self, line: str) -> tuple[bool, str]:
        self._send(line)
        self._send(f"printf '\\n%s\\n' '{_MARK}'")
        printed: list[str] = []
        end = time.monotonic() + _BLOCK_SECONDS
        while True:
            try:
                found = self._lines.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                raise AssertionError(f"not within {_BLOCK_SECONDS:g} s: {line}\n{''.join(printed)}") from None
            if found is None or found.rstrip("\n") == _MARK:
                return found is not None, "".join(printed)
            printed.append(found)

    def _send(self, line: str) -> None:
        assert self._bash.stdin is not None
        try:
            print(line, file=self._bash.stdin, flush=True)
        except BrokenPipeError:
            self._lines.put(None)

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line)
        self._lines.put(None)


def _quoted(commands: str) -> str:
    """Hand commands over whole, whatever they quote, and keep the shell's own input from them."""
    return f'"$(base64 -d <<< {base64.b64encode(commands.encode()).decode()})"'
