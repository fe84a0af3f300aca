"""Asks the view for an adapter whose library calls it from threads of its own.

Invariants: what is in memory is answered in the caller's thread, everything else inside the deadline; what waits for
the storage waits in a daemon thread, which is left to finish when the deadline has passed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Concatenate, ParamSpec, TypeVar

from backthen.fsmount.view import REQUEST_DEADLINE_S, View
from backthen.repository import BlobSource, NotInMemory, monotonic_ns

WAITING_MAX = 16
"""Requests that wait for the storage at one time. Further ones wait for them, each inside its own deadline."""

_NS_PER_S = 1_000_000_000
_P = ParamSpec("_P")
_R = TypeVar("_R")


class Asking:
    """Asks a view. Safe to use from several threads."""

    def __init__(self, view: View, *, deadline_s: float = REQUEST_DEADLINE_S) -> None:
        self._view = view
        self._deadline_s = deadline_s
        self._slots = threading.BoundedSemaphore(WAITING_MAX)

    def __call__(self, ask: Callable[Concatenate[BlobSource, _P], _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """What the view says, from memory if it can be had there.

        Args:
            ask: a method of the view, or of something above it.

        Raises:
            StorageUnavailable: nothing was said before the deadline.
            ViewError: the view refuses.
        """
        try:
            return ask(self._view.near, *args, **kwargs)
        except NotInMemory:
            return self._wait_for(lambda: ask(self._view.source, *args, **kwargs))

    def _wait_for(self, run: Callable[[], _R]) -> _R:
        patience_s = self._view.patience_s(self._deadline_s)
        deadline_ns = monotonic_ns() + int(patience_s * _NS_PER_S)
        answer: Future[_R] = Future()

        def work() -> None:
            try:
                answer.set_result(run())
            except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
                answer.set_exception(error)
            finally:
                self._slots.release()

        if self._slots.acquire(timeout=patience_s):
            threading.Thread(target=work, name="waiting for the storage", daemon=True).start()
            wait([answer], timeout=max(deadline_ns - monotonic_ns(), 0) / _NS_PER_S)
        if not answer.done():
            raise self._view.give_up()
        return answer.result()
