"""The view by the high-level, path-based interface of libfuse 2: macFUSE, and libfuse 2 on Linux in its stead.

The only module that imports mfusepy or refuse. They have fusepy's interface in common, and nothing is used that only
one of them has: so no raw file handles, no offsets in listings, and every error is an OSError.

Invariants: paths and names are text in Latin-1, which holds any byte and is what both libraries are told; libfuse calls
from many threads at once; no request, whatever it meets, ends the mount.

What that interface cannot do is said in docs/platforms.md.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, cast

from backthen.fsmount.adapters.asking import Asking
from backthen.fsmount.adapters.events import ENDED, INITIALISED, Events
from backthen.fsmount.adapters.libfuse import (
    CHANGING_S,
    REFUSALS,
    SECTOR_BYTES,
    WRITING,
    Handles,
    mount_options,
    refused_mount,
    spoken_on_stderr,
    statvfs_fields,
)
from backthen.fsmount.adapters.paths import Paths
from backthen.fsmount.adapters.reports import Reports
from backthen.fsmount.errors import MountError, MountRefused
from backthen.fsmount.mounting import detach
from backthen.fsmount.view import (
    REQUEST_DEADLINE_S,
    Attributes,
    NoSuchAttribute,
    OpenDirectory,
    OpenFile,
    ReadOnly,
    View,
    ViewError,
)
from backthen.repository import BlobSource

STOP_GRACE_S = 2.0

_ENCODING = "latin-1"
_ACCESS_ACL = b"system.posix_acl_access"
_INSTALL_HINT = "Install macFUSE (on Linux the package libfuse2), and one of the Python packages mfusepy and refuse."

_log = logging.getLogger("backthen.fsmount")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _Library(Protocol):
    """What mfusepy and refuse have in common."""

    __name__: str

    def FUSE(self, operations: object, mountpoint: str, **options: object) -> object:  # noqa: N802
        """Mount, serve until unmounted, return."""
        ...


class Adapter:
    """Answers libfuse's requests from a view. Its methods have the names and arguments of fusepy's `Operations`."""

    use_ns = True
    """Times are whole nanoseconds."""

    def __init__(
        self,
        view: View,
        *,
        allow_other: bool,
        initialised: Callable[[], None],
        request_deadline_s: float = REQUEST_DEADLINE_S,
    ) -> None:
        """Take a view.

        Args:
            view: what to show.
            allow_other: other users are let in, and held to the permissions that are shown.
            initialised: called once the kernel has opened the connection.
            request_deadline_s: how many seconds a request may take.
        """
        self._initialised = initialised
        self._view = view
        self._paths = Paths(view)
        self._ask = Asking(view, deadline_s=request_deadline_s)
        self._allow_other = allow_other
        self._files: Handles[OpenFile] = Handles()
        self._listings: Handles[OpenDirectory] = Handles()
        self._reports = Reports()

    def init(self, path: str) -> None:
        """The kernel has opened the connection."""
        self._initialised()

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """The attributes at a path."""
        return _stat(self._answer(self._attributes, _names(path)))

    def readlink(self, path: str) -> str:
        """Where a symlink points."""
        return self._at(path, self._view.target).decode(_ENCODING)

    def opendir(self, path: str) -> int:
        """Begin to list a directory."""
        return self._listings.add(self._at(path, self._view.open_directory))

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        """All entries. libfuse keeps them until the directory is closed, and gives them to the kernel bit by bit."""
        listing = self._listings.get(fh)
        after = 0
        while listed := self._answer(self._view.read_directory, listing, after):
            for name, found, _ in listed:
                yield name.decode(_ENCODING), {"st_ino": found.number, "st_mode": found.mode}, 0
            after = listed[-1].cookie

    def releasedir(self, path: str, fh: int) -> int:
        """A listing is over."""
        self._listings.remove(fh)
        return 0

    def open(self, path: str, flags: int) -> int:
        """Begin to read a file."""
        if flags & WRITING:
            self._refuse_change()
        return self._files.add(self._at(path, self._view.open_file))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Bytes of a file."""
        return bytes(self._answer(self._view.read, self._files.get(fh), offset, size))

    def release(self, path: str, fh: int) -> int:
        """A file is not read any more."""
        self._files.remove(fh)
        return 0

    def getxattr(self, path: str, name: str, position: int = 0) -> bytes:
        """The value of an extended attribute. macOS reads resource forks, which there are none of, from a position."""
        return self._at(path, self._view.xattr, name.encode(_ENCODING))

    def listxattr(self, path: str) -> list[str]:
        """The names of the extended attributes."""
        return [name.decode(_ENCODING) for name in self._at(path, self._view.xattr_names)]

    def statfs(self, path: str) -> dict[str, int]:
        """As large as what is stored, and full."""
        return statvfs_fields(self._answer(self._view.capacity))

    def _refuse_change(self, *_: object) -> NoReturn:
        raise _os_error(ReadOnly("the past cannot be changed"))

    chmod = chown = create = link = mkdir = mknod = removexattr = rename = rmdir = _refuse_change
    setxattr = symlink = truncate = unlink = utimens = write = _refuse_change

    def _at(
        self, path: str, ask: Callable[Concatenate[BlobSource, int, _P], _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """What the view says of the node at a path."""

        def find_and_ask(source: BlobSource) -> _R:
            return ask(source, self._paths.find(source, _names(path)).number, *args, **kwargs)

        return self._answer(find_and_ask)

    def _attributes(self, source: BlobSource, names: list[bytes]) -> Attributes:
        found = self._paths.find(source, names)
        if self._allow_other and self._has_acl(source, found):
            # libfuse 2 has the kernel look at the mode alone, which grants more than the list does.
            return found._replace(mode=found.mode & ~(stat.S_IRWXG | stat.S_IRWXO))
        return found

    def _has_acl(self, source: BlobSource, found: Attributes) -> bool:
        try:
            self._view.xattr(source, found.number, _ACCESS_ACL)
        except NoSuchAttribute:
            return False
        return True

    def _answer(self, ask: Callable[Concatenate[BlobSource, _P], _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return self._ask(ask, *args, **kwargs)
        except ViewError as error:
            self._reports.report(error)
            raise _os_error(error) from error
        except Exception as error:
            # A bug, in whatever is below. Either library would call it EINVAL.
            _log.exception("a request failed")
            raise OSError(errno.EIO, "a request failed") from error


class CallableAdapter(Adapter):
    """For refuse, which has one function called for all operations; mfusepy does not want there to be one."""

    def __call__(self, operation: str, *args: object) -> object:
        """Do an operation."""
        return getattr(self, operation)(*args)


def _library() -> tuple[_Library, type[Adapter]]:
    """The maintained one where it is installed, else the other; and the adapter for it.

    Raises:
        MountRefused: there is none, or it finds no libfuse.
    """
    try:
        try:
            import mfusepy
        except ModuleNotFoundError:
            import refuse.high

            return cast(_Library, refuse.high), CallableAdapter
        return cast(_Library, mfusepy), Adapter
    # What each of them raises where libfuse is missing, or is a version that it does not know.
    except (ImportError, OSError, AttributeError) as error:
        raise MountRefused(f"libfuse cannot be used: {error}", hint=_INSTALL_HINT) from error


def serve_view(
    view: View,
    mountpoint: Path,
    *,
    allow_other: bool,
    request_deadline_s: float,
    mounted: Callable[[], None],
    ready: Callable[[], None],
) -> None:
    """Mount a view and serve it until it is unmounted or the process is told to stop by SIGINT, SIGTERM or SIGHUP.

    A killed process leaves the mount behind, answering ENOTCONN: an empty folder in its place would make a mirror of it
    delete its files. On the return a thread may still serve those who have something open, until the process ends.

    Args:
        view: what to show.
        mountpoint: an empty directory.
        allow_other: let other users in.
        request_deadline_s: how many seconds a request may take.
        mounted: called when the mount is there but not answering yet; when it raises, the mount is taken away.
        ready: called when requests are answered.

    Raises:
        MountRefused: the operating system did not make the mount, or libfuse gave it up.
    """
    library, adapter_type = _library()
    _log.info("mounting with %s", library.__name__)
    events = Events()
    adapter = adapter_type(
        view,
        allow_other=allow_other,
        initialised=lambda: events.tell(INITIALISED),
        request_deadline_s=request_deadline_s,
    )
    failures: list[str] = []

    def run() -> None:
        try:
            library.FUSE(
                adapter,
                os.fsencode(mountpoint).decode(_ENCODING),
                encoding=_ENCODING,
                foreground=True,
                **_options(allow_other=allow_other),
            )
        except Exception as error:  # noqa: BLE001 - it is raised where the end is waited for
            failures.append(str(error) or type(error).__name__)
        finally:
            events.tell(ENDED)

    # In a thread of its own, since libfuse's loop does not let Python act on signals.
    serving = threading.Thread(target=run, name="libfuse", daemon=True)
    try:
        with events.told_by_signals():
            early: list[int] = []
            with spoken_on_stderr() as spoken:
                serving.start()
                while (event := events.wait()) not in (INITIALISED, ENDED):
                    early.append(event)
                if event == ENDED:
                    raise refused_mount(mountpoint, spoken() or "".join(failures))
            try:
                mounted()
                ready()
            except BaseException:
                _take_away(mountpoint, serving)
                raise
            event = early[0] if early else events.wait()
            if event != ENDED:
                _log.info("told to stop by %s", signal.Signals(event).name)
                _take_away(mountpoint, serving)
            elif failures:
                raise MountRefused(f"libfuse gave up serving {mountpoint}: {failures[0]}")
    finally:
        serving.join(STOP_GRACE_S)
        # Where somebody keeps it busy, libfuse's thread has yet to say that it ended.
        if not serving.is_alive():
            events.close()


def _options(*, allow_other: bool) -> dict[str, str | bool]:
    """Those of every mount, and what the kernel may keep: contents as long as size and time stay, all else briefly."""
    options: dict[str, str | bool] = {}
    for option in mount_options(allow_other=allow_other):
        name, _, value = option.partition("=")
        options[name] = value or True
    for name in ("entry_timeout", "attr_timeout", "negative_timeout"):
        options[name] = str(CHANGING_S)
    return {**options, "use_ino": True, "auto_cache": True}


def _take_away(mountpoint: Path, serving: threading.Thread) -> None:
    try:
        detach(mountpoint)
    except MountError:
        # Somebody else may have been faster.
        serving.join(STOP_GRACE_S)
        if serving.is_alive():
            raise


def _names(path: str) -> list[bytes]:
    return [name for name in path.encode(_ENCODING).split(b"/") if name]


def _stat(found: Attributes) -> dict[str, int]:
    return {
        "st_ino": found.number,
        "st_mode": found.mode,
        "st_nlink": found.links,
        "st_uid": found.uid,
        "st_gid": found.gid,
        "st_size": found.size,
        "st_blocks": found.allocated // SECTOR_BYTES,
        "st_atime": found.mtime_ns,
        "st_mtime": found.mtime_ns,
        "st_ctime": found.ctime_ns,
        "st_rdev": os.makedev(found.device_major, found.device_minor),
    }


def _os_error(error: ViewError) -> OSError:
    return OSError(REFUSALS[type(error)], str(error))
