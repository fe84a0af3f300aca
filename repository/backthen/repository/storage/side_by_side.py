"""Asking a storage for many things at once, where it is far enough away to be worth while."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from backthen.repository.storage.contract import Storage

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def side_by_side(storage: Storage, work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """What `work` makes of each item, in the order of the items; it is done in threads, `storage.concurrency` at once.

    Where that is 1 it is done here, one item after another. No more than that many results wait to be taken. What
    `work` raises is raised when its result would be taken; what was not begun by then is not done.
    """
    if storage.concurrency == 1:
        yield from map(work, items)
        return
    rest = iter(items)
    pool = ThreadPoolExecutor(storage.concurrency, thread_name_prefix="side_by_side")
    try:
        begun: deque[Future[_Result]] = deque(pool.submit(work, item) for item in islice(rest, storage.concurrency))
        while begun:
            result = begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(rest, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def all_at_once(storage: Storage, *works: Callable[[], _Result]) -> list[_Result]:
    """What each of a few works returns, done as `side_by_side` does them."""
    return list(side_by_side(storage, lambda work: work(), works))
