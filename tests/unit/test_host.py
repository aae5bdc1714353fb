import os
import subprocess
import time
from pathlib import Path

import pytest

from autoscaler.host import load
from autoscaler.host.load import HostLoad, pressure
from autoscaler.host.processes import Greediest, guest_name


def test_a_share_needs_two_readings() -> None:
    host = HostLoad("local")
    first = host.sample()
    assert first.cpu_busy_share is None
    began = os.times().elapsed
    while os.times().elapsed - began < 0.5:
        pass
    second = host.sample()
    assert second.cpu_busy_share is not None
    assert 0.5 / second.cpu_count * 0.5 < second.cpu_busy_share <= 1.0


def test_figures_are_the_kernels() -> None:
    sample = HostLoad("local").sample()
    meminfo = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    assert sample.memory_total_bytes == int(meminfo["MemTotal"].split()[0]) * 1024
    assert sample.cpu_count == os.cpu_count()
    assert sample.load_1m == pytest.approx(os.getloadavg()[0], abs=0.5)


def test_who_takes_the_cpu_is_named_once_it_was_seen_twice() -> None:
    # This test is one of many on its machine.
    greediest = Greediest(told=10_000, least_cores=0.0)
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as burner:
        try:
            assert greediest.look(True) == ()
            time.sleep(0.5)
            found = {consumer.pid: consumer for consumer in greediest.look(True)}
        finally:
            burner.kill()
    assert burner.pid in found
    assert found[burner.pid].name == "sh"
    assert 0.0 < found[burner.pid].cores <= 1.2
    assert greediest.look(False) == ()
    assert greediest.look(True) == (), "what was before the pause is not known any more"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/qemu-system-x86_64", "-name", "guest=web-1,debug-threads=on", "-S"], "web-1"),
        (["qemu-system-x86_64", "-name", "guest=a,,b"], "a,b"),
        (["qemu-system-x86_64", "-name", "plain,process=x"], "plain"),
        (["qemu-system-x86_64", "-m", "64"], None),
        ([], None),
    ],
)
def test_a_guest_is_known_by_the_command_line_of_its_qemu(command: list[str], name: str | None) -> None:
    assert guest_name(command) == name


def test_pressure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PRESSURE", tmp_path)
    (tmp_path / "cpu").write_text(
        "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"
    )
    assert pressure("cpu") == 0.125
    assert pressure("memory") is None, "what a kernel does not give is missing, not zero"


def test_the_boot_is_the_kernels_or_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boots = {HostLoad("local").sample().boot for _ in range(2)}
    assert boots == {Path("/proc/sys/kernel/random/boot_id").read_text().strip()}
    monkeypatch.setattr(load, "BOOT_ID", tmp_path / "absent")
    assert HostLoad("local").sample().boot is None
