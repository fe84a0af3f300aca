"""What a view is asked, how long it takes, and whether the storage keeps it waiting.

Counting costs a fraction of a microsecond for what is answered from memory; only what may wait is timed. Where several
threads count at once a figure may miss one of them.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from backthen.repository import StorageState

REQUEST_DEADLINE_S = 30.0
"""How long a request may wait for the storage where nothing else is said. Where `fs.fuse.max_request_timeout` is set it
must be below that, or Linux aborts the whole mount."""
SLOWEST_MAX = 5
SILENT_S = 5.0
"""A storage that answered nothing for so long is said not to answer."""
IMPATIENT_S = 0.2
"""How long a request waits for a storage that has let others wait for as long as they may."""
TROUBLE_REPEATED_S = 60.0
"""A storage that fails now and then is not told of more often."""

_NS_PER_S = 1_000_000_000
_log = logging.getLogger("backthen.fsmount")


class Answer(NamedTuple):
    """A request that waited: what was asked, for how long it took, and when it was answered."""

    request: str
    duration_ns: int
    ended_ns: int


class Activity:
    """Counts requests, and watches the storage for those who wait for it. Safe to use from several threads.

    Attributes:
        from_memory: requests that were answered at once.
        waited: requests that were answered after they may have waited.
        failed: requests that were answered with an error that is not the asker's.
        given_up: requests that were not waited for any longer.
    """

    def __init__(self, storage_state: Callable[[], StorageState], monotonic_ns: Callable[[], int]) -> None:
        self.from_memory = 0
        self.waited = 0
        self.failed = 0
        self.given_up = 0
        self._storage_state = storage_state
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, int] = {}
        self._slowest: list[Answer] = []
        self._trouble_since_ns: int | None = None
        self._trouble_told_ns: int | None = None

    @contextmanager
    def waiting(self, request: str) -> Iterator[None]:
        """Time a request that may wait."""
        number, start_ns = next(self._numbers), self._monotonic_ns()
        with self._lock:
            self._waiting[number] = start_ns
        try:
            yield
        finally:
            end_ns = self._monotonic_ns()
            with self._lock:
                del self._waiting[number]
                self.waited += 1
                self._slowest.append(Answer(request, end_ns - start_ns, end_ns))
                self._slowest.sort(key=_duration, reverse=True)
                del self._slowest[SLOWEST_MAX:]
            self._tell_changes()

    def slowest(self) -> list[Answer]:
        """Those that took longest, the slowest first."""
        with self._lock:
            return list(self._slowest)

    def waiting_since(self) -> list[int]:
        """When the requests began that are not answered yet, nobody waiting for some of them any longer."""
        with self._lock:
            return sorted(self._waiting.values())

    def patience_s(self, deadline_s: float) -> float:
        """How long the next request should wait, if each may wait for `deadline_s` seconds."""
        silent_s = self.silent_s(self._storage_state())
        return deadline_s if silent_s < deadline_s else min(deadline_s, IMPATIENT_S)

    def give_up(self) -> None:
        """A request is not waited for any longer."""
        self.given_up += 1
        self._tell_changes()

    def silent_s(self, state: StorageState) -> float:
        """For how long a storage that was asked has answered nothing."""
        if state.silent_since_ns is None:
            return 0.0
        return (self._monotonic_ns() - state.silent_since_ns) / _NS_PER_S

    def _tell_changes(self) -> None:
        """Log once that the storage is in trouble, and once that it answers again."""
        state = self._storage_state()
        silent_s = self.silent_s(state)
        if silent_s >= SILENT_S:
            self._tell_trouble(f"the storage has not answered for {silent_s:.0f} s")
        elif state.failing_since_ns is not None:
            self._tell_trouble(f"the storage fails: {state.failure}")
        else:
            self._tell_recovery()

    def _tell_trouble(self, message: str) -> None:
        with self._lock:
            now_ns = self._monotonic_ns()
            if self._trouble_since_ns is not None:
                return
            told_ns = self._trouble_told_ns
            if told_ns is not None and now_ns - told_ns < TROUBLE_REPEATED_S * _NS_PER_S:
                return
            self._trouble_since_ns = self._trouble_told_ns = now_ns
        _log.warning("%s; what needs it fails until it answers again", message)

    def _tell_recovery(self) -> None:
        if self._trouble_since_ns is None:
            return
        with self._lock:
            since_ns, self._trouble_since_ns = self._trouble_since_ns, None
        if since_ns is not None:
            _log.warning("the storage answers again, after %.0f s", (self._monotonic_ns() - since_ns) / _NS_PER_S)


def _duration(answer: Answer) -> int:
    return answer.duration_ns
