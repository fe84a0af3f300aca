"""A line to a server that is far away: it delays, is only so fast, counts, and can be cut.

    python -m tests.support.slow_line 127.0.0.1:9000 --round-trip 50 --rate 20 [--port PORT] [--record FOLDER]

says the port it listens at, then obeys the words on standard input, one a line: `counts` (what went over the line
since the last time, as JSON), `cut`, `stall`, `go`. It ends with its input.

Both directions of the line are shared by all connections. A piece of data waits for those before it, takes its length
divided by the rate, then half a round trip. A connection is there for the client after one round trip.

**Round trips** are counted as the depth of what depended on what, the client being one machine: a piece that the
client sends has one more than the deepest piece that had reached the client by then; what a server answers has the
depth of what had reached the server on that connection by then; opening a connection counts like a piece and its
answer. So requests at once are one round trip, whatever the number of connections; a stream that waits for nothing
counts one for each round trip that it lasts; and time in which nobody waits for the line does not count at all.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

_PIECE_BYTES = 64 * 1024
_BUFFER_S = 0.1
"""How much a sender may be ahead of the line, as in the buffers of its machine: a piece is taken when less waits."""
_LOOPBACK = "127.0.0.1"

_Result = TypeVar("_Result")


class Counts(NamedTuple):
    """What went over the line. `sent` and `received` are bytes as the client sees it."""

    round_trips: int
    connections: int
    sent: int
    received: int

    def __sub__(self, earlier: Counts) -> Counts:
        """What went over it since then."""
        return Counts(*(now - then for now, then in zip(self, earlier, strict=True)))


class _Direction:
    """One direction of the line: what it carries, it carries one piece after another."""

    def __init__(self, delay_s: float, bytes_per_s: float | None) -> None:
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._free_s = 0.0
        self.bytes_carried = 0

    async def take(self, length: int, from_s: float) -> float:
        """Take a piece when its sender may hand it over; the time at which it arrives."""
        loop = asyncio.get_running_loop()
        while (early_s := self._free_s - loop.time() - _BUFFER_S) > 0:
            await asyncio.sleep(early_s)
        self.bytes_carried += length
        taking_s = length / self._bytes_per_s if self._bytes_per_s else 0.0
        self._free_s = max(self._free_s, loop.time(), from_s) + taking_s
        return self._free_s + self._delay_s


class _Connection:
    """One connection: the deepest round trip of which anything has reached the server on it."""

    def __init__(self, number: int, depth: int, opened_s: float) -> None:
        self.number = number
        self.depth_at_server = depth
        self.opened_s = opened_s
        self.writers: list[asyncio.StreamWriter] = []
        self.tasks: list[asyncio.Task[None]] = []


class SlowLine:
    """Stands before a server, in a thread of its own; use in a `with`."""

    def __init__(
        self,
        server: tuple[str, int],
        *,
        round_trip_s: float,
        bytes_per_s: float | None = None,
        port: int = 0,
        record: Path | None = None,
    ) -> None:
        """A line to `server`.

        Args:
            server: host and port.
            round_trip_s: how long the shortest question and answer take.
            bytes_per_s: how much it carries in each direction; None for as much as comes.
            port: where to listen; 0 for any free one.
            record: a folder for all that is carried: `0001-sent`, `0001-received` of the first connection, and so on.
        """
        self._server = server
        self._round_trip_s = round_trip_s
        self._record = record
        self._up = _Direction(round_trip_s / 2, bytes_per_s)
        self._down = _Direction(round_trip_s / 2, bytes_per_s)
        self._depth_at_client = 0
        self._opened = 0
        self._open: set[_Connection] = set()
        self._cut_at: int | None = None
        self._is_cut = False
        self._wanted_port = port
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="slow line", daemon=True)
        self.port = 0

    def __enter__(self) -> SlowLine:
        self._thread.start()
        self._listener = self._do(asyncio.start_server(self._serve, _LOOPBACK, self._wanted_port))
        self.port = int(self._listener.sockets[0].getsockname()[1])
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def counts(self) -> Counts:
        """What went over it so far."""
        return Counts(self._depth_at_client, self._opened, self._up.bytes_carried, self._down.bytes_carried)

    @property
    def is_quiet(self) -> bool:
        """Whether nobody is connected, and so nothing is on its way."""
        return not self._open

    def cut(self) -> None:
        """Break all connections, and let nobody through."""
        self._do(self._cut())

    def cut_after(self, sent: int) -> None:
        """Do so when the client will have sent that many bytes more."""
        self._cut_at = self._up.bytes_carried + sent

    @contextmanager
    def unlimited(self) -> Iterator[None]:
        """Carry as much as comes in no time, for what need not be measured."""
        slow = self._up, self._down, self._round_trip_s
        self._up, self._down, self._round_trip_s = _Direction(0.0, None), _Direction(0.0, None), 0.0
        try:
            yield
        finally:
            self._up, self._down, self._round_trip_s = slow

    def stall(self) -> None:
        """Carry nothing any more, and break nothing."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def go(self) -> None:
        """Work again after a cut or a stall."""
        self._do(self._go())

    def _do(self, work: Awaitable[_Result]) -> _Result:
        async def done() -> _Result:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result()

    async def _go(self) -> None:
        self._is_cut = False
        self._cut_at = None
        self._flowing.set()

    async def _cut(self) -> None:
        self._is_cut = True
        for connection in list(self._open):
            self._abort(connection)

    def _abort(self, connection: _Connection) -> None:
        for writer in connection.writers:
            writer.transport.abort()
        for task in connection.tasks:
            task.cancel()

    async def _close(self) -> None:
        self._listener.close()
        await self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            client_writer.transport.abort()
            return
        self._opened += 1
        depth = self._depth_at_client + 1
        connection = _Connection(self._opened, depth, self._loop.time() + self._round_trip_s)
        connection.writers.append(client_writer)
        connection.tasks.append(asyncio.ensure_future(self._carry_both(connection, client_reader, client_writer)))
        self._open.add(connection)
        try:
            await asyncio.wait(connection.tasks)
        finally:
            self._abort(connection)
            self._open.discard(connection)

    async def _carry_both(
        self, connection: _Connection, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        """Open the other side when what says so would arrive there, then carry both ways until both have ended."""
        up: asyncio.Queue[_Piece] = asyncio.Queue()
        taking = asyncio.ensure_future(self._take_sent(connection, client_reader, up))
        connection.tasks.append(taking)
        await asyncio.sleep(self._round_trip_s)
        self._depth_at_client = max(self._depth_at_client, connection.depth_at_server)
        await asyncio.sleep(self._round_trip_s / 2)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._server)
        except OSError:
            self._abort(connection)
            return
        connection.writers.append(server_writer)
        down: asyncio.Queue[_Piece] = asyncio.Queue()
        ways = (
            self._deliver(up, server_writer, lambda depth: self._reached_server(connection, depth)),
            self._take_received(connection, server_reader, down),
            self._deliver(down, client_writer, self._reached_client),
        )
        tasks = [taking, *map(asyncio.ensure_future, ways)]
        connection.tasks += tasks
        with contextlib.suppress(OSError):
            await asyncio.gather(*tasks)

    async def _take_sent(
        self, connection: _Connection, reader: asyncio.StreamReader, queue: asyncio.Queue[_Piece]
    ) -> None:
        while True:
            data = await _read(reader)
            if self._cut_at is not None and self._up.bytes_carried + len(data) > self._cut_at:
                self._loop.create_task(self._cut())
                return
            depth = max(self._depth_at_client, connection.depth_at_server if self._is_new(connection) else 0) + 1
            self._write_down(connection, "sent", data)
            queue.put_nowait(_Piece(await self._up.take(len(data), connection.opened_s), depth, data))
            if not data:
                return

    def _is_new(self, connection: _Connection) -> bool:
        return self._loop.time() < connection.opened_s

    async def _take_received(
        self, connection: _Connection, reader: asyncio.StreamReader, queue: asyncio.Queue[_Piece]
    ) -> None:
        while True:
            data = await _read(reader)
            self._write_down(connection, "received", data)
            depth = connection.depth_at_server
            queue.put_nowait(_Piece(await self._down.take(len(data), 0.0), depth, data))
            if not data:
                return

    async def _deliver(
        self, queue: asyncio.Queue[_Piece], writer: asyncio.StreamWriter, reached: Callable[[int], None]
    ) -> None:
        while True:
            piece = await queue.get()
            await asyncio.sleep(piece.due_s - self._loop.time())
            await self._flowing.wait()
            if not piece.data:
                writer.write_eof()
                return
            reached(piece.depth)
            writer.write(piece.data)
            await writer.drain()

    def _reached_server(self, connection: _Connection, depth: int) -> None:
        connection.depth_at_server = max(connection.depth_at_server, depth)

    def _reached_client(self, depth: int) -> None:
        self._depth_at_client = max(self._depth_at_client, depth)

    def _write_down(self, connection: _Connection, what: str, data: bytes) -> None:
        if self._record is not None:
            with (self._record / f"{connection.number:04}-{what}").open("ab") as file:
                file.write(data)


class _Piece(NamedTuple):
    """Data on its way, when it arrives, and its round trip; no data is the end of its direction."""

    due_s: float
    depth: int
    data: bytes


async def _read(reader: asyncio.StreamReader) -> bytes:
    """What comes next; nothing at the end, also where the other side broke off."""
    try:
        return await reader.read(_PIECE_BYTES)
    except OSError:
        return b""


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.slow_line")
    parser.add_argument("server", metavar="HOST:PORT")
    parser.add_argument("--round-trip", type=float, default=50, metavar="MS")
    parser.add_argument("--rate", type=float, metavar="MB/S")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--record", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    host, _, port = arguments.server.rpartition(":")
    bytes_per_s = arguments.rate * 1e6 if arguments.rate else None
    line = SlowLine(
        (host, int(port)),
        round_trip_s=arguments.round_trip / 1000,
        bytes_per_s=bytes_per_s,
        port=arguments.port,
        record=arguments.record,
    )
    with line:
        print(line.port, flush=True)
        before = line.counts
        for word in map(str.strip, sys.stdin):
            if word == "counts":
                now = line.counts
                print(json.dumps((now - before)._asdict()), flush=True)
                before = now
            else:
                {"cut": line.cut, "stall": line.stall, "go": line.go}[word]()


if __name__ == "__main__":
    _main()
