"""The daemon's configuration file."""

from pathlib import Path

import pytest

from autoscaler import config
from autoscaler.config import Config, Host, Listen, Log
from autoscaler.core.errors import PolicyError
from autoscaler.core.observation import HostLimits, Reserve


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSCALER_CONFIG", raising=False)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_everything_arrives(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """\
hosts:
  local: {uri: "qemu:///session"}
  rack-7: {uri: "qemu+ssh://root@kvm7/system?keyfile=/root/key"}
policies_dir: policies
state_dir: ../state
control_socket: /run/a.sock
listen: "[::1]:9000"
interval: 1m
workers: 2
log: {format: json, level: debug}
""",
    )
    assert config.load(path) == Config(
        hosts={"local": Host("qemu:///session"), "rack-7": Host("qemu+ssh://root@kvm7/system?keyfile=/root/key")},
        policies_dir=tmp_path / "policies",
        state_dir=tmp_path / ".." / "state",
        control_socket=Path("/run/a.sock"),
        listen=Listen("::1", 9000),
        interval_seconds=60.0,
        workers=2,
        log=Log("json", "debug"),
    )


def test_a_host_may_be_granted_in_part(tmp_path: Path) -> None:
    text = """\
hosts:
  local:
    uri: "qemu:///system"
    reserve: {memory: 10%, pool_space: 20GiB, addresses: 5}
    overcommit: {vcpus: 4, pool_space: 1.5}
    pressure: {memory: 30%}
    preemption: 2m
"""
    limits = HostLimits(Reserve(share=0.1), Reserve(amount=20 * 1024**3), 5, 4.0, 1.5, 0.3, 120.0)
    assert config.load(written(tmp_path, text)).hosts == {"local": Host("qemu:///system", limits)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("reserve: {memory: 100%}", "100% would leave nothing; allowed: 0% to below 100%"),
        ("reserve: {memory: 10}", "must be a share such as 10%, or a size such as 2GiB, not the number 10"),
        ("reserve: {addresses: -1}", "-1 is out of bounds; allowed: 0 to 16777216"),
        ("overcommit: {vcpus: lots}", "must be a number such as 4 or 1.5, not 'lots'"),
        ("overcommit: {pool_space: 0.5}", "0.5 is out of bounds; allowed: 1 to 100"),
        ("pressure: {memory: 0%}", "0% is out of bounds; allowed: 1% to 100%"),
    ],
)
def test_wrong_grants_are_refused_where_they_stand(tmp_path: Path, given: str, message: str) -> None:
    path = written(tmp_path, f"hosts:\n  local:\n    uri: qemu:///system\n    {given}\n")
    with pytest.raises(PolicyError) as caught:
        config.load(path)
    (problem,) = caught.value.problems
    assert (problem.line, message in problem.message) == (4, True), problem


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert config.load(written(tmp_path, "# nothing\n")) == Config(log=Log("json", "info"))


@pytest.mark.parametrize(("listen", "host"), [("localhost:1", "localhost"), ("127.9.9.9:1", "127.9.9.9")])
def test_loopback_needs_no_leave(tmp_path: Path, listen: str, host: str) -> None:
    assert config.load(written(tmp_path, f"listen: {listen}\n")).listen == Listen(host, 1)


@pytest.mark.parametrize(("listen", "host"), [("0.0.0.0:80", "0.0.0.0"), ("'[::]:80'", "::"), ("kvm7:80", "kvm7")])
def test_others_may_reach_it_where_that_is_said(tmp_path: Path, listen: str, host: str) -> None:
    assert config.load(written(tmp_path, f"listen: {listen}\nlisten_publicly: true\n")).listen == Listen(host, 80)


def test_an_address_is_written_as_in_a_url() -> None:
    assert [str(Listen("::1", 80)), str(Listen("127.0.0.1", 80))] == ["[::1]:80", "127.0.0.1:80"]


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://bob@h/system?keyfile=/a:b@c",
        "qemu:///system",
        "qemu+libssh2://h/system",
        "test:///default",
        "test:///etc/test.xml",
    ],
)
def test_uris(tmp_path: Path, uri: str) -> None:
    assert config.load(written(tmp_path, f"hosts: {{a: {{uri: '{uri}'}}}}\n")).hosts == {"a": Host(uri)}


@pytest.mark.parametrize(
    ("asked", "terminal", "journal", "used"),
    [
        ("auto", True, False, "console"),
        ("auto", False, True, "console"),
        ("auto", False, False, "json"),
        ("json", True, True, "json"),
        ("console", False, False, "console"),
    ],
)
def test_log_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str, terminal: bool, journal: bool, used: str
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    if journal:
        monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert config.load(written(tmp_path, f"log: {{format: {asked}}}\n")).log.format == used


def test_the_file_is_the_argument_then_the_variable_then_the_usual_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, named = tmp_path / "usual", tmp_path / "named"
    for folder, workers in ((tmp_path, 1), (named, 2), (usual, 3)):
        folder.mkdir(exist_ok=True)
        written(folder, f"workers: {workers}\n")
    monkeypatch.setattr(config, "DEFAULT_PATH", usual / "config.yaml")
    assert config.load().workers == 3
    monkeypatch.setenv("AUTOSCALER_CONFIG", str(named / "config.yaml"))
    assert config.load().workers == 2
    assert config.load(tmp_path / "config.yaml").workers == 1


def test_relative_paths_are_absolute_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "state_dir: state\n")
    monkeypatch.chdir(tmp_path)
    assert config.load(Path("config.yaml")).state_dir == tmp_path / "state"


def test_a_missing_file_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSCALER_CONFIG", "/nowhere/config.yaml")
    with pytest.raises(PolicyError) as caught:
        config.load()
    assert str(caught.value) == (
        "/nowhere/config.yaml:1:1: there is no configuration;"
        " write one, or name another with --config or AUTOSCALER_CONFIG"
    )


@pytest.mark.parametrize("scheme", ["qemu+ssh", "qemussh", "qemu+libssh2", ""])
def test_a_password_in_a_uri_is_refused_and_not_repeated(tmp_path: Path, scheme: str) -> None:
    path = written(tmp_path, f"hosts: {{a: {{uri: '{scheme}://bob:hunter2@kvm7/system'}}}}\n")
    with pytest.raises(PolicyError, match=r":1:\d+: hosts.*holds a password") as error:
        config.load(path)
    assert "hunter2" not in str(error.value)
