"""Passing a walk from the process that walks to the one that saves.

The saving side opens a directory only when something in it has to be read: by its name in the directory above, and only
if it is still the one that was walked.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterable, Iterator
from typing import BinaryIO

import msgspec

from backthen.repository.source.attributes import XattrRead, bounded_time
from backthen.repository.source.events import EnterDirectory, Event, Items, LeaveDirectory, Problem
from backthen.repository.source.files import Seen, Status, open_same
from backthen.repository.source.walk import DESCRIPTORS_MAX, LOOK_FLAGS, MOVED

_NAMES_PER_MESSAGE = 128
"""What waits between the two processes is looked at long before it is read; so it is little."""
_LENGTH_BYTES = 4
_ENTER, _ITEMS, _PROBLEM, _LEAVE, _END = range(5)


class _Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event, of the kinds above; `error` is a problem's message, or why names or extended attributes are missing."""

    kind: int
    name: bytes = b""
    status: Seen | None = None
    found: list[tuple[bytes, Seen]] = []
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    error: str = ""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Message]).decode


class WalkStopped(Exception):
    """The process that walked has ended before the walk did."""


def send_events(events: Iterable[Event], target: BinaryIO) -> None:
    """Write all events, and that they are all.

    Raises:
        OSError: nobody reads them any more.
        Whatever walking raises.
    """
    messages: list[_Message] = []
    names = 0
    for event in events:
        messages.append(_message(event))
        names += len(event.found) if type(event) is Items else 1
        if names >= _NAMES_PER_MESSAGE:
            _write(target, messages)
            messages, names = [], 0
    _write(target, [*messages, _Message(_END)])


def receive_events(source: BinaryIO) -> Generator[Event]:
    """The events that another process sends.

    Raises:
        WalkStopped: it ended before it had sent all.
    """
    opened = _Opened()
    directory: _PassedDirectory | None = None
    try:
        for message in _messages(source):
            if message.kind == _ENTER:
                assert message.status is not None
                directory = _PassedDirectory(opened, directory, message)
                yield EnterDirectory(directory, message.status)
                continue
            assert directory is not None, "a walk begins by entering the top"
            if message.kind == _ITEMS:
                found: list[tuple[bytes, Status]] = [*message.found]
                yield Items(directory, found)
            elif message.kind == _PROBLEM:
                yield Problem(message.name, message.status, directory, message.error)
            else:
                yield LeaveDirectory(directory, message.error)
                opened.close(directory)
                directory = directory.parent
    finally:
        opened.close_all()


class _PassedDirectory:
    """A directory that another process walks through; see `WalkedDirectory`."""

    __slots__ = ("_identity", "_opened", "_path", "_xattrs", "name", "parent")

    def __init__(self, opened: _Opened, parent: _PassedDirectory | None, message: _Message) -> None:
        status = message.status
        assert status is not None
        self.name = message.name
        self.parent = parent
        self._opened = opened
        self._identity = (status.st_dev, status.st_ino)
        self._xattrs = XattrRead(message.xattrs, message.error)
        self._path: bytes | None = b"" if parent is None else None

    @property
    def path(self) -> bytes:
        """The absolute path, without a slash at its end (so empty for `/`)."""
        if self._path is None:
            above = self.above()
            self._path = b"/".join((b"", *(directory.name for directory in above[1:]), self.name))
        return self._path

    @property
    def descriptor(self) -> int:
        """It, open; it is closed when the walk has left it, or many others are open.

        Raises:
            OSError: it was moved away, or cannot be opened.
        """
        descriptor = self._opened.get(self)
        if descriptor is None:
            for directory in (*self.above(), self):
                descriptor = self._opened.get(directory)
                if descriptor is None:
                    descriptor = self._opened.add(directory, directory.open())
        assert descriptor is not None
        return descriptor

    def read_xattrs(self) -> XattrRead:
        """Its extended attributes, as they were read when it was entered."""
        return self._xattrs

    def above(self) -> list[_PassedDirectory]:
        """The directories above, from the top down."""
        found: list[_PassedDirectory] = []
        directory = self.parent
        while directory is not None:
            found.append(directory)
            directory = directory.parent
        return found[::-1]

    def open(self) -> int:
        """Open it in the directory above, which is open."""
        if self.parent is None:
            return os.open(b"/", LOOK_FLAGS)
        above = self._opened.get(self.parent)
        assert above is not None, "opened just before"
        descriptor = open_same(self.name, above, LOOK_FLAGS, self._identity)
        if descriptor is None:
            raise OSError(errno.ESTALE, MOVED)
        return descriptor


class _Opened:
    """The directories that are open on this side; not more than a few, however deep the walk is."""

    def __init__(self) -> None:
        self._descriptors: dict[_PassedDirectory, int] = {}

    def get(self, directory: _PassedDirectory) -> int | None:
        return self._descriptors.get(directory)

    def add(self, directory: _PassedDirectory, descriptor: int) -> int:
        if len(self._descriptors) == DESCRIPTORS_MAX:
            self.close(next(iter(self._descriptors)))
        self._descriptors[directory] = descriptor
        return descriptor

    def close(self, directory: _PassedDirectory) -> None:
        descriptor = self._descriptors.pop(directory, None)
        if descriptor is not None:
            os.close(descriptor)

    def close_all(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])


def _message(event: Event) -> _Message:
    if type(event) is Items:
        return _Message(_ITEMS, found=[(name, _seen(status)) for name, status in event.found])
    if type(event) is EnterDirectory:
        xattrs, problem = event.directory.read_xattrs()
        return _Message(_ENTER, event.name, _seen(event.status), xattrs=xattrs, error=problem)
    if type(event) is Problem:
        status = None if event.status is None else _seen(event.status)
        return _Message(_PROBLEM, event.name, status, error=event.message)
    assert type(event) is LeaveDirectory
    return _Message(_LEAVE, error=event.error)


def _seen(status: Status) -> Seen:
    return Seen(
        status.st_mode,
        status.st_ino,
        status.st_dev,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_blocks,
        status.st_rdev,
        bounded_time(status.st_mtime_ns),
        bounded_time(status.st_ctime_ns),
    )


def _write(target: BinaryIO, messages: list[_Message]) -> None:
    data = _encode(messages)
    target.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    target.flush()


def _messages(source: BinaryIO) -> Iterator[_Message]:
    while True:
        length = int.from_bytes(source.read(_LENGTH_BYTES), "big")
        data = source.read(length)
        if not length or len(data) < length:
            raise WalkStopped
        for message in _decode(data):
            if message.kind == _END:
                return
            yield message
