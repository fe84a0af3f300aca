"""What long commands tell while they run: a line on the terminal for people, JSON lines for programs.

Nobody sees a line before two seconds have passed: what is quick stays quiet.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from backthen.cli.clocks import monotonic_s
from backthen.cli.documents import print_event
from backthen.cli.names import name_fields, shown_name, shown_text
from backthen.cli.notices import warn
from backthen.cli.quantities import count_text, duration_text, size_text
from backthen.cli.settings import Settings

QUIET_AT_FIRST_S = 2.0
_LINE_INTERVAL_S = 0.1
_EVENT_INTERVAL_S = 1.0
_RATE_AFTER_S = 1.0


class Amounts:
    """How far an operation is, whoever shows it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing done yet."""
        self.clock = clock
        self.begin = clock()
        self.start("", None, None)

    def start(self, phase: str, files_total: int | None, bytes_total: int | None) -> None:
        """Begin a phase."""
        self.phase = phase
        self.phase_begin = self.clock()
        self.files_total = files_total
        self.bytes_total = bytes_total
        self.files = 0
        self.size = 0
        self.current = b""

    def add(self, files: int, size: int, current: bytes) -> None:
        """Count what was done."""
        self.files += files
        self.size += size
        self.current = current or self.current

    @property
    def left_s(self) -> float | None:
        """Seconds until the phase is done at its present rate; None while that is not known."""
        passed = self.clock() - self.phase_begin
        if not self.bytes_total or not self.size or passed < _RATE_AFTER_S:
            return None
        return max(self.bytes_total - self.size, 0) * passed / self.size


class Reporter(Protocol):
    """A listener to an operation (the repository's `Progress`) that counts problems and can be closed."""

    problems: int

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins."""
        ...

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        """So many more files and bytes are done."""
        ...

    def problem(self, path: bytes, message: str) -> None:
        """Something could not be read or written as it is; the operation goes on."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class ConsoleReporter:
    """Problems as they happen, and on a terminal one line that is drawn again and again."""

    def __init__(self, *, draws: bool, names_each: bool = False, clock: Callable[[], float] = monotonic_s) -> None:
        """Report on standard error.

        Args:
            draws: whether standard error is a terminal whose user wants to see the line.
            names_each: whether every file is named.
            clock: gives seconds.
        """
        self._names_each = names_each
        self.problems = 0
        self._amounts = Amounts(clock)
        self._draws = draws
        self._next = self._amounts.begin + QUIET_AT_FIRST_S
        self._is_drawn = False

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins."""
        self._amounts.start(phase, files_total, bytes_total)

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        """Count, and draw the line when it is time."""
        self._amounts.add(files, size, current)
        if self._names_each and current:
            print(f"backthen: {shown_name(current)}", file=sys.stderr)
        if self._draws and (now := self._amounts.clock()) >= self._next:
            self._next = now + _LINE_INTERVAL_S
            width = shutil.get_terminal_size().columns
            sys.stderr.write("\r\x1b[K" + progress_line(self._amounts, width))
            sys.stderr.flush()
            self._is_drawn = True

    def problem(self, path: bytes, message: str) -> None:
        """Name the problem above the line."""
        self.problems += 1
        self.close()
        warn(f"{shown_name(path)}: {shown_text(message)}")

    def close(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_drawn = False


class EventReporter:
    """One JSON line per event: each problem, and progress once a second at most."""

    def __init__(self, *, progress: bool, clock: Callable[[], float] = monotonic_s) -> None:
        """Report on standard output.

        Args:
            progress: whether progress is wanted, or problems alone.
            clock: gives seconds.
        """
        self.problems = 0
        self._amounts = Amounts(clock)
        self._progress = progress
        self._next = self._amounts.begin + _EVENT_INTERVAL_S

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins."""
        self._amounts.start(phase, files_total, bytes_total)

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        """Count, and print an event when it is time."""
        self._amounts.add(files, size, current)
        if self._progress and (now := self._amounts.clock()) >= self._next:
            self._next = now + _EVENT_INTERVAL_S
            print_event("progress", _progress_fields(self._amounts))

    def problem(self, path: bytes, message: str) -> None:
        """Print the problem."""
        self.problems += 1
        print_event("problem", {**name_fields("path", path), "message": message})

    def close(self) -> None:
        """There is nothing to take away."""


@contextmanager
def reporter(settings: Settings) -> Iterator[Reporter]:
    """The listener that fits the settings, closed at the end whatever happens."""
    listener: Reporter
    if settings.json:
        listener = EventReporter(progress=not settings.quiet)
    else:
        names_each = settings.verbosity > 1 or settings.debug
        draws = sys.stderr.isatty() and not settings.quiet and not names_each
        listener = ConsoleReporter(draws=draws, names_each=names_each)
    try:
        yield listener
    finally:
        listener.close()


def progress_line(amounts: Amounts, width: int) -> str:
    """The line for people, cut to the width of the terminal: what is done, how fast, how long still, on what."""
    passed = amounts.clock() - amounts.phase_begin
    size = size_text(amounts.size)
    if amounts.bytes_total:
        size += f" of {size_text(amounts.bytes_total)}"
    files = (
        f"{amounts.files:,} of {amounts.files_total:,}" if amounts.files_total else count_text(amounts.files, "file")
    )
    parts = [files, size]
    if passed >= _RATE_AFTER_S:
        parts.append(f"{size_text(round(amounts.size / passed))}/s")
    if (left := amounts.left_s) is not None:
        parts.append(f"{duration_text(round(left))} left")
    text = f"{amounts.phase}: " if amounts.phase else ""
    text += ", ".join(parts)
    room = width - len(text) - 3
    if room >= 12 and amounts.current:
        text += "  " + _end_of(shown_name(amounts.current), room)
    return text[: width - 1]


def _end_of(text: str, room: int) -> str:
    # Characters of double width would make the terminal break the line.
    narrow = text if text.isascii() else "".join(c if c.isascii() else "?" for c in text)
    return narrow if len(narrow) <= room else "..." + narrow[3 - room :]


def _progress_fields(amounts: Amounts) -> dict[str, object]:
    return {
        "phase": amounts.phase,
        "files": amounts.files,
        "files_total": amounts.files_total,
        "bytes": amounts.size,
        "bytes_total": amounts.bytes_total,
        "seconds_left": None if amounts.left_s is None else round(amounts.left_s),
        **(name_fields("current", amounts.current) if amounts.current else {}),
    }
