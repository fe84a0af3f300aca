"""Listings that are begun before they are asked for."""

from __future__ import annotations

import pytest

from backthen.repository.errors import StorageError
from backthen.repository.ids import ObjectId
from backthen.repository.storage import ListedAhead, index_name, mark_name
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage

FIRST, SECOND, THIRD = (mark_name(ObjectId(bytes([number]) * 32)) for number in range(3))


def _names(storage: ListedAhead, folder: str = "marks") -> list[str]:
    return [stored.name for stored in storage.list(folder)]


def test_what_was_there_is_told_once() -> None:
    below = FlakyStorage(MemoryStorage())
    below.put(FIRST, b"")
    storage = ListedAhead(below, ("marks", "roots"))
    assert [] == _names(storage, "roots")
    below.put(SECOND, b"")
    assert [FIRST] == _names(storage)
    assert [FIRST, SECOND] == _names(storage)
    assert 3 == len([call for call in below.calls if call.startswith("list")])


@pytest.mark.parametrize("change", ["put", "delete"])
def test_nothing_from_before_is_told_after_a_change(change: str) -> None:
    below = MemoryStorage()
    below.put(FIRST, b"")
    storage = ListedAhead(below, ("marks",))
    below.put(SECOND, b"")
    if change == "put":
        storage.put(index_name(ObjectId(bytes(32))), b"")
    else:
        storage.delete(THIRD)
    assert [FIRST, SECOND] == _names(storage)


def test_a_failure_is_told_to_who_asks() -> None:
    below = FlakyStorage(MemoryStorage())
    below.fail()
    storage = ListedAhead(below, ("marks",))
    with pytest.raises(StorageError, match="the connection broke"):
        _names(storage)
    assert [] == _names(storage)
