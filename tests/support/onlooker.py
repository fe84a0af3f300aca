"""Somebody with a repository and mounts of it, as root or as an ordinary user, and what they see there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import User, settle
from tests.support.role import SOURCES, Role, role

PATIENCE_S = 60
"""Far more than anything takes that is waited for; what does not happen fails a test then."""
_READ = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"


@dataclass(frozen=True)
class Onlooker:
    """Who it is, the program as they run it, a tree of theirs, and a folder to mount at."""

    role: Role
    user: User
    tree: Path
    past: Path
    begun: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def read(self, path: Path) -> bytes:
        """The content of a file as they see it, or what the system said against it."""
        done = self.role.python("-c", _READ, path)
        return done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]

    def begin(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """A command of theirs that goes on for a while."""
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
        process = subprocess.Popen([*self.role.prefix, *command], cwd="/", env=environment, stdin=pipe, stdout=pipe)
        self.begun.append(process)
        return process

    def names(self, folder: Path) -> list[str]:
        """What they see in a folder."""
        return sorted(os.fsdecode(self.role.call("ls", "-A", folder)).splitlines())

    def status(self, past: Path | None = None) -> dict[str, str]:
        """What a mount says of itself."""
        lines = self.read((past or self.past) / ".backthen").decode().splitlines()
        pairs = (line.split(":", 1) for line in reversed(lines) if ":" in line)
        return {key: value.strip() for key, value in pairs}

    def is_mounted(self, past: Path | None = None) -> bool:
        """Whether anything is mounted at a folder, as they see it."""
        return f" {past or self.past} " in self.role.call("cat", "/proc/self/mountinfo").decode()

    def mount(self, *arguments: str, past: Path | None = None) -> tuple[int, Path]:
        """Mount; the process that serves it, and its log."""
        document = self.user.run("mount", "--json", *arguments, str(past or self.past)).document
        return int(str(document["pid"])), Path(str(document["log"]))


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait for something to become true.

    Raises:
        AssertionError: it does not.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.05)


def is_running(process: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def onlooker(name: str) -> Iterator[Onlooker]:
    """The role `root` or `user` with an empty repository, a tree of two files, and a mountpoint."""
    if os.geteuid() != 0 and (name == "root" or not os.access("/dev/fuse", os.R_OK | os.W_OK)):
        pytest.skip("needs root")
    with role(name) as who:
        home, tree = who.folder / "home", who.folder / "tree"
        made = Onlooker(who, User(home, prefix=who.prefix), tree, home / "Past")
        made.past.mkdir(parents=True)
        tree.mkdir()
        (tree / "letter").write_text("Dear all,\n")
        (tree / "numbers").write_bytes(os.urandom(3_000_000))
        settle(made.user)
        who.give(who.folder)
        made.user.run("init")
        made.user.snapshot(str(tree))
        try:
            yield made
        finally:
            _end_all(made)


def _end_all(who: Onlooker) -> None:
    """End what a test that failed has left."""
    for process in who.begun:
        process.kill()
        process.wait(PATIENCE_S)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
    for server in serving(who.role.folder):
        os.kill(server, signal.SIGKILL)
    who.role.python("-c", _CLEAN, who.role.folder)


_CLEAN = """
import sys, pathlib
from backthen.fsmount.mounting import parse_mount_table, unmount
for line in parse_mount_table(pathlib.Path("/proc/self/mountinfo").read_bytes()):
    if line.mountpoint.is_relative_to(sys.argv[1]) and line.file_system == "fuse.backthen":
        unmount(line.mountpoint, lazy=True)
"""


def serving(folder: Path) -> list[int]:
    """The processes that serve a mount at or below a folder."""
    wanted = os.fsencode(folder) + b"/"
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"mount" in words and any(word.startswith(wanted) for word in words):
            found.append(int(process.name))
    return found


class Stalled:
    """The repository of an onlooker, seen through a file system that can stop to answer; use in a `with`."""

    def __init__(self, who: Onlooker) -> None:
        self.folder = who.role.folder / "stalled"
        self.folder.mkdir()
        who.role.give(self.folder)
        command = (sys.executable, "-m", "tests.support.stalling", who.user.home / "repository", self.folder)
        self._process = who.begin(*command)

    def __enter__(self) -> Stalled:
        self._await("ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.be("answer")
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()

    def be(self, mode: str) -> None:
        """Have it `answer`, `stall` or `fail` from now on."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{mode}\n".encode())
        self._process.stdin.flush()
        self._await(mode)

    def _await(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().decode().strip() == word
