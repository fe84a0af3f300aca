"""Folders of the server: made, flushed, and read, in few round trips."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncssh

from backthen.repository.storage.backends.sftp.connection import Channel, foretelling
from backthen.repository.storage.backends.sftp.errors import STRANGER_HINT, Unusable, is_lost
from backthen.repository.storage.contract import StoredObject

FOLDER_ATTRIBUTES = asyncssh.SFTPAttrs(permissions=0o700)
_PARTS_AT_ONCE_MAX = 32
"""Parts of one listing that are asked for at once."""
_PART_NAMES = 100
"""OpenSSH gives so many names in each part but the last."""
_FOLDERS_AT_ONCE_MAX = 128
"""A server may have as few as 256 files open."""
_LISTING_BYTES_MAX = 256 << 20
"""What one listing may take of memory: a million objects, which is 32 TB in packs."""
_ENTRY_BYTES = 200
"""What an entry takes beside its name."""


class FolderEntry(NamedTuple):
    """What is in a folder: its name, in which bytes that are no text are surrogates, and what the server says of it."""

    name: str
    type: int
    size: int
    mtime: int


@dataclass(slots=True)
class _Room:
    """What is left for one listing."""

    bytes_left: int = field(default_factory=lambda: _LISTING_BYTES_MAX)

    def take(self, entries: Sequence[asyncssh.SFTPName]) -> list[FolderEntry]:
        """Entries of a folder, but for itself and the one above.

        Raises:
            Unusable: there is no room for them.
        """
        taken = [_folder_entry(entry) for entry in entries if entry.filename not in (b".", b"..")]
        self.bytes_left -= sum(_ENTRY_BYTES + len(entry.name) for entry in taken)
        if self.bytes_left < 0:
            raise Unusable("the server lists more names than a repository can have", STRANGER_HINT)
        return taken


@dataclass(slots=True)
class Server:
    """What is known of a server, and what was learned while it was used.

    Attributes:
        root: the folder of the repository.
        folders: those below it that are there, and whose own names are durable.
        has_links: whether it makes hard links; None where that was not tried yet.
        flushes_folders: whether it ever flushed a folder.
    """

    root: bytes
    folders: set[bytes] = field(default_factory=set)
    has_links: bool | None = None
    flushes_folders: bool = False


def send_new_folders(channel: Channel, server: Server, folder: bytes) -> dict[bytes, asyncio.Task[None]]:
    """Ask for a folder below the root, and for those between, as far as they are not known to be there."""
    if folder in server.folders or folder == server.root:
        return {}
    made = send_new_folders(channel, server, os.path.dirname(folder))
    return made | {folder: channel.send(channel.sftp.mkdir(folder, FOLDER_ATTRIBUTES))}


async def make_folders(channel: Channel, paths: Iterable[bytes]) -> None:
    """Make folders, so that they are there to be listed. Who puts something into one makes sure of it, and durably."""
    await asyncio.wait([channel.send(channel.sftp.mkdir(path, FOLDER_ATTRIBUTES)) for path in paths])


async def make_root(channel: Channel, server: Server, path: bytes) -> None:
    """Make a folder and those above it, each durable before the next.

    Raises:
        Unusable: something else is there.
        asyncssh.Error: it cannot be made.
    """
    sftp = channel.sftp
    try:
        status = await channel.send(sftp.stat(path, 0))
    except asyncssh.SFTPNoSuchFile:
        parent = os.path.dirname(path) or b"."
        if parent == path:
            raise
        await make_root(channel, server, parent)
        with suppress(asyncssh.SFTPFailure):  # somebody else was quicker, or the next line tells
            await channel.send(sftp.mkdir(path, FOLDER_ATTRIBUTES))
        status = await channel.send(sftp.stat(path, 0))
        handle = await opened_folder(send_open_folder(channel, parent))
        await flush_folder(channel, server, handle)
        if handle is not None:
            channel.close(handle)
    if status.type != asyncssh.FILEXFER_TYPE_DIRECTORY:
        shown = path.decode(errors="backslashreplace")
        raise Unusable(f"a file stands where a folder belongs, at {shown} on the server", STRANGER_HINT)


def send_open_folder(channel: Channel, path: bytes) -> asyncio.Task[bytes]:
    """Ask for a folder to be flushed, see `opened_folder`."""
    return channel.open(channel.sftp.open(path, asyncssh.FXF_READ, asyncssh.SFTPAttrs())).answer


async def opened_folder(answer: asyncio.Task[bytes]) -> bytes | None:
    """The folder that was asked for, None where the server does not open folders.

    Raises:
        asyncssh.Error: the connection is lost.
    """
    try:
        return await answer
    except asyncssh.SFTPError as error:
        if is_lost(error):
            raise
        return None


async def flush_folders(channel: Channel, server: Server, handles: Iterable[bytes | None]) -> None:
    """Make the names in some folders durable, where the server and its file system can.

    Raises:
        asyncssh.Error: it failed, where it can.
    """
    await asyncio.gather(*(flush_folder(channel, server, handle) for handle in handles))


async def flush_folder(channel: Channel, server: Server, handle: bytes | None) -> None:
    """Make the names in a folder durable, where the server and its file system can.

    Raises:
        asyncssh.Error: it failed, where it can.
    """
    if handle is None:
        return
    try:
        await channel.send(channel.sftp.fsync(handle))
    except asyncssh.SFTPError as error:
        if is_lost(error) or server.flushes_folders:
            raise
    else:
        server.flushes_folders = True


async def read_folder(channel: Channel, path: bytes, room: _Room | None = None) -> list[FolderEntry]:
    """What is in a folder.

    Raises:
        Unusable: it is more than there is room for, in this listing alone or in that of several folders.
        asyncssh.Error: it cannot be read, SFTPNoSuchFile where it is not there.
    """
    shared = room or _Room()
    return await foretelling(lambda may_foretell: _read_folder(channel, path, shared, may_foretell))


async def _read_folder(channel: Channel, path: bytes, room: _Room, may_foretell: bool) -> list[FolderEntry]:
    sftp = channel.sftp
    found: list[FolderEntry] = []
    opening = channel.open(sftp.opendir(path), foretell=may_foretell)
    asked: deque[asyncio.Task[tuple[Sequence[asyncssh.SFTPName], bool]]] = deque()
    if opening.foretold is not None:
        asked.extend(channel.send(sftp.readdir(opening.foretold)) for _ in range(2))
    handle = await opening.answer
    try:
        opening.check(handle)
        asked = asked or deque(channel.send(sftp.readdir(handle)) for _ in range(2))
        with suppress(asyncssh.SFTPEOFError):
            while asked:
                entries, _ = await asked.popleft()
                found += room.take(entries)
                # A short part is the last one, and the answer that says so is on its way already.
                more = 0 if asked and len(entries) < _PART_NAMES else 2 if len(asked) < _PARTS_AT_ONCE_MAX else 1
                asked.extend(channel.send(sftp.readdir(handle)) for _ in range(more))
    finally:
        channel.close(handle)
    return found


async def read_objects(channel: Channel, path: bytes, folder: str) -> list[StoredObject]:
    """The regular files in a folder, and in those in it, which are read side by side.

    Args:
        channel: where to ask.
        path: of the folder on the server.
        folder: its name, with which the names of what is in it begin.

    Raises:
        Unusable: there are more than there is room for.
        asyncssh.Error: it cannot be read, SFTPNoSuchFile where it is not there.
    """
    turn, room = asyncio.Semaphore(_FOLDERS_AT_ONCE_MAX), _Room()

    async def read_below(entry: FolderEntry) -> list[StoredObject]:
        async with turn:
            with suppress(asyncssh.SFTPNoSuchFile):  # removed since its name was read
                below = await read_folder(channel, path + b"/" + os.fsencode(entry.name), room)
                return _regular_files(below, f"{folder}/{entry.name}")
        return []

    top = await read_folder(channel, path, room)
    folders = [entry for entry in top if entry.type == asyncssh.FILEXFER_TYPE_DIRECTORY]
    return sum(await asyncio.gather(*map(read_below, folders)), _regular_files(top, folder))


def _regular_files(entries: list[FolderEntry], folder: str) -> list[StoredObject]:
    return [
        StoredObject(f"{folder}/{entry.name}", entry.size)
        for entry in entries
        if entry.type == asyncssh.FILEXFER_TYPE_REGULAR
    ]


def _folder_entry(entry: asyncssh.SFTPName) -> FolderEntry:
    name, attributes = entry.filename, entry.attrs
    text = name if isinstance(name, str) else name.decode(errors="surrogateescape")
    return FolderEntry(text, attributes.type, attributes.size or 0, attributes.mtime or 0)
