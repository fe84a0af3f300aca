"""What long commands tell while they run."""

from __future__ import annotations

import json

import pytest

from backthen.cli.progress import Amounts, ConsoleReporter, EventReporter, progress_line


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_drawn_in_the_first_two_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = ConsoleReporter(draws=True, clock=clock)
    clock.now += 1.9
    listener.advance(files=1, size=10)
    listener.close()
    assert capsys.readouterr().err == ""


def test_the_line_is_drawn_and_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = ConsoleReporter(draws=True, clock=clock)
    listener.start("reading", bytes_total=4096)
    clock.now += 4
    listener.advance(files=3, size=1024, current=b"/a\x1b")
    drawn = capsys.readouterr().err
    assert "reading: 3 files, 1.0 KiB of 4.0 KiB, 256 B/s, 12.0 s left  /a\\x1b" in drawn
    listener.close()
    assert capsys.readouterr().err == "\r\x1b[K"


def test_nothing_is_drawn_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = ConsoleReporter(draws=False, clock=clock)
    clock.now += 60
    listener.advance(files=1)
    assert capsys.readouterr().err == ""


def test_a_problem_is_named_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    listener = ConsoleReporter(draws=False)
    listener.problem(b"/a\nb", "Permission denied")
    assert capsys.readouterr().err == "backthen: /a\\nb: Permission denied\n"
    assert listener.problems == 1


def test_the_line_fits_the_terminal() -> None:
    clock = Clock()
    amounts = Amounts(clock)
    amounts.start("saving", None, 10**12)
    clock.now += 10
    amounts.add(1000, 10**9, b"/a/very/long/path/" + b"x" * 500)
    for width in (20, 40, 80, 200):
        assert len(progress_line(amounts, width)) < width


def test_events_come_once_a_second_and_problems_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = EventReporter(progress=True, clock=clock)
    listener.start("reading", files_total=10)
    listener.advance(files=1)
    listener.problem(b"/caf\xe9", "gone")
    clock.now += 1
    listener.advance(files=1, size=5)
    listener.advance(files=1)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events] == ["problem", "progress"]
    assert events[0] == {"event": "problem", "path": "/caf\\xe9", "path_bytes": "L2NhZuk=", "message": "gone"}
    assert tuple(events[1][key] for key in ("files", "files_total", "bytes", "seconds_left")) == (2, 10, 5, None)
    assert listener.problems == 1


def test_quiet_events_are_problems_alone(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = EventReporter(progress=False, clock=clock)
    clock.now += 10
    listener.advance(files=1)
    assert capsys.readouterr().out == ""
