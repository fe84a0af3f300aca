"""Finding out in the background how much there is to do, so that progress can tell how long it still takes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backthen.cli.progress import QUIET_AT_FIRST_S, Reporter

if TYPE_CHECKING:
    from backthen.repository import SourceAmount

_END_WAIT_S = 1.0

Count = Callable[[Callable[[], bool]], "SourceAmount | None"]


@contextmanager
def counted(listener: Reporter, count: Count) -> Iterator[None]:
    """While the block runs: count what there is to do for somebody who watches, and has not been told after a while.

    Args:
        listener: is told.
        count: counts for as long as the function that it is given says so; None when it was stopped.
    """
    if not listener.lacks_totals:
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_count, args=(listener, count, ended), name="count", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_END_WAIT_S)  # no longer, should it hang in a dead network drive


def _count(listener: Reporter, count: Count, ended: threading.Event) -> None:
    from backthen.repository import RepositoryError

    if ended.wait(QUIET_AT_FIRST_S) or not listener.lacks_totals:
        return
    try:
        amount = count(lambda: not ended.is_set())
    except (RepositoryError, OSError):
        return  # what is counted meets it too, and tells it
    if amount is not None:
        listener.expect(files_total=amount.files, bytes_total=amount.size)
