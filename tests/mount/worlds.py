"""The places where one behaviour suite runs: on the view without a kernel, and on real mounts."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Protocol

from backthen.fsmount.adapters.libfuse import REFUSALS
from backthen.fsmount.view import ROOT_NUMBER, Attributes, Owner, View, ViewError, history_view
from backthen.repository import monotonic_ns
from tests.mount.sample import sample_history

BINDINGS = ("libfuse3", "pyfuse3", "mfusepy", "refuse")
"""The libraries that mount for real; the driver `refuse` uses either of the last two."""


class Stat(NamedTuple):
    """What `lstat` says, as far as a mount decides it."""

    ino: int
    mode: int
    nlink: int
    uid: int
    gid: int
    size: int
    blocks: int
    mtime_ns: int
    ctime_ns: int
    device: tuple[int, int]


class Limits(NamedTuple):
    """What a place cannot show; each place that has such limits says why.

    Attributes:
        permissions: the bits of the mode that it shows.
        time_ns: in what steps times are shown.
        has_link_counts: it says how many names a file has.
        has_xattrs: it shows extended attributes.
    """

    permissions: int = 0o7777
    time_ns: int = 1
    has_link_counts: bool = True
    has_xattrs: bool = True

    def mode(self, mode: int) -> int:
        """A mode as it is shown."""
        return stat.S_IFMT(mode) | (stat.S_IMODE(mode) & self.permissions)

    def time(self, time_ns: int) -> int:
        """A time as it is shown."""
        return time_ns // self.time_ns * self.time_ns

    def links(self, count: int) -> int:
        """A number of links as it is shown."""
        return count if self.has_link_counts else 0


class World(Protocol):
    """The sample history as a file system. Paths are relative to its top. Refusals are OSErrors."""

    limits: Limits

    def names(self, path: bytes) -> list[bytes]: ...

    def lstat(self, path: bytes) -> Stat: ...

    def read(self, path: bytes, offset: int, length: int) -> bytes: ...

    def target(self, path: bytes) -> bytes: ...

    def xattrs(self, path: bytes) -> dict[bytes, bytes]: ...

    def xattr(self, path: bytes, name: bytes) -> bytes: ...


class Agent:
    """A process that does what is asked with the rights of a role."""

    def __init__(self, role: str) -> None:
        command = [sys.executable, "-m", "tests.mount.agent", role]
        if os.geteuid() == 0:
            command = ["unshare", "--mount", "--propagation", "private", *command]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def ask(self, function: str, *arguments: object) -> object:
        """What a function of the agent gives; what it raises is raised here."""
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump((function, arguments), self._process.stdin)
        self._process.stdin.flush()
        is_error, result = pickle.load(self._process.stdout)
        if is_error:
            raise result
        return result

    def number(self, function: str, *arguments: object) -> int:
        """`ask` for what is a number."""
        result = self.ask(function, *arguments)
        assert isinstance(result, int)
        return result

    def text(self, function: str, *arguments: object) -> str:
        """`ask` for what is a text."""
        result = self.ask(function, *arguments)
        assert isinstance(result, str)
        return result

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class MountWorld:
    """A real mount of the sample history, seen through an agent."""

    limits = Limits()

    def __init__(
        self,
        agent: Agent,
        binding: str,
        *,
        is_distant: bool = False,
        only: tuple[int, bytes] | None = None,
        allow_other: bool = False,
    ) -> None:
        self.agent = agent
        self.mountpoint = agent.text("make_folder")
        self.server = agent.number("start", self.mountpoint, only, is_distant, allow_other, binding)

    def path(self, path: bytes) -> bytes:
        """A path of the mount as the agent has to name it."""
        return os.fsencode(self.mountpoint) + b"/" + path

    def names(self, path: bytes) -> list[bytes]:
        names = self.agent.ask("listdir", self.path(path))
        assert isinstance(names, list)
        return names

    def lstat(self, path: bytes) -> Stat:
        found = self.agent.ask("lstat", self.path(path))
        assert isinstance(found, os.stat_result)
        return Stat(
            found.st_ino,
            found.st_mode,
            found.st_nlink,
            found.st_uid,
            found.st_gid,
            found.st_size,
            found.st_blocks,
            found.st_mtime_ns,
            found.st_ctime_ns,
            (os.major(found.st_rdev), os.minor(found.st_rdev)),
        )

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        content = self.agent.ask("read_at", self.path(path), offset, length)
        assert isinstance(content, bytes)
        return content

    def target(self, path: bytes) -> bytes:
        target = self.agent.ask("readlink", self.path(path))
        assert isinstance(target, bytes)
        return target

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        names = self.agent.ask("listxattr", self.path(path))
        assert isinstance(names, list)
        return {os.fsencode(name): self.xattr(path, os.fsencode(name)) for name in names}

    def xattr(self, path: bytes, name: bytes) -> bytes:
        value = self.agent.ask("getxattr", self.path(path), name)
        assert isinstance(value, bytes)
        return value

    def close(self) -> None:
        """Unmount it, and see that the server ends well."""
        self.agent.ask("unmount", self.mountpoint, False)
        assert self.agent.ask("wait", self.server) == 0
        self.agent.ask("rmdir", self.mountpoint)


class ViewWorld:
    """The view itself, with just enough of a path walk around it."""

    limits = Limits()

    def __init__(self, view: View | None = None) -> None:
        self.view = view or history_view(sample_history()[0], Owner(os.getuid(), os.getgid()), monotonic_ns)

    def names(self, path: bytes) -> list[bytes]:
        names: list[bytes] = []
        after = 0
        try:
            opened = self.view.open_directory(self.view.source, self._find(path).number)
            while listed := self.view.read_directory(self.view.source, opened, after):
                names += [name for name, _, _ in listed]
                after = listed[-1].cookie
        except ViewError as error:
            raise _os_error(error) from error
        return names

    def lstat(self, path: bytes) -> Stat:
        found = self._find(path)
        return Stat(
            found.number,
            found.mode,
            found.links,
            found.uid,
            found.gid,
            found.size,
            found.allocated // 512,
            found.mtime_ns,
            found.ctime_ns,
            (found.device_major, found.device_minor),
        )

    def read(self, path: bytes, offset: int, length: int) -> bytes:
        try:
            file = self.view.open_file(self.view.source, self._find(path).number)
            return bytes(self.view.read(self.view.source, file, offset, length))
        except ViewError as error:
            raise _os_error(error) from error

    def target(self, path: bytes) -> bytes:
        try:
            return self.view.target(self.view.source, self._find(path).number)
        except ViewError as error:
            raise _os_error(error) from error

    def xattrs(self, path: bytes) -> dict[bytes, bytes]:
        number = self._find(path).number
        return {name: self.xattr(path, name) for name in self.view.xattr_names(self.view.source, number)}

    def xattr(self, path: bytes, name: bytes) -> bytes:
        try:
            return self.view.xattr(self.view.source, self._find(path).number, name)
        except ViewError as error:
            raise _os_error(error) from error

    def close(self) -> None:
        """Nothing to do."""

    def _find(self, path: bytes) -> Attributes:
        names = [name for name in path.split(b"/") if name]
        try:
            return self._walk(names)
        except ViewError as error:
            raise _os_error(error) from error

    def _walk(self, names: list[bytes]) -> Attributes:
        view = self.view
        trail = [view.attributes(view.source, ROOT_NUMBER)]
        for index, name in enumerate(names):
            if name == b"..":
                trail.pop()
                continue
            found = view.lookup(view.source, trail[-1].number, name)
            if stat.S_ISLNK(found.mode) and index < len(names) - 1:
                target = view.target(view.source, found.number).split(b"/")
                return self._walk(_normal([*names[:index], *target, *names[index + 1 :]]))
            trail.append(found)
        return trail[-1]


def _normal(names: list[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for name in names:
        if name == b"..":
            kept.pop()
        else:
            kept.append(name)
    return kept


def _os_error(error: ViewError) -> OSError:
    return OSError(REFUSALS[type(error)], str(error))
