"""The unit as systemd reads it, without starting anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNIT = SYSTEMD / "autoscaler.service"
MOST_EXPOSURE = 1.5

pytestmark = pytest.mark.real


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit as installed, with a command that exists."""
    command = tmp_path / "opt/bin/autoscaler"
    command.parent.mkdir(parents=True)
    shutil.copy("/bin/true", command)
    (tmp_path / "opt/share/doc").mkdir(parents=True)
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("@PREFIX@", str(tmp_path / "opt")))
    return path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *arguments], capture_output=True, text=True, check=False)


def test_systemd_finds_nothing_wrong_with_it(unit: Path) -> None:
    verified = analyze("verify", "--man=no", str(unit))
    # It also tells of other units of the machine that ours is ordered after.
    assert [line for line in verified.stderr.splitlines() if "autoscaler" in line] == []
    assert verified.returncode == 0


def test_systemd_would_find_what_is_wrong(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchdogSecs="))
    assert "WatchdogSecs" in analyze("verify", "--man=no", str(unit)).stderr


def test_exposure_is_within_its_bound(unit: Path) -> None:
    bound = f"--threshold={MOST_EXPOSURE * 10:.0f}"
    rated = analyze("security", "--offline=yes", bound, str(unit))
    assert rated.returncode == 0, rated.stdout
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", rated.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= MOST_EXPOSURE


def test_every_restriction_left_out_is_explained(unit: Path) -> None:
    rated = analyze("security", "--offline=yes", str(unit)).stdout
    missing = set(re.findall(r"^✗ (\w+)=", rated, re.MULTILINE))
    section = UNIT.read_text().partition("# --- left out, and why")[2].partition("# ---")[0]
    explained = {
        name for line in re.findall(r"^# (\w+=.*)", section, re.MULTILINE) for name in re.findall(r"(\w+)=", line)
    }
    assert missing
    assert missing - explained == set()


def test_systemd_reads_the_user_and_the_folders(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr/lib/sysusers.d").mkdir(parents=True)
    shutil.copy(SYSTEMD / "sysusers.d/autoscaler.conf", root / "usr/lib/sysusers.d")
    subprocess.run(["systemd-sysusers", f"--root={root}"], check=True, capture_output=True)
    (entry,) = [line for line in (root / "etc/passwd").read_text().splitlines() if line.startswith("autoscaler:")]
    assert entry.endswith(":/usr/sbin/nologin")
    (root / "usr/lib/tmpfiles.d").mkdir(parents=True)
    shutil.copy(SYSTEMD / "tmpfiles.d/autoscaler.conf", root / "usr/lib/tmpfiles.d")
    subprocess.run(["systemd-tmpfiles", f"--root={root}", "--create"], check=True, capture_output=True)
    assert (root / "var/lib/autoscaler").stat().st_mode & 0o777 == 0o700
    assert (root / "etc/autoscaler/policies").stat().st_uid == 0
