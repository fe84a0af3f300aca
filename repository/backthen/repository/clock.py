"""The only place that reads a clock. Times are integers, nanoseconds since 1970-01-01 UTC unless said otherwise."""

from __future__ import annotations

import time


def now_ns() -> int:
    """Wall clock, nanoseconds since the epoch."""
    return time.time_ns()


def monotonic_ns() -> int:
    """A clock that never goes back, nanoseconds since an arbitrary start."""
    return time.monotonic_ns()
