"""What is made of what two guests of an image tell."""

from dataclasses import replace

import pytest

from autoscaler.core.finding import Level
from autoscaler.images.canaries import Canary, Inside, judge, read_answer

ONE = Canary("one", ready_seconds=4.0, addresses=("192.0.2.1",), inside=Inside("a" * 32, ("ssh-ed25519 A",), True))
TWO = Canary("two", ready_seconds=5.0, addresses=("192.0.2.2",), inside=Inside("b" * 32, ("ssh-ed25519 B",), True))


def found(one: Canary, two: Canary, *, compare_addresses: bool = True) -> dict[str, Level]:
    findings = list(judge((one, two), 120.0, compare_addresses=compare_addresses))
    assert all(each.remedy is not None for each in findings if each.level is not Level.OK)
    return {each.code: each.level for each in findings}


ALL_GOOD = {
    "boot.ready": Level.OK,
    "boot.addresses": Level.OK,
    "boot.machine-id": Level.OK,
    "boot.host-keys": Level.OK,
}


def test_two_that_differ_are_good() -> None:
    assert found(ONE, TWO) == ALL_GOOD


def inside(canary: Canary, machine_id: str | None, keys: tuple[str, ...] = (), *, sshd: bool = True) -> Canary:
    return replace(canary, inside=Inside(machine_id, keys, sshd))


@pytest.mark.parametrize(
    ("one", "two", "differs"),
    [
        (ONE, replace(TWO, addresses=ONE.addresses), {"boot.addresses": Level.ERROR}),
        (ONE, replace(TWO, addresses=("2001:db8::1", "192.0.2.1")), {"boot.addresses": Level.ERROR}),
        (ONE, replace(TWO, addresses=()), {"boot.addresses": Level.ERROR}),
        (inside(ONE, "a"), inside(TWO, "a"), {"boot.machine-id": Level.ERROR, "boot.host-keys": Level.WARNING}),
        (inside(ONE, None, sshd=False), inside(TWO, None, sshd=False), {}),
        (inside(ONE, None, ("k A",)), inside(TWO, "b", ("k A", "l B")), {"boot.host-keys": Level.ERROR}),
        (inside(ONE, "a", ("k A",)), inside(TWO, "b", ()), {}),
    ],
)
def test_what_they_share_is_an_error(one: Canary, two: Canary, differs: dict[str, Level]) -> None:
    assert found(one, two) == ALL_GOOD | differs
    assert found(two, one) == ALL_GOOD | differs


def test_what_builds_on_an_error_is_not_judged() -> None:
    assert found(replace(ONE, failure="no room"), TWO) == {"boot.start": Level.ERROR}
    assert found(replace(ONE, ready_seconds=None, went_off=True), TWO) == {"boot.ready": Level.ERROR}
    late = replace(ONE, ready_seconds=None)
    assert found(late, TWO) == found(late, replace(TWO, ready_seconds=None)) == {"boot.ready": Level.ERROR}


def test_what_could_not_be_asked_is_a_warning_and_user_networks_are_not_compared() -> None:
    refused = replace(TWO, inside=None, refused="guest-exec has been disabled")
    assert found(ONE, refused) == {"boot.ready": Level.OK, "boot.addresses": Level.OK, "boot.inside": Level.WARNING}
    assert found(ONE, replace(TWO, addresses=ONE.addresses), compare_addresses=False) == ALL_GOOD


@pytest.mark.parametrize(
    ("printed", "read"),
    [
        (
            "machine-id 0123\nsshd\nkey ssh-rsa AAAA\nkey ssh-ed25519 BBBB\n",
            ("0123", ("ssh-rsa AAAA", "ssh-ed25519 BBBB"), True),
        ),
        ("machine-id\n", (None, (), False)),
        ("", (None, (), False)),
        ("machine-id \x1b[31mred\nwhat is this\n", ("[31mred", (), False)),
    ],
)
def test_a_guests_answer(printed: str, read: tuple[str | None, tuple[str, ...], bool]) -> None:
    assert read_answer(printed) == Inside(*read)
