"""What long commands tell while they run."""

from __future__ import annotations

import json
import logging

import pytest

from backthen.cli.notices import warn
from backthen.cli.progress import Amounts, ConsoleReporter, EventReporter, progress_line
from backthen.cli.session import start_logging
from backthen.cli.settings import Options, resolve_settings


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_drawn_in_the_first_two_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = ConsoleReporter(draws=True, clock=clock)
    clock.now += 60  # a password is typed
    listener.start("save")
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
    assert "reading: 3 files, 1.0 KiB of 4.0 KiB, 256 B/s, 12 s left  /a\\x1b" in drawn
    listener.close()
    assert capsys.readouterr().err == "\r\x1b[K"


def test_nothing_is_drawn_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = ConsoleReporter(draws=False, clock=clock)
    listener.start("save")
    clock.now += 60
    listener.advance(files=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("is_logged", [False, True])
def test_a_message_takes_the_line_away_first(is_logged: bool, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers
    root.handlers = []
    try:
        start_logging(resolve_settings(Options(), {}))
        clock = Clock()
        listener = ConsoleReporter(draws=True, clock=clock)
        listener.start("save")
        clock.now += 4
        listener.advance(files=1)
        capsys.readouterr()
        if is_logged:
            logging.getLogger("backthen.repository").warning("careful")
        else:
            warn("careful")
        assert capsys.readouterr().err == "\r\x1b[Kbackthen: careful\n"
    finally:
        root.handlers = before


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("verify", "Comparing: 5 of 20 files, 1/s, 12 s left"),
        ("index", "Checking the index: 5 of 20 packs, 1/s, 12 s left"),
        ("snapshots", "Checking snapshots: 5 of 20 files, 1/s, 12 s left"),
    ],
)
def test_without_bytes_the_files_tell_how_long_it_takes(phase: str, expected: str) -> None:
    clock = Clock()
    amounts = Amounts(clock)
    amounts.start(phase, 20, None)
    clock.now += 4
    amounts.add(5, 0, b"")
    assert expected == progress_line(amounts, 100)


def test_what_was_expected_may_turn_out_to_be_too_little() -> None:
    clock = Clock()
    amounts = Amounts(clock)
    amounts.start("save", 2, 1000)
    clock.now += 2
    amounts.add(3, 4096, b"/a")
    assert progress_line(amounts, 100) == "Saving: 3 files, 4.0 KiB, 2.0 KiB/s  /a"


def test_what_is_found_out_meanwhile_is_told() -> None:
    clock = Clock()
    listener = ConsoleReporter(draws=True, clock=clock)
    listener.start("save")
    assert listener.lacks_totals
    listener.expect(files_total=10, bytes_total=100)
    is_told = not listener.lacks_totals
    assert is_told
    assert not ConsoleReporter(draws=False).lacks_totals, "nobody watches"


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
    assert progress_line(amounts, 60).startswith("saving: 1,000 files, 954 MiB, 95.4 MiB/s, 2 h 46 min left")


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
    assert tuple(events[1][key] for key in ("files", "files_total", "bytes", "seconds_left")) == (2, 10, 5, 4)
    assert listener.problems == 1


def test_quiet_events_are_problems_alone(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    listener = EventReporter(progress=False, clock=clock)
    clock.now += 10
    listener.advance(files=1)
    assert capsys.readouterr().out == ""


def test_what_is_sent_is_shown_beside_what_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    for listener in (ConsoleReporter(draws=True, clock=clock), EventReporter(progress=True, clock=clock)):
        listener.watch_sent(lambda: 2048)
        listener.start("save", bytes_total=8192)
        clock.now += 4
        listener.advance(files=3, size=4096)
    shown = capsys.readouterr()
    assert "Saving: 3 files, 4.0 KiB of 8.0 KiB, 1.0 KiB/s, 2.0 KiB sent, 4 s left" in shown.err
    assert 2048 == json.loads(shown.out)["bytes_sent"]
