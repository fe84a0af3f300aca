"""What is known of a storage that is watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import Buffer

from backthen.repository.errors import ObjectExists, ObjectMissing, StorageError
from backthen.repository.ids import ObjectId
from backthen.repository.storage import CONFIG_NAME, ObservedStorage, StorageState, StoredObject, index_name
from tests.support.memory_storage import MemoryStorage

NAME = index_name(ObjectId(bytes(32)))


class Moody(MemoryStorage):
    """Moves the clock with each call, and fails when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.is_failing = False
        self.seen_during: list[object] = []
        self.watched: ObservedStorage | None = None

    def _pass(self) -> None:
        if self.watched is not None:
            self.seen_during.append(self.watched.state)
        self.now_ns += 10
        if self.is_failing:
            raise StorageError("unplugged")

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._pass()
        return super().get(name, offset, length)

    def put(self, name: str, data: Buffer) -> None:
        self._pass()
        super().put(name, data)

    def list(self, folder: str) -> Iterator[StoredObject]:
        listing = super().list(folder)
        self._pass()
        return listing


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def watched(moody: Moody) -> ObservedStorage:
    watched = ObservedStorage(moody, lambda: moody.now_ns)
    moody.watched = watched
    return watched


def test_calls_and_bytes_are_counted(moody: Moody, watched: ObservedStorage) -> None:
    watched.put(CONFIG_NAME, b"content")
    assert watched.get(CONFIG_NAME, 3) == b"tent"
    assert (watched.state.calls, watched.state.bytes_read, watched.state.waiting) == (2, 4, 0)
    assert watched.state.silent_since_ns is None


def test_it_is_silent_from_the_first_call_that_nothing_answers(moody: Moody, watched: ObservedStorage) -> None:
    watched.put(CONFIG_NAME, b"content")
    moody.now_ns = 500
    watched.get(CONFIG_NAME)
    _, during = moody.seen_during
    assert during == StorageState(1, 0, 1, 500, None, "", bytes_sent=7)
    assert watched.state == StorageState(2, 7, 0, None, None, "", bytes_sent=7)


def test_a_call_that_is_answered_ends_the_silence_of_all(moody: Moody, watched: ObservedStorage) -> None:
    watched.put(NAME, b"")
    listing = watched.list("index")
    next(listing)
    moody.now_ns = 1000
    assert watched.state.silent_since_ns == 20
    with pytest.raises(ObjectMissing):
        watched.get(CONFIG_NAME)
    assert (watched.state.waiting, watched.state.silent_since_ns) == (1, 1010)
    assert [] == [*listing]
    assert watched.state.silent_since_ns is None


def test_failure_lasts_until_an_answer_without_one(moody: Moody, watched: ObservedStorage) -> None:
    moody.is_failing = True
    for _ in range(2):
        with pytest.raises(StorageError):
            watched.get(CONFIG_NAME)
    assert (watched.state.failing_since_ns, watched.state.failure) == (10, "unplugged")

    moody.is_failing = False
    with pytest.raises(ObjectMissing):
        watched.get(CONFIG_NAME)
    assert (watched.state.failing_since_ns, watched.state.failure) == (None, "")


def test_what_is_there_already_is_no_failure(watched: ObservedStorage) -> None:
    watched.put(CONFIG_NAME, b"")
    with pytest.raises(ObjectExists):
        watched.put(CONFIG_NAME, b"")
    assert watched.state.failing_since_ns is None


def test_what_was_stored_is_counted_as_sent(moody: Moody, watched: ObservedStorage, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    watched.put_file(NAME, file)
    assert 1000 == watched.state.bytes_sent
    file.write_bytes(bytes(1000))
    with pytest.raises(ObjectExists):
        watched.put_file(NAME, file)
    assert 1000 == watched.state.bytes_sent
