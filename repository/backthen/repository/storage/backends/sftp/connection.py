"""One connection to a server, and the SFTP channels in it, each of which the server works off by itself and in order.

Requests are sent without waiting for the answers to earlier ones. A server that owes answers and says nothing for as
long as it may is gone: the connection is cut, and all that waits fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncssh
from asyncssh.sftp import SFTPClientHandler

from backthen.repository.storage.backends.sftp.errors import ServerSilent

CHANNELS_MAX = 4
"""So many transfers do not wait for each other's flushing of disks. OpenSSH allows 10 sessions in a connection."""
_SFTP_VERSION = 3
_Answer = TypeVar("_Answer")


class Connection:
    """Channels in one SSH connection. To be used in one event loop."""

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
        """The channel with the least to do; while all are in use another one is opened for whoever comes later.

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
        elif (
            self._further is None
            and len(self._channels) < self._channels_max
            and all(channel.users for channel in self._channels)
        ):
            self._further = asyncio.get_running_loop().create_task(self._open_further())
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


class Channel:
    """An SFTP channel: requests are worked off by the server in the order in which they are sent.

    Attributes:
        sftp: whose coroutines are the requests, to be given to `send`.
        users: how many use it now.
    """

    def __init__(self, connection: Connection, sftp: SFTPClientHandler) -> None:
        """Use a channel that was opened."""
        self.sftp = sftp
        self.users = 0
        self._connection = connection
        self._tasks: set[asyncio.Task[Any]] = set()
        self.send(sftp.request_limits())

    def send(self, request: Coroutine[Any, Any, _Answer]) -> asyncio.Task[_Answer]:
        """Send a request; its answer is awaited, or not. What the server says to one that nobody awaits is lost."""
        task = asyncio.get_running_loop().create_task(self._connection.watched(request))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen, or of no interest: asyncio need not report it
