"""The view as Linux sees it: pyfuse3 on trio. The only module that imports either.

Invariants: what is in memory is answered at once on the trio thread, everything else in a worker thread, and every
request inside a deadline. A snapshot's names, attributes and contents may be kept by the kernel for ever; everything
around them half a second. No request, whatever it meets, ends the mount.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Concatenate, Generic, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
    XAttrNameT,
)

from backthen.fsmount.adapters.device import MESSAGE_BYTES_MAX, open_mounted_device, with_kept_symlinks
from backthen.fsmount.mounting import clean_stale
from backthen.fsmount.view import (
    ROOT_NUMBER,
    Attributes,
    DamagedContent,
    Gone,
    Listed,
    NoSuchAttribute,
    NotADirectory,
    NotAFile,
    NotASymlink,
    NotFound,
    OpenDirectory,
    OpenFile,
    ReadOnly,
    StorageUnavailable,
    UnreadAtBackup,
    View,
    ViewError,
)
from backthen.repository import BlobSource, NotInMemory

REFUSALS: dict[type[ViewError], int] = {
    NotFound: errno.ENOENT,
    Gone: errno.ESTALE,
    NotADirectory: errno.ENOTDIR,
    NotAFile: errno.EINVAL,
    NotASymlink: errno.EINVAL,
    NoSuchAttribute: errno.ENODATA,
    ReadOnly: errno.EROFS,
    DamagedContent: errno.EIO,
    StorageUnavailable: errno.EIO,
    UnreadAtBackup: errno.EIO,
}
"""What each meaning is called on Linux."""

LASTING_S = 10 * 365 * 24 * 3600.0
CHANGING_S = 0.5
"""With the list of snapshots at most a second old, a new one is seen within two seconds."""

REQUEST_DEADLINE_S = 30.0
"""Below what `fs.fuse.max_request_timeout` is set to where it is set, after which Linux aborts the whole mount."""
STOP_GRACE_S = 2.0
WORKERS_MAX = 16
TASKS_IDLE = 8
TASKS_MAX = 512
"""Requests in flight at once. Above the workers, so that what is in memory is answered while all workers wait."""
REPORTS_MAX = 1024

_BLOCK_BYTES = 4096
_SECTOR_BYTES = 512
_NAME_BYTES_MAX = 255
_DOTS = (FileNameT(b"."), FileNameT(b".."))
_WRITING = os.O_ACCMODE | os.O_TRUNC | os.O_CREAT | os.O_APPEND

_log = logging.getLogger("backthen.fsmount")
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Open = TypeVar("_Open")


class _Handles(Generic[_Open]):
    """What is open, by the number that the kernel calls it."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._next = 0

    def add(self, opened: _Open) -> FileHandleT:
        self._next += 1
        self._open[self._next] = opened
        return FileHandleT(self._next)

    def get(self, handle: FileHandleT) -> _Open:
        return self._open[handle]

    def remove(self, handle: FileHandleT) -> None:
        del self._open[handle]


@dataclass(slots=True)
class _Listing:
    """A directory being listed, with what was read of it and did not fit into the last answer."""

    directory: OpenDirectory
    number: InodeT
    is_lasting: bool
    after: int = 0
    ahead: list[Listed] = field(default_factory=list)


def _entry(found: Attributes, *, name_s: float, attributes_s: float) -> EntryAttributes:
    """Attributes as pyfuse3 has them, and for how many seconds the kernel may keep the name and them."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(found.number)
    entry.st_mode = ModeT(found.mode)
    entry.st_nlink = found.links
    entry.st_uid = found.uid
    entry.st_gid = found.gid
    entry.st_size = found.size
    entry.st_blocks = found.allocated // _SECTOR_BYTES
    entry.st_mtime_ns = entry.st_atime_ns = found.mtime_ns
    entry.st_ctime_ns = found.ctime_ns
    if found.device_major or found.device_minor:
        entry.st_rdev = os.makedev(found.device_major, found.device_minor)
    entry.entry_timeout = name_s
    entry.attr_timeout = attributes_s
    return entry


def _no_entry(*, name_s: float) -> EntryAttributes:
    """What tells the kernel that there is no such name, and for how many seconds."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = name_s
    return entry


def _dot_entry(number: InodeT) -> EntryAttributes:
    """What stands in a listing for the directory and the one above; the kernel takes the type and a number from it."""
    entry = EntryAttributes()
    entry.st_ino = number
    entry.st_mode = ModeT(stat.S_IFDIR)
    return entry


class Adapter(pyfuse3.Operations):
    """Answers the kernel's requests from a view."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(self, view: View, *, enable_acl: bool, request_deadline_s: float = REQUEST_DEADLINE_S) -> None:
        """Take a view.

        Args:
            view: what to show.
            enable_acl: let the kernel enforce POSIX ACLs; for mounts that others may enter.
            request_deadline_s: how many seconds a request may take.
        """
        super().__init__()
        self.enable_acl = enable_acl
        self.is_announced = False
        self._view = view
        self._deadline_s = request_deadline_s
        self._limiter = trio.CapacityLimiter(WORKERS_MAX)
        self._files: _Handles[OpenFile] = _Handles()
        self._listings: _Handles[_Listing] = _Handles()
        self._reported: set[str] = set()

    async def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """The attributes of a name, or the lasting news that there is none."""
        name_s = LASTING_S if self._view.is_lasting(parent_inode) else CHANGING_S
        try:
            found = await self._answer(self._view.lookup, parent_inode, name)
        except FUSEError as error:
            if error.errno == errno.ENOENT:
                return _no_entry(name_s=name_s)
            raise
        return self._child_entry(found, name_s=name_s)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing is kept for a number."""

    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """The attributes of a number."""
        return self._child_entry(await self._answer(self._view.attributes, inode), name_s=CHANGING_S)

    async def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Where a symlink points."""
        return FileNameT(await self._answer(self._view.target, inode))

    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Begin to list a directory."""
        directory = await self._answer(self._view.open_directory, inode)
        return self._listings.add(_Listing(directory, inode, self._view.is_lasting(inode)))

    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """Give as many entries as fit. What is left over stays for the next request."""
        listing = self._listings.get(fh)
        after = max(start_id - len(_DOTS), 0)
        if listing.after != after or not listing.ahead:
            listing.ahead = await self._answer(self._view.read_directory, listing.directory, after)
            listing.after = after
        reply = pyfuse3.readdir_reply
        for place, name in enumerate(_DOTS[start_id:], start=start_id + 1):
            reply(token, name, _dot_entry(listing.number), place)
        given = 0
        for name, found, cookie in listing.ahead:
            if listing.is_lasting:
                entry = _entry(found, name_s=LASTING_S, attributes_s=LASTING_S)
            else:
                entry = self._child_entry(found, name_s=CHANGING_S)
            if not reply(token, FileNameT(name), entry, cookie + len(_DOTS)):
                break
            listing.after = cookie
            given += 1
        listing.ahead = listing.ahead[given:]

    async def releasedir(self, fh: FileHandleT) -> None:
        """A listing is over."""
        self._listings.remove(fh)

    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Begin to read a file."""
        if flags & _WRITING:
            self._refuse_change()
        file = await self._answer(self._view.open_file, inode)
        return FileInfo(fh=self._files.add(file), keep_cache=True)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        """Bytes of a file. pyfuse3 takes any buffer; copying a view of one would cost as much as finding it."""
        return await self._answer(self._view.read, self._files.get(fh), off, size)

    async def release(self, fh: FileHandleT) -> None:
        """A file is not read any more."""
        self._files.remove(fh)

    async def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """The value of an extended attribute."""
        return await self._answer(self._view.xattr, inode, name)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """The names of the extended attributes."""
        return [XAttrNameT(name) for name in await self._answer(self._view.xattr_names, inode)]

    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """As large as what is stored, and full."""
        capacity = await self._answer(self._view.capacity)
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK_BYTES
        data.f_blocks = -(-capacity.stored_bytes // _BLOCK_BYTES)
        data.f_bfree = data.f_bavail = 0
        data.f_files = capacity.entry_count
        data.f_ffree = data.f_favail = 0
        data.f_namemax = _NAME_BYTES_MAX
        return data

    async def setattr(
        self, inode: InodeT, attr: EntryAttributes, fields: SetattrFields, fh: FileHandleT | None, ctx: RequestContext
    ) -> EntryAttributes:
        """Refused."""
        self._refuse_change()

    async def mknod(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Refused."""
        self._refuse_change()

    async def mkdir(self, parent_inode: InodeT, name: FileNameT, mode: ModeT, ctx: RequestContext) -> EntryAttributes:
        """Refused."""
        self._refuse_change()

    async def unlink(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Refused."""
        self._refuse_change()

    async def rmdir(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> None:
        """Refused."""
        self._refuse_change()

    async def symlink(
        self, parent_inode: InodeT, name: FileNameT, target: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Refused."""
        self._refuse_change()

    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: FileNameT,
        parent_inode_new: InodeT,
        name_new: FileNameT,
        flags: FlagT,
        ctx: RequestContext,
    ) -> None:
        """Refused."""
        self._refuse_change()

    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: FileNameT, ctx: RequestContext
    ) -> EntryAttributes:
        """Refused."""
        self._refuse_change()

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Refused."""
        self._refuse_change()

    async def create(
        self, parent_inode: InodeT, name: FileNameT, mode: ModeT, flags: FlagT, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Refused."""
        self._refuse_change()

    async def setxattr(self, inode: InodeT, name: XAttrNameT, value: bytes, ctx: RequestContext) -> None:
        """Refused."""
        self._refuse_change()

    async def removexattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> None:
        """Refused."""
        self._refuse_change()

    def _child_entry(self, found: Attributes, *, name_s: float) -> EntryAttributes:
        # The top's attributes are asked for again and again, so that a mount whose server died is seen to be dead.
        is_lasting = found.number != ROOT_NUMBER and self._view.is_lasting(found.number)
        return _entry(found, name_s=name_s, attributes_s=LASTING_S if is_lasting else CHANGING_S)

    async def _answer(self, ask: Callable[Concatenate[BlobSource, _P], _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """What the view says, from memory if it can be had there, else from a worker thread."""
        try:
            try:
                return ask(self._view.near, *args, **kwargs)
            except NotInMemory:
                return await self._answer_waiting(ask, *args, **kwargs)
        except FUSEError:
            raise
        except ViewError as error:
            self._report(error)
            raise FUSEError(REFUSALS[type(error)]) from error
        except Exception as error:
            # A bug, in whatever is below. It must not take the mount with it.
            _log.exception("a request failed")
            raise FUSEError(errno.EIO) from error

    async def _answer_waiting(
        self, ask: Callable[Concatenate[BlobSource, _P], _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        def run() -> _R:
            return ask(self._view.source, *args, **kwargs)

        with trio.move_on_after(self._deadline_s):
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._limiter)
        _log.warning("a request was not answered by the storage within %g s", self._deadline_s)
        raise FUSEError(errno.EIO)

    def _report(self, error: ViewError) -> None:
        """Say once what is broken; ordinary refusals are the reader's business."""
        message = str(error)
        if REFUSALS[type(error)] != errno.EIO or message in self._reported:
            return
        if len(self._reported) >= REPORTS_MAX:
            self._reported.clear()
        self._reported.add(message)
        _log.error("%s", message)

    def _refuse_change(self) -> NoReturn:
        raise FUSEError(REFUSALS[ReadOnly])


def serve_view(
    view: View, mountpoint: Path, *, allow_other: bool, mounted: Callable[[], None], ready: Callable[[], None]
) -> None:
    """Mount a view and serve it until it is unmounted or the process is told to stop by SIGINT, SIGTERM or SIGHUP.

    A crash does not unmount: an empty folder in place of the mount would make a mirror of it delete its files.

    Args:
        view: what to show.
        mountpoint: an empty directory.
        allow_other: let other users in.
        mounted: called when the mount is there but not answering yet; when it raises, the mount is taken away.
        ready: called when requests are answered.

    Raises:
        MountRefused: the operating system did not make the mount.
    """
    options = {"fsname=backthen", "subtype=backthen", "ro", "nosuid", "nodev"}
    if allow_other:
        options |= {"allow_other", "default_permissions"}
    device = open_mounted_device(mountpoint, options)
    adapter = Adapter(view, enable_acl=allow_other)
    try:
        mounted()
        _connect(adapter, device)
    except BaseException:
        os.close(device)
        clean_stale(mountpoint)
        raise
    try:
        trio.run(_serve, adapter, ready)
    except BaseException:
        pyfuse3.close(unmount=False)
        # Once it was announced somebody may rely on it.
        if not adapter.is_announced:
            clean_stale(mountpoint)
        raise
    pyfuse3.close(unmount=False)
    clean_stale(mountpoint)


def _connect(adapter: Adapter, device: int) -> None:
    """Let libfuse and the kernel agree, and then talk to each other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        pyfuse3.init(adapter, f"/dev/fd/{theirs.fileno()}", set())
        request = os.read(device, MESSAGE_BYTES_MAX)
        answer = trio.run(_ask_libfuse, ours, request)
        os.write(device, with_kept_symlinks(request, answer))
        os.dup2(device, theirs.detach(), inheritable=False)
    os.close(device)


async def _ask_libfuse(channel: socket.socket, request: bytes) -> bytes:
    channel.send(request)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        await trio.lowlevel.wait_readable(channel)
        nursery.cancel_scope.cancel()
    return channel.recv(MESSAGE_BYTES_MAX)


async def _serve(adapter: Adapter, ready: Callable[[], None]) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_at_signal, nursery.cancel_scope)
        nursery.start_soon(_announce, adapter, ready)
        await pyfuse3.main(min_tasks=TASKS_IDLE, max_tasks=TASKS_MAX)
        nursery.cancel_scope.cancel()


async def _announce(adapter: Adapter, ready: Callable[[], None]) -> None:
    ready()
    adapter.is_announced = True


async def _stop_at_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            _log.info("told to stop by %s", signal.Signals(number).name)
            pyfuse3.terminate()
            scope.deadline = trio.current_time() + STOP_GRACE_S
