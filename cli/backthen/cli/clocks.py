"""The only place of the command line that reads a clock."""

from __future__ import annotations

import time


def now_ns() -> int:
    """Wall clock, nanoseconds since 1970 UTC."""
    return time.time_ns()


def monotonic_s() -> float:
    """A clock that never goes back, seconds since an arbitrary start."""
    return time.monotonic()
