"""The view as Linux sees it, with nothing between it and the kernel: libfuse mounts, and requests are answered here.

Invariants: what is in memory is answered at once in the thread that reads requests, everything else in a worker thread,
and every request inside a deadline. A snapshot's names, listings, attributes and contents may be kept by the kernel for
ever; everything around them half a second. No request, whatever it meets, ends the mount.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from backthen.fsmount.adapters import fuse_protocol as protocol
from backthen.fsmount.adapters.events import ENDED, INITIALISED, Events
from backthen.fsmount.adapters.fuse_connection import Connection, Payload, Refusal
from backthen.fsmount.adapters.fuse_listings import CHANGING, Listings
from backthen.fsmount.adapters.fuse_protocol import LASTING, Opcode, UnknownProtocol
from backthen.fsmount.adapters.libfuse import (
    REFUSALS,
    WRITING,
    Handles,
    mount_options,
    statvfs_fields,
)
from backthen.fsmount.adapters.libfuse3_session import Session, load_library
from backthen.fsmount.adapters.reports import Reports
from backthen.fsmount.errors import MountRefused
from backthen.fsmount.view import (
    NotFound,
    OpenFile,
    ReadOnly,
    View,
    ViewError,
)
from backthen.repository import BlobSource, NotInMemory

STOP_GRACE_S = 2.0
UNMOUNT_GRACE_S = 0.1
"""How long the kernel may take to say that a mount was taken away."""

_log = logging.getLogger("backthen.fsmount")

Operation = Callable[[BlobSource, int, bytes], Payload]
"""Answers a request: from a source, about a number, with the body of the request."""

CHANGES = (
    Opcode.SETATTR,
    Opcode.SYMLINK,
    Opcode.MKNOD,
    Opcode.MKDIR,
    Opcode.UNLINK,
    Opcode.RMDIR,
    Opcode.RENAME,
    Opcode.RENAME2,
    Opcode.LINK,
    Opcode.WRITE,
    Opcode.SETXATTR,
    Opcode.REMOVEXATTR,
    Opcode.CREATE,
    Opcode.FALLOCATE,
    Opcode.COPY_FILE_RANGE,
    Opcode.TMPFILE,
)


class Adapter:
    """Answers the kernel's requests from a view. Safe to use from several threads."""

    def __init__(self, view: View, *, enable_acl: bool, initialised: Callable[[], None]) -> None:
        """Take a view.

        Args:
            view: what to show.
            enable_acl: let the kernel enforce POSIX ACLs; for mounts that others may enter.
            initialised: called once the kernel has opened the connection.
        """
        self.operations: dict[int, Operation] = {
            Opcode.LOOKUP: self.lookup,
            Opcode.GETATTR: self.getattr,
            Opcode.READLINK: self.readlink,
            Opcode.OPEN: self.open,
            Opcode.READ: self.read,
            Opcode.STATFS: self.statfs,
            Opcode.RELEASE: self.release,
            Opcode.GETXATTR: self.getxattr,
            Opcode.LISTXATTR: self.listxattr,
            Opcode.INIT: self.init,
            Opcode.OPENDIR: self.opendir,
            Opcode.READDIRPLUS: self.readdirplus,
            Opcode.RELEASEDIR: self.releasedir,
            Opcode.LSEEK: self.lseek,
            Opcode.DESTROY: self.destroy,
            **dict.fromkeys(CHANGES, self.refuse_change),
        }
        self._enable_acl = enable_acl
        self._initialised = initialised
        self._view = view
        self._files: Handles[OpenFile] = Handles()
        self._listings = Listings(view)
        self._reports = Reports()

    def answer(self, source: BlobSource, opcode: int, number: int, body: bytes) -> Payload:
        """The answer to a request.

        Raises:
            Refusal: it is refused.
            NotInMemory: the near source was given, and something that is not in memory is needed.
        """
        operation = self.operations.get(opcode)
        if operation is None:
            # The kernel does by itself what it is told so, and for most of it does not ask again.
            raise Refusal(errno.ENOSYS)
        try:
            return operation(source, number, body)
        except (NotInMemory, Refusal, UnknownProtocol):
            raise
        except ViewError as error:
            self._reports.report(error)
            raise Refusal(REFUSALS[type(error)]) from error
        except Exception as error:
            # A bug, in whatever is below. It must not take the mount with it.
            _log.exception("a request failed")
            raise Refusal(errno.EIO) from error

    def prepare(self) -> bool:
        """Do a little of what requests to come will need; whether there was anything to do."""
        try:
            return self._listings.prepare()
        except Exception:  # noqa: BLE001 - a bug must not take the mount with it; who asks for it meets it, too
            _log.exception("what comes next cannot be made ready")
            return False

    def init(self, _: BlobSource, number: int, body: bytes) -> Payload:
        """The kernel has opened the connection."""
        agreed = protocol.opened_connection(body, enable_acl=self._enable_acl)
        self._initialised()
        return agreed

    def destroy(self, _: BlobSource, number: int, body: bytes) -> Payload:
        """The kernel will ask nothing more."""
        return b""

    def lookup(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """The attributes of a name, or the news that there is none, which last as the directory does."""
        name = LASTING if self._view.is_lasting(number) else CHANGING
        try:
            found = self._view.lookup(source, number, body[:-1])
        except NotFound:
            return protocol.no_entry(name)
        return protocol.entry(found, name, self._listings.attributes_kept(found.number))

    def getattr(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """The attributes of a number."""
        return protocol.attributes(self._view.attributes(source, number), self._listings.attributes_kept(number))

    def readlink(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """Where a symlink points, which the kernel keeps for as long as it knows the number."""
        return self._view.target(source, number)

    def opendir(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """Begin to list a directory."""
        return self._listings.open(source, number)

    def readdirplus(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """As many entries of a directory as fit."""
        handle, cookie, size = protocol.READING.unpack_from(body)
        return self._listings.read(source, number, handle, cookie, size)

    def releasedir(self, _: BlobSource, number: int, body: bytes) -> Payload:
        """A listing is over."""
        self._listings.release(*protocol.HANDLE.unpack_from(body))
        return b""

    def open(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """Begin to read a file."""
        (flags,) = protocol.FLAGS.unpack_from(body)
        if flags & WRITING:
            self.refuse_change(source, number, body)
        file = self._view.open_file(source, number)
        return protocol.opened(self._files.add(file), protocol.KEEP_CACHE if file.is_lasting else 0)

    def read(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """Bytes of a file."""
        handle, offset, size = protocol.READING.unpack_from(body)
        return self._view.read_parts(source, self._files.get(handle), offset, size)

    def lseek(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """Where data or a hole begins; the kernel asks for nothing else."""
        handle, offset, whence, _ = protocol.SEEKING.unpack_from(body)
        find = self._view.next_data if whence == os.SEEK_DATA else self._view.next_hole
        found = find(source, self._files.get(handle), offset)
        if found is None:
            raise Refusal(errno.ENXIO)
        return protocol.OFFSET.pack(found)

    def release(self, _: BlobSource, number: int, body: bytes) -> Payload:
        """A file is not read any more."""
        self._files.remove(*protocol.HANDLE.unpack_from(body))
        return b""

    def getxattr(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """The value of an extended attribute, or its size."""
        name = body[protocol.XATTR.size : -1]
        return _fitting(self._view.xattr(source, number, name), body)

    def listxattr(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """The names of the extended attributes, or the size of all of them."""
        names = self._view.xattr_names(source, number)
        return _fitting(b"".join(name + b"\0" for name in names), body)

    def statfs(self, source: BlobSource, number: int, body: bytes) -> Payload:
        """As large as what is stored, and full."""
        return protocol.statfs(statvfs_fields(self._view.capacity(source)))

    def refuse_change(self, _: BlobSource, number: int, body: bytes) -> Payload:
        """Whatever would change something."""
        raise Refusal(REFUSALS[ReadOnly])


def _fitting(value: bytes, body: bytes) -> bytes:
    """What is told of an extended attribute to somebody with so much room; without any he asks how much he needs."""
    room, _ = protocol.XATTR.unpack_from(body)
    if not room:
        return protocol.XATTR.pack(len(value), 0)
    if len(value) > room:
        raise Refusal(errno.ERANGE)
    return value


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
        MountRefused: the operating system did not make the mount, or gave it up.
    """
    library = load_library()
    events = Events()
    adapter = Adapter(view, enable_acl=allow_other, initialised=lambda: events.tell(INITIALISED))
    is_announced = False
    with events.told_by_signals():
        session = Session(library, mountpoint, mount_options(allow_other=allow_other))
        connection = Connection(
            session.descriptor, view, adapter.answer, adapter.prepare, deadline_s=request_deadline_s
        )
        serving = _Serving(connection, events)
        try:
            mounted()
            serving.start()
            event = events.wait()
            if event == INITIALISED:
                ready()
                is_announced = True
                event = events.wait()
            if event != ENDED:
                _log.info("told to stop by %s", signal.Signals(event).name)
        finally:
            # Before it was announced nobody relies on it.
            if serving.failure is None or not is_announced:
                session.unmount()
            session.sever()
            if serving.end():
                events.close()
    if serving.failure is not None:
        raise MountRefused(f"serving {mountpoint} has ended: {serving.failure}") from serving.failure


class _Serving:
    """The thread that reads requests."""

    def __init__(self, connection: Connection, events: Events) -> None:
        self.failure: Exception | None = None
        self._connection = connection
        self._events = events
        self._thread = threading.Thread(target=self._run, name="requests", daemon=True)
        self._has_ended = threading.Event()
        self._may_go = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> bool:
        """Wake it up once more, to see that its connection was severed; whether it ended."""
        if not self._thread.ident:
            return True
        # Where the mount is in use still, it waits for a request. The signal ends that, and means nothing else.
        if not self._has_ended.wait(UNMOUNT_GRACE_S):
            signal.pthread_kill(self._thread.ident, signal.SIGTERM)
            self._has_ended.wait(STOP_GRACE_S)
        self._may_go.set()
        return self._has_ended.is_set()

    def _run(self) -> None:
        try:
            self._connection.serve()
        except Exception as error:  # noqa: BLE001 - it is raised where the end is waited for
            self.failure = error
        finally:
            self._events.tell(ENDED)
            self._has_ended.set()
            # A signal to a thread that has gone might hit anything.
            self._may_go.wait()
