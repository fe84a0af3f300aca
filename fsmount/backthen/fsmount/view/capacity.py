"""How large the file system is, for those who ask again and again.

Invariants: the storage is asked by one thread at a time, and at most once a minute; nobody waits for it more than a
second, and nobody at all once a figure is known.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from backthen.repository import NotInMemory, RepositoryError

REFRESH_INTERVAL_S = 60.0
"""A storage of a million packs is listed in seconds where it is near, in minutes where it is not."""
PATIENCE_S = 1.0

_NS_PER_S = 1_000_000_000
_log = logging.getLogger("backthen.fsmount")


class StoredBytes:
    """How many bytes the storage holds, as it was last found out. Safe to use from several threads."""

    def __init__(self, count: Callable[[], int], monotonic_ns: Callable[[], int]) -> None:
        """Find out nothing yet.

        Args:
            count: asks the storage; may block, and raise any `RepositoryError`.
            monotonic_ns: what time it is.
        """
        self._count = count
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._counting: threading.Event | None = None
        self._counted_ns = 0
        self._known: int | None = None

    def get(self, *, wait: bool) -> int:
        """The last figure; 0 where there is none after a second of waiting.

        Raises:
            NotInMemory: `wait` is not set, and there is none yet.
        """
        with self._lock:
            known = self._known
            if known is not None and self._monotonic_ns() - self._counted_ns < REFRESH_INTERVAL_S * _NS_PER_S:
                return known
            if known is None and not wait:
                raise NotInMemory
            counting = self._counting or self._start_counting()
        if known is not None:
            return known
        counting.wait(PATIENCE_S)
        return self._known or 0

    def _start_counting(self) -> threading.Event:
        self._counting = done = threading.Event()
        # A daemon: a storage that hangs must not keep the process from ending.
        threading.Thread(target=self._run, args=(done,), name="stored bytes", daemon=True).start()
        return done

    def _run(self, done: threading.Event) -> None:
        count = None
        try:
            count = self._count()
        except RepositoryError as error:
            _log.warning("it cannot be found out how much the storage holds: %s", error)
        except Exception:  # noqa: BLE001 - a bug below must not end what is asked for again
            _log.exception("it cannot be found out how much the storage holds")
        finally:
            with self._lock:
                if count is not None:
                    self._known = count
                self._counted_ns = self._monotonic_ns()
                self._counting = None
            done.set()
