"""The installed program, run as a user runs it: a process of its own, a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PASSWORD = "correct horse battery staple"
TIMEOUT_S = 120
_FOREIGN = ("BACKTHEN_", "XDG_", "AWS_", "AZURE_", "GOOGLE_", "SSH_")


def program() -> list[str]:
    """The installed script, or the module where it is run from the sources."""
    script = Path(sys.executable).parent / "backthen"
    return [str(script)] if script.exists() else [sys.executable, "-m", "backthen.cli"]


@dataclass(frozen=True)
class Done:
    """What a run left behind."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def document(self) -> dict[str, object]:
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    @property
    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class User:
    """Somebody with a home, and perhaps a repository and a password file."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()  # stands before the program, to run it as somebody else

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(_FOREIGN)}
        folders = {f"XDG_{name}_HOME": str(self.home / name.lower()) for name in ("CONFIG", "DATA", "CACHE", "STATE")}
        return {**inherited, "HOME": str(self.home), **folders, **self.variables}

    def run(
        self,
        *arguments: str | bytes,
        code: int | None = 0,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """Run the program without a terminal; `code` is the exit code that it must have (None: any)."""
        command: Sequence[str | bytes] = [*self.prefix, *program(), *arguments]
        environment = {**self.environment, **(variables or {})}
        process = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=cwd,
            timeout=TIMEOUT_S,
            check=False,
        )
        done = Done(process.returncode, process.stdout, process.stderr.decode(errors="replace"))
        assert "--debug" in arguments or "Traceback" not in done.err
        assert code is None or done.code == code, f"{command} ended with {done.code}: {done.err}"
        return done

    @property
    def packs(self) -> dict[str, Path]:
        """All packs by their names."""
        return {path.name: path for path in (self.home / "repository" / "packs").rglob("*") if path.is_file()}

    @property
    def data_packs(self) -> dict[str, int]:
        """Names and lengths of the packs that hold contents of files (FORMAT.md, section 5)."""
        return {name: path.stat().st_size for name, path in self.packs.items() if path.read_bytes()[5] == 1}

    def snapshot(self, *arguments: str) -> str:
        """Make a snapshot; its id."""
        summary = self.run("snapshot", "create", "--json", *arguments).events[-1]
        assert summary["event"] == "summary"
        return str(summary["id"])


@pytest.fixture
def newcomer(tmp_path: Path) -> User:
    """Somebody who has nothing yet."""
    home = tmp_path / "home"
    home.mkdir()
    return User(home)


@pytest.fixture
def mountpoint(newcomer: User) -> Iterator[Path]:
    """A folder to mount at, which is free in the end."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    folder = newcomer.home / "Past"
    folder.mkdir()
    yield folder
    subprocess.run(["fusermount3", "-u", "-z", "-q", str(folder)], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def user(newcomer: User) -> User:
    """Somebody with a repository and a password file, both named in the environment."""
    settle(newcomer)
    newcomer.run("init")
    return newcomer


def settle(newcomer: User) -> None:
    """Name a repository and a password file in the environment of somebody."""
    password_file = newcomer.home / "password"
    password_file.write_text(PASSWORD + "\n")
    password_file.chmod(0o600)
    newcomer.variables["BACKTHEN_PASSWORD_FILE"] = str(password_file)
    newcomer.variables["BACKTHEN_REPOSITORY"] = str(newcomer.home / "repository")


@pytest.fixture
def past(user: User) -> Iterator[Path]:
    """An empty folder to mount at, free again after the test."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user cannot open /dev/fuse")
    folder = user.home / "Past"
    folder.mkdir()
    yield folder
    subprocess.run(["fusermount3", "-u", "-z", "-q", str(folder)], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A small folder worth saving."""
    root = tmp_path / "tree"
    (root / "below").mkdir(parents=True)
    (root / "letter.txt").write_text("Dear all,\n")
    (root / "below" / "numbers").write_bytes(bytes(range(256)) * 2000)
    (root / "link").symlink_to("letter.txt")
    yield root
