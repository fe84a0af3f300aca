"""An event loop that is closed while others use it: every call ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
from concurrent.futures import ThreadPoolExecutor

import pytest

from backthen.repository.storage.backends.event_loop import EventLoop

ROUNDS = 200
CALLERS = 4
CALLS = 20
ENDED_S = 30


async def _work() -> str:
    await asyncio.sleep(0)
    return "done"


def _call(loop: EventLoop) -> set[str]:
    seen = set()
    for _ in range(CALLS):
        try:
            seen.add(loop.run(_work(), ENDED_S))
        except concurrent.futures.CancelledError:
            seen.add("cancelled")
    return seen


@pytest.mark.usefixtures("hasty_threads")
def test_a_call_that_meets_a_close_is_done_or_cancelled() -> None:
    seen: set[str] = set()
    with ThreadPoolExecutor(CALLERS) as pool:
        for _ in range(ROUNDS):
            loop = EventLoop("test")
            callers = [pool.submit(_call, loop) for _ in range(CALLERS)]
            while not all(caller.done() for caller in callers):
                loop.close()
            for caller in callers:
                seen |= caller.result()
            loop.close()
    assert {"done", "cancelled"} == seen
