"""Templates, secrets and seeds: what cloud-init is told in a clone, and what nobody else is."""

import base64
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.core.action import Clone, Intent
from autoscaler.core.errors import HypervisorErrorKind, PolicyError
from autoscaler.core.memory import Memory
from autoscaler.core.observation import Observation
from autoscaler.core.policy import CloudInit, Image, Machine, Secret, Template, Wanted
from autoscaler.core.ports import Identity
from autoscaler.executor import Time, Work, carry_out
from autoscaler.images.cloud_init import META_DATA, NETWORK_CONFIG, USER_DATA, CloudInitError, faults, render
from autoscaler.images.seed import make_seed
from autoscaler.policy.load import load_file, show
from autoscaler.simulate.host import Clock, SimulatedHost
from autoscaler.store import Journal, TickRecord
from tests.support.seeds import read_seed

IDENTITY = Identity("6f9f3c1e-8a70-4b7c-9a3d-0d8f1a2b3c4d", "52:54:00:2b:3c:4d")
HIDDEN = "correct-horse-battery"


def clone(cloud_init: CloudInit) -> Clone:
    return Clone("web", "local", "web-1", Image("default", "golden.qcow2"), Machine(), cloud_init)


def user_data(text: str, *secrets: Secret) -> CloudInit:
    return CloudInit(user_data=Template("/etc/user-data", text), secrets=secrets)


def secret(folder: Path, content: bytes = HIDDEN.encode(), *, mode: int = 0o400) -> Secret:
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return Secret("password", str(path))


# --- filling in -----------------------------------------------------------------------------------------------------


def test_a_clone_without_templates_is_told_its_id_and_name() -> None:
    files = render(clone(CloudInit()), IDENTITY)
    assert yaml.safe_load(files[META_DATA]) == {"instance-id": "web-1", "local-hostname": "web-1"}
    assert files.keys() == {META_DATA, USER_DATA}
    assert yaml.safe_load(files[USER_DATA]) == {}


def test_every_value_is_filled_in_and_everything_else_stays() -> None:
    text = (
        "#!/bin/sh\n"
        "echo @{instance} @{group} @{host} @{hostname} @{uuid} @{mac}\n"
        "echo $HOME ${PATH} $$ {{ ds.meta_data }} a@b.example @@ @@{instance} 100%\n"
    )
    assert render(clone(user_data(text)), IDENTITY)[USER_DATA] == (
        "#!/bin/sh\n"
        f"echo web-1 web local web-1 {IDENTITY.uuid} {IDENTITY.mac}\n"
        "echo $HOME ${PATH} $$ {{ ds.meta_data }} a@b.example @@ @{instance} 100%\n"
    )


def test_a_secret_is_filled_in_as_it_is_and_in_base64(tmp_path: Path) -> None:
    key = b"-----BEGIN KEY-----\nline\n-----END KEY-----"
    text = "#cloud-config\nwrite_files:\n- {path: /k, encoding: b64, content: '@{secret_base64:password}'}\n"
    files = render(clone(user_data(text, secret(tmp_path, key + b"\n"))), IDENTITY)
    assert base64.b64decode(yaml.safe_load(files[USER_DATA])["write_files"][0]["content"]) == key
    script = "#!/bin/sh\ncat <<END\n@{secret:password}\nEND\n"
    assert key.decode() in render(clone(user_data(script, secret(tmp_path / "..", key))), IDENTITY)[USER_DATA]


@given(st.text(alphabet="@{}$:abinstce \n", max_size=40))
def test_a_template_without_faults_can_be_filled_in(text: str) -> None:
    template = Template("/t", f"#!/bin/sh\n{text}")
    if not list(faults(USER_DATA, template, ())):
        filled = render(clone(CloudInit(user_data=template)), IDENTITY)[USER_DATA]
        assert filled.count("@{") == text.count("@@{")


# --- what is wrong with a template ----------------------------------------------------------------------------------

PASSWORD = Secret("password", "/p")


@pytest.mark.parametrize(
    ("kind", "text", "line", "column", "message"),
    [
        (
            USER_DATA,
            "#cloud-config\na: @{hostnam}\n",
            2,
            4,
            "unknown placeholder @{hostnam}; did you mean 'hostname'?",
        ),
        (
            USER_DATA,
            "#!/bin/sh\n\n  @{secret:db}",
            3,
            3,
            "unknown placeholder @{secret:db}; cloud_init.secrets names: password",
        ),
        (
            USER_DATA,
            "#!/bin/sh\n@{secret:pasword}",
            2,
            1,
            "unknown placeholder @{secret:pasword}; did you mean 'password'?",
        ),
        (
            USER_DATA,
            "#!/bin/sh\n@{}",
            2,
            1,
            "unknown placeholder @{}; allowed: group, host, hostname, instance, mac, secret:NAME, uuid",
        ),
        (USER_DATA, "#!/bin/sh\n@{instance", 2, 1, "'@{' opens a placeholder that '}' does not close"),
        (USER_DATA, "#!/bin/sh\n@{instance\n}", 2, 1, "'@{' opens a placeholder that '}' does not close"),
        (USER_DATA, "hostname: x\n", 1, 1, "cloud-init would not know what this is; begin with #cloud-config"),
        (USER_DATA, "", 1, 1, "cloud-init would not know what this is"),
        (USER_DATA, "#cloud-config\na: b: c\n", 2, 5, "is no YAML: mapping values are not allowed here"),
        (USER_DATA, "#cloud-config\n- a\n", 1, 1, "must be keys and values"),
        (USER_DATA, "#cloud-config\na: 2024-99-99\n", 1, 1, "is no YAML"),
        (USER_DATA, "#cloud-config\na: " + "[" * 5000, 1, 1, "is no YAML"),
        (META_DATA, "local-hostname: '@{hostname}'\n", 1, 1, "begin with instance-id: '@{instance}'"),
        (META_DATA, "instance-id: web\n", 1, 1, "whose instance-id it has seen before"),
        (META_DATA, "instance-id: '@{group}'\n", 1, 1, "whose instance-id it has seen before"),
        (META_DATA, "just text", 1, 1, "must be keys and values"),
        (NETWORK_CONFIG, "", 1, 1, "must be keys and values"),
        (
            NETWORK_CONFIG,
            "version: 2\nx: {macaddress: @{mac}}\n",
            2,
            17,
            "@{mac} may read as a number: put it in quotes",
        ),
        (NETWORK_CONFIG, "version: [2\n", 2, 1, "is no YAML"),
    ],
)
def test_a_fault_is_told_with_its_place(kind: str, text: str, line: int, column: int, message: str) -> None:
    (fault,) = faults(kind, Template("/t", text), (PASSWORD,))
    assert (fault.line, fault.column) == (line, column)
    assert message in fault.message


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (USER_DATA, "#cloud-config\n"),
        (USER_DATA, "#cloud-config\npassword: '@{secret:password}'\n"),
        (USER_DATA, "## template: jinja\n#cloud-config\n{% if x %}a: b: {% endif %}\n"),
        (USER_DATA, "#!/bin/sh\na: b: c\n"),
        (USER_DATA, 'Content-Type: multipart/mixed; boundary="x"\n'),
        (META_DATA, "instance-id: i-@{uuid}\n"),
        (META_DATA, "{instance-id: '@{instance}', local-hostname: '@{hostname}.example'}\n"),
        (NETWORK_CONFIG, "version: 2\nethernets: {all: {match: {macaddress: '@{mac}'}, dhcp4: true}}\n"),
    ],
)
def test_what_cloud_init_takes_has_no_fault(kind: str, text: str) -> None:
    assert list(faults(kind, Template("/t", text), (PASSWORD,))) == []


def test_every_unknown_placeholder_is_told() -> None:
    found = list(faults(USER_DATA, Template("/t", "#!/bin/sh\n@{a}\n@{b} @{c}"), ()))
    assert [(fault.line, fault.column) for fault in found] == [(2, 1), (3, 1), (3, 6)]


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (HIDDEN.encode(), 0o644, "every user of this machine may read the secret"),
        (b"\n", 0o400, "there is no secret in it"),
        (b"\xff" + HIDDEN.encode(), 0o400, "is no text in UTF-8"),
        (
            f"{HIDDEN}: 'x".encode(),
            0o400,
            "with its secrets it is no YAML from line 2 on. Put @{secret:NAME} in quotes",
        ),
        (f"{HIDDEN}\nb: c: d".encode(), 0o400, "with its secrets it is no YAML"),
    ],
)
def test_a_secret_that_cannot_be_used_is_named_and_not_repeated(
    tmp_path: Path, content: bytes, mode: int, message: str
) -> None:
    told = user_data("#cloud-config\npassword: @{secret:password}\n", secret(tmp_path, content, mode=mode))
    with pytest.raises(CloudInitError) as caught:
        render(clone(told), IDENTITY)
    assert message in str(caught.value)
    assert "group web" in str(caught.value)
    error: BaseException | None = caught.value
    while error is not None:
        assert HIDDEN not in repr(error)
        error = error.__cause__


def test_a_secret_that_is_not_there_is_named() -> None:
    told = user_data("#cloud-config\n", Secret("password", "/nowhere/at-all"))
    with pytest.raises(CloudInitError, match=r"secret password of group web: /nowhere/at-all.* cannot be read"):
        render(clone(told), IDENTITY)


# --- the seed -------------------------------------------------------------------------------------------------------


def test_a_seed_is_a_volume_with_cloud_inits_label_and_files() -> None:
    files = {META_DATA: "instance-id: ä\n", USER_DATA: "#!/bin/sh\n" + "x" * 70_000, NETWORK_CONFIG: "version: 2\n"}
    assert read_seed(make_seed(files)) == ("cidata", files)


# --- as a step ------------------------------------------------------------------------------------------------------


def carried_out(host: SimulatedHost, journal: Journal, action: Clone) -> None:
    record = TickRecord(Observation(1.0, 1.0), (), (), Memory(journal.controller, 1.0))
    (intent,) = journal.commit_tick(record, (action,))
    assert isinstance(intent, Intent)
    carry_out(Work(intent, host, journal, Time(lambda: 1.0, lambda _seconds: None)))


@pytest.fixture
def journal() -> Journal:
    return Journal.in_memory()


@pytest.fixture
def host(journal: Journal) -> SimulatedHost:
    return SimulatedHost("local", journal.controller, Clock())


def test_a_clones_seed_tells_its_own_identity(host: SimulatedHost, journal: Journal) -> None:
    text = "#cloud-config\nuuid: @{uuid}\nmac: '@{mac}'\n"
    carried_out(host, journal, clone(user_data(text)))
    label, files = read_seed(host.seeds["web-1.seed.iso"])
    (domain,) = host.inventory().domains
    (tenant,) = host.capacity(Wanted()).tenants
    assert label == "cidata"
    assert yaml.safe_load(files[META_DATA])["instance-id"] == "web-1"
    assert yaml.safe_load(files[USER_DATA]) == {"uuid": domain.uuid, "mac": tenant.macs[0]}
    assert {volume.name for volume in journal.volumes("web-1")} == {"web-1.qcow2", "web-1.seed.iso"}


def test_without_cloud_init_there_is_no_seed(host: SimulatedHost, journal: Journal) -> None:
    carried_out(host, journal, replace(clone(CloudInit()), cloud_init=None))
    assert host.seeds == {}
    assert [volume.name for volume in journal.volumes("web-1")] == ["web-1.qcow2"]


def test_a_secret_that_is_missing_at_the_clone_leaves_nothing_behind(host: SimulatedHost, journal: Journal) -> None:
    carried_out(host, journal, clone(user_data("#cloud-config\n", Secret("password", "/nowhere/at-all"))))
    (outcome,) = journal.outcomes()
    assert outcome.failure is not None
    assert outcome.failure.kind is HypervisorErrorKind.INVALID
    assert "/nowhere/at-all" in outcome.failure.message
    assert host.volumes == host.images
    assert journal.volumes() == ()
    assert host.inventory().domains == ()


def test_a_foreign_volume_of_a_seeds_name_is_left_alone(host: SimulatedHost, journal: Journal) -> None:
    host.volumes.add(("default", "web-1.seed.iso"))
    carried_out(host, journal, clone(CloudInit()))
    (outcome,) = journal.outcomes()
    assert outcome.failure is not None
    assert outcome.failure.kind is HypervisorErrorKind.EXISTS
    assert host.volumes == {*host.images, ("default", "web-1.seed.iso")}
    assert journal.volumes() == ()


def test_a_secret_is_in_the_seed_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    journal = Journal.open(tmp_path / "state")
    host = SimulatedHost("local", journal.controller, Clock())
    told = user_data("#cloud-config\npassword: '@{secret:password}'\n", secret(tmp_path))
    with caplog.at_level(logging.DEBUG):
        carried_out(host, journal, clone(told))
    assert HIDDEN.encode() in host.seeds["web-1.seed.iso"]
    journal.close()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "state").iterdir())
    assert b"secret:password" in kept, "the template is kept"
    assert HIDDEN.encode() not in kept
    assert HIDDEN not in caplog.text + "".join(capfd.readouterr())


# --- in a policy ----------------------------------------------------------------------------------------------------

POLICY = "version: 1\ngroup: web\nimage: {pool: default, volume: golden.qcow2}\nsize: {min: 1, max: 4}\n"


def policy(folder: Path, section: str) -> Path:
    path = folder / "web.yaml"
    path.write_text(f"{POLICY}{section}")
    return path


def test_paths_are_taken_from_the_policys_folder_and_shown_whole(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    (tmp_path / "seeds/user-data").write_text("#cloud-config\npassword: '@{secret:db}'\n")
    read = load_file(
        policy(tmp_path, "cloud_init: {user_data: seeds/user-data, secrets: {db: /run/credentials/db, tls-key: key}}\n")
    )
    assert read.cloud_init == CloudInit(
        user_data=Template(f"{tmp_path}/seeds/user-data", "#cloud-config\npassword: '@{secret:db}'\n"),
        secrets=(Secret("db", "/run/credentials/db"), Secret("tls-key", f"{tmp_path}/key")),
    )
    elsewhere = tmp_path / "shown"
    elsewhere.mkdir()
    (elsewhere / "web.yaml").write_text(show(read))
    assert load_file(elsewhere / "web.yaml") == read
    assert "tls-key" in show(read)


def test_an_empty_section_asks_for_a_seed(tmp_path: Path) -> None:
    assert load_file(policy(tmp_path, "cloud_init: {}\n")).cloud_init == CloudInit()
    assert load_file(policy(tmp_path, "")).cloud_init is None


@pytest.mark.parametrize(
    ("section", "place", "message"),
    [
        ("cloud_init: {user_data: missing}", "5:25", "missing cannot be read: no such file or directory"),
        ("cloud_init: {user_data: .}", "5:25", "cannot be read: is a directory"),
        ("cloud_init: {user_data: ~/x}", "5:25", "would not be expanded"),
        ("cloud_init: {user_data: 7}", "5:25", "must be a path, not the number 7"),
        ("cloud_init: {user_data: long}", "5:25", "is longer than 64 KiB"),
        ("cloud_init: {user_data: binary}", "5:25", "is no text in UTF-8, from its byte 0 on"),
        ("cloud_init: {user_data: bad}", "5:25", "/bad:2:4: unknown placeholder @{instnce}; did you mean 'instance'?"),
        ("cloud_init: {meta_data: good}", "5:25", "/good:1:1: cloud-init does nothing in a clone whose instance-id"),
        ("cloud_init: {userdata: good}", "5:14", "unknown key; did you mean 'user_data'?"),
        ("cloud_init: {secrets: {DB: x}}", "5:24", "a secret's name is a lowercase letter, then"),
        ("cloud_init: {secrets: {db: 1}}", "5:28", "must be a path"),
        ("cloud_init: {secrets: {db: }}", "5:24", "a value is missing"),
        ("cloud_init: x", "5:13", "must be keys and values, KEY: VALUE, not 'x'"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, section: str, place: str, message: str) -> None:
    (tmp_path / "long").write_text("#!/bin/sh\n" + "x" * 65_536)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    (tmp_path / "bad").write_text("#cloud-config\na: @{instnce}\n")
    (tmp_path / "good").write_text("#cloud-config\na: b\n")
    with pytest.raises(PolicyError) as caught:
        load_file(policy(tmp_path, section))
    (problem,) = caught.value.problems
    assert f"{problem.line}:{problem.column}" == place, problem
    assert message in problem.message, problem
