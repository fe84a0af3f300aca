"""What is said to be read soon: of files that are read in order, and of no others."""

from __future__ import annotations

import pytest

from backthen.fsmount.view.ahead import AHEAD_BYTES_MAX, STRAY_BYTES, Ahead
from backthen.repository import extents_from
from tests.support.history import MemoryHistory

MIB = 1 << 20
CHUNKS = 32
AHEAD_CHUNKS = AHEAD_BYTES_MAX // MIB


class Scene:
    """A reader of a file of chunks of one mebibyte."""

    def __init__(self) -> None:
        history = MemoryHistory()
        self.blobs = history.blobs
        self._entry = history.writer.file([bytes((number,)) * MIB for number in range(CHUNKS)])
        ids = [extent.id for _, extent in extents_from(self.blobs.source, self._entry, 0)]
        self._places = {id_: place for place, id_ in enumerate(ids)}
        self._ahead = Ahead()

    def read(self, offset: int, length: int) -> None:
        """A request of the reader."""
        self._ahead.follow(self.blobs.near, self._entry, offset, length)

    def expected(self) -> set[int]:
        """The chunks that were said to be read soon."""
        return {self._places[id_] for id_ in self.blobs.expected}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_is_expected_of_whoever_looks_at_the_beginning(scene: Scene) -> None:
    scene.read(0, 128 << 10)
    assert set() == scene.expected()


def test_what_follows_is_expected_as_far_as_was_read_in_order(scene: Scene) -> None:
    for number in range(3):
        scene.read(number * MIB, MIB)
    assert set(range(6)) == scene.expected()


def test_no_more_is_expected_than_the_bound(scene: Scene) -> None:
    for number in range(15):
        scene.read(number * MIB, MIB)
    assert set(range(15 + AHEAD_CHUNKS)) == scene.expected()


def test_all_is_expected_to_the_end_and_nothing_beyond(scene: Scene) -> None:
    for number in range(CHUNKS):
        scene.read(number * MIB, MIB)
    assert set(range(CHUNKS)) == scene.expected()
    scene.read(CHUNKS * MIB, MIB)
    assert set(range(CHUNKS)) == scene.expected()


def test_each_chunk_is_told_once(scene: Scene) -> None:
    for offset in range(0, CHUNKS * MIB, 128 << 10):
        scene.read(offset, 128 << 10)
    assert CHUNKS == len(scene.expected())
    assert len(scene.blobs.expected) < 2 * CHUNKS


def test_requests_that_overtake_each_other_are_in_order(scene: Scene) -> None:
    for number in (1, 0, 3, 2, 5, 4):
        scene.read(number * MIB, MIB)
    assert set(range(1, 12)) == scene.expected()


def test_nothing_is_expected_of_whoever_reads_here_and_there(scene: Scene) -> None:
    for number in (20, 3, 28, 11):
        scene.read(number * MIB, 4096)
    assert set() == scene.expected()


def test_whoever_goes_on_elsewhere_in_order_is_followed(scene: Scene) -> None:
    start = MIB + STRAY_BYTES
    for number in range(4):
        scene.read(start + number * MIB, MIB)
    assert set(range(4, 11)) == scene.expected()


def test_what_was_not_taken_is_said_again(scene: Scene) -> None:
    scene.blobs.expects_max = 1
    scene.read(0, MIB)
    scene.read(MIB, MIB)
    assert 1 == len(scene.blobs.expected)
    scene.blobs.expects_max = None
    scene.read(2 * MIB, MIB)
    assert {2, 3, 4, 5} <= scene.expected()


def test_a_list_that_is_not_in_memory_is_not_waited_for(scene: Scene) -> None:
    scene.blobs.distant = None
    for number in range(4):
        scene.read(number * MIB, MIB)
    assert set() == scene.expected()


def test_nothing_is_looked_up_for_a_file_that_one_request_covers(scene: Scene) -> None:
    scene.read(0, CHUNKS * MIB)
    assert [] == scene.blobs.expected


def test_from_afar_more_is_expected_than_was_read(scene: Scene) -> None:
    scene.blobs.eagerness = 8
    scene.read(0, MIB // 8)
    assert set() == scene.expected()
    scene.read(MIB // 8, MIB // 8)
    assert set(range(3)) == scene.expected()
    scene.read(MIB // 4, MIB)
    assert set(range(AHEAD_CHUNKS + 2)) == scene.expected()
