"""An import from file to catalog, and its end at every point, with a folder in the place of a host's pool."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import pytest

from autoscaler.control.server import ControlServer
from autoscaler.core.errors import ControlError, HypervisorError, HypervisorErrorKind, ImageError
from autoscaler.core.policy import Image
from autoscaler.core.ports import VolumeRef
from autoscaler.images.flatten import content_digest, flatten
from tests.support.desk import Desk
from tests.support.image_desk import image_desk
from tests.unit.conftest import Run
from tests.unit.test_images_lint import QCOW2, qemu_img

Tell = Callable[[float], None]


class Folder:
    """A pool that is a folder; `strike` is called with the name of each point that is passed."""

    path: ClassVar[Path]
    strike: ClassVar[Callable[[str], None]]
    standing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, _host: str, _uri: str) -> None:
        self.stopped = False

    def free_bytes(self, _pool: str) -> int:
        return 1 << 40

    def download(self, image: Image, file: BinaryIO, tell: Tell) -> None:
        file.write((self.path.parent / image.volume).read_bytes())
        tell(1.0)

    def upload(self, half: VolumeRef, file: BinaryIO, size_bytes: int, tell: Tell) -> str:
        type(self).strike("before the upload")
        target = self.path / half.name
        if target.exists():
            raise HypervisorError(HypervisorErrorKind.EXISTS, f"there is a volume {half.name}")
        with target.open("wb") as out:
            out.write(file.read(size_bytes // 2))
            tell(0.5)
            type(self).strike("in the upload")
            out.write(file.read())
        assert target.stat().st_size == size_bytes
        type(self).strike("after the upload")
        return "a stamp"

    def overlays_on(self, _volume: VolumeRef) -> tuple[str, ...]:
        return self.standing

    def delete(self, volume: VolumeRef) -> None:
        (self.path / volume.name).unlink(missing_ok=True)

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pool"
    path.mkdir()
    monkeypatch.setattr(Folder, "path", path, raising=False)
    monkeypatch.setattr(Folder, "strike", staticmethod(lambda _point: None), raising=False)
    monkeypatch.setattr(Folder, "standing", ())
    monkeypatch.setattr("autoscaler.hypervisor.ImageStore", Folder)
    return path


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.of_images = image_desk()
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "golden.qcow2"
    qemu_img(*QCOW2, path, "16M")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 7 0 8M", path], check=True, capture_output=True)
    return path


def ledger(desk: Desk) -> list[str]:
    return [volume.name for volume in desk.of_images._journal.volumes()]


def stored(desk: Desk) -> list[tuple[str, int]]:
    return [(each.volume, each.version) for each in desk.of_images.catalog.versions]


def test_what_is_imported_is_the_same_image_and_refers_to_nothing(
    run: Run, desk: Desk, daemon: ControlServer, folder: Path, file: Path
) -> None:
    done = run("image", "import", str(file), "--name", "web")
    assert (done.exit_code, done.exception) == (0, None)
    assert "stored as version 1 of image web, on host local in pool default, and published" in done.stdout
    (volume,) = folder.iterdir()
    assert stored(desk) == [(volume.name, 1)]
    assert desk.of_images.catalog.versions[0].digest == content_digest(volume)
    assert ledger(desk) == []
    qemu_img("compare", "-f", "qcow2", "-F", "qcow2", file, volume)
    again = run("image", "import", file.name, "--name", "web")
    assert "has this content already: it is version 1 on host local" in again.stdout, "by the name of a volume, too"
    assert len(list(folder.iterdir())) == 1
    changed = file.with_name("changed.qcow2")
    changed.write_bytes(file.read_bytes())
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 0 1M", changed], check=True, capture_output=True)
    second = run("image", "import", str(changed), "--name", "web")
    assert "version 1 is still the one that is followed" in second.stdout
    assert "autoscaler image publish web 2" in second.stdout
    assert "none is published" in run("image", "import", str(file), "--name", "db", "--no-publish").stdout


ENDS: dict[str, tuple[BaseException, int]] = {
    "interrupted": (KeyboardInterrupt(), 130),
    "out of space": (HypervisorError(HypervisorErrorKind.NO_SPACE, "no space left"), 1),
    "stopped": (ImageError("the transfer was stopped"), 1),
}
POINTS = ("before the upload", "in the upload", "after the upload")


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("point", POINTS)
def test_whatever_ends_it_no_half_stays(
    run: Run,
    desk: Desk,
    daemon: ControlServer,
    folder: Path,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    how: str,
) -> None:
    error, code = ENDS[how]
    struck: list[str] = []

    def strike(passed: str) -> None:
        struck.append(passed)
        if passed == point:
            raise error

    monkeypatch.setattr(Folder, "strike", staticmethod(strike))
    assert run("image", "import", str(file), "--name", "web").exit_code == code
    assert point in struck
    assert (list(folder.iterdir()), ledger(desk), stored(desk)) == ([], [], [])


def test_a_daemon_that_refuses_in_the_end_leaves_nothing_either(
    run: Run, desk: Desk, daemon: ControlServer, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ControlError("as told")

    monkeypatch.setattr(desk.of_images, "finish", refuse)
    done = run("image", "import", str(file), "--name", "web")
    assert (done.exit_code, "as told" in done.stderr) == (1, True)
    assert (list(folder.iterdir()), ledger(desk), stored(desk)) == ([], [], [])


def test_a_daemon_that_is_gone_collects_it_when_it_is_back(
    run: Run, desk: Desk, daemon: ControlServer, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoscaler.cli.image_import._RESTART_SECONDS", 0.0)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)

    def strike(point: str) -> None:
        if point == "after the upload":
            daemon.stop()

    monkeypatch.setattr(Folder, "strike", staticmethod(strike))
    done = run("image", "import", str(file), "--name", "web")
    assert done.exit_code == 3
    assert "it deletes web@" in done.stderr
    assert [path.name for path in folder.iterdir()] == ledger(desk), "what is left is in the ledger"


def test_what_an_import_that_was_killed_left_is_replaced(
    run: Run, desk: Desk, daemon: ControlServer, folder: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(point: str) -> None:
        if point == "in the upload":
            raise ZeroDivisionError

    def gone(*_: object) -> None:
        """Do nothing more, as a killed one."""

    monkeypatch.setattr(Folder, "strike", staticmethod(killed))
    monkeypatch.setattr("autoscaler.cli.image_import._undo", gone)
    assert isinstance(run("image", "import", str(file), "--name", "web").exception, ZeroDivisionError)
    monkeypatch.undo()
    monkeypatch.setattr(Folder, "path", folder, raising=False)
    monkeypatch.setattr(Folder, "strike", staticmethod(lambda _point: None), raising=False)
    monkeypatch.setattr("autoscaler.hypervisor.ImageStore", Folder)
    assert len(ledger(desk)) == len(list(folder.iterdir())) == 1
    busy = run("image", "import", str(file), "--name", "web")
    assert "is being imported to host local already" in busy.stderr
    clock = desk.of_images._monotonic
    clock.seconds += 1000.0  # type: ignore[attr-defined]
    monkeypatch.setattr(Folder, "standing", ("mine.qcow2",))
    used = run("image", "import", str(file), "--name", "web")
    assert "has been used since: mine.qcow2" in used.stderr
    assert len(list(folder.iterdir())) == 1, "what something stands on is not deleted"
    clock.seconds += 1000.0  # type: ignore[attr-defined]
    monkeypatch.setattr(Folder, "standing", ())
    done = run("image", "import", str(file), "--name", "web")
    assert (done.exit_code, done.exception) == (0, None)
    (volume,) = folder.iterdir()
    assert (ledger(desk), stored(desk)) == ([], [(volume.name, 1)])
    assert desk.of_images.catalog.versions[0].digest == content_digest(volume)


def test_a_copy_that_does_not_fit_is_said_where(
    run: Run, desk: Desk, daemon: ControlServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Folder, "download", full)
    done = run("image", "import", "golden.qcow2", "--name", "web")
    assert done.exit_code == 1
    assert "golden.qcow2 cannot be copied to" in done.stderr
    assert "Set TMPDIR to a folder with more room" in done.stderr


def test_equal_images_make_equal_copies(tmp_path: Path, file: Path) -> None:
    first, second, third = (tmp_path / f"{n}.qcow2" for n in (1, 2, 3))
    seen: list[float] = []
    flatten(file, first, seen.append)
    flatten(first, second, lambda _share: None)
    qemu_img("convert", "-O", "qcow2", "-c", "-o", "cluster_size=4k", file, tmp_path / "other.qcow2")
    flatten(tmp_path / "other.qcow2", third, lambda _share: None)
    assert len({content_digest(path) for path in (first, second, third)}) == 1
    assert seen[-1] == 1.0
    assert seen == sorted(seen)


def test_what_cannot_be_flattened_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "broken.qcow2"
    broken.write_text("no image\n")
    with pytest.raises(ImageError, match=r"could not be flattened: .*not in qcow2 format"):
        flatten(broken, tmp_path / "out.qcow2", lambda _share: None)


def test_a_backing_file_that_came_after_the_look_is_not_opened(tmp_path: Path, file: Path) -> None:
    overlay, flat = tmp_path / "overlay.qcow2", tmp_path / "flat.qcow2"
    qemu_img(*QCOW2, "-b", file, "-F", "qcow2", overlay)
    flatten(overlay, flat, lambda _share: None)
    zero = tmp_path / "zero.qcow2"
    qemu_img(*QCOW2, zero, "16M")
    qemu_img("compare", "-f", "qcow2", "-F", "qcow2", flat, zero)
