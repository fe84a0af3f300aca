"""How fast bytes may go over a line: a token bucket. Who sends or fetches asks it, and waits."""

from __future__ import annotations

import threading
from collections.abc import Callable

from backthen.repository import clock

_NS_PER_S = 1_000_000_000
BURST_NS = _NS_PER_S // 10
"""What was not used within this time is not made up for: a line that was idle does not run faster afterwards."""


class Pace:
    """Bytes a second, shared by all that go one way over one line. Safe to use from several threads."""

    def __init__(self, bytes_per_s: int | None, monotonic_ns: Callable[[], int] = clock.monotonic_ns) -> None:
        """Begin to count; None sets no limit."""
        assert bytes_per_s is None or bytes_per_s > 0
        self._bytes_per_s = bytes_per_s
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._passed_ns = monotonic_ns()

    @property
    def is_limited(self) -> bool:
        """Whether there is a limit."""
        return self._bytes_per_s is not None

    def delay_s(self, count: int) -> float:
        """Let `count` more bytes pass; for how many seconds to wait before they may."""
        if self._bytes_per_s is None:
            return 0.0
        with self._lock:
            now_ns = self._monotonic_ns()
            begin_ns = max(self._passed_ns, now_ns - BURST_NS)
            self._passed_ns = begin_ns + count * _NS_PER_S // self._bytes_per_s
            return max(self._passed_ns - now_ns, 0) / _NS_PER_S
