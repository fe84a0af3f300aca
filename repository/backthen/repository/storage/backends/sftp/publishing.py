"""A new object: a temporary file that is filled, flushed, and given its name if nothing has that."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

import asyncssh

from backthen.repository.storage.backends.sftp.connection import Channel, Opening, WronglyForetold, foretelling
from backthen.repository.storage.backends.sftp.errors import STRANGER_HINT, NameTaken, Unusable, is_lost
from backthen.repository.storage.backends.sftp.folders import (
    Server,
    flush_folders,
    opened_folder,
    send_new_folders,
    send_open_folder,
)
from backthen.repository.storage.backends.sftp.transfer import (
    SMALL_BYTES,
    Upload,
    check_sent,
    close_upload,
    send_object,
    send_small,
)
from backthen.repository.storage.pacing import Pace

_FILE_ATTRIBUTES = asyncssh.SFTPAttrs(permissions=0o600)
_NEW_FILE = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL
_FULL_BYTES = 1 << 20
_FULL_HINT = "Make room on it and try again; nothing that was stored is harmed."


class _NeedsNoLink(Exception):
    """The server makes no links, and the temporary file is gone: the object is to be sent again and renamed."""


async def put_object(
    channel: Channel,
    server: Server,
    target: bytes,
    upload: Upload,
    read: Callable[[int, int], bytes],
    size: int,
    pace: Pace,
) -> None:
    """Store an object, in two round trips where it is small: open, write and flush; link.

    Args:
        channel: where to send it.
        server: what is known of the server.
        target: the path of the object.
        upload: its temporary file, below a folder that may have to be made.
        read: its bytes, by offset and length.
        size: how many there are.
        pace: how fast they may be sent.

    Raises:
        NameTaken: it is, durably.
        Unusable: something that is no object has the name, or the disk is full.
        asyncssh.Error: the server did not take it.
    """

    async def put(may_foretell: bool) -> None:
        is_early = size <= SMALL_BYTES and may_foretell and not pace.is_limited
        await _put(channel, server, target, upload, read, size, pace, is_early)

    try:
        await foretelling(put)
    except _NeedsNoLink:
        await put(False)


async def _put(
    channel: Channel,
    server: Server,
    target: bytes,
    upload: Upload,
    read: Callable[[int, int], bytes],
    size: int,
    pace: Pace,
    is_early: bool,
) -> None:
    folder = os.path.dirname(target)
    made = send_new_folders(channel, server, os.path.dirname(upload.path)) | send_new_folders(channel, server, folder)
    status = channel.send(channel.sftp.lstat(target, 0))
    opening = _send_open(channel, upload, is_early)
    sent = None if opening.foretold is None else send_small(channel, opening.foretold, read, size)
    to_flush = [folder, *sorted({os.path.dirname(path) for path in made})]
    folders = [send_open_folder(channel, path) for path in to_flush]
    await asyncio.wait([status, opening.answer, *folders])
    if opening.answer.exception() is None:
        upload.handle = opening.answer.result()
    handles = [await opened_folder(task) for task in folders]
    try:
        await _refuse_taken(channel, server, target, status, handles)
        handle = await _opened(opening, made)
        if sent is None:
            await send_object(channel, handle, upload, read, size, pace)
        else:
            await check_sent(sent, size)
            upload.durable = size
        close_upload(channel, upload)
        await _publish(channel, server, upload.path, target, handles, may_send_again=size <= SMALL_BYTES)
    except (NameTaken, Unusable, WronglyForetold):
        await _discard(channel, upload)
        raise
    except asyncssh.SFTPError as error:
        if not is_lost(error):
            is_full = isinstance(error, asyncssh.SFTPFailure) and await _is_full(channel, server)
            await _discard(channel, upload)
            if isinstance(error, asyncssh.SFTPNoSuchFile):
                server.folders.clear()  # somebody took them away: the next try makes them anew
            if is_full:
                raise Unusable("the server's disk is full", _FULL_HINT) from error
        raise
    finally:
        for folder_handle in handles:
            if folder_handle is not None:
                channel.close(folder_handle)
    server.folders.update(made)


async def server_time_s(channel: Channel, unused: Upload) -> int:
    """What time it is by the server's clock: that of a file just made, which is gone afterwards.

    Raises:
        asyncssh.Error: no file can be made.
    """
    sftp = channel.sftp
    handle = unused.handle = await _send_open(channel, unused, may_foretell=False).answer
    status = channel.send(sftp.fstat(handle, 0))
    await _discard(channel, unused)
    return (await status).mtime or 0


def _send_open(channel: Channel, upload: Upload, may_foretell: bool) -> Opening:
    """Ask for the temporary file: the one that was begun, as far as the server has it still, or else a new one."""
    if upload.durable:
        return Opening(None, channel.send(_open_again(channel, upload)))
    return channel.open(channel.sftp.open(upload.path, _NEW_FILE, _FILE_ATTRIBUTES), foretell=may_foretell)


async def _open_again(channel: Channel, upload: Upload) -> bytes:
    sftp = channel.sftp
    try:
        handle = await channel.open(sftp.open(upload.path, asyncssh.FXF_WRITE, asyncssh.SFTPAttrs())).answer
    except asyncssh.SFTPNoSuchFile:
        upload.durable = 0
    except asyncssh.SFTPPermissionDenied:  # a server may let its user add, and nothing else
        upload.path, upload.durable = upload.path + b"-again", 0
    else:
        size = (await sftp.fstat(handle, 0)).size
        if size is None or size < upload.durable:
            upload.durable = 0
        return handle
    return await _send_open(channel, upload, may_foretell=False).answer


async def _opened(opening: Opening, made: dict[bytes, asyncio.Task[None]]) -> bytes:
    """The open temporary file; where its folder is not there, the reason is that it could not be made.

    Raises:
        WronglyForetold: nothing of what was written to it holds.
        asyncssh.Error: it cannot be opened.
    """
    try:
        handle = await opening.answer
    except asyncssh.SFTPNoSuchFile:
        for task in made.values():
            if isinstance(task.exception(), asyncssh.SFTPPermissionDenied):
                await task
        raise
    opening.check(handle)
    return handle


async def _refuse_taken(
    channel: Channel,
    server: Server,
    target: bytes,
    status: asyncio.Task[asyncssh.SFTPAttrs],
    folders: Sequence[bytes | None],
) -> None:
    """Stop where the name is taken.

    Raises:
        NameTaken: it is, durably.
        Unusable: something that is no object has the name.
        asyncssh.Error: it cannot be found out.
    """
    try:
        type_ = (await status).type
    except asyncssh.SFTPNoSuchFile:
        return
    if type_ != asyncssh.FILEXFER_TYPE_REGULAR:
        raise Unusable("it is not a regular file", STRANGER_HINT)
    await flush_folders(channel, server, folders)
    raise NameTaken


async def _publish(
    channel: Channel,
    server: Server,
    temporary: bytes,
    target: bytes,
    folders: Sequence[bytes | None],
    *,
    may_send_again: bool,
) -> None:
    """Give a complete file its name, in the first of the folders. Who loses a race finds the winner's object durable.

    Raises:
        _NeedsNoLink: it turns out that no links are made, and the object is to be sent again, which it may be.
        NameTaken: it is.
        Unusable: something that is no object has the name.
        asyncssh.Error: it cannot be named.
    """
    sftp, knew_links = channel.sftp, server.has_links
    if knew_links is not False:
        linked = channel.send(sftp.link(temporary, target))
        # Where links work, the temporary file is not needed any more, whatever comes of this one.
        removed = channel.send(sftp.remove(temporary)) if knew_links or may_send_again else None
        if await _is_named(channel, server, linked, target, folders, may_fail=not knew_links):
            server.has_links = True
            with suppress(asyncssh.SFTPPermissionDenied):  # a server may let its user add, and nothing else
                await (removed or channel.send(sftp.remove(temporary)))
            return
        server.has_links = server.has_links or False
        if removed is not None:
            raise _NeedsNoLink
    renamed = channel.send(sftp.rename(temporary, target, 0))
    await _is_named(channel, server, renamed, target, folders, may_fail=False)


async def _is_named(
    channel: Channel,
    server: Server,
    named: asyncio.Task[None],
    target: bytes,
    folders: Sequence[bytes | None],
    *,
    may_fail: bool,
) -> bool:
    """Whether the file got its name, durably, or else the server may know no such request.

    Raises:
        NameTaken: it is.
        Unusable: something that is no object has the name.
        asyncssh.Error: it failed, where it must not.
    """
    await flush_folders(channel, server, folders)
    try:
        await named
    except asyncssh.SFTPError as error:
        if is_lost(error):
            raise
        await _refuse_taken(channel, server, target, channel.send(channel.sftp.lstat(target, 0)), folders)
        if not may_fail:
            raise
        return False
    return True


async def _discard(channel: Channel, upload: Upload) -> None:
    """Take a temporary file away again, as far as it is there and the server lets."""
    close_upload(channel, upload)
    with suppress(asyncssh.SFTPError):
        await channel.send(channel.sftp.remove(upload.path))


async def _is_full(channel: Channel, server: Server) -> bool:
    """Whether the disk is full, where the server can tell: it does not say so when it refuses to write."""
    try:
        room = await channel.send(channel.sftp.statvfs(server.root))
    except asyncssh.SFTPError:
        return False
    return room.bavail * room.frsize < _FULL_BYTES or (room.files > 0 and room.favail == 0)
