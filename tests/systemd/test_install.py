"""Installing, upgrading and uninstalling on a real systemd; test_guides.py runs the commands of docs/install.md."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.service import CONFIG, POLICY, POLKIT_RULE, Service
from tests.systemd.conftest import CACHE, CHECKOUT

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(480)]

EXAMPLE = "/etc/autoscaler/policies/web.yaml.example"
UNIT_FILE = "/usr/local/lib/systemd/system/autoscaler.service"


@pytest.fixture
def previous() -> Path:
    """The previous commit, as if the next one had changed its version and every kind of file that is installed."""
    folder = CACHE / "previous"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD~1"], cwd=CHECKOUT, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    project = folder / "pyproject.toml"
    project.write_text(re.sub('^version = ".*"$', 'version = "0.0.1"', project.read_text(), flags=re.MULTILINE))
    for name in ("policies/web.yaml", "deploy/install/config.yaml", "systemd/polkit/50-autoscaler.rules"):
        path = folder / name
        path.write_text(path.read_text() + ("//" if name.endswith(".rules") else "#") + " an earlier release\n")
    return folder


@pytest.mark.slow
def test_upgrade_keeps_what_was_edited_with_state_and_guests(empty: Service, previous: Path) -> None:
    inside = empty.container
    assert "systemctl enable --now autoscaler" in empty.make("install", f"/cache/{previous.relative_to(CACHE)}")
    assert inside.output("autoscaler", "--version").endswith("0.0.1")
    before = inside.output("readlink", "-f", "/usr/local/bin/autoscaler")
    empty.make_pool()
    empty.write_policy()
    empty.write_config()
    # What an operator may do to the files: change one, remove one.
    edited = inside.output("cat", CONFIG)
    inside.run("sh", "-c", f"echo '# mine' >> {UNIT_FILE}; rm {EXAMPLE}")
    empty.systemctl("enable", "--now", "autoscaler")
    names, guests = empty.until_ready(1), empty.guests()
    controller = inside.output("cat", "/var/lib/autoscaler/controller")
    policy = inside.output("cat", POLICY)

    said = empty.make("install")

    assert f"{CONFIG} was edited: kept; the new version is beside it as config.yaml.new" in said
    assert inside.output("cat", CONFIG) == edited
    assert inside.output("cat", f"{CONFIG}.new") == (CHECKOUT / "deploy/install/config.yaml").read_text().strip()
    assert inside.output("cat", POLICY) == policy
    assert inside.output("tail", "-1", UNIT_FILE) == "# mine"
    assert f"{EXAMPLE} was removed by somebody: not put back" in said
    assert "earlier" not in inside.output("cat", POLKIT_RULE), "what nobody edited is renewed"
    assert inside.run("test", "-e", f"{POLKIT_RULE}.new", check=False).returncode == 1
    assert "restarting the daemon" in said
    assert empty.show("ActiveState") == "active"
    assert inside.output("readlink", "-f", "/usr/local/bin/autoscaler") != before
    assert empty.snapshot().version != "0.0.1"
    assert running_release(empty) in inside.output("readlink", "-f", "/usr/local/bin/autoscaler")
    assert empty.until_ready(1) == names
    assert empty.guests() == guests
    assert inside.output("cat", "/var/lib/autoscaler/controller") == controller

    again = empty.make("install")
    assert "is there already" in again
    assert f"{CONFIG} was edited: kept\n" in again
    uninstalls(empty, guests)


def running_release(service: Service) -> str:
    """Name the release that the daemon runs from."""
    command = service.container.output("cat", f"/proc/{service.main_pid()}/cmdline")
    found = re.search(r"/releases/([^/]+)/", command)
    assert found is not None
    return found[1]


def uninstalls(service: Service, guests: dict[str, int]) -> None:
    inside = service.container
    inside.run("sh", "-c", f"echo '# mine' >> {POLKIT_RULE}")
    said = service.make("uninstall")
    for path in (CONFIG, UNIT_FILE, POLKIT_RULE):
        assert f"{path} was edited: kept" in said
    for path in (
        "/opt/autoscaler",
        "/usr/local/bin/autoscaler",
        f"{CONFIG}.new",
        "/usr/local/lib/sysusers.d/autoscaler.conf",
    ):
        assert inside.run("test", "-e", path, check=False).returncode == 1, path
    assert inside.run("test", "-L", "/usr/local/bin/autoscaler", check=False).returncode == 1
    assert inside.output("find", "/usr/local/share", "-name", "*autoscaler*") == ""
    for path in (CONFIG, POLICY, POLKIT_RULE, "/var/lib/autoscaler/journal.sqlite3"):
        inside.run("test", "-e", path)
    assert service.guests() == guests, "guests run on"


def test_staged_below_a_folder_nothing_else_is_touched(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    install = ["/usr/bin/python3", "deploy/install/install.py"]
    where = ["--prefix", "/opt/autoscaler", "--destdir", str(stage)]
    subprocess.run([*install, "install", *where], cwd=CHECKOUT, check=True, capture_output=True)
    files = json.loads((stage / "opt/autoscaler/manifest.json").read_text())
    assert all((stage / path.lstrip("/")).is_file() for path in files)
    launcher = stage / "opt/autoscaler/bin/autoscaler"
    assert launcher.resolve().is_relative_to(stage)
    assert launcher.read_text().startswith("#!/opt/autoscaler/releases/"), (
        "runs where it will be, not where it was staged"
    )
    assert (stage / "usr/local/bin/autoscaler").readlink() == Path("/opt/autoscaler/bin/autoscaler")
    for shell in ("bash", "zsh", "fish"):
        (path,) = [path for path in files if shell in path]
        assert "_AUTOSCALER_COMPLETE" in (stage / path.lstrip("/")).read_text()
    subprocess.run([*install, "uninstall", *where], cwd=CHECKOUT, check=True, capture_output=True)
    assert [path for path in stage.rglob("*") if not path.is_dir()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("install", "--prefix", "opt"), "must be absolute"),
        (("uninstall", "--prefix", "/nowhere/at/all"), "nothing is installed"),
        (("install", "--prefix", "/usr/local"), "holds something else"),
    ],
)
def test_a_wrong_prefix_is_refused_before_anything_is_done(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        ["/usr/bin/python3", "deploy/install/install.py", *arguments],
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert said in done.stderr
