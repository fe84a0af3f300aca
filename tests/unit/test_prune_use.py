"""What a prune reckons with: how much of a pack is needed, and what writing it anew would free."""

from __future__ import annotations

from backthen.repository import format as fmt
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.index import PackRecord
from backthen.repository.pruning.contents import _use


def _record(counts: tuple[int, ...], lengths: tuple[int, ...]) -> PackRecord:
    offsets = [fmt.PACK_HEADER_BYTES]
    for length in lengths:
        offsets.append(offsets[-1] + length)
    return PackRecord(PackId(ObjectId(bytes(32))), fmt.PACK_CLASS_DATA, counts, tuple(offsets))


def test_a_pack_of_which_nothing_is_needed_is_freed_whole() -> None:
    assert (False, 0, 300) == _use(_record((2, 1), (100, 200)), b"")[1:]


def test_a_segment_that_is_mostly_needed_is_kept_whole() -> None:
    assert (True, 100, 0) == _use(_record((4,), (100,)), b"\1\1\0\1")[1:]


def test_of_another_segment_the_share_that_is_needed_is_kept() -> None:
    assert (True, 50, 50) == _use(_record((4,), (100,)), b"\1\0\0\1")[1:]


def test_all_pieces_of_a_large_blob_are_kept_or_freed_with_it() -> None:
    record = _record((1, 0, 0, 1, 0, 3), (10, 20, 30, 1, 2, 9))
    assert (True, 60 + 3, 3 + 6) == _use(record, b"\1\0\1\0\0")[1:]
    assert (True, 3 + 9, 60) == _use(record, b"\0\1\1\1\1")[1:]
