"""The view as Linux sees it: pyfuse3 on trio. The only module that imports either.

Invariants: what is in memory is answered at once on the trio thread, everything else in a worker thread, and every
request inside a deadline. A snapshot's names, attributes and contents may be kept by the kernel for ever; everything
around them half a second. No request, whatever it meets, ends the mount.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Concatenate, NoReturn, ParamSpec, TypeVar

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
from backthen.fsmount.adapters.libfuse import (
    CHANGING_S,
    REFUSALS,
    SECTOR_BYTES,
    WRITING,
    Handles,
    mount_options,
    statvfs_fields,
)
from backthen.fsmount.adapters.reports import Reports
from backthen.fsmount.mounting import clean_stale
from backthen.fsmount.view import (
    REQUEST_DEADLINE_S,
    ROOT_NUMBER,
    Attributes,
    Listed,
    OpenDirectory,
    OpenFile,
    ReadOnly,
    View,
    ViewError,
)
from backthen.repository import BlobSource, NotInMemory

LASTING_S = 10 * 365 * 24 * 3600.0

STOP_GRACE_S = 2.0
WORKERS_MAX = 16
TASKS_IDLE = 8
TASKS_MAX = 512
"""Requests in flight at once. Above the workers, so that what is in memory is answered while all workers wait."""
BURST_PAUSE_MS = 2
BURST_MAX = 64
"""Requests that are read without giving trio a chance; a burst ends with a pause."""
_DOTS = (FileNameT(b"."), FileNameT(b".."))

_log = logging.getLogger("backthen.fsmount")
_P = ParamSpec("_P")
_R = TypeVar("_R")


class _ReadTurn:
    """Whose turn it is to wait for the kernel's next request; stands in for the lock that pyfuse3 makes.

    Requests come in bursts, and a detour through trio costs more than most answers. So a task that answered from
    memory takes its turn again at once, and while nobody waits for a worker thread it waits for the next request of
    the burst in the kernel itself. Who is about to wait for something else passes the turn on. At the end all are
    woken.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._waiting = trio.lowlevel.ParkingLot()
        self._poll = select.poll()
        self._descriptor = -1
        self._elsewhere = 0
        self._burst = 0

    async def __aenter__(self) -> None:
        while self._is_taken:
            await self._waiting.park()
        self._is_taken = True

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._is_taken = False
        if error is not None:
            self._waiting.unpark_all()

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request, or for the end of the connection."""
        if descriptor != self._descriptor:
            self._poll.register(descriptor, select.POLLIN)
            self._descriptor = descriptor
        self._burst += 1
        events: list[tuple[int, int]] = []
        if self._burst < BURST_MAX and not self._elsewhere:
            events = self._poll.poll(BURST_PAUSE_MS)
        if not events:
            self._burst = 0
            await trio.lowlevel.wait_readable(descriptor)
            events = self._poll.poll(0)
        if any(event != select.POLLIN for _, event in events):
            self._waiting.unpark_all()

    @contextmanager
    def passed_on(self) -> Iterator[None]:
        """Let another task read requests while this one waits inside."""
        self._waiting.unpark()
        self._elsewhere += 1
        try:
            yield
        finally:
            self._elsewhere -= 1


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
    _fill(entry, found)
    entry.entry_timeout = name_s
    entry.attr_timeout = attributes_s
    return entry


def _fill(entry: EntryAttributes, found: Attributes) -> None:
    """Set all attributes but how long they may be kept."""
    number, mode, links, uid, gid, size, allocated, mtime_ns, ctime_ns, major, minor = found
    entry.st_ino = InodeT(number)
    entry.st_mode = ModeT(mode)
    entry.st_nlink = links
    entry.st_uid = uid
    entry.st_gid = gid
    entry.st_size = size
    entry.st_blocks = allocated // SECTOR_BYTES
    entry.st_mtime_ns = entry.st_atime_ns = mtime_ns
    entry.st_ctime_ns = ctime_ns
    entry.st_rdev = os.makedev(major, minor) if major or minor else 0


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
        self.turn = _ReadTurn()
        self._view = view
        self._deadline_s = request_deadline_s
        self._limiter = trio.CapacityLimiter(WORKERS_MAX)
        self._files: Handles[OpenFile] = Handles()
        self._listings: Handles[_Listing] = Handles()
        self._reports = Reports()

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
        return FileHandleT(self._listings.add(_Listing(directory, inode, self._view.is_lasting(inode))))

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
        entry = EntryAttributes()
        entry.entry_timeout = entry.attr_timeout = LASTING_S
        for name, found, cookie in listing.ahead:
            if listing.is_lasting:
                _fill(entry, found)  # it is copied by each reply
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
        if flags & WRITING:
            self._refuse_change()
        file = await self._answer(self._view.open_file, inode)
        return FileInfo(fh=FileHandleT(self._files.add(file)), keep_cache=file.is_lasting)

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
        for name, value in statvfs_fields(capacity).items():
            setattr(data, name, value)
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
            self._reports.report(error)
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

        with self.turn.passed_on(), trio.move_on_after(self._view.patience_s(self._deadline_s)):
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=self._limiter)
        raise self._view.give_up()

    def _refuse_change(self) -> NoReturn:
        raise FUSEError(REFUSALS[ReadOnly])


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

    A crash does not unmount: an empty folder in place of the mount would make a mirror of it delete its files.

    Args:
        view: what to show.
        mountpoint: an empty directory.
        allow_other: let other users in.
        request_deadline_s: how many seconds a request may take.
        mounted: called when the mount is there but not answering yet; when it raises, the mount is taken away.
        ready: called when requests are answered.

    Raises:
        MountRefused: the operating system did not make the mount.
    """
    device = open_mounted_device(mountpoint, mount_options(allow_other=allow_other))
    adapter = Adapter(view, enable_acl=allow_other, request_deadline_s=request_deadline_s)
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


def _replace_lock(turn: _ReadTurn) -> None:
    """Have pyfuse3 use our turn: it looks up what it needs of trio where its module for asyncio puts its own."""
    lowlevel = SimpleNamespace(**{**vars(trio.lowlevel), "wait_readable": turn.wait_readable})
    replaced = {"Lock": lambda: turn, "lowlevel": lowlevel}
    pyfuse3.trio = SimpleNamespace(**{**vars(trio), **replaced})  # type: ignore[attr-defined]


def _connect(adapter: Adapter, device: int) -> None:
    """Let libfuse and the kernel agree, and then talk to each other."""
    _replace_lock(adapter.turn)
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
