"""Does what has to wait for the storage, in threads of its own, for adapters that answer the kernel themselves.

Invariants: each request is answered once, inside the deadline; a thread that hangs keeps neither the others nor the end
of the process from going on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from backthen.repository import monotonic_ns

WORKERS_MAX = 16
WAITING_MAX = 512
"""Requests that wait at one time. Whoever brings one more waits as well, no longer than the deadline of the first."""

_NS_PER_S = 1_000_000_000

Answer = Callable[[], None]


class Waiting:
    """The requests that wait for the storage. Safe to use from several threads."""

    def __init__(self, give_up: Callable[[int], None], patience_s: Callable[[], float]) -> None:
        """Begin with none.

        Args:
            give_up: answers the request of a number whose deadline has passed.
            patience_s: how many seconds the next request may take.
        """
        self._give_up = give_up
        self._patience_s = patience_s
        self._due_ns: dict[int, int] = {}
        # The watch looks again by then, or when it is told to.
        self._watched_ns = 0
        self._changed = threading.Condition()
        self._places = threading.BoundedSemaphore(WAITING_MAX)
        self._queue: SimpleQueue[tuple[int, Callable[[], Answer]] | None] = SimpleQueue()
        self._in_work = 0
        self._workers = 0
        self._is_closed = False
        _start(self._watch)

    def add(self, request: int, ask: Callable[[], Answer]) -> None:
        """Have a request answered.

        Args:
            request: its number, unlike those of all that wait.
            ask: waits for what is needed and gives what answers, which is called unless the request was given up.
        """
        self._places.acquire()
        due_ns = monotonic_ns() + int(self._patience_s() * _NS_PER_S)
        with self._changed:
            self._due_ns[request] = due_ns
            if len(self._due_ns) == 1 or due_ns < self._watched_ns:
                self._changed.notify()
            self._in_work += 1
            # Each thread has memory of its own, so there are no more than are needed.
            if self._in_work > self._workers and self._workers < WORKERS_MAX:
                self._workers += 1
                _start(self._work)
        self._queue.put((request, ask))

    def close(self) -> None:
        """Let the threads end, each after what it does."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            for _ in range(self._workers):
                self._queue.put(None)

    def _work(self) -> None:
        while work := self._queue.get():
            request, ask = work
            if request in self._due_ns:
                answer = ask()
                if self._take(request):
                    answer()
            with self._changed:
                self._in_work -= 1

    def _take(self, request: int) -> bool:
        """Whether it is the caller who answers a request."""
        with self._changed:
            if self._due_ns.pop(request, None) is None:
                return False
        self._places.release()
        return True

    def _watch(self) -> None:
        while (request := self._overdue()) is not None:
            if self._take(request):
                self._give_up(request)

    def _overdue(self) -> int | None:
        """The next request that was not answered in time; None at the end."""
        with self._changed:
            while not self._is_closed:
                if not self._due_ns:
                    self._changed.wait()
                    continue
                request = min(self._due_ns, key=self._due_ns.__getitem__)
                self._watched_ns = self._due_ns[request]
                left_ns = self._watched_ns - monotonic_ns()
                if left_ns <= 0:
                    return request
                self._changed.wait(left_ns / _NS_PER_S)
        return None


def _start(run: Callable[[], None]) -> None:
    threading.Thread(target=run, name="waiting for the storage", daemon=True).start()
