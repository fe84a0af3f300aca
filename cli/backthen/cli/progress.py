"""What long commands tell while they run: a line on the terminal for people, JSON lines for programs.

Nobody sees a line before two seconds have passed: what is quick stays quiet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from backthen.cli.clocks import monotonic_s
from backthen.cli.documents import print_event
from backthen.cli.names import name_fields, shown_name, shown_text
from backthen.cli.notices import clear_line, draw_line, warn
from backthen.cli.quantities import count_text, duration_text, size_text
from backthen.cli.settings import Settings

QUIET_AT_FIRST_S = 2.0
_LINE_INTERVAL_S = 0.1
_EVENT_INTERVAL_S = 1.0
_RATE_AFTER_S = 1.0
_NAME_CHARACTERS_MIN = 12
_WIDTH_UNKNOWN = 80
# The repository's phases as they are shown, and what their numbers count.
_PHASES: Mapping[str, tuple[str, str]] = {
    "save": ("Saving", "file"),
    "restore": ("Restoring", "file"),
    "verify": ("Comparing", "file"),
    "index": ("Checking the index", "pack"),
    "snapshots": ("Checking snapshots", "file"),
    "data": ("Reading data", "pack"),
    "forget": ("Forgetting", "snapshot"),
    "find": ("Finding what is needed", "file"),
    "move": ("Storing anew", "pack"),
}


class Amounts:
    """How far an operation is, whoever shows it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Nothing done yet."""
        self.clock = clock
        self.sent: Callable[[], int] | None = None
        self.start("", None, None)

    def start(self, phase: str, files_total: int | None, bytes_total: int | None) -> None:
        """Begin a phase."""
        self.phase = phase
        self.begin = self.clock()
        self.expect(files_total, bytes_total)
        self.files = 0
        self.size = 0
        self.current = b""

    def expect(self, files_total: int | None, bytes_total: int | None) -> None:
        """Learn how much there is to do in this phase."""
        self.files_total = files_total
        self.bytes_total = bytes_total

    def add(self, files: int, size: int, current: bytes) -> None:
        """Count what was done."""
        self.files += files
        self.size += size
        self.current = current or self.current

    @property
    def passed_s(self) -> float:
        """Seconds since the phase began."""
        return self.clock() - self.begin

    @property
    def left_s(self) -> float | None:
        """Seconds until the phase is done at its present rate; None while that is not known.

        By bytes where their total is known, else by files.
        """
        done, total = (self.size, self.bytes_total) if self.bytes_total else (self.files, self.files_total)
        passed = self.passed_s
        if not total or not done or done > total or passed < _RATE_AFTER_S:
            return None
        return (total - done) * passed / done


class Reporter(Protocol):
    """A listener to an operation (the repository's `Progress`) that counts problems and can be closed."""

    problems: int

    @property
    def names_each(self) -> bool:
        """Whether every file is named, so that each is to be told by itself."""
        ...

    @property
    def lacks_totals(self) -> bool:
        """Whether somebody watches who would like to know how much there is to do, and does not."""
        ...

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins."""
        ...

    def expect(self, *, files_total: int, bytes_total: int) -> None:
        """So much there is to do in this phase, as was found out meanwhile; may be called from any thread."""
        ...

    def watch_sent(self, sent: Callable[[], int]) -> None:
        """`sent` says how many bytes went to a storage elsewhere so far."""
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
        self.names_each = names_each
        self.problems = 0
        self._amounts = Amounts(clock)
        self._draws = draws
        self._next: float | None = None

    @property
    def lacks_totals(self) -> bool:
        """See `Reporter`."""
        return self._draws and self._amounts.files_total is None

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins; what came before the first, like typing a password, took none of the two seconds."""
        self._amounts.start(phase, files_total, bytes_total)
        if self._next is None:
            self._next = self._amounts.begin + QUIET_AT_FIRST_S

    def expect(self, *, files_total: int, bytes_total: int) -> None:
        """See `Reporter`."""
        self._amounts.expect(files_total, bytes_total)

    def watch_sent(self, sent: Callable[[], int]) -> None:
        """See `Reporter`."""
        self._amounts.sent = sent

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        """Count, and draw the line when it is time."""
        self._amounts.add(files, size, current)
        if self.names_each and current and files:
            print(f"backthen: {shown_name(current)}", file=sys.stderr)
        if self._draws and self._next is not None and (now := self._amounts.clock()) >= self._next:
            self._next = now + _LINE_INTERVAL_S
            draw_line(progress_line(self._amounts, _terminal_width()))

    def problem(self, path: bytes, message: str) -> None:
        """Name the problem above the line."""
        self.problems += 1
        warn(f"{shown_name(path)}: {shown_text(message)}")

    def close(self) -> None:
        """Take the line away."""
        clear_line()


class EventReporter:
    """One JSON line per event: each problem, and progress once a second at most."""

    def __init__(self, *, progress: bool, clock: Callable[[], float] = monotonic_s) -> None:
        """Report on standard output.

        Args:
            progress: whether progress is wanted, or problems alone.
            clock: gives seconds.
        """
        self.names_each = False
        self.problems = 0
        self._amounts = Amounts(clock)
        self._progress = progress
        self._next = self._amounts.begin + _EVENT_INTERVAL_S

    @property
    def lacks_totals(self) -> bool:
        """See `Reporter`."""
        return self._progress and self._amounts.files_total is None

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        """A phase begins."""
        self._amounts.start(phase, files_total, bytes_total)

    def expect(self, *, files_total: int, bytes_total: int) -> None:
        """See `Reporter`."""
        self._amounts.expect(files_total, bytes_total)

    def watch_sent(self, sent: Callable[[], int]) -> None:
        """See `Reporter`."""
        self._amounts.sent = sent

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
        draws = _is_terminal() and not settings.quiet and not names_each
        listener = ConsoleReporter(draws=draws, names_each=names_each)
    try:
        yield listener
    finally:
        listener.close()


def progress_line(amounts: Amounts, width: int) -> str:
    """The line for people: what is done, how fast, how long still, on what; cut to the width of the terminal."""
    text = _amounts_text(amounts, of_totals=True)
    if len(text) >= width:
        text = _amounts_text(amounts, of_totals=False)
    room = width - len(text) - 3
    if room >= _NAME_CHARACTERS_MIN and amounts.current:
        text += "  " + _end_of(shown_name(amounts.current), room)
    return text[: width - 1]


def _amounts_text(amounts: Amounts, *, of_totals: bool) -> str:
    phase, noun = _PHASES.get(amounts.phase, (amounts.phase, "file"))
    files_total = amounts.files_total if of_totals else None
    bytes_total = amounts.bytes_total if of_totals else None
    files = f"{amounts.files:,} of " if files_total and amounts.files <= files_total else ""
    parts = [files + count_text(files_total if files and files_total else amounts.files, noun)]
    if amounts.size or amounts.bytes_total:
        of = f" of {size_text(bytes_total)}" if bytes_total and amounts.size <= bytes_total else ""
        parts.append(size_text(amounts.size) + of)
    if (passed := amounts.passed_s) >= _RATE_AFTER_S:
        by_bytes = amounts.size or amounts.bytes_total
        rate = size_text(round(amounts.size / passed)) if by_bytes else f"{amounts.files / passed:,.0f}"
        parts.append(f"{rate}/s")
    if amounts.sent is not None:
        parts.append(f"{size_text(amounts.sent())} sent")
    if (left := amounts.left_s) is not None:
        parts.append(f"{duration_text(left) if left >= 59.5 else f'{left:.0f} s'} left")
    return f"{phase}: {', '.join(parts)}" if phase else ", ".join(parts)


def _is_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be taken away again."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH_UNKNOWN
    except (OSError, ValueError):
        return _WIDTH_UNKNOWN


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
        "bytes_sent": None if amounts.sent is None else amounts.sent(),
        **(name_fields("current", amounts.current) if amounts.current else {}),
    }
