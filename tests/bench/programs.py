"""How each backup program is asked for the same things. Every snapshot has a name of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.support.generator import PASSWORD

_PREFIXES = ("BACKTHEN_", "RESTIC_", "BORG_", "XDG_", "PYTHON")


class Command(NamedTuple):
    """What is run, and where."""

    arguments: tuple[str, ...]
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The folder in which one program works for one run: home and cache of its own, repository, mountpoint."""

    folder: Path

    @property
    def repository(self) -> Path:
        """Where snapshots go."""
        return self.folder / "repository"

    @property
    def mountpoint(self) -> Path:
        """Where they are mounted."""
        return self.folder / "mnt"

    @property
    def password(self) -> Path:
        """The file with the password."""
        return self.folder / "password"

    def make(self) -> None:
        """Make the folders and the password file."""
        self.mountpoint.mkdir(parents=True)
        (self.folder / "home").mkdir(mode=0o700)
        self.password.touch(mode=0o600)
        self.password.write_text(PASSWORD)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The environment of its programs: nothing of the user's own settings is in it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIXES)}
        return {**kept, "HOME": str(self.folder / "home"), **variables}


class Program(Protocol):
    """A backup program."""

    @property
    def version(self) -> str:
        """What it says of itself."""
        ...

    def variables(self, place: Place) -> Mapping[str, str]:
        """What it reads from the environment."""
        ...

    def init(self, place: Place) -> Command:
        """Make the repository."""
        ...

    def snapshot(self, name: str, source: Path) -> Command:
        """Save a folder."""
        ...

    def restore(self, name: str, source: Path, target: Path) -> Command:
        """Bring a snapshot back."""
        ...

    def restored(self, source: Path, target: Path) -> Path:
        """Where the folder is after a restore."""
        ...

    def check(self) -> Command:
        """Read and verify all data."""
        ...

    def mount(self, place: Place) -> Command:
        """Mount all snapshots, and stay."""
        ...

    def mounted(self, place: Place, name: str, source: Path) -> Path:
        """Where the folder is in the mount; raises OSError while it is not there."""
        ...


def find_programs() -> dict[str, Program]:
    """The programs that are installed, this project's own first."""
    makers: tuple[tuple[str, Callable[[str], Program]], ...] = (("restic", Restic), ("borg", Borg))
    found: dict[str, Program] = {"backthen": own_program()}
    for name, make in makers:
        path = os.environ.get(name.upper()) or shutil.which(name)
        if path:
            found[name] = make(path)
    return found


def own_program() -> Backthen:
    """This project's program, in the environment that this runs in."""
    return Backthen(str(Path(sys.executable).parent / "backthen"))


@dataclass(frozen=True, slots=True)
class Backthen:
    """This project; its repository is at a location of its own, with variables that tell how to get there, if given."""

    path: str
    location: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """See `Program`."""
        return _said(self.path, "--version")

    def variables(self, place: Place) -> Mapping[str, str]:
        """See `Program`."""
        location = self.location or str(place.repository)
        return {"BACKTHEN_REPOSITORY": location, "BACKTHEN_PASSWORD_FILE": str(place.password), **self.more}

    def init(self, place: Place) -> Command:
        """See `Program`."""
        return Command((self.path, "--quiet", "init", self.location or str(place.repository)))

    def snapshot(self, name: str, source: Path) -> Command:
        """See `Program`."""
        return Command((self.path, "--quiet", "snapshot", "create", "--tag", name, str(source)))

    def restore(self, name: str, source: Path, target: Path) -> Command:
        """See `Program`."""
        return Command((self.path, "--quiet", "restore", "--tag", name, f"latest:{source}", "--target", str(target)))

    def restored(self, source: Path, target: Path) -> Path:
        """See `Program`."""
        return target

    def check(self) -> Command:
        """See `Program`."""
        return Command((self.path, "--quiet", "check", "--read-data"))

    def mount(self, place: Place) -> Command:
        """See `Program`."""
        return Command((self.path, "--quiet", "mount", "--foreground", str(place.mountpoint)))

    def mounted(self, place: Place, name: str, source: Path) -> Path:
        """See `Program`."""
        return _below(next((place.mountpoint / "tags" / name).iterdir()), source)


@dataclass(frozen=True, slots=True)
class Restic:
    """restic, as it is by default; with a location and variables as `Backthen`, and options for all commands."""

    path: str
    location: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """See `Program`."""
        return " ".join(_said(self.path, "version").split()[:2])

    def variables(self, place: Place) -> Mapping[str, str]:
        """See `Program`."""
        return {
            "RESTIC_REPOSITORY": self.location or str(place.repository),
            "RESTIC_PASSWORD_FILE": str(place.password),
            "RESTIC_CACHE_DIR": str(place.folder / "cache"),
            **self.more,
        }

    def init(self, place: Place) -> Command:
        """See `Program`."""
        return Command((self.path, *self.options, "init", "--quiet"))

    def snapshot(self, name: str, source: Path) -> Command:
        """See `Program`."""
        return Command((self.path, *self.options, "backup", "--quiet", "--tag", name, str(source)))

    def restore(self, name: str, source: Path, target: Path) -> Command:
        """See `Program`."""
        return Command(
            (self.path, *self.options, "restore", "--quiet", "--tag", name, "latest", "--target", str(target))
        )

    def restored(self, source: Path, target: Path) -> Path:
        """See `Program`."""
        return _below(target, source)

    def check(self) -> Command:
        """See `Program`."""
        return Command((self.path, *self.options, "check", "--quiet", "--read-data"))

    def mount(self, place: Place) -> Command:
        """See `Program`."""
        return Command((self.path, *self.options, "mount", "--quiet", str(place.mountpoint)))

    def mounted(self, place: Place, name: str, source: Path) -> Path:
        """See `Program`."""
        return _below(place.mountpoint / "tags" / name / "latest", source)


@dataclass(frozen=True, slots=True)
class Borg:
    """borg 1, with the compression that is nearest to the others' defaults."""

    path: str

    @property
    def version(self) -> str:
        """See `Program`."""
        return _said(self.path, "--version")

    def variables(self, place: Place) -> Mapping[str, str]:
        """See `Program`."""
        return {
            "BORG_REPO": str(place.repository),
            "BORG_PASSCOMMAND": f"cat {place.password}",
            "BORG_BASE_DIR": str(place.folder / "home"),
        }

    def init(self, place: Place) -> Command:
        """See `Program`."""
        return Command((self.path, "init", "--encryption", "repokey-blake2"))

    def snapshot(self, name: str, source: Path) -> Command:
        """See `Program`."""
        return Command((self.path, "create", "--compression", "zstd,3", f"::{name}", str(source)))

    def restore(self, name: str, source: Path, target: Path) -> Command:
        """See `Program`."""
        return Command((self.path, "extract", f"::{name}"), target)

    def restored(self, source: Path, target: Path) -> Path:
        """See `Program`."""
        return _below(target, source)

    def check(self) -> Command:
        """See `Program`."""
        return Command((self.path, "check", "--verify-data"))

    def mount(self, place: Place) -> Command:
        """See `Program`."""
        return Command((self.path, "mount", "--foreground", str(place.repository), str(place.mountpoint)))

    def mounted(self, place: Place, name: str, source: Path) -> Path:
        """See `Program`."""
        return _below(place.mountpoint / name, source)


def _below(folder: Path, source: Path) -> Path:
    return folder / source.relative_to("/")


def _said(*arguments: str) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.strip()
