"""Many pieces of one object on their way at once, so that a line is full however long it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import asyncssh

from backthen.repository.storage.backends.sftp.connection import Channel
from backthen.repository.storage.pacing import Pace

PIECE_BYTES = 64 * 1024
IN_FLIGHT_MAX = 64
"""Pieces of one object on their way: 4 MiB, which is 80 MB/s over a line of 50 ms."""
SYNC_BYTES = 8 * 1024 * 1024
"""After so many bytes the server is told to flush them to its disk, without waiting until it has."""


@dataclass(slots=True)
class Upload:
    """A temporary file on the server that is being filled.

    Attributes:
        path: of the file.
        durable: bytes of it, from its beginning, that outlive a crash of the server.
        handle: while it is open.
    """

    path: bytes
    durable: int = 0
    handle: bytes | None = None


def close_upload(channel: Channel, upload: Upload) -> None:
    """Close the file if it is open; its handle may mean another file from then on."""
    handle, upload.handle = upload.handle, None
    if handle is not None:
        channel.send(channel.sftp.close(handle))


async def send_object(
    channel: Channel,
    handle: bytes,
    upload: Upload,
    read: Callable[[int, int], bytes],
    size: int,
    pace: Pace,
) -> None:
    """Fill a file from where it is durable, flush it, and close it.

    Args:
        channel: where the file is open.
        handle: the file, which is closed afterwards.
        upload: says where to begin, and is told how far it is durable.
        read: the bytes to be sent, by offset and length.
        size: how many bytes there are.
        pace: how fast they may be sent.

    Raises:
        asyncssh.Error: the server did not take them.
    """
    sftp = channel.sftp
    on_their_way: deque[tuple[asyncio.Task[Any], int]] = deque()

    async def take_oldest() -> None:
        answer, durable = on_their_way.popleft()
        await answer
        upload.durable = max(upload.durable, durable)

    try:
        offset = upload.durable
        sync_at = offset + SYNC_BYTES
        while offset < size:
            data = read(offset, min(PIECE_BYTES, sftp.limits.max_write_len, size - offset))
            if delay_s := pace.delay_s(len(data)):
                await asyncio.sleep(delay_s)
            while len(on_their_way) >= IN_FLIGHT_MAX:
                await take_oldest()
            on_their_way.append((channel.send(sftp.write(handle, offset, data)), 0))
            offset += len(data)
            if offset >= sync_at and offset < size:
                on_their_way.append((channel.send(flush(channel, handle)), offset))
                sync_at = offset + SYNC_BYTES
        on_their_way.append((channel.send(flush(channel, handle)), size))
        status = channel.send(sftp.fstat(handle, 0))
    finally:
        close_upload(channel, upload)
    while on_their_way:
        await take_oldest()
    if (await status).size != size:
        raise asyncssh.SFTPFailure("a file has another size than was written to it")


async def fetch_range(channel: Channel, handle: bytes, offset: int, length: int, pace: Pace) -> bytes:
    """Bytes of an open file; fewer where it ends earlier.

    Raises:
        asyncssh.Error: the server did not give them.
    """
    end = offset + length
    asked: deque[asyncio.Task[bytes]] = deque()
    parts: list[bytes] = []
    while offset < end or asked:
        if offset < end and len(asked) < IN_FLIGHT_MAX:
            wanted = min(PIECE_BYTES, channel.sftp.limits.max_read_len, end - offset)
            if delay_s := pace.delay_s(wanted):
                await asyncio.sleep(delay_s)
            asked.append(channel.send(_read_whole(channel, handle, offset, wanted)))
            offset += wanted
        else:
            parts.append(await asked.popleft())
    return b"".join(parts)


async def flush(channel: Channel, handle: bytes) -> None:
    """Let the server flush a file or folder to its disk, where it knows how to.

    Raises:
        asyncssh.Error: it failed.
    """
    with suppress(asyncssh.SFTPOpUnsupported):
        await channel.sftp.fsync(handle)


async def _read_whole(channel: Channel, handle: bytes, offset: int, wanted: int) -> bytes:
    """A piece; asked for again where the server gave less of it."""
    data = b""
    with suppress(asyncssh.SFTPEOFError):
        while len(data) < wanted:
            part, _ = await channel.sftp.read(handle, offset + len(data), wanted - len(data))
            data = data + part if data else part
    return data
