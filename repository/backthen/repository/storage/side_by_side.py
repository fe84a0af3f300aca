"""Asking a storage for many things at once, where it is far enough away to be worth while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol, TypeVar

from backthen.repository.storage.contract import Storage

BYTES_AT_ONCE_MAX = 64 << 20
"""What is under way or waits to be taken, side by side: more fills no line, and less than one object may have."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Begin(Protocol):
    """Begins a piece of work; what it returns waits for its end, and returns or raises what the work does."""

    def __call__(self, work: Callable[[], _Result]) -> Callable[[], _Result]:
        """Begin it."""
        ...


def side_by_side(
    storage: Storage, work: Callable[[_Item], _Result], items: Iterable[_Item], *, weigh: Callable[[_Item], int]
) -> Iterator[_Result]:
    """What `work` makes of each item, in the order of the items; it is done in threads, `storage.concurrency` at once.

    Where that is 1 it is done here, one item after another. No more than that many results wait to be taken, and no
    more than `BYTES_AT_ONCE_MAX` of what is weighed, unless one item weighs more alone. What `work` raises is raised
    when its result would be taken; what was not begun by then is not done.

    Args:
        storage: who is asked.
        work: what is done.
        items: with what.
        weigh: how many bytes are fetched for an item at most.
    """
    if storage.concurrency == 1:
        yield from map(work, items)
        return
    rest = iter(items)
    upcoming = next(rest, None)
    with _threads(storage) as pool:
        begun: deque[tuple[Future[_Result], int]] = deque()
        weight = 0

        def begin() -> None:
            nonlocal upcoming, weight
            while upcoming is not None and len(begun) < storage.concurrency:
                own = weigh(upcoming)
                if begun and weight + own > BYTES_AT_ONCE_MAX:
                    return
                begun.append((pool.submit(work, upcoming), own))
                weight += own
                upcoming = next(rest, None)

        begin()
        while begun:
            oldest, own = begun.popleft()
            result = oldest.result()
            weight -= own
            begin()
            yield result


@contextmanager
def at_once(storage: Storage) -> Iterator[Begin]:
    """For a few different pieces of work: each is done in a thread from when it is begun.

    Where `storage.concurrency` is 1 it is done here, and raises, when it is begun. All results must be asked for before
    the end of the `with`.
    """
    if storage.concurrency == 1:
        yield _do_here
        return
    with _threads(storage) as pool:

        def begin(work: Callable[[], _Result]) -> Callable[[], _Result]:
            return pool.submit(work).result

        yield begin


def _do_here(work: Callable[[], _Result]) -> Callable[[], _Result]:
    result = work()
    return lambda: result


@contextmanager
def _threads(storage: Storage) -> Iterator[ThreadPoolExecutor]:
    """Threads that nobody waits for when something failed: what they still ask the storage for ends by itself."""
    pool = ThreadPoolExecutor(storage.concurrency, thread_name_prefix="side_by_side")
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
