"""Asking a storage for many things at once."""

from __future__ import annotations

import threading

import pytest

from backthen.repository.storage import at_once, side_by_side
from backthen.repository.storage.side_by_side import BYTES_AT_ONCE_MAX
from tests.support.distant_storage import DistantStorage
from tests.support.memory_storage import MemoryStorage

PATIENCE_S = 30
AT_ONCE = 4


def _distant(concurrency: int = AT_ONCE) -> DistantStorage:
    return DistantStorage(MemoryStorage(), concurrency=concurrency)


def _nothing(_: object) -> int:
    return 0


@pytest.mark.parametrize("concurrency", [1, AT_ONCE])
def test_results_come_in_the_order_of_the_items(concurrency: int) -> None:
    results = side_by_side(_distant(concurrency), str, range(50), weigh=_nothing)
    assert [str(number) for number in range(50)] == list(results)


def test_as_many_are_at_work_as_the_storage_likes() -> None:
    meeting = threading.Barrier(AT_ONCE, timeout=PATIENCE_S)
    results = side_by_side(_distant(), lambda _: meeting.wait(), range(3 * AT_ONCE), weigh=_nothing)
    assert 3 * AT_ONCE == len(list(results))


def test_a_near_storage_is_asked_by_who_asks() -> None:
    assert {threading.get_ident()} == set(
        side_by_side(_distant(1), lambda _: threading.get_ident(), range(5), weigh=_nothing)
    )


@pytest.mark.parametrize("concurrency", [1, AT_ONCE])
def test_a_failure_is_raised_in_its_place(concurrency: int) -> None:
    results = side_by_side(_distant(concurrency), lambda number: 6 // number, [3, 2, 0, 1], weigh=_nothing)
    assert (2, 3) == (next(results), next(results))
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_more_is_begun_than_may_wait() -> None:
    begun: list[int] = []
    for _ in side_by_side(_distant(), begun.append, range(100), weigh=_nothing):
        break
    assert len(begun) <= AT_ONCE + 1


def test_no_more_bytes_are_under_way_than_may_be_and_what_is_larger_goes_alone() -> None:
    half, larger = BYTES_AT_ONCE_MAX // 2, BYTES_AT_ONCE_MAX + 1
    considered: list[int] = []

    def weigh(size: int) -> int:
        considered.append(size)
        return size

    results = side_by_side(_distant(), str, [half, half, 1, larger, 2, 3], weigh=weigh)
    assert str(half) == next(results)
    assert [half, half, 1, 1, larger] == considered  # the third when the first was taken, the fourth not yet
    assert [str(half), "1"] == [next(results), next(results)]
    assert larger == considered[-2]
    assert [str(larger), "2", "3"] == list(results)


def test_a_few_pieces_of_work_are_done_at_once() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE_S)
    with at_once(_distant()) as begin:
        one, other = begin(meeting.wait), begin(lambda: str(meeting.wait()))
        assert {"0", "1"} == {str(one()), other()}


def test_near_a_storage_work_is_done_when_it_is_begun() -> None:
    done: list[int] = []
    with at_once(_distant(1)) as begin:
        result = begin(lambda: done.append(1))
        assert ([1], None) == (done, result())


@pytest.mark.parametrize("concurrency", [1, AT_ONCE])
def test_work_that_fails_says_so_to_who_began_it(concurrency: int) -> None:
    with pytest.raises(ZeroDivisionError), at_once(_distant(concurrency)) as begin:
        begin(lambda: 1 // 0)()
