"""A `Storage` in a folder of an SSH server. It works as the local one does, in few round trips.

A new object is written to a temporary file in `tmp/`, flushed to the server's disk (`fsync@openssh.com`), and only then
linked to its name (`hardlink@openssh.com`), which fails when the name is taken; at last the folder is flushed. Where
the server or its file system has no hard links, the file is renamed, which by version 3 of the protocol fails when the
name is taken, too. What a server cannot flush, files or folders, is as durable as that server makes it.

The name of a temporary file is random. It belongs to nobody once nobody has written to it for a day by the server's own
clock. What others may have put into the folder is never trusted: only regular files are objects.

Folders are made for their owner alone (0700), and so are files (0600).
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncssh
from typing_extensions import Buffer

from backthen.repository.entropy import random_bytes
from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, RepositoryExists, StorageError
from backthen.repository.storage.access import StorageAccess
from backthen.repository.storage.backends.event_loop import EventLoop
from backthen.repository.storage.backends.sftp.address import parse_address
from backthen.repository.storage.backends.sftp.connection import Channel, Connection, foretelling
from backthen.repository.storage.backends.sftp.errors import StorageClosed, is_lost, plain_errors
from backthen.repository.storage.backends.sftp.folders import (
    FolderEntry,
    Server,
    make_folders,
    make_root,
    read_folder,
    read_objects,
)
from backthen.repository.storage.backends.sftp.login import open_ssh
from backthen.repository.storage.backends.sftp.publishing import put_object, server_time_s
from backthen.repository.storage.backends.sftp.transfer import Upload, fetch_object
from backthen.repository.storage.contract import StoredObject
from backthen.repository.storage.local_file import of_local_file
from backthen.repository.storage.names import (
    CONFIG_NAME,
    FOLDERS,
    SPOOL,
    UNLOCKED_PREFIX,
    check_folder,
    check_object_name,
    is_leftover,
)
from backthen.repository.storage.pacing import Pace

CONCURRENCY = 8
ABANDONED_AFTER_S = 24 * 60 * 60
_CLOSE_S = 2.0
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class SftpStorage:
    """See the module and the contract."""

    def __init__(self, location: str, access: StorageAccess) -> None:
        """Use a folder of a server; it is called with the first request.

        Raises:
            InvalidRequest: the location is not one.
        """
        self._address = parse_address(location)
        self._location = location
        self._access = access
        self._upload_pace = Pace(access.upload_limit)
        self._download_pace = Pace(access.download_limit)
        self._loop = EventLoop("sftp")
        self._server = Server(self._address.path)
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._closing = threading.Event()
        self._broken_off: dict[str, Upload] = {}
        self._held_repository = False

    @property
    def location(self) -> str:
        """As it was given; there is no secret in it."""
        return self._location

    @property
    def folder(self) -> None:
        """See `Storage.folder`."""
        return

    @property
    def spool(self) -> None:
        """See `Storage.spool`."""
        return

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return CONCURRENCY

    def create(self) -> None:
        """See `Storage.create`.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
            StorageError: the folder cannot be made or read.
        """
        self._run(self._create())

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`.

        Raises:
            ObjectExists: the name is taken; nothing was changed.
            StorageError: it cannot be stored.
        """
        check_object_name(name)
        view = memoryview(data).cast("B")

        def read(offset: int, length: int) -> bytes:
            return bytes(view[offset : offset + length])

        self._run(self._put(name, read, len(view), self._new_upload()), name)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        What was sent when a connection broke is not sent again, when this object is asked for the same once more.

        Raises:
            ObjectExists: the name is taken; the object was not changed, the file is removed.
            StorageError: it cannot be stored, or the file cannot be read; the file is left.
        """
        check_object_name(name)
        with of_local_file(path), path.open("rb") as file:
            descriptor = file.fileno()

            def read(offset: int, length: int) -> bytes:
                with of_local_file(path):
                    return os.pread(descriptor, length, offset)

            size = os.fstat(descriptor).st_size
            try:
                self._run(self._put_resuming(name, read, size), name)
            except ObjectExists:
                path.unlink(missing_ok=True)
                raise
            path.unlink(missing_ok=True)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: it cannot be read.
        """
        check_object_name(name)
        return self._run(self._get(name, offset, length), name)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`; the iterator raises `StorageError` when the folder cannot be read."""
        check_folder(folder)
        return self._list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`.

        Raises:
            StorageError: it cannot be removed.
        """
        check_object_name(name)
        self._run(self._delete(name), name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`; what nobody has written to for a day is abandoned.

        Raises:
            StorageError: the folder cannot be read or written.
        """
        return self._run(self._remove_abandoned(), SPOOL)

    def close(self) -> None:
        """See `Storage.close`; who is at work meanwhile is refused, and opens no connection that nobody would close."""
        self._closing.set()
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                self._loop.run(_hang_up(connection), _CLOSE_S)
            except (OSError, asyncssh.Error) as error:  # a time-out among them
                _log.debug("hanging up: %s", error)
        self._loop.close()
        self._connecting = asyncio.Lock()
        self._closing.clear()

    def _run(self, work: Coroutine[Any, Any, _Result], name: str = "") -> _Result:
        """Let the event loop do it, and say of errors what they are about.

        Raises:
            StorageError: it failed.
        """
        with plain_errors(f"{self._location}/{name}" if name else self._location):
            if self._closing.is_set():
                work.close()
                raise StorageClosed
            return self._loop.run(work, None)

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[Channel]:
        if self._closing.is_set():
            raise StorageClosed
        async with self._connecting:
            connection = self._connection
            if connection is None or not connection.is_alive:
                connection = Connection(await open_ssh(self._address, self._access), self._access.timeout_s)
                if self._closing.is_set():
                    connection.abort()
                    raise StorageClosed
                self._connection = connection
        async with connection.channel() as channel:
            yield channel

    async def _create(self) -> None:
        async with self._channel() as channel:
            await make_root(channel, self._server, self._address.path)
            entries = sorted(await read_folder(channel, self._address.path))
            if any(entry.name == CONFIG_NAME for entry in entries):
                raise RepositoryExists(f"there is a repository at {self._location} already")
            for entry in entries:
                if not await self._is_leftover(channel, entry):
                    raise InvalidRequest(
                        f"{self._location} is not empty: it holds {entry.name!r}",
                        hint="Choose a new or an empty folder.",
                    )
            await make_folders(channel, map(self._path, FOLDERS))

    async def _is_leftover(self, channel: Channel, entry: FolderEntry) -> bool:
        """Whether an empty storage may hold it; it may be a folder of nothing else, too."""
        if is_leftover(entry.name):
            return True
        if entry.name not in FOLDERS or entry.type != asyncssh.FILEXFER_TYPE_DIRECTORY:
            return False
        inside = await read_folder(channel, self._path(entry.name))
        return all(is_leftover(f"{entry.name}/{file.name}") for file in inside)

    async def _put(self, name: str, read: Callable[[int, int], bytes], size: int, upload: Upload) -> None:
        async with self._channel() as channel:
            await put_object(channel, self._server, self._path(name), upload, read, size, self._upload_pace)
        self._held_repository |= name == CONFIG_NAME

    async def _put_resuming(self, name: str, read: Callable[[int, int], bytes], size: int) -> None:
        upload = self._broken_off.pop(name, None) or self._new_upload()
        try:
            await self._put(name, read, size, upload)
        except Exception as error:
            if is_lost(error) and upload.durable and name != CONFIG_NAME:
                self._broken_off[name] = upload
            raise

    async def _get(self, name: str, offset: int, length: int | None) -> bytes:
        path, pace = self._path(name), self._download_pace
        async with self._channel() as channel:
            try:
                data = await foretelling(lambda may: fetch_object(channel, path, offset, length, pace, may))
            except asyncssh.SFTPNoSuchFile as error:
                await self._check_connected(channel.send(channel.sftp.lstat(self._path(CONFIG_NAME), 0)))
                raise ObjectMissing(f"{self._location}/{name} is not there") from error
        self._held_repository |= name == CONFIG_NAME
        return data

    def _list(self, folder: str) -> Iterator[StoredObject]:
        yield from self._run(self._read_all(folder), folder)

    async def _read_all(self, folder: str) -> Iterable[StoredObject]:
        async with self._channel() as channel:
            config = channel.send(channel.sftp.lstat(self._path(CONFIG_NAME), 0))
            try:
                return await read_objects(channel, self._path(folder), folder)
            except asyncssh.SFTPNoSuchFile:
                await self._check_connected(config)
                return ()

    async def _delete(self, name: str) -> None:
        async with self._channel() as channel:
            await self._remove(channel, name)

    async def _remove(self, channel: Channel, name: str) -> bool:
        """Remove a file; whether it was there."""
        try:
            await channel.send(channel.sftp.remove(self._path(name)))
        except asyncssh.SFTPNoSuchFile:
            return False
        return True

    async def _remove_abandoned(self) -> int:
        async with self._channel() as channel:
            try:
                entries = await read_folder(channel, self._path(SPOOL))
            except asyncssh.SFTPNoSuchFile:
                return 0
            files = [
                entry
                for entry in entries
                if entry.type == asyncssh.FILEXFER_TYPE_REGULAR and entry.name.startswith(UNLOCKED_PREFIX)
            ]
            if not files:
                return 0
            now_s = await server_time_s(channel, self._new_upload())
            old = [entry for entry in files if now_s - (entry.mtime or now_s) > ABANDONED_AFTER_S]
            removed = [self._remove(channel, f"{SPOOL}/{entry.name}") for entry in old]
            try:
                return sum(await asyncio.gather(*removed))
            except asyncssh.SFTPPermissionDenied:
                return 0  # a server may let its user add, and nothing else

    async def _check_connected(self, config: asyncio.Task[asyncssh.SFTPAttrs]) -> None:
        """Tell a missing object from a disk that went away and left an empty folder behind.

        Args:
            config: what the server says of the one object that is always there.

        Raises:
            StorageError: the repository was here and is not any more.
        """
        if not self._held_repository:
            return
        try:
            await config
        except asyncssh.SFTPNoSuchFile as error:
            raise StorageError(
                f"{self._location} does not hold the repository any more",
                hint="Is its disk mounted on the server?",
                transient=True,
            ) from error

    def _path(self, name: str) -> bytes:
        return self._address.path + b"/" + name.encode(errors="surrogateescape")

    def _new_upload(self) -> Upload:
        return Upload(self._path(f"{SPOOL}/{UNLOCKED_PREFIX}{random_bytes(16).hex()}"))


async def _hang_up(connection: Connection) -> None:
    """Say good-bye, or let go at once where that takes too long."""
    try:
        await connection.close()
    except BaseException:
        connection.abort()
        raise
