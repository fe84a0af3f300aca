"""Many pieces of one object on their way at once, so that a line is full however long it is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncssh

from backthen.repository.storage.backends.sftp.connection import Channel
from backthen.repository.storage.backends.sftp.errors import STRANGER_HINT, Unusable
from backthen.repository.storage.pacing import Pace

PIECE_BYTES = 64 * 1024
IN_FLIGHT_MAX = 64
"""Pieces of one object on their way: 4 MiB, which is 80 MB/s over a line of 50 ms."""
SMALL_BYTES = 256 * 1024
"""So much of an object goes along with the request to open it, written, or asked for where nobody knows its length."""
_PART_BYTES = 1 << 20
"""So much of an object is asked for along with the request to open it, where it is known to be that long."""
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
        channel.close(handle)


class Sent(NamedTuple):
    """What was sent of a small object: the answers to it, and the status of the file after it."""

    answers: list[asyncio.Task[Any]]
    status: asyncio.Task[asyncssh.SFTPAttrs]


def send_small(channel: Channel, handle: bytes, read: Callable[[int, int], bytes], size: int) -> Sent:
    """Fill an empty file and flush it, waiting for nothing."""
    sftp = channel.sftp
    writes = (sftp.write(handle, at, read(at, length)) for at, length in _pieces(0, size, sftp.limits.max_write_len))
    answers: list[asyncio.Task[Any]] = [*map(channel.send, writes), channel.send(flush(channel, handle))]
    return Sent(answers, channel.send(sftp.fstat(handle, 0)))


async def check_sent(sent: Sent, size: int) -> None:
    """Wait until a file is filled and durable.

    Raises:
        asyncssh.Error: the server did not take it.
    """
    for answer in sent.answers:
        await answer
    if (await sent.status).size != size:
        raise asyncssh.SFTPFailure("a file has another size than was written to it")


async def send_object(
    channel: Channel,
    handle: bytes,
    upload: Upload,
    read: Callable[[int, int], bytes],
    size: int,
    pace: Pace,
) -> None:
    """Fill a file from where it is durable, and flush it.

    Args:
        channel: where the file is open.
        handle: the file.
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

    if size > SMALL_BYTES:
        channel.widen()
    async with channel.turn:
        sync_at = upload.durable + SYNC_BYTES
        for offset, length in _pieces(upload.durable, size, sftp.limits.max_write_len):
            if offset >= sync_at:
                on_their_way.append((channel.send(flush(channel, handle)), offset))
                sync_at = offset + SYNC_BYTES
            data = read(offset, length)
            if delay_s := pace.delay_s(length):
                await asyncio.sleep(delay_s)
            while len(on_their_way) >= IN_FLIGHT_MAX:
                await take_oldest()
            on_their_way.append((channel.send(sftp.write(handle, offset, data)), 0))
    on_their_way.append((channel.send(flush(channel, handle)), size))
    status = channel.send(sftp.fstat(handle, 0))
    while on_their_way:
        await take_oldest()
    await check_sent(Sent([], status), size)


async def fetch_object(
    channel: Channel, path: bytes, offset: int, length: int | None, pace: Pace, may_foretell: bool
) -> bytes:
    """Bytes of an object, in one round trip where they are few; fewer where it ends earlier.

    Raises:
        WronglyForetold: they were asked for in vain, since a handle was foretold wrongly.
        Unusable: it is no object.
        asyncssh.Error: the server did not give them, SFTPNoSuchFile where there is none.
    """
    sftp = channel.sftp
    opening = channel.open(
        sftp.open(path, asyncssh.FXF_READ, asyncssh.SFTPAttrs()), foretell=may_foretell and not pace.is_limited
    )
    early: list[_Piece] = []
    begin = offset
    if opening.foretold is not None:
        offset += SMALL_BYTES if length is None or length > _PART_BYTES else length
        for at, wanted in _pieces(begin, offset, sftp.limits.max_read_len):
            early.append(_Piece(at, wanted, channel.send(_read(channel, opening.foretold, at, wanted))))
    status = channel.send(sftp.lstat(path, 0))
    handle = await opening.answer
    parts: list[bytes] = []
    try:
        opening.check(handle)
        size = _regular_size(await status)
        end = size if length is None else min(size, begin + length)
        asked = deque(channel.send(_read_rest(channel, handle, piece, end)) for piece in early)
        if end - begin > SMALL_BYTES:
            channel.widen()
        for at, wanted in _pieces(offset, end, sftp.limits.max_read_len):
            if delay_s := pace.delay_s(wanted):
                await asyncio.sleep(delay_s)
            while len(asked) >= IN_FLIGHT_MAX:
                parts.append(await asked.popleft())
            asked.append(channel.send(_read_whole(channel, handle, at, wanted)))
        while asked:
            parts.append(await asked.popleft())
    finally:
        channel.close(handle)
    return b"".join(parts)


async def flush(channel: Channel, handle: bytes) -> None:
    """Let the server flush a file or folder to its disk, where it knows how to.

    Raises:
        asyncssh.Error: it failed.
    """
    with suppress(asyncssh.SFTPOpUnsupported):
        await channel.sftp.fsync(handle)


class _Piece(NamedTuple):
    """A part of an object that was asked for before it was known how long that is."""

    offset: int
    wanted: int
    answer: asyncio.Task[bytes]


async def _read(channel: Channel, handle: bytes, offset: int, wanted: int) -> bytes:
    """A piece, or less of it; nothing past the end."""
    try:
        data, _ = await channel.sftp.read(handle, offset, wanted)
    except asyncssh.SFTPEOFError:
        return b""
    return data


async def _read_whole(channel: Channel, handle: bytes, offset: int, wanted: int) -> bytes:
    """A piece; asked for again where the server gave less of it."""
    data = b""
    while len(data) < wanted:
        part = await _read(channel, handle, offset + len(data), wanted - len(data))
        if not part:
            break
        data = data + part if data else part
    return data


async def _read_rest(channel: Channel, handle: bytes, piece: _Piece, end: int) -> bytes:
    """A piece that was asked for, as far as the object has it."""
    data = await piece.answer
    missing = min(piece.wanted, end - piece.offset) - len(data)
    return data + await _read_whole(channel, handle, piece.offset + len(data), missing) if missing > 0 else data


def _pieces(offset: int, end: int, bytes_max: int) -> Iterator[tuple[int, int]]:
    """Offsets and lengths of what goes in one request."""
    step = min(PIECE_BYTES, bytes_max)
    for at in range(offset, end, step):
        yield at, min(step, end - at)


def _regular_size(status: asyncssh.SFTPAttrs) -> int:
    """The size of a regular file.

    Raises:
        Unusable: it is none.
    """
    if status.type != asyncssh.FILEXFER_TYPE_REGULAR or status.size is None:
        raise Unusable("it is not a regular file", STRANGER_HINT)
    return status.size
