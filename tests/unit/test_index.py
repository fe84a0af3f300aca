"""The local index: finds every blob it was told of, through merges, reopening and other processes."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.crypto import ObjectKind, SpillCipher, seal_object
from backthen.repository.errors import CacheError, MalformedError, StorageError, TamperedError
from backthen.repository.ids import ObjectId
from backthen.repository.index import (
    LinkTable,
    LocalIndex,
    TemporaryTable,
    check_indexed_pack,
    decode_index,
    encode_index,
    table,
)
from backthen.repository.index.sorter import Sorter
from backthen.repository.model.records import IndexedPack, IndexObject
from tests.support.fixed_keys import fixed_keys
from tests.support.index_records import blob_id, index_object, indexed_pack, object_id, pack_id

KEYS = fixed_keys()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index"


@pytest.fixture
def index(folder: Path) -> Iterator[LocalIndex]:
    opened = LocalIndex(folder, KEYS)
    yield opened
    opened.close()


@pytest.fixture
def small_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new generation after some hundred blobs."""
    monkeypatch.setattr(table, "_DELTA_ENTRIES_MIN", 300)
    monkeypatch.setattr(table, "_ENTRIES_PER_TRANSACTION", 70)


def _prefix(number: int) -> bytes:
    return blob_id(number)[: fmt.ID_PREFIX_BYTES]


def _where(index: LocalIndex, number: int) -> tuple[bytes, int, int] | None:
    """(pack, segment, ordinal) of a blob."""
    location = index.lookup(_prefix(number))
    return None if location is None else (index.pack_id(location), location.segment, location.ordinal)


def test_a_new_index_knows_nothing(index: LocalIndex) -> None:
    assert _where(index, 1) is None
    assert not index.has_pack(pack_id(1))
    assert ([], set(), 0) == (list(index.packs()), index.object_ids(), index.blob_count)


def test_every_blob_is_found_where_its_pack_has_it(index: LocalIndex) -> None:
    index.add([(object_id(1), index_object(indexed_pack(1, range(25)), indexed_pack(2, range(25, 50), per_segment=7)))])
    assert [(pack_id(1), number // 10, number % 10) for number in range(25)] == [_where(index, n) for n in range(25)]
    assert [(pack_id(2), n // 7, n % 7) for n in range(25)] == [_where(index, n + 25) for n in range(25)]
    assert _where(index, 50) is None
    assert 50 == index.blob_count
    assert {object_id(1)} == index.object_ids()


def test_a_pack_says_where_its_segments_begin(index: LocalIndex) -> None:
    index.add([(object_id(1), index_object(indexed_pack(1, range(25)), pack_class=fmt.PACK_CLASS_TREE))])
    location = index.lookup(_prefix(3))
    assert location is not None
    record = index.pack(location)
    assert (pack_id(1), fmt.PACK_CLASS_TREE, (10, 10, 5)) == (record.id, record.pack_class, record.counts)
    assert (44, 1044, 2045, 3047) == record.offsets
    assert [record] == list(index.packs())


def test_an_object_that_is_in_is_passed_over(index: LocalIndex) -> None:
    for _ in range(3):
        index.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    assert 10 == index.blob_count
    assert 1 == len(index.copies(_prefix(1)))


def test_a_pack_that_two_objects_describe_is_one_pack(index: LocalIndex) -> None:
    for number in (1, 2):
        index.add([(object_id(number), index_object(indexed_pack(1, range(10))))])
    assert 1 == len(list(index.packs()))
    assert 1 == len(index.copies(_prefix(1)))
    assert {object_id(1), object_id(2)} == index.object_ids()


def test_every_copy_of_a_blob_is_known(index: LocalIndex) -> None:
    index.add([(object_id(1), index_object(indexed_pack(1, range(10)), indexed_pack(2, range(5, 15))))])
    index.add([(object_id(2), index_object(indexed_pack(3, range(5, 6))))])
    assert [1, 3, 2, 1] == [len(index.copies(_prefix(number))) for number in (4, 5, 6, 14)]
    assert {pack_id(1), pack_id(2), pack_id(3)} == {index.pack_id(place) for place in index.copies(_prefix(5))}
    assert [] == index.copies(_prefix(99))
    assert 15 == index.blob_count


@pytest.mark.usefixtures("small_merges")
@pytest.mark.parametrize("at_once", [1, 5, 40])
def test_a_merge_loses_nothing(index: LocalIndex, folder: Path, at_once: int) -> None:
    """Many small objects, some blobs in several packs; one or several generations on the way."""
    objects = [
        (object_id(number), index_object(indexed_pack(number, range(number * 20, number * 20 + 30))))
        for number in range(40)
    ]
    for begin in range(0, 40, at_once):
        index.add(objects[begin : begin + at_once])
    assert int((folder / next(path.name for path in folder.iterdir() if path.name.isdigit())).name) >= 2
    assert 40 * 20 + 10 == index.blob_count
    assert {object_id(number) for number in range(40)} == index.object_ids()
    assert {pack_id(number) for number in range(40)} == {record.id for record in index.packs()}
    for number in range(40 * 20):
        packs = {index.pack_id(place) for place in index.copies(_prefix(number))}
        expected = {pack_id(number // 20)} | (
            {pack_id(number // 20 - 1)} if 20 <= number and number % 20 < 10 else set()
        )
        assert expected == packs
    assert all(index.has_pack(pack_id(number)) for number in range(40))


@pytest.mark.usefixtures("small_merges")
def test_objects_that_cannot_be_read_to_the_end_leave_a_usable_index(index: LocalIndex, folder: Path) -> None:
    def objects() -> Iterator[tuple[ObjectId, IndexObject]]:
        for number in range(10):
            yield object_id(number), index_object(indexed_pack(number, range(number * 100, number * 100 + 100)))
        raise StorageError("the disk is gone")

    with pytest.raises(StorageError):
        index.add(objects())
    index.add([(object_id(20), index_object(indexed_pack(20, range(5000, 5400))))])
    assert _where(index, 5000) == (pack_id(20), 0, 0)
    for number in range(10):
        index.add([(object_id(number), index_object(indexed_pack(number, range(number * 100, number * 100 + 100))))])
    assert 1400 == index.blob_count
    assert all(len(index.copies(_prefix(number))) == 1 for number in range(1000))
    assert 1 == len([path for path in folder.iterdir() if path.name[0].isdigit()])


@pytest.mark.usefixtures("small_merges")
def test_old_generations_leave_the_disk(index: LocalIndex, folder: Path) -> None:
    for number in range(4):
        index.add([(object_id(number), index_object(indexed_pack(number, range(number * 400, number * 400 + 400))))])
    assert 1 == len([path for path in folder.iterdir() if path.name.isdigit()])
    assert {"current", "lock"} == {path.name for path in folder.iterdir() if not path.name.isdigit()}


@pytest.mark.usefixtures("small_merges")
def test_a_location_stays_good_through_a_merge(index: LocalIndex) -> None:
    index.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    location = index.lookup(_prefix(7))
    assert location is not None
    index.add([(object_id(2), index_object(indexed_pack(2, range(10, 800))))])
    index.clear()
    assert pack_id(1) == index.pack_id(location)
    assert pack_id(1) == index.pack(location).id


@settings(max_examples=15, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 500), st.integers(0, 200)), max_size=12),
    at_once=st.sampled_from([1, 4, 12]),
)
def test_the_index_is_a_dictionary_of_what_it_was_told(
    steps: list[tuple[int, int, int]], at_once: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_DELTA_ENTRIES_MIN", 150)
        patch.setattr(table, "_ENTRIES_PER_TRANSACTION", 60)
        index = LocalIndex(tmp_path_factory.mktemp("index"), KEYS)
        packs: dict[int, set[int]] = {}
        objects = []
        for number, (pack, begin, count) in enumerate(steps):
            blobs = range(begin, begin + count)
            objects.append((object_id(number), index_object(indexed_pack(pack, blobs))))
            packs.setdefault(pack, set(blobs))
        for first in range(0, len(objects), at_once):
            index.add(objects[first : first + at_once])
        for blob in range(0, 700, 13):
            expected = {pack_id(pack) for pack, blobs in packs.items() if blob in blobs}
            assert expected == {index.pack_id(place) for place in index.copies(_prefix(blob))}
            assert (index.lookup(_prefix(blob)) is not None) is bool(expected)
        index.close()


@pytest.mark.usefixtures("small_merges")
@pytest.mark.parametrize("blobs", [10, 1000])
def test_what_was_added_is_there_after_reopening(folder: Path, blobs: int) -> None:
    first = LocalIndex(folder, KEYS)
    first.add([(object_id(1), index_object(indexed_pack(1, range(blobs))))])
    first.close()
    second = LocalIndex(folder, KEYS)
    assert (pack_id(1), 0, 7) == _where(second, 7)
    assert {object_id(1)} == second.object_ids()
    second.close()


def test_clearing_forgets_everything(index: LocalIndex, folder: Path) -> None:
    index.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    index.clear()
    assert (None, set(), 0) == (_where(index, 1), index.object_ids(), index.blob_count)
    index.add([(object_id(1), index_object(indexed_pack(2, range(10))))])
    assert (pack_id(2), 0, 1) == _where(index, 1)


def test_the_index_of_another_repository_is_not_believed(folder: Path) -> None:
    first = LocalIndex(folder, KEYS)
    first.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    first.close()
    other = LocalIndex(folder, fixed_keys(1))
    assert 0 == other.blob_count
    other.close()


def test_nothing_in_the_folder_is_for_others(index: LocalIndex, folder: Path) -> None:
    index.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    assert 0o700 == folder.stat().st_mode & 0o777
    number = next(path for path in folder.iterdir() if path.name.isdigit())
    assert 0 == number.stat().st_mode & 0o077


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError) as caught:
        LocalIndex(tmp_path / "file" / "index", KEYS)
    assert caught.value.hint


# Index objects


def test_an_index_object_comes_back() -> None:
    packs = [indexed_pack(number, range(number * 100, number * 100 + 50)) for number in range(5)]
    data = encode_index(KEYS, fmt.PACK_CLASS_TREE, packs)
    assert index_object(*packs, pack_class=fmt.PACK_CLASS_TREE) == decode_index(KEYS, data, name="index/name")


GOOD = indexed_pack(1, range(20))
BROKEN_PACKS: dict[str, IndexedPack] = {
    "short id": msgspec.structs.replace(GOOD, id=pack_id(1)[:-1]),
    "fewer lengths": msgspec.structs.replace(GOOD, lengths=GOOD.lengths[4:]),
    "broken numbers": msgspec.structs.replace(GOOD, lengths=GOOD.lengths[1:], counts=GOOD.counts[1:]),
    "fewer ids": msgspec.structs.replace(GOOD, prefixes=GOOD.prefixes[16:]),
    "half an id": msgspec.structs.replace(GOOD, prefixes=GOOD.prefixes[8:]),
    "more blobs than an ordinal can count": IndexedPack(
        pack_id(1), struct.pack(">I", 9), struct.pack(">I", 65_536), bytes(16 * 65_536)
    ),
}


@pytest.mark.parametrize("what", BROKEN_PACKS)
def test_a_record_of_a_pack_that_contradicts_itself_is_malformed(what: str) -> None:
    with pytest.raises(MalformedError, match="index/name"):
        check_indexed_pack(BROKEN_PACKS[what], name="index/name")
    with pytest.raises(MalformedError, match="index/name"):
        decode_index(KEYS, encode_index(KEYS, 1, [GOOD, BROKEN_PACKS[what]]), name="index/name")


@pytest.mark.parametrize(
    "payload", [b"", b"\x92\x03\x90", b"\x92\x01\xdd\xff\xff\xff\xff", b"\x91" * 100_000, b"\x92\x01\x91\x91\xa1\xff"]
)
def test_an_index_object_that_does_not_follow_the_format_is_malformed(payload: bytes) -> None:
    data = seal_object(KEYS, ObjectKind.INDEX, payload)
    with pytest.raises(MalformedError, match="index/name"):
        decode_index(KEYS, data, name="index/name")


def test_a_changed_index_object_is_noticed() -> None:
    data = bytearray(encode_index(KEYS, 1, [GOOD]))
    data[500] ^= 1
    with pytest.raises(TamperedError, match="index/name"):
        decode_index(KEYS, bytes(data), name="index/name")


# Temporary tables


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=3, max_size=3), st.binary(min_size=2, max_size=2)), max_size=200))
def test_a_sorter_gives_back_everything_in_order(entries: list[tuple[bytes, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("backthen.repository.index.sorter._BYTES_IN_MEMORY_MAX", 40)
        with closing(Sorter(Path(folder), key_bytes=3, value_bytes=2)) as sorter:
            for key, value in entries:
                sorter.add(key, value)
            assert sorted(entries) == list(sorter)
            assert [] == list(Path(folder).iterdir())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=30), st.binary(max_size=100)), max_size=50))
def test_a_temporary_table_is_a_sorted_dictionary(puts: list[tuple[bytes, bytes]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("backthen.repository.index.temporary._OPERATIONS_PER_TRANSACTION", 7)
        own = TemporaryTable(Path(folder))
        for key, value in puts:
            own.put(key, value)
        expected = dict(puts)
        assert sorted(expected.items()) == list(own)
        assert all(expected[key] == own.get(key) for key in expected)
        assert own.get(b"\0" * 40) is None
        own.close()


def test_a_temporary_table_leaves_nothing_in_its_folder(tmp_path: Path) -> None:
    own = TemporaryTable(tmp_path / "folder")
    assert [] == list((tmp_path / "folder").iterdir())
    own.put(b"key", b"value")
    assert b"value" == own.get(b"key")
    own.close()


def test_a_temporary_table_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError):
        TemporaryTable(tmp_path / "file" / "folder")


def test_link_groups_count_their_names_and_come_in_order(tmp_path: Path) -> None:
    own = LinkTable(tmp_path, SpillCipher())
    keys = [bytes((number,)) * 16 for number in (3, 1, 2)]
    for key in keys:
        assert not own.add_name(key)
        own.add_record(key, b"record of %d" % key[0])
    for _ in range(4):
        assert own.add_name(keys[0])
    expected = [(keys[1], 1, b"record of 1"), (keys[2], 1, b"record of 2"), (keys[0], 5, b"record of 3")]
    assert expected == list(own)
    own.close()
