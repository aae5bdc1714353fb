"""Install the daemon on a hypervisor host, upgrade it, and take it away again: what `make install` runs, as root.

The program goes below the prefix, each release with a virtual environment of its own, so that a running daemon keeps
its files until it is restarted, and an installation that fails half-way changes nothing. What systemd, polkit and the
shells look for goes to where they look. The manifest below the prefix keeps what was put where, by SHA-256: a file that
is no longer as it was put belongs to the operator, who edited it. It is neither overwritten nor removed; the newer
version is put beside it with `.new` at its end.

The standard library only: this runs before anything of the package is installed.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = Path("/usr/bin/python3")
UNIT = "autoscaler.service"
COMMAND = Path("/usr/local/bin/autoscaler")
COMPLETIONS = {
    "bash": Path("/usr/local/share/bash-completion/completions/autoscaler"),
    "zsh": Path("/usr/local/share/zsh/site-functions/_autoscaler"),
    "fish": Path("/usr/local/share/fish/vendor_completions.d/autoscaler.fish"),
}
MAN_PAGES = Path("/usr/local/share/man/man1")
DOCUMENTS = (
    "install.md",
    "operate.md",
    "commands.md",
    "configuration.md",
    "policies.md",
    "capacity.md",
    "metrics.md",
    "security.md",
)
KEPT_RELEASES = 1
"""How many releases before the current one stay, to go back to by hand."""


class InstallError(Exception):
    """It could not be done; says what failed and what to do."""


@dataclass(frozen=True)
class Layout:
    """Where things go; with a `destdir` they are staged below it, for a package to be made of them."""

    prefix: Path
    destdir: Path | None

    def staged(self, path: Path) -> Path:
        """Give where a file of the final system is written now."""
        return path if self.destdir is None else self.destdir / path.relative_to("/")

    @property
    def manifest(self) -> Path:
        """What was put where."""
        return self.staged(self.prefix / "manifest.json")

    @property
    def releases(self) -> Path:
        """One folder per release."""
        return self.staged(self.prefix / "releases")

    @property
    def launcher(self) -> Path:
        """The command of the current release, a link into it."""
        return self.staged(self.prefix / "bin/autoscaler")


class Manifest:
    """The files that were put on the system, with the SHA-256 of what was put there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.files: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        except ValueError as error:
            raise InstallError(
                f"{path} is damaged ({error}). Move it away; files there count as edited then."
            ) from error

    def save(self) -> None:
        unfinished = self._path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.files, indent=1, sort_keys=True) + "\n")
        unfinished.replace(self._path)


# --- installing ------------------------------------------------------------------------------------------------------


def install(layout: Layout) -> None:
    """Install or upgrade. Raises InstallError."""
    prefix = layout.staged(layout.prefix)
    if prefix.exists() and any(prefix.iterdir()) and not layout.releases.exists():
        raise InstallError(
            f"{prefix} holds something else: give a folder of the program's own, such as /opt/autoscaler"
        )
    layout.releases.mkdir(parents=True, exist_ok=True)
    manifest = Manifest(layout.manifest)
    release = make_release(layout)
    put_files(layout, manifest, release)
    switch_to(layout, release)
    if layout.destdir is None:
        activate()
    remove_old_releases(layout, release)


def make_release(layout: Layout) -> Path:
    """Make the release of this checkout, unless it is there already, and give its folder."""
    with tempfile.TemporaryDirectory(prefix="autoscaler-install-") as work:
        wheel = build_wheel(Path(work))
        release = layout.releases / release_name(wheel)
        finished = release / ".finished"
        if finished.exists():
            say(f"{release.name} is there already")
            return release
        say(f"making {release}")
        run(str(PYTHON), "-m", "venv", "--clear", str(release), hint="Is python3-venv installed?")
        pip = (str(release / "bin/python"), "-m", "pip", "install", "-q")
        run(*pip, "--require-hashes", "-r", str(CHECKOUT / "requirements.lock"), hint=PACKAGES_HINT)
        run(*pip, "--no-deps", str(wheel))
    final = layout.prefix / "releases" / release.name
    command = release / "bin/autoscaler"
    command.write_text(command.read_text().replace(str(release), str(final), 1))
    finished.touch()
    return release


PACKAGES_HINT = (
    "libvirt-python is compiled here. Are the packages installed that docs/install.md names "
    "(gcc, pkg-config, python3-dev, libvirt-dev)?"
)


def build_wheel(work: Path) -> Path:
    """Build this checkout's wheel from what it consists of, and nothing else that lies in it."""
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "autoscaler", source / "autoscaler", ignore=shutil.ignore_patterns("__pycache__"))
    run(str(PYTHON), "-m", "venv", str(work / "builder"), hint="Is python3-venv installed?")
    pip = str(work / "builder/bin/python"), "-m", "pip", "wheel", "-q"
    run(*pip, "--no-deps", "--wheel-dir", str(work), str(source))
    (wheel,) = work.glob("*.whl")
    return wheel


def release_name(wheel: Path) -> str:
    """Name a release by its version and by all that goes into it."""
    digest = hashlib.sha256(sys.version.encode())
    for path in (wheel, CHECKOUT / "requirements.lock"):
        digest.update(path.read_bytes())
    return f"{wheel.name.split('-')[1]}-{digest.hexdigest()[:12]}"


def put_files(layout: Layout, manifest: Manifest, release: Path) -> None:
    """Put every file to where it is looked for, and take away those of an earlier release that are no more."""
    wanted = dict(files(layout, release))
    for path, content in wanted.items():
        put(layout, manifest, path, content)
    for name in sorted(set(manifest.files) - {str(path) for path in wanted}):
        remove(layout, Path(name), manifest.files.pop(name))
    manifest.save()


def files(layout: Layout, release: Path) -> Iterator[tuple[Path, bytes]]:
    """Give each file that goes outside the releases, with its content."""
    systemd = CHECKOUT / "systemd"
    lib, etc = Path("/usr/local/lib"), Path("/etc/autoscaler")
    unit = (systemd / UNIT).read_text().replace("@PREFIX@", str(layout.prefix))
    yield lib / "systemd/system" / UNIT, unit.encode()
    yield lib / "sysusers.d/autoscaler.conf", (systemd / "sysusers.d/autoscaler.conf").read_bytes()
    yield lib / "tmpfiles.d/autoscaler.conf", (systemd / "tmpfiles.d/autoscaler.conf").read_bytes()
    rule = "50-autoscaler.rules"
    yield Path("/etc/polkit-1/rules.d") / rule, (systemd / "polkit" / rule).read_bytes()
    yield etc / "config.yaml", (CHECKOUT / "deploy/install/config.yaml").read_bytes()
    # Read by nobody until it is copied to a name that ends in .yaml.
    yield etc / "policies/web.yaml.example", (CHECKOUT / "policies/web.yaml").read_bytes()
    for shell, path in COMPLETIONS.items():
        yield path, completion(release, shell)
    yield from man_pages(release)
    for document in DOCUMENTS:
        yield layout.prefix / "share/doc" / document, (CHECKOUT / "docs" / document).read_bytes()


def man_pages(release: Path) -> Iterator[tuple[Path, bytes]]:
    """Let the program kept with the commands write a page of each, and give them with their final places."""
    with tempfile.TemporaryDirectory(prefix="autoscaler-man-") as work:
        run(str(release / "bin/python"), "-I", str(CHECKOUT / "deploy/reference/commands.py"), "man", work)
        for page in sorted(Path(work).iterdir()):
            yield MAN_PAGES / page.name, page.read_bytes()


def completion(release: Path, shell: str) -> bytes:
    """Let the command itself write its completion for a shell."""
    # Not through bin/autoscaler, which names the Python of the final place.
    script = "import sys; from autoscaler.cli import main; main(['completion', sys.argv[1]])"
    done = subprocess.run([release / "bin/python", "-I", "-c", script, shell], capture_output=True, check=False)
    if not done.stdout.strip():
        raise InstallError(f"no completion for {shell}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def put(layout: Layout, manifest: Manifest, path: Path, content: bytes) -> None:
    """Write one file, or its new version beside one that is the operator's."""
    target = layout.staged(path)
    new = beside(target)
    there = sha256(target.read_bytes()) if target.exists() else None
    before, wanted = manifest.files.get(str(path)), sha256(content)
    manifest.files[str(path)] = wanted
    if there is None and before is not None and path.is_relative_to("/etc"):
        say(f"{path} was removed by somebody: not put back")
    elif there in {None, before, wanted}:
        write(target, content)
        new.unlink(missing_ok=True)
    elif before == wanted:
        say(f"{path} was edited: kept")
    else:
        write(new, content)
        say(f"{path} was edited: kept; the new version is beside it as {new.name}")


def beside(path: Path) -> Path:
    """Name the new version of a file that somebody edited; systemd, polkit and the daemon read no such name."""
    return path.with_name(f"{path.name}.new")


def write(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or as it was before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.write_bytes(content)
    unfinished.chmod(0o644)
    unfinished.replace(path)


def switch_to(layout: Layout, release: Path) -> None:
    """Make this release the current one, in one step."""
    link(layout.launcher, Path("../releases") / release.name / "bin/autoscaler")
    link(layout.staged(COMMAND), layout.prefix / "bin/autoscaler")


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path) and not path.is_symlink():
        raise InstallError(f"{path} is in the way and no link of ours: move it")
    unfinished = path.with_name(f".{path.name}.tmp")
    unfinished.unlink(missing_ok=True)
    unfinished.symlink_to(to)
    unfinished.replace(path)


def activate() -> None:
    """Make the user and the folders, and let systemd and a running daemon take up what is new."""
    run("systemd-sysusers", "autoscaler.conf")
    run("systemd-tmpfiles", "--create", "autoscaler.conf")
    if not systemd_runs():
        say("systemd does not run here: start the daemon as you like, with: autoscaler run")
        return
    run("systemctl", "daemon-reload")
    if run("systemctl", "is-active", UNIT, check=False) == "active":
        say("restarting the daemon; guests run on")
        run("systemctl", "restart", UNIT, hint=f"See journalctl -u {UNIT}; the release before is still in place.")
    else:
        say("installed. Write a policy, then: systemctl enable --now autoscaler")


def remove_old_releases(layout: Layout, current: Path) -> None:
    others = sorted(
        (release for release in layout.releases.iterdir() if release != current),
        key=lambda release: release.stat().st_mtime,
    )
    for release in others[:-KEPT_RELEASES]:
        shutil.rmtree(release)


# --- taking away -----------------------------------------------------------------------------------------------------


def uninstall(layout: Layout) -> None:
    """Remove what install put, and nothing else. Raises InstallError."""
    if not layout.manifest.exists():
        raise InstallError(f"nothing is installed at {layout.prefix}: there is no {layout.manifest}")
    manifest = Manifest(layout.manifest)
    live = layout.destdir is None and systemd_runs()
    if live:
        run("systemctl", "disable", "--now", UNIT, hint="The daemon still runs; nothing was removed.")
    for name, put_there in manifest.files.items():
        remove(layout, Path(name), put_there)
    command = layout.staged(COMMAND)
    if command.is_symlink() and command.readlink() == layout.prefix / "bin/autoscaler":
        command.unlink()
    layout.launcher.unlink(missing_ok=True)
    shutil.rmtree(layout.releases)
    layout.manifest.unlink()
    remove_empty_folders(layout)
    if live:
        run("systemctl", "daemon-reload")
    say("removed. Kept: the guests, which run on; /var/lib/autoscaler with the journal; the user autoscaler;")
    say("and what was edited or added below /etc/autoscaler. docs/install.md says how to remove these too.")


def remove(layout: Layout, path: Path, put_there: str) -> None:
    """Remove a file that is still as it was put."""
    target = layout.staged(path)
    beside(target).unlink(missing_ok=True)
    if target.exists() and sha256(target.read_bytes()) != put_there:
        say(f"{path} was edited: kept")
    else:
        target.unlink(missing_ok=True)


def remove_empty_folders(layout: Layout) -> None:
    """Remove the folders that were made for this program alone, and now hold nothing."""
    etc, prefix = Path("/etc/autoscaler"), layout.prefix
    for folder in (etc / "policies", etc, prefix / "share/doc", prefix / "share", prefix / "bin", prefix):
        staged = layout.staged(folder)
        if staged.is_dir() and not any(staged.iterdir()):
            staged.rmdir()


# --- the rest --------------------------------------------------------------------------------------------------------


def systemd_runs() -> bool:
    return Path("/run/systemd/system").is_dir()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def environment() -> Mapping[str, str]:
    """Let the machine's pip configuration say where packages come from, but not that they land elsewhere."""
    kept = {name: value for name, value in os.environ.items() if name not in {"PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}}
    kept.pop("PYTHONPATH", None)
    return {
        **kept,
        "PIP_USER": "0",
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
    }


def run(*command: str, check: bool = True, hint: str = "") -> str:
    """Run a program and give what it printed. Raises InstallError when it is missing, or fails with `check`."""
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InstallError(f"{command[0]} is not installed. {hint}".strip()) from error
    if check and done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise InstallError(f"`{' '.join(command)}` failed:\n{said}\n{hint}".strip())
    return done.stdout.strip()


def say(line: str) -> None:
    print(f"install: {line}", flush=True)


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--prefix", type=Path, required=True)
    parser.add_argument("--destdir", type=Path, help="stage everything below this folder, and activate nothing")
    given = parser.parse_args()
    if not given.prefix.is_absolute():
        parser.error(f"--prefix {given.prefix} must be absolute, such as /opt/autoscaler")
    if given.destdir is None and os.geteuid() != 0:
        parser.error("only root can do this: sudo make install")
    layout = Layout(given.prefix, None if given.destdir is None else given.destdir.absolute())
    # The service's user must be able to read it all, whatever root's umask is.
    os.umask(0o022)
    try:
        (install if given.action == "install" else uninstall)(layout)
    except InstallError as error:
        print(f"install: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
