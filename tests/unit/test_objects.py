"""Blobs through the real storage: stored once, durable when flushed, near once they were read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind
from backthen.repository.errors import (
    MalformedError,
    MissingError,
    StorageError,
    TamperedError,
)
from backthen.repository.ids import BlobId
from backthen.repository.model.entry import BlobRef, Entry, EntryType
from backthen.repository.model.page import decode_tree_page
from backthen.repository.objects import (
    NotInMemory,
    load_pack_directory,
    refresh_index,
    writer,
)
from backthen.repository.storage import LocalStorage, RetryingStorage, pack_name
from tests.support.blob_client import (
    Client,
    flip_bit,
    new_storage,
    pack_path,
    spooled,
)
from tests.support.built_packs import random_bytes
from tests.support.cipher_record import CipherRecord
from tests.support.fixed_keys import fixed_keys
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage
from tests.support.onlooker import wait_until

KEYS = fixed_keys()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return new_storage(tmp_path)


@pytest.fixture
def client(storage: LocalStorage, tmp_path: Path) -> Iterator[Client]:
    with Client(storage, tmp_path / "cache") as made:
        yield made


@pytest.fixture
def other(storage: LocalStorage, tmp_path: Path) -> Iterator[Client]:
    with Client(storage, tmp_path / "other") as made:
        yield made


SIZES = (0, 1, 100, 262_144, 262_145, 600_000, 2 << 20)


def test_blobs_come_back_as_they_were_put(client: Client) -> None:
    blobs = [random_bytes(size, size) for size in SIZES]
    refs = client.put(*blobs)
    assert blobs == [bytes(client.reader.source.read(ref)) for ref in refs]
    assert blobs[3][1000:5000] == client.reader.source.read(refs[3], 1000, 4000)
    assert blobs[6][262_000:262_300] == client.reader.source.read(refs[6], 262_000, 300)
    assert b"" == client.reader.source.read(refs[6], 2 << 20, 10)
    assert blobs[6][-5:] == client.reader.source.read(refs[6], (2 << 20) - 5, 100)


def test_a_blob_is_stored_once(client: Client) -> None:
    blob = random_bytes(100_000)
    with client.writer() as own:
        refs = {own.put(BlobKind.CHUNK, blob) for _ in range(5)}
        own.flush()
        added = own.bytes_added
        refs.add(own.put(BlobKind.CHUNK, blob))
        own.flush()
        assert added == own.bytes_added
    assert 1 == len(refs)
    with client.writer() as own:
        own.put(BlobKind.CHUNK, bytearray(blob))
        own.flush()
        assert 0 == own.bytes_added
        assert {pack for pack, _ in client.packs()} == own.relied
    assert 1 == len(client.packs())


def test_what_another_client_stored_is_not_stored_again(client: Client, other: Client) -> None:
    client.put(random_bytes(1000))
    refresh_index(other.storage, KEYS, other.index)
    with other.writer() as own:
        own.put(BlobKind.CHUNK, random_bytes(1000))
        own.flush()
        assert 0 == own.bytes_added


def test_what_another_client_stored_is_found_when_asked_for(client: Client, other: Client) -> None:
    (ref,) = client.put(random_bytes(1000))
    assert random_bytes(1000) == other.reader.source.read(ref)


def test_a_blob_does_not_count_as_stored_when_its_pack_is_gone(client: Client) -> None:
    """The index still names the pack; the storage's list does not."""
    (ref,) = client.put(random_bytes(1000))
    ((pack, _),) = client.packs()
    client.storage.delete(pack_name(pack))
    client.put(random_bytes(1000))
    ((again, _),) = client.packs()
    assert again != pack
    assert random_bytes(1000) == client.reader.source.read(ref)


def test_a_copy_in_a_usable_pack_counts(client: Client) -> None:
    client.put(random_bytes(1000))
    ((first, _),) = client.packs()
    with client.writer() as own:
        own._usable.clear()
        own.put(BlobKind.CHUNK, random_bytes(1000))
        own.flush()
    ((second, _),) = (item for item in client.packs() if item[0] != first)
    client.storage.delete(pack_name(first))
    with client.writer() as own:
        own.put(BlobKind.CHUNK, random_bytes(1000))
        own.flush()
        assert (0, {second}) == (own.bytes_added, own.relied)


def test_chunks_and_the_rest_go_to_packs_of_their_own_class(client: Client) -> None:
    with client.writer() as own:
        for kind in BlobKind:
            own.put(kind, kind.name.encode())
        own.flush()
    directories = [load_pack_directory(client.storage, KEYS, pack, length) for pack, length in client.packs()]
    classes = {directory.pack_class: {record.kind for record in directory.blobs} for directory in directories}
    data, tree = {BlobKind.CHUNK}, {BlobKind.PAGE, BlobKind.LIST, BlobKind.XATTR}
    assert {fmt.PACK_CLASS_DATA: data, fmt.PACK_CLASS_TREE: tree} == classes


def test_every_flushed_blob_is_in_a_durable_pack_that_an_index_object_describes(client: Client, other: Client) -> None:
    """Seen by a client that knows nothing but the storage; the writer is still open."""
    with client.writer() as own:
        refs = [own.put(BlobKind.CHUNK, b"blob %d" % number) for number in range(1000)]
        own.flush()
        assert [] == spooled(client.storage)
        assert refresh_index(other.storage, KEYS, other.index)
        assert [b"blob %d" % number for number in range(1000)] == [bytes(other.reader.source.read(ref)) for ref in refs]


def test_what_was_not_flushed_is_dropped_without_a_trace(client: Client, storage: LocalStorage) -> None:
    with client.writer() as own:
        for number in range(30):
            own.put(BlobKind.CHUNK, random_bytes(300_000, number))
    assert [] == client.packs()
    assert [] == spooled(storage)


def test_packs_that_wait_are_dropped_when_the_writer_is_left(
    client: Client, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two full packs one is being stored and one waits; that one's file leaves the spool."""
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    may_store = threading.Event()
    put_file, close = storage.put_file, writer._PackUploads.close

    def waiting(name: str, path: Path) -> None:
        may_store.wait()
        put_file(name, path)

    def releasing(uploads: writer._PackUploads) -> None:
        threading.Timer(0.1, may_store.set).start()
        close(uploads)

    monkeypatch.setattr(storage, "put_file", waiting)
    monkeypatch.setattr(writer._PackUploads, "close", releasing)
    with client.writer() as own:
        for number in range(14):
            own.put(BlobKind.CHUNK, random_bytes(500_000, number))
        for future in list(own._futures):
            future.result()
    assert 1 == len(client.packs())
    assert [] == spooled(storage)


def test_a_long_run_writes_index_objects_on_its_way(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    with client.writer() as own:
        for number in range(40):
            own.put(BlobKind.CHUNK, random_bytes(300_000, number))
        own.flush()
    assert 2 <= len(list(client.storage.list("index"))) <= 5
    assert len(client.packs()) > 8


def test_no_key_and_nonce_repeat_in_a_whole_run(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    record = CipherRecord()
    record.watch(monkeypatch)
    for begin in (0, 10):
        client.put(*(random_bytes(400_000, begin + number) for number in range(10)))
    record.check_unique(at_least=40)


# Near and source


def test_what_is_near_is_what_was_read(client: Client) -> None:
    blob = random_bytes(1000)
    page = msgspec.msgpack.encode([0, [Entry(b"a", EntryType.FILE)]])
    (chunk,) = client.put(blob)
    (ref,) = client.put(page, kind=BlobKind.PAGE)
    near, source = client.reader.near, client.reader.source
    with pytest.raises(NotInMemory):
        near.read(chunk)
    with pytest.raises(NotInMemory):
        near.page(ref, decode_tree_page)
    assert blob == source.read(chunk) == near.read(chunk)
    assert blob[10:20] == near.read(chunk, 10, 10)
    assert source.page(ref, decode_tree_page) is near.page(ref, decode_tree_page)


def test_near_has_the_pieces_of_a_run_that_were_read(client: Client) -> None:
    blob = random_bytes(1 << 20)
    (ref,) = client.put(blob)
    client.reader.source.read(ref, 300_000, 10)
    assert blob[300_000:310_000] == client.reader.near.read(ref, 300_000, 10_000)
    with pytest.raises(NotInMemory):
        client.reader.near.read(ref, 250_000, 20_000)


def test_the_neighbours_of_a_blob_are_near(client: Client) -> None:
    """They were put one after another, and so lie in one segment."""
    refs = client.put(*(b"neighbour %d" % number for number in range(100)))
    client.reader.source.read(refs[50])
    assert [b"neighbour %d" % number for number in range(100)] == [bytes(client.reader.near.read(ref)) for ref in refs]


def test_a_segment_that_is_read_whole_is_not_kept(client: Client) -> None:
    blobs = [b"%d" % number * 1000 for number in range(20)]
    refs = client.put(*blobs)
    source, near = client.reader.source, client.reader.near
    assert 1 == len({source.segment_of(ref) for ref in refs})
    assert blobs == [bytes(blob) for blob in source.read_together(refs)]
    with pytest.raises(NotInMemory):
        near.read_together(refs)
    assert blobs[:19] == [bytes(blob) for blob in source.read_together(refs[:19])]
    assert blobs == [bytes(blob) for blob in near.read_together(refs)]


def test_blobs_of_several_segments_can_be_read_together(client: Client, other: Client) -> None:
    blobs = [random_bytes(size, size) for size in SIZES]
    refs = client.put(*blobs)
    assert blobs == [bytes(blob) for blob in client.reader.source.read_together(refs)]
    assert other.reader.source.segment_of(refs[0]) is None
    assert blobs == [bytes(blob) for blob in other.reader.source.read_together(refs)]


def test_a_copy_is_read_where_a_segment_that_is_read_whole_is_damaged(client: Client, other: Client) -> None:
    blobs = [b"%d" % number * 1000 for number in range(20)]
    refs = client.put(*blobs)
    ((first, _),) = client.packs()
    other.put(*blobs)  # it does not know of the other's index, and stores a pack of its own
    refresh_index(client.storage, KEYS, client.index)
    flip_bit(pack_path(client.storage, first), 100)
    assert blobs == [bytes(blob) for blob in client.reader.source.read_together(refs)]


def test_a_segment_that_is_read_whole_must_hold_what_is_asked_for(client: Client) -> None:
    blobs = [b"%d" % number * 1000 for number in range(3)]
    refs = client.put(*blobs)
    wrong = BlobRef(refs[1].id, refs[1].length + 1)
    with pytest.raises(MalformedError):
        client.reader.source.read_together([refs[0], wrong, refs[2]])


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_what_is_expected_comes_near_unasked(client: Client, size: int) -> None:
    blob = random_bytes(size)
    (ref,) = client.put(blob)
    assert client.reader.near.expect(ref)

    def is_near() -> bool:
        with suppress(NotInMemory):
            return blob == client.reader.near.read(ref)
        return False

    wait_until(is_near)


def test_damage_and_absence_of_what_is_expected_are_told_to_who_reads_it(client: Client) -> None:
    (ref,) = client.put(random_bytes(1000))
    ((pack, _),) = client.packs()
    flip_bit(pack_path(client.storage, pack), 100)
    missing = BlobRef(BlobId(bytes(32)), 10)
    assert client.reader.source.expect(ref)
    assert client.reader.source.expect(missing)
    with pytest.raises(TamperedError):
        client.reader.source.read(ref)
    with pytest.raises(MissingError):
        client.reader.source.read(missing)


def test_near_says_nothing_of_damage(client: Client) -> None:
    """Asking the blocking source tells what it is."""
    (ref,) = client.put(random_bytes(1000))
    ((pack, _),) = client.packs()
    flip_bit(pack_path(client.storage, pack), 100)
    with pytest.raises(NotInMemory):
        client.reader.near.read(ref)
    with pytest.raises(TamperedError):
        client.reader.source.read(ref)


def test_the_caches_are_bounded(client: Client) -> None:
    refs = client.put(*(random_bytes(1 << 20, number) for number in range(40)))
    for number, ref in enumerate(refs):
        assert random_bytes(1 << 20, number) == bytes(client.reader.source.read(ref))
    segments, pages = client.reader.cache_uses
    assert 20 * fmt.MIB < segments.bytes_used <= segments.bytes_max
    assert ("segments", "pages") == (segments.name, pages.name)


def test_the_caches_hold_as_much_as_they_are_told(client: Client) -> None:
    client.reader.bound_caches(8 * fmt.MIB)
    for ref in client.put(*(random_bytes(1 << 20, number) for number in range(20))):
        client.reader.source.read(ref)
    uses = client.reader.cache_uses
    assert 8 * fmt.MIB == sum(use.bytes_max for use in uses)
    assert 2 * fmt.MIB < uses[0].bytes_used <= uses[0].bytes_max


def test_many_threads_read_at_once(client: Client) -> None:
    blobs = [random_bytes(50_000 + number, number) for number in range(60)]
    refs = client.put(*blobs)
    wrong: list[int] = []

    def read(begin: int) -> None:
        for number in [*range(begin, 60), *range(begin)]:
            if blobs[number] != bytes(client.reader.source.read(refs[number])):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(begin,)) for begin in range(0, 60, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == wrong


def test_who_is_interrupted_does_not_wait_for_the_storage(tmp_path: Path) -> None:
    flaky = FlakyStorage(MemoryStorage())
    pausing = threading.Event()

    def wait(closed: threading.Event, _: float) -> bool:
        pausing.set()
        return closed.wait()

    with Client(RetryingStorage(flaky, wait=wait), tmp_path / "client") as client:
        with pytest.raises(KeyboardInterrupt), client.writer() as own:
            flaky.fail()
            own.put(BlobKind.CHUNK, random_bytes(100_000))
            flushing = threading.Thread(target=_flush, args=(own,))
            flushing.start()
            pausing.wait()
            raise KeyboardInterrupt
        flushing.join()
    assert "close" in flaky.calls
    assert [] == list(flaky.list("packs"))


def _flush(own: writer.BlobWriter) -> None:
    with suppress(StorageError):
        own.flush()
