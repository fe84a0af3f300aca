"""Work done in the background before it is asked for, dropped where there is too much of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from queue import Empty, Full, Queue

WORKERS = 2
_WAITING_MAX = 16

_Task = tuple[Hashable, Callable[[], None]]


class AheadWorkers:
    """Threads that do tasks nobody waits for; each task once at a time, and none when many wait already.

    The threads begin with the first task, so that a process may fork before. They are daemons: a storage that hangs
    does not keep the process from ending.
    """

    def __init__(self, *, threads: int = WORKERS) -> None:
        """With no threads, nothing is done."""
        self._threads_max = threads
        self._tasks: Queue[_Task | None] = Queue(_WAITING_MAX)
        self._pending: set[Hashable] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def offer(self, key: Hashable, work: Callable[[], None]) -> bool:
        """Have `work` done some time, unless too much is waiting; whether that, or other work of the key, will be done.

        It must not raise.
        """
        if not self._threads_max:
            return False
        with self._lock:
            if key in self._pending:
                return True
            try:
                self._tasks.put_nowait((key, work))
            except Full:
                return False
            self._pending.add(key)
            if not self._threads:
                self._start()
        return True

    def close(self) -> list[threading.Thread]:
        """Drop what waits, and end the threads after what they are doing."""
        with self._lock:
            threads, self._threads = self._threads, []
            with suppress(Empty):  # the threads take from it, too
                while True:
                    self._tasks.get_nowait()
            for _ in threads:
                self._tasks.put_nowait(None)
        return threads

    def rest(self) -> None:
        """Likewise, and wait for their end; they begin again with the next task."""
        for thread in self.close():
            thread.join()

    def _start(self) -> None:
        for number in range(self._threads_max):
            thread = threading.Thread(target=self._run, name=f"ahead_{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            key, work = task
            try:
                work()
            finally:
                with self._lock:
                    self._pending.discard(key)
