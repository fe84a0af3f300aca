"""Work done before it is asked for, ended while its threads are at it."""

from __future__ import annotations

import pytest

from backthen.repository.objects.ahead import AheadWorkers

ROUNDS = 1000
TASKS = 16


def _nothing() -> None:
    pass


@pytest.mark.usefixtures("hasty_threads")
def test_what_is_taken_while_it_is_dropped_harms_nobody() -> None:
    for _ in range(ROUNDS):
        workers = AheadWorkers()
        for number in range(TASKS):
            workers.offer(number, _nothing)
        threads = list(workers._threads)
        workers.close()
        for thread in threads:
            thread.join()
