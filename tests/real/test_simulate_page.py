"""A rehearsal's page in a real browser: it draws, says no error, and asks nobody for anything."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.pictures import rehearse

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-default-apps",
    # The browser's own wish for updates must not leave this machine either.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--enable-logging=stderr",
    "--window-size=1100,1000",
)
NO_ORIGIN = "not an origin"
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:", "devtools:")


def browse(folder: Path, page: Path, *flags: str) -> tuple[str, list[str], set[str]]:
    """Open a page in Chromium: what it became, what its console said, and what it asked the network for."""
    browser = shutil.which("chromium")
    assert browser is not None, "chromium is missing: deploy/demo/bootstrap dev installs it"
    log = folder / "net.json"
    done = subprocess.run(
        [browser, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    events = (event.get("params") for event in json.loads(log.read_text())["events"])
    # What the browser asks for itself, the page's own file among it, has no origin.
    asked = {
        params["url"]
        for params in events
        if isinstance(params, dict) and "url" in params and params.get("initiator", NO_ORIGIN) != NO_ORIGIN
    }
    return done.stdout, console, {url for url in asked if not url.startswith(LOCAL)}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return rehearse(tmp_path)


def test_the_page_draws_without_errors_and_without_any_request(page: Path, tmp_path: Path) -> None:
    dom, console, asked = browse(tmp_path, page, "--dump-dom")
    assert console == []
    assert asked == set()
    assert 'data-drawn="5"' in dom
    assert "<canvas" in dom
    assert "above its target of 60%" in dom
    picture = tmp_path / "page.png"
    browse(tmp_path, page, f"--screenshot={picture}")
    assert picture.stat().st_size > 20_000


def test_an_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    broken.write_text("<script>fetch('http://127.0.0.1:9/here'); nothing.there;</script>")
    _, console, asked = browse(tmp_path, broken, "--dump-dom")
    assert any("nothing is not defined" in line for line in console)
    assert asked == {"http://127.0.0.1:9/here"}
