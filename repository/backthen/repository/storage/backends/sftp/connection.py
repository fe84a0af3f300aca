"""One connection to a server, and the SFTP channels in it, each of which the server works off by itself and in order.

Requests are sent without waiting for the answers to earlier ones. A server that owes answers and says nothing for as
long as it may is gone: the connection is cut, and all that waits fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import asyncssh
from asyncssh.sftp import SFTPClientHandler

from backthen.repository.storage.backends.sftp.errors import ServerSilent
from backthen.repository.storage.backends.sftp.handles import Handles, Request

CHANNELS_MAX = 4
"""So many transfers do not wait for each other's flushing of disks. OpenSSH allows 10 sessions in a connection."""
_SFTP_VERSION = 3
_FORETOLD_MAX = 2
_Answer = TypeVar("_Answer")


class Connection:
    """Channels in one SSH connection. To be used in one event loop.

    Attributes:
        turn: whose it is to fill the line with an object. Two that share it would come to their ends at once, and leave
            it idle while both wait for the server to flush them.
    """

    def __init__(self, hops: list[asyncssh.SSHClientConnection], timeout_s: float) -> None:
        """Use connections, of which the last leads to the server and the others lead there.

        Args:
            hops: the connections, which belong to this object from now on.
            timeout_s: seconds after which a server that says nothing is gone.
        """
        self._hops = hops
        self._timeout_s = timeout_s
        self._channels: list[Channel] = []
        self._channels_max = CHANNELS_MAX
        self._opening = asyncio.Lock()
        self.turn = asyncio.Lock()
        self._further: asyncio.Task[None] | None = None
        self._waiting = 0
        self._heard_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._silent = False

    @property
    def is_alive(self) -> bool:
        """Whether it is not known to be broken."""
        return not self._silent and not self._hops[-1].is_closed()

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[Channel]:
        """The channel with the least to do.

        Raises:
            asyncssh.Error: the server gives no channel.
            ServerSilent: it does not answer.
        """
        channel = await self._choose()
        channel.users += 1
        try:
            yield channel
        except Exception as error:
            if self._silent:
                raise ServerSilent(f"the server said nothing for {self._timeout_s:g} s") from error
            raise
        finally:
            channel.users -= 1

    def widen(self) -> None:
        """Open a further channel for whoever comes later, where some share one: to be called for what is large."""
        if (
            self._further is None
            and len(self._channels) < self._channels_max
            and sum(channel.users for channel in self._channels) > len(self._channels)
        ):
            self._further = asyncio.get_running_loop().create_task(self._open_further())

    async def watched(self, answer: Coroutine[Any, Any, _Answer]) -> _Answer:
        """Wait for an answer of the server, as long as it says anything at all."""
        self._begin_waiting()
        try:
            return await answer
        finally:
            self._end_waiting()

    async def close(self) -> None:
        """Hang up."""
        for hop in reversed(self._hops):
            hop.close()
        for hop in reversed(self._hops):
            await hop.wait_closed()

    def abort(self) -> None:
        """Let go at once, without a word to the server."""
        for hop in reversed(self._hops):
            hop.abort()

    async def _choose(self) -> Channel:
        if not self._channels:
            async with self._opening:
                if not self._channels:
                    await self._open()
        return min(self._channels, key=lambda channel: channel.users)

    async def _open_further(self) -> None:
        """Nobody waits for it: opening takes round trips, in which a channel that is there does what is small."""
        try:
            with suppress(asyncssh.Error, OSError):  # who uses the connection meets the same
                await self._open()
        finally:
            self._further = None

    async def _open(self) -> None:
        try:
            handler = await self.watched(self._start_sftp())
        except asyncssh.ChannelOpenError:
            if not self._channels:
                raise
            self._channels_max = len(self._channels)  # it allows no more
        else:
            self._channels.append(Channel(self, handler))

    async def _start_sftp(self) -> SFTPClientHandler:
        ssh = self._hops[-1]
        writer, reader, _ = await ssh.open_session(
            subsystem="sftp", encoding=None, env=None, send_env=None, command=None, request_pty=False
        )
        handler = SFTPClientHandler(asyncio.get_running_loop(), "backslashreplace", reader, writer, _SFTP_VERSION)
        await handler.start()
        ssh.create_task(handler.recv_packets(), handler.logger)
        return handler

    def _begin_waiting(self) -> None:
        if not self._waiting:
            loop = asyncio.get_running_loop()
            self._heard_s = loop.time()
            self._timer = loop.call_later(self._timeout_s, self._look)
        self._waiting += 1

    def _end_waiting(self) -> None:
        self._waiting -= 1
        self._heard_s = asyncio.get_running_loop().time()
        if not self._waiting and self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        """Cut a connection that has been silent for too long; otherwise look again when it would have been."""
        loop = asyncio.get_running_loop()
        silent_s = loop.time() - self._heard_s
        if silent_s < self._timeout_s:
            self._timer = loop.call_later(self._timeout_s - silent_s, self._look)
        else:
            self._silent = True
            self.abort()


class Opening(NamedTuple):
    """A request that opens something.

    Attributes:
        foretold: the handle that the server will give, None where nobody knows; see `Channel.open` how to use it.
        answer: the handle that it gives.
    """

    foretold: bytes | None
    answer: asyncio.Task[bytes]

    def check(self, handle: bytes) -> None:
        """Stop where another handle was given than was foretold.

        Raises:
            WronglyForetold: nothing holds that was done with it.
        """
        if self.foretold not in (None, handle):
            raise WronglyForetold


class WronglyForetold(Exception):
    """The server gave another handle than was foretold: nothing holds that was done with it."""


class Channel:
    """An SFTP channel: requests are worked off by the server in the order in which they are sent.

    Attributes:
        sftp: whose coroutines are the requests, to be given to `send`, and to `open` those that open something.
        users: how many use it now.
    """

    def __init__(self, connection: Connection, sftp: SFTPClientHandler) -> None:
        """Use a channel that was opened."""
        self.sftp = sftp
        self.users = 0
        self._connection = connection
        self._handles = Handles()
        self._to_close: list[bytes] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.send(sftp.request_limits())

    @property
    def turn(self) -> asyncio.Lock:
        """See `Connection.turn`."""
        return self._connection.turn

    def widen(self) -> None:
        """See `Connection.widen`."""
        self._connection.widen()

    def send(self, request: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
        """Send a request; its answer is awaited, or not. What the server says to one that nobody awaits is lost."""
        self._send_closes()
        return self._send(request)

    def _send(self, request: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
        task = asyncio.get_running_loop().create_task(self._connection.watched(request))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def open(self, request: Coroutine[Any, Any, bytes], *, foretell: bool = False) -> Opening:
        """Send a request that opens something.

        What uses a foretold handle is sent before anything else can be, so that it meets what was opened or nothing,
        and is believed when the handle was checked. It is closed when it was given, by who knows that it was.
        """
        self._send_closes()
        foretold = self._handles.foretell() if foretell else None
        opening = self._handles.opening()
        answer = self.send(request)
        answer.add_done_callback(partial(self._answered, opening))
        return Opening(foretold, answer)

    def close(self, handle: bytes) -> None:
        """Close what is open, along with the next request; nobody waits for it."""
        self._to_close.append(handle)

    def _send_closes(self) -> None:
        handles, self._to_close = self._to_close, []
        for handle in handles:
            closing = self._handles.closing(handle)
            self._send(self.sftp.close(handle)).add_done_callback(partial(self._closed, closing))

    def _answered(self, opening: Request, answer: asyncio.Task[bytes]) -> None:
        if answer.cancelled():
            self._handles.give_up()
        else:
            self._handles.answered(opening, None if answer.exception() else answer.result())

    def _closed(self, closing: Request, answer: asyncio.Task[None]) -> None:
        failed = answer.cancelled() or answer.exception() is not None
        self._handles.answered(closing, None if failed else closing.handle)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, or of no interest: asyncio need not report it


async def foretelling(work: Callable[[bool], Awaitable[_Answer]]) -> _Answer:
    """What `work` makes when it may use a foretold handle, or, where that was wrong again, when it may not.

    It is wrong once where something was not there that was asked for shortly before.
    """
    for _ in range(_FORETOLD_MAX):
        with suppress(WronglyForetold):
            return await work(True)
    return await work(False)
