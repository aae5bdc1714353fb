"""The commands about images over the control socket."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoscaler.codec import decode, encode
from autoscaler.control.client import request
from autoscaler.control.server import ControlServer
from autoscaler.core.catalog import CatalogView, ImageVersion, Import, Ticket
from autoscaler.core.errors import ControlError
from autoscaler.core.ports import VolumeRef
from tests.support.desk import Desk
from tests.support.image_desk import image_desk
from tests.unit.test_image_desk import FIRST, SECOND


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.of_images = image_desk()
    return made


@pytest.fixture
def path(tmp_path: Path, desk: Desk) -> Iterator[Path]:
    server = ControlServer(tmp_path / "control.sock", desk)
    server.start()
    yield tmp_path / "control.sock"
    server.stop()


def bring(path: Path, asked: Import) -> ImageVersion:
    ticket = decode(request(path, "image_begin", **{"import": encode(asked)}), Ticket)
    assert ticket.known is None
    request(path, "image_alive", **{"import": encode(asked)})
    given = {"import": encode(asked), "stamp": "a stamp", "publish": True}
    return decode(request(path, "image_finish", **given), ImageVersion)


def test_from_import_to_prune(path: Path) -> None:
    first, second = bring(path, FIRST), bring(path, SECOND)
    view = decode(request(path, "images"), CatalogView)
    assert view.catalog.versions == (first, second)
    assert view.catalog.published("web") == 1
    assert request(path, "image_publish", name="web")["version"] == 2
    assert request(path, "image_rollback", name="web")["version"] == 1
    assert request(path, "image_publish", name="web", version=2)["version"] == 2
    request(path, "image_remove", version=encode(first))
    request(path, "image_keep", version=encode(first))
    request(path, "image_remove", version=encode(first))
    request(path, "image_removed", version=encode(first))
    request(path, "image_gone", volume=encode(FIRST.half))
    assert decode(request(path, "images"), CatalogView).catalog.versions == (second,)


def test_an_import_that_is_given_up(path: Path) -> None:
    request(path, "image_begin", **{"import": encode(FIRST)})
    request(path, "image_abandon", **{"import": encode(FIRST)})
    request(path, "image_gone", volume=encode(FIRST.half))
    with pytest.raises(ControlError, match="is not being imported"):
        request(path, "image_alive", **{"import": encode(FIRST)})


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("image_begin", {}, '"import" must be the fields of Import, not nothing'),
        ("image_begin", {"import": {"name": "web"}}, '"import" must be the fields of Import'),
        ("image_begin", {"import": {**encode(FIRST), "name": "../etc"}}, "the name of an image such as web"),
        ("image_begin", {"import": {**encode(FIRST), "digest": "a/b"}}, "a SHA-256 in hexadecimal digits"),
        ("image_begin", {"import": {**encode(FIRST), "pool": ""}}, '"import.pool" must be a text'),
        ("image_finish", {"import": encode(FIRST)}, '"stamp" must be a text, not nothing'),
        ("image_publish", {"name": "web", "version": 0}, '"version" must be the number of a version, not 0'),
        ("image_publish", {"name": 7}, "the name of an image such as web, not 7"),
        ("image_rollback", {"name": "db"}, "there is no image db; images: none"),
        ("image_remove", {"version": 3}, '"version" must be the fields of ImageVersion, not 3'),
        ("image_gone", {"volume": encode(VolumeRef("local", "p", "web-1.qcow2", "web-1"))}, "is not being imported"),
    ],
)
def test_what_is_wrong_is_said(path: Path, command: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ControlError) as refused:
        request(path, command, **given)
    assert said in str(refused.value)
