"""The line that other tests measure with: what it counts is what there was, and it breaks when it is told to."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.slow_line import Counts, SlowLine

ROUND_TRIP_S = 0.06
QUESTION = b"question"
PATIENCE_S = 30


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    """Answers each question with itself, on as many connections as there are."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        host, port = listener.getsockname()
        yield host, port
        listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection:
        try:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
        except ConnectionError:
            return


def _connect(line: SlowLine) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), PATIENCE_S)


def _receive(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length:
        data = connection.recv(1 << 16)
        if not data:
            break
        received += data
    return received


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(QUESTION)
    return _receive(connection, len(QUESTION))


def test_questions_in_turn_are_a_round_trip_each_and_so_is_a_connection(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=ROUND_TRIP_S) as line, _connect(line) as connection:
        begun = time.monotonic()
        for _ in range(3):
            assert _ask(connection) == QUESTION
        taken = time.monotonic() - begun
    assert line.counts == Counts(4, 1, 24, 24)
    assert taken >= 4 * ROUND_TRIP_S


def test_questions_at_once_are_one_round_trip(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=ROUND_TRIP_S) as line, _connect(line) as connection:
        _ask(connection)
        before = line.counts
        connection.sendall(QUESTION * 5)
        assert _receive(connection, 5 * len(QUESTION)) == QUESTION * 5
        assert Counts(1, 0, 40, 40) == line.counts - before


def test_questions_at_once_on_many_connections_are_one_round_trip(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=ROUND_TRIP_S) as line, ThreadPoolExecutor(4) as pool:
        connections = list(pool.map(lambda _: _connect(line), range(4)))
        assert [QUESTION] * 4 == list(pool.map(_ask, connections))
        assert line.counts == Counts(2, 4, 32, 32)
        for connection in connections:
            connection.close()


def test_a_connection_opened_after_an_answer_adds_its_own_round_trip(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=ROUND_TRIP_S) as line:
        for _ in range(2):
            with _connect(line) as connection:
                _ask(connection)
    assert line.counts == Counts(4, 2, 16, 16)


def test_it_carries_no_more_than_it_can(server: tuple[str, int]) -> None:
    sent = bytes(500_000)
    with SlowLine(server, round_trip_s=0.0, bytes_per_s=1e6) as line, _connect(line) as connection:
        begun = time.monotonic()
        thread = threading.Thread(target=connection.sendall, args=(sent,))
        thread.start()
        assert _receive(connection, len(sent)) == sent
        thread.join()
        taken = time.monotonic() - begun
    assert taken >= 0.5
    assert (500_000, 500_000) == line.counts[2:]


def test_what_need_not_be_measured_is_carried_at_once(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=PATIENCE_S, bytes_per_s=1.0) as line:
        with line.unlimited(), _connect(line) as connection:
            assert _ask(connection) == QUESTION
        assert (0, 0) == line.counts[2:]


def test_a_cut_line_breaks_off_and_lets_nobody_through_until_it_is_mended(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=0.0) as line:
        with _connect(line) as connection:
            _ask(connection)
            line.cut()
            with pytest.raises(ConnectionError):
                while _ask(connection):
                    pass
                raise ConnectionError
        with pytest.raises(ConnectionError), _connect(line) as refused:
            if not _ask(refused):
                raise ConnectionError
        line.go()
        with _connect(line) as connection:
            assert _ask(connection) == QUESTION


def test_a_line_is_cut_after_as_many_bytes_as_wanted(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=0.0) as line, _connect(line) as connection:
        line.cut_after(3 * len(QUESTION))
        answers = 0
        with pytest.raises(ConnectionError):
            while _ask(connection):
                answers += 1
            raise ConnectionError
    assert (answers, line.counts.sent) == (3, 3 * len(QUESTION))


def test_a_stalled_line_keeps_what_it_has_until_it_goes_on(server: tuple[str, int]) -> None:
    with SlowLine(server, round_trip_s=0.0) as line, _connect(line) as connection:
        _ask(connection)
        line.stall()
        connection.sendall(QUESTION)
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        line.go()
        connection.settimeout(PATIENCE_S)
        assert _receive(connection, len(QUESTION)) == QUESTION


def test_all_that_it_carries_is_written_down(server: tuple[str, int], tmp_path: Path) -> None:
    with SlowLine(server, round_trip_s=0.0, record=tmp_path) as line:
        for text in (b"one", b"two"):
            with _connect(line) as connection:
                connection.sendall(text)
                _receive(connection, 3)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {"0001-sent": b"one", "0001-received": b"one", "0002-sent": b"two", "0002-received": b"two"}


def test_it_can_be_used_from_a_shell(server: tuple[str, int]) -> None:
    host, port = server
    command = [sys.executable, "-m", "tests.support.slow_line", f"{host}:{port}", "--round-trip", "1", "--rate", "20"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=Path(__file__).parents[2], text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        with socket.create_connection(("127.0.0.1", int(process.stdout.readline())), PATIENCE_S) as connection:
            _ask(connection)
        print("counts", file=process.stdin, flush=True)
        said = process.stdout.readline()
        process.stdin.close()
    assert '{"round_trips": 2, "connections": 1, "sent": 8, "received": 8}\n' == said
