"""Short messages to the person at the terminal: standard error, one line each, under our name."""

from __future__ import annotations

import sys


def warn(message: str) -> None:
    """Say something that does not stop the command. `message` must be printable already."""
    print(f"backthen: {message}", file=sys.stderr, flush=True)
