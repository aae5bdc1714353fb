"""A container with the service installed, per module. What pip needs is downloaded once: there is no network inside."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.demo.golden import build
from tests.support.service import Service

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
BUILD_REQUIREMENTS = ("hatchling>=1.26", "setuptools", "wheel")


@pytest.fixture(scope="session")
def cache() -> Path:
    """The folder that holds pip's packages in `wheels`."""
    CACHE.mkdir(exist_ok=True)
    lock = CHECKOUT / "requirements.lock"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    with (CACHE / "wheels.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        wheels = CACHE / "wheels"
        made_for = wheels / "made-for"
        if not made_for.exists() or made_for.read_text() != wanted:
            shutil.rmtree(wheels, ignore_errors=True)
            # The interpreter that the installer takes decides which wheels are right.
            pip = ["/usr/bin/python3", "-m", "venv", "--clear", str(CACHE / "wheels.venv")]
            subprocess.run(pip, check=True)
            download = [str(CACHE / "wheels.venv/bin/python"), "-m", "pip", "download", "-q", "-d", str(wheels)]
            subprocess.run([*download, "--no-deps", "--require-hashes", "-r", str(lock)], check=True)
            subprocess.run([*download, *BUILD_REQUIREMENTS], check=True)
            shutil.rmtree(CACHE / "wheels.venv")
            made_for.write_text(wanted)
    return CACHE


@pytest.fixture(scope="session")
def golden(cache: Path) -> Path:
    with (cache / "golden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return build(cache)


def installed(cache: Path, golden: Path, *, unified: bool) -> Service:
    service = Service(CHECKOUT, cache, golden, unified=unified)
    try:
        service.make("install")
        service.make_pool()
        service.write_config()
        service.write_policy()
    except BaseException:
        service.close()
        raise
    return service


@pytest.fixture(scope="module")
def container_service(cache: Path, golden: Path) -> Iterator[Service]:
    service = installed(cache, golden, unified=False)
    yield service
    service.close()


@pytest.fixture
def service(container_service: Service) -> Iterator[Service]:
    """The service on its usual policy, with one ready instance; what a test broke is mended before the next."""
    container = container_service.container
    container.run("rm", "-rf", "/run/systemd/system/autoscaler.service.d")
    container.run("systemctl", "daemon-reload")
    container.run("systemctl", "reset-failed", check=False)
    container_service.write_config()
    container_service.write_policy()
    container_service.systemctl("restart", "autoscaler")
    container.run("autoscaler", "scale", "web", "auto")
    container_service.until_ready(1)
    yield container_service
    print(container_service.journal()[-6000:], file=sys.stderr)


@pytest.fixture
def empty(cache: Path, golden: Path) -> Iterator[Service]:
    """A container in which nothing is installed."""
    made = Service(CHECKOUT, cache, golden)
    yield made
    made.close()
