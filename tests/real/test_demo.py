"""`make demo` from a fresh clone in an empty folder: it scales out and in, and the machine is as it was before."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from deploy.demo import golden, leftovers

pytestmark = [pytest.mark.real, pytest.mark.serial, pytest.mark.timeout(600)]

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("VIRTUAL_ENV", "PYTEST"))}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of what is committed here."""
    checkout = tmp_path / "kvm-autoscaler"
    subprocess.run(["git", "clone", "-q", golden.CHECKOUT, checkout], check=True)
    return checkout


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=checkout, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False
    )


def test_a_fresh_clone_scales_out_and_in_and_leaves_nothing(clone: Path) -> None:
    before = leftovers.snapshot()
    done = make(clone, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    after = leftovers.snapshot()
    assert leftovers.differences(before, after) == []
    for milestone in ("load is seen above the target", "a clone is asked for", "its domain runs", "its agent answers"):
        assert milestone in done.stdout, done.stdout


@pytest.mark.slow
def test_a_demo_that_is_interrupted_leaves_nothing(clone: Path) -> None:
    before = leftovers.snapshot()
    with subprocess.Popen(
        ["make", "demo"],
        cwd=clone,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        said = ""
        while "burning" not in said:
            line = demo.stdout.readline()
            assert line, said
            said += line
        os.killpg(demo.pid, signal.SIGINT)
        demo.stdout.read()
        assert demo.wait(120) != 0
    assert leftovers.differences(before, leftovers.snapshot()) == []
