"""What is said to the person at the terminal, on standard error: short messages, and one line that changes.

A message takes the line away first, so that they never run into each other.
"""

from __future__ import annotations

import sys

_TAKE_AWAY = "\r\x1b[K"


class _Line:
    """The line that changes, if it is shown."""

    is_shown = False


def warn(message: str) -> None:
    """Say something that does not stop the command. `message` must be printable already."""
    clear_line()
    print(f"backthen: {message}", file=sys.stderr, flush=True)


def draw_line(text: str) -> None:
    """Show the line in place of what it showed before. `text` is printable, and narrower than the terminal."""
    sys.stderr.write(_TAKE_AWAY + text)
    sys.stderr.flush()
    _Line.is_shown = True


def clear_line() -> None:
    """Take the line away, if it is shown."""
    if _Line.is_shown:
        _Line.is_shown = False
        sys.stderr.write(_TAKE_AWAY)
        sys.stderr.flush()
