"""The daemon's configuration file."""

from pathlib import Path

import pytest

from autoscaler import config
from autoscaler.config import Config, Host, Listen, Log, PrometheusServer, Webhook
from autoscaler.core.errors import PolicyError
from autoscaler.core.observation import HostLimits, Reserve
from autoscaler.secret_file import read_secret


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
webhooks:
  - {url: "https://chat/hook?x=1", secret_file: hook.secret, events: [became_ready, probe_failed]}
  - {url: "http://[::1]:8080"}
prometheus: {url: "https://prometheus/base", timeout: 2s, ca_file: ca.pem, token_file: /run/token}
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
        webhooks=(
            Webhook("https://chat/hook?x=1", tmp_path / "hook.secret", ("became_ready", "probe_failed")),
            Webhook("http://[::1]:8080"),
        ),
        prometheus=PrometheusServer("https://prometheus/base", 2.0, tmp_path / "ca.pem", Path("/run/token")),
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


@pytest.mark.parametrize(
    ("webhook", "problem"),
    [
        ("{url: 'ftp://chat/hook'}", "must be a URL such as https://HOST/PATH, in ASCII and without spaces"),
        ("{url: 'https://'}", "must be a URL such as https://HOST/PATH, in ASCII and without spaces"),
        ("{url: 'https://chat:99999/'}", "must be a URL such as https://HOST/PATH, in ASCII and without spaces"),
        ('{url: "http://chat/\\r\\nX: y"}', "must be a URL such as https://HOST/PATH, in ASCII and without spaces"),
        ("{url: 7}", "must be a URL such as https://HOST/PATH, not the number 7"),
        ("{url: 'https://bob:hunter2@chat/'}", "holds a user or a password; they are not sent"),
        ("{secret_file: x}", "the key 'url' is missing"),
        ("{url: 'http://chat', events: [became_redy]}", "did you mean 'became_ready'?"),
        ("{url: 'http://chat', secret: x}", "unknown key; did you mean 'secret_file'?"),
    ],
)
def test_a_wrong_webhook_is_refused(tmp_path: Path, webhook: str, problem: str) -> None:
    with pytest.raises(PolicyError) as caught:
        config.load(written(tmp_path, f"webhooks:\n  - {webhook}\n"))
    (found,) = caught.value.problems
    assert found.line == 2
    assert problem in found.message
    assert "hunter2" not in found.message


def test_a_secret_is_read_without_its_line_end(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("s3cret\n")
    path.chmod(0o400)
    assert read_secret(path) == b"s3cret"


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (None, 0, "the secret cannot be read: No such file or directory"),
        ("s3cret", 0o644, "every user of this machine may read the secret"),
        ("\n", 0o400, "there is no secret in it"),
        ("x" * 20_000, 0o400, "is longer than the 16384 bytes a secret may have"),
    ],
)
def test_a_wrong_secret_is_refused_and_not_repeated(
    tmp_path: Path, content: str | None, mode: int, problem: str
) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(PolicyError, match=problem) as caught:
        read_secret(path)
    assert str(path) in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{timeout: 5s}", ":1:1: prometheus: the key 'url' is missing"),
        ("{url: prometheus:9090}", "must be a URL such as http://127.0.0.1:9090, in ASCII"),
        ("{url: 'file:///etc/passwd'}", "must be a URL such as"),
        ("{url: 'http://[::1'}", "must be a URL such as"),
        ("{url: 'http://a:99999'}", "must be a URL such as"),
        ("{url: 'http://a/?x=1'}", "must be the address of a server, without ? and #, not 'http://a/?x=1'"),
        ("{url: 'http:// a'}", "must be a URL such as"),
        ("{url: 9090}", "must be a URL such as http://127.0.0.1:9090, not the number 9090"),
        ("{url: 'http://a', timeout: 0s}", "prometheus.timeout: 0s is out of bounds; allowed: 100ms to 1m"),
        ("{url: 'http://a', token_file: t}", "token_file: the token would cross the network in clear; write https://"),
        ("{url: 'http://a', user: bob}", "unknown key"),
    ],
)
def test_what_prometheus_cannot_be(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(PolicyError) as error:
        config.load(written(tmp_path, f"prometheus: {given}\n"))
    assert message in str(error.value)


def test_a_token_may_go_to_this_machine_in_clear(tmp_path: Path) -> None:
    path = written(tmp_path, "prometheus: {url: 'http://127.0.0.1:9090', token_file: t}\n")
    assert config.load(path).prometheus == PrometheusServer("http://127.0.0.1:9090", token_file=tmp_path / "t")


def test_a_password_in_prometheus_url_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="holds a user or a password; write a bearer token") as error:
        config.load(written(tmp_path, "prometheus: {url: 'https://bob:hunter2@prometheus'}\n"))
    assert "hunter2" not in str(error.value)
