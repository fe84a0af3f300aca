"""An asyncio event loop in a thread of its own, for the backends whose libraries are asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

_END_S = 5.0
_Result = TypeVar("_Result")


class EventLoop:
    """Runs coroutines for threads that wait for them. Safe to use from several threads.

    The thread begins with the first call, so that a process may fork before. It is a daemon: a server that hangs does
    not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        """A loop whose thread has a name."""
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, _Result], timeout_s: float | None) -> _Result:
        """What the coroutine returns or raises; it is cancelled when the caller is interrupted, or waited too long.

        Raises:
            TimeoutError: it took longer than `timeout_s` seconds; None waits for ever.
        """
        with self._lock:  # so that whoever closes the loop cancels this, or comes before it
            future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is running, and end the thread; a later call begins a new one.

        A thread that is stuck is left behind, after a few seconds.
        """
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).add_done_callback(
                lambda _: loop.call_soon_threadsafe(loop.stop)
            )
            thread.join(_END_S)

    def _started(self) -> asyncio.AbstractEventLoop:
        """The loop. To be called under the lock."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True)
            self._thread.start()
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
