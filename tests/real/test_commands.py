"""What a real daemon's commands show, on terminals of several widths."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.conftest import Pool
from tests.support.daemon import DaemonProcess, burn
from tests.support.terminal import CONTROL, on_a_terminal

pytestmark = pytest.mark.real

LOOKS = (
    "status",
    "hosts",
    "explain web",
    "events",
    "history web --since 5m",
    "capacity web --to 2",
    "top --once --interval 1s",
    "doctor",
)


@pytest.fixture
def daemon(tmp_path: Path, libvirt_uri: str, pool: Pool) -> Iterator[DaemonProcess]:
    process = DaemonProcess(tmp_path, libvirt_uri, pool.name, size={"min": 1, "max": 2})
    yield process
    process.close()


def test_all_looks_at_a_real_daemon_fit_terminals_of_any_width(daemon: DaemonProcess, libvirt_uri: str) -> None:
    daemon.start()
    (first,) = daemon.until_ready(1)
    burn(libvirt_uri, first.instance, 0.9)
    instances = [each.instance for each in daemon.until_ready(2)]
    shown = {}
    for columns in (60, 80):
        for look in LOOKS:
            code, written = on_a_terminal(daemon.config, *look.split(), columns=columns)
            text = CONTROL.sub(b"", written).decode().replace("\r\n", "\n")
            print(f"$ autoscaler {look}  # {columns} columns\n{text}")
            # The doctor has things to say of a machine that tests run on, and leaves long paths whole.
            assert code == 0 or look == "doctor", text
            assert all(len(line) <= columns or "/" in line for line in text.splitlines())
            assert "…" not in text
            shown[look, columns] = " ".join(text.split())
    for name in instances:
        assert all(name in shown[look, 80] for look in ("status", "events", "top --once --interval 1s"))
    assert "host local carries 2 of web" in shown["capacity web --to 2", 80]
    assert "grows from 1 to 2" in shown["explain web", 80] or "stays at 2" in shown["explain web", 80]
    assert "1 → 2" in shown["history web --since 5m", 80]
