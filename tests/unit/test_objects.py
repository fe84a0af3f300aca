"""Blobs through the real storage: stored once, durable when flushed, read from wherever they are whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest
from blake3 import blake3
from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.compression import Compression
from backthen.repository.crypto import BlobKind, object_id
from backthen.repository.errors import (
    DamageError,
    MalformedError,
    MissingError,
    NewerFormatError,
    StorageError,
    TamperedError,
)
from backthen.repository.ids import BlobId, PackId
from backthen.repository.index import LocalIndex
from backthen.repository.model.entry import BlobRef, Entry, EntryType, Extent
from backthen.repository.model.page import decode_links_page, decode_list_page, decode_tree_page
from backthen.repository.objects import (
    BlobReader,
    BlobWriter,
    NotInMemory,
    index_orphans,
    load_pack_directory,
    refresh_index,
    writer,
)
from backthen.repository.objects.spool import new_spool_file
from backthen.repository.storage import LocalStorage, Storage, pack_name, parse_pack_name
from tests.support.cipher_record import CipherRecord
from tests.support.fixed_keys import fixed_keys

KEYS = fixed_keys()
PROJECT = Path(__file__).parents[2]


def _random_bytes(length: int, seed: int = 0) -> bytes:
    return blake3(b"%d" % seed).digest(length)


class _Client:
    """One machine's way to a storage: its index and its reader."""

    def __init__(self, storage: Storage, cache: Path) -> None:
        self.storage = storage
        self.cache = cache
        self.index = LocalIndex(cache / "index", KEYS)
        self.reader = BlobReader(storage, KEYS, self.index, lambda: refresh_index(storage, KEYS, self.index))

    def writer(self) -> BlobWriter:
        """A writer that relies on the packs that are in storage now."""
        usable = {pack for pack, _ in self.packs()}
        spool = self.storage.spool or self.cache / "spool"
        return BlobWriter(self.storage, KEYS, self.index, usable=usable, spool=spool, compression=Compression())

    def put(self, *blobs: bytes, kind: BlobKind = BlobKind.CHUNK) -> list[BlobRef]:
        """Store blobs and wait for it."""
        with self.writer() as own:
            refs = [own.put(kind, blob) for blob in blobs]
            own.flush()
        return refs

    def packs(self) -> list[tuple[PackId, int]]:
        """All packs in storage with their lengths."""
        found = ((parse_pack_name(stored.name), stored.length) for stored in self.storage.list("packs"))
        return [(id_, length) for id_, length in found if id_ is not None]


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "repository")
    made.create()
    return made


@pytest.fixture
def client(storage: LocalStorage, tmp_path: Path) -> Iterator[_Client]:
    made = _Client(storage, tmp_path / "cache")
    yield made
    made.index.close()


@pytest.fixture
def other(storage: LocalStorage, tmp_path: Path) -> Iterator[_Client]:
    made = _Client(storage, tmp_path / "other")
    yield made
    made.index.close()


def _path(storage: Storage, pack: PackId) -> Path:
    return Path(storage.location) / pack_name(pack)


def _change(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    _change(path, bytes(data))


# Storing


SIZES = (0, 1, 100, 262_144, 262_145, 600_000, 2 << 20)


def test_blobs_come_back_as_they_were_put(client: _Client) -> None:
    blobs = [_random_bytes(size, size) for size in SIZES]
    refs = client.put(*blobs)
    assert blobs == [bytes(client.reader.source.read(ref)) for ref in refs]
    assert blobs[3][1000:5000] == client.reader.source.read(refs[3], 1000, 4000)
    assert blobs[6][262_000:262_300] == client.reader.source.read(refs[6], 262_000, 300)
    assert b"" == client.reader.source.read(refs[6], 2 << 20, 10)
    assert blobs[6][-5:] == client.reader.source.read(refs[6], (2 << 20) - 5, 100)


def test_a_blob_is_stored_once(client: _Client) -> None:
    blob = _random_bytes(100_000)
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


def test_what_another_client_stored_is_not_stored_again(client: _Client, other: _Client) -> None:
    client.put(_random_bytes(1000))
    refresh_index(other.storage, KEYS, other.index)
    with other.writer() as own:
        own.put(BlobKind.CHUNK, _random_bytes(1000))
        own.flush()
        assert 0 == own.bytes_added


def test_what_another_client_stored_is_found_when_asked_for(client: _Client, other: _Client) -> None:
    (ref,) = client.put(_random_bytes(1000))
    assert _random_bytes(1000) == other.reader.source.read(ref)


def test_a_blob_does_not_count_as_stored_when_its_pack_is_gone(client: _Client) -> None:
    """The index still names the pack; the storage's list does not."""
    (ref,) = client.put(_random_bytes(1000))
    ((pack, _),) = client.packs()
    client.storage.delete(pack_name(pack))
    client.put(_random_bytes(1000))
    ((again, _),) = client.packs()
    assert again != pack
    assert _random_bytes(1000) == client.reader.source.read(ref)


def test_a_copy_in_a_usable_pack_counts(client: _Client) -> None:
    client.put(_random_bytes(1000))
    ((first, _),) = client.packs()
    with client.writer() as own:
        own._usable.clear()
        own.put(BlobKind.CHUNK, _random_bytes(1000))
        own.flush()
    ((second, _),) = (item for item in client.packs() if item[0] != first)
    client.storage.delete(pack_name(first))
    with client.writer() as own:
        own.put(BlobKind.CHUNK, _random_bytes(1000))
        own.flush()
        assert (0, {second}) == (own.bytes_added, own.relied)


def test_chunks_and_the_rest_go_to_packs_of_their_own_class(client: _Client) -> None:
    with client.writer() as own:
        for kind in BlobKind:
            own.put(kind, kind.name.encode())
        own.flush()
    directories = [load_pack_directory(client.storage, KEYS, pack, length) for pack, length in client.packs()]
    classes = {directory.pack_class: {record.kind for record in directory.blobs} for directory in directories}
    data, tree = {BlobKind.CHUNK}, {BlobKind.PAGE, BlobKind.LIST, BlobKind.XATTR}
    assert {fmt.PACK_CLASS_DATA: data, fmt.PACK_CLASS_TREE: tree} == classes


def test_every_flushed_blob_is_in_a_durable_pack_that_an_index_object_describes(
    client: _Client, other: _Client
) -> None:
    """Seen by a client that knows nothing but the storage; the writer is still open."""
    with client.writer() as own:
        refs = [own.put(BlobKind.CHUNK, b"blob %d" % number) for number in range(1000)]
        own.flush()
        assert [] == list(Path(client.storage.location, "tmp").iterdir())
        assert refresh_index(other.storage, KEYS, other.index)
        assert [b"blob %d" % number for number in range(1000)] == [bytes(other.reader.source.read(ref)) for ref in refs]


def test_what_was_not_flushed_is_dropped_without_a_trace(client: _Client, storage: LocalStorage) -> None:
    with client.writer() as own:
        for number in range(30):
            own.put(BlobKind.CHUNK, _random_bytes(300_000, number))
    assert [] == client.packs()
    assert [] == list(Path(storage.location, "tmp").iterdir())


def test_packs_that_wait_are_dropped_when_the_writer_is_left(
    client: _Client, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
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
        for number in range(12):
            own.put(BlobKind.CHUNK, _random_bytes(500_000, number))
        for future in list(own._futures):
            future.result()
    assert 1 == len(client.packs())
    assert [] == list(Path(storage.location, "tmp").iterdir())


def test_a_long_run_writes_index_objects_on_its_way(client: _Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    with client.writer() as own:
        for number in range(40):
            own.put(BlobKind.CHUNK, _random_bytes(300_000, number))
        own.flush()
    assert 2 <= len(list(client.storage.list("index"))) <= 5
    assert len(client.packs()) > 8


def test_no_key_and_nonce_repeat_in_a_whole_run(client: _Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    record = CipherRecord()
    record.watch(monkeypatch)
    for begin in (0, 10):
        client.put(*(_random_bytes(400_000, begin + number) for number in range(10)))
    record.check_unique(at_least=40)


# A writer that is killed


_WRITE_FOR_EVER = """
import sys
from pathlib import Path
from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind
from backthen.repository.objects import writer
from backthen.repository.storage import LocalStorage
from tests.unit.test_objects import _Client, _random_bytes
fmt.PACK_BYTES_TARGET = 1 << 20
writer._PACKS_PER_INDEX = 1000
client = _Client(LocalStorage(Path(sys.argv[1])), Path(sys.argv[2]))
own = client.writer()
number = 0
while True:
    own.put(BlobKind.CHUNK, _random_bytes(200_000, number))
    number += 1
"""


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path])}


def _start(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=PROJECT, env=_environment(), stderr=subprocess.PIPE
    )


def test_a_killed_writer_leaves_whole_packs_that_the_next_one_takes_up(
    storage: LocalStorage, client: _Client, tmp_path: Path
) -> None:
    process = _start(_WRITE_FOR_EVER, storage.location, tmp_path / "killed")
    while len(client.packs()) < 3 and process.poll() is None:
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert -signal.SIGKILL == process.returncode, errors.decode()
    packs = client.packs()
    for pack, length in packs:
        assert pack == object_id(_path(storage, pack).read_bytes())
        assert load_pack_directory(storage, KEYS, pack, length).blobs
    assert [] == list(storage.list("index"))
    assert len(packs) == index_orphans(storage, KEYS, client.index, packs)
    assert 0 == index_orphans(storage, KEYS, client.index, packs)
    with client.writer() as own:
        own.put(BlobKind.CHUNK, _random_bytes(200_000, 0))
        own.put(BlobKind.CHUNK, _random_bytes(200_000, 1))
        own.flush()
        assert 0 == own.bytes_added
    assert 1 == len(list(storage.list("index")))
    storage.remove_abandoned_spool()
    assert [] == list(Path(storage.location, "tmp").iterdir())


def test_an_orphan_that_cannot_be_read_is_left_alone(client: _Client, other: _Client) -> None:
    for number in range(6):
        client.put(_random_bytes(1000, number))
    packs = client.packs()
    paths = [_path(client.storage, pack) for pack, _ in packs]
    _flip(paths[0], 4)  # a version that is not known
    _flip(paths[1], 20)  # the salt
    _flip(paths[2], -1)  # the trailer
    _change(paths[3], paths[3].read_bytes()[:-1])
    _change(paths[4], b"")
    for stored in list(client.storage.list("index")):
        client.storage.delete(stored.name)
    lengths = [(pack, _path(client.storage, pack).stat().st_size) for pack, _ in packs]
    assert 1 == index_orphans(client.storage, KEYS, other.index, lengths)
    assert [other.index.has_pack(pack) for pack, _ in packs] == [False] * 5 + [True]


# Damage


@pytest.mark.parametrize("size", [1000, 600_000], ids=["small", "run"])
def test_a_damaged_segment_is_named_and_the_rest_stays_readable(client: _Client, size: int) -> None:
    (ref,) = client.put(_random_bytes(size))
    ((pack, _),) = client.packs()
    refs = client.put(*(_random_bytes(size, number) for number in range(1, 20)))
    _flip(_path(client.storage, pack), 500)
    with pytest.raises(TamperedError, match=f"{pack_name(pack)}.*segment 0 at byte 44") as caught:
        client.reader.source.read(ref)
    assert pack_name(pack) == caught.value.name
    assert [_random_bytes(size, number) for number in range(1, 20)] == [
        bytes(client.reader.source.read(ref)) for ref in refs
    ]


def test_a_damaged_piece_of_a_run_leaves_the_other_pieces_readable(client: _Client) -> None:
    blob = _random_bytes(1 << 20)
    (ref,) = client.put(blob)
    ((pack, _),) = client.packs()
    location = client.index.lookup(ref.id[:16])
    assert location is not None
    _flip(_path(client.storage, pack), client.index.pack(location).offsets[1] + 10)
    assert blob[: 256 * 1024] == client.reader.source.read(ref, 0, 256 * 1024)
    assert blob[512 * 1024 :] == client.reader.source.read(ref, 512 * 1024)
    with pytest.raises(TamperedError, match="segment 1"):
        client.reader.source.read(ref, 300_000, 10)
    with pytest.raises(TamperedError, match="segment 1"):
        client.reader.source.read(ref)


def test_every_damage_to_a_pack_is_an_error_that_names_it(client: _Client) -> None:
    (ref,) = client.put(b"a small blob")
    ((pack, _),) = client.packs()
    path = _path(client.storage, pack)
    whole = path.read_bytes()
    location = client.index.lookup(ref.id[:16])
    assert location is not None
    end = client.index.pack(location).offsets[1]
    for at in range(end):
        fresh = BlobReader(client.storage, KEYS, client.index, lambda: False)
        _flip(path, at)
        with pytest.raises((DamageError, NewerFormatError), match=pack_name(pack)):
            fresh.source.read(ref)
        _change(path, whole)
    for length in (0, 10, 43, 44, 60, end - 1):
        fresh = BlobReader(client.storage, KEYS, client.index, lambda: False)
        _change(path, whole[:length])
        with pytest.raises(DamageError, match=pack_name(pack)):
            fresh.source.read(ref)


@pytest.mark.parametrize("size", [1000, 600_000], ids=["small", "run"])
def test_packs_that_change_names_are_noticed(client: _Client, size: int) -> None:
    """Each is authentic in itself, and has segments of the same lengths as the other."""
    (one,) = client.put(_random_bytes(size, 1))
    (two,) = client.put(_random_bytes(size, 2))
    (first, second) = (_path(client.storage, pack) for pack, _ in client.packs())
    data = first.read_bytes(), second.read_bytes()
    assert len(data[0]) == len(data[1])
    _change(first, data[1])
    _change(second, data[0])
    for ref in (one, two):
        with pytest.raises(MalformedError, match="another blob"):
            client.reader.source.read(ref)


def test_a_pack_that_is_gone_is_missing(client: _Client) -> None:
    (ref,) = client.put(_random_bytes(1000))
    ((pack, _),) = client.packs()
    client.storage.delete(pack_name(pack))
    with pytest.raises(MissingError, match=pack_name(pack)):
        client.reader.source.read(ref)


def test_a_blob_that_was_never_stored_is_missing(client: _Client) -> None:
    ref = BlobRef(KEYS.blob_id(BlobKind.CHUNK, b"never"), 5)
    with pytest.raises(MissingError):
        client.reader.source.read(ref)
    with pytest.raises(NotInMemory):
        client.reader.near.read(ref)


DAMAGES = ("flipped", "gone", "newer", "empty", "another pack")


@pytest.mark.parametrize("size", [1000, 600_000], ids=["small", "run"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", [0, 1])
def test_a_blob_that_is_stored_twice_is_read_from_the_other_copy(
    client: _Client, other: _Client, damage: str, which: int, size: int
) -> None:
    """Two clients stored it at once; one of the packs is damaged."""
    blob = _random_bytes(size)
    (ref,) = client.put(blob)
    other.put(blob)
    refresh_index(client.storage, KEYS, client.index)
    pack = client.index.pack_id(client.index.copies(ref.id[:16])[which])
    path = _path(client.storage, pack)
    _damage(client, path, pack, damage)
    assert blob == bytes(client.reader.source.read(ref))
    assert blob[500:600] == bytes(client.reader.source.read(ref, 500, 100))


def _damage(client: _Client, path: Path, pack: PackId, damage: str) -> None:
    if damage == "flipped":
        _flip(path, 300)
    elif damage == "gone":
        client.storage.delete(pack_name(pack))
    elif damage == "newer":
        _flip(path, 6)
    elif damage == "empty":
        _change(path, b"")
    else:
        client.put(_random_bytes(2000, 99))
        (stranger,) = (own for own, _ in client.packs() if len(client.index.copies(_prefix_in(client, own))) == 1)
        _change(path, _path(client.storage, stranger).read_bytes())


def _prefix_in(client: _Client, pack: PackId) -> bytes:
    """The first blob of a pack."""
    length = _path(client.storage, pack).stat().st_size
    return load_pack_directory(client.storage, KEYS, pack, length).blobs[0].id[:16]


def test_a_copy_that_another_client_has_indexed_since_is_found(client: _Client, other: _Client) -> None:
    blob = _random_bytes(1000)
    (ref,) = client.put(blob)
    other.put(blob)
    ((pack, _),) = (item for item in client.packs() if client.index.has_pack(item[0]))
    client.storage.delete(pack_name(pack))
    assert 1 == len(client.index.copies(ref.id[:16]))
    assert blob == client.reader.source.read(ref)


@pytest.mark.parametrize(
    "ref",
    [
        BlobRef(BlobId(b""), 5),
        BlobRef(BlobId(b"short"), 5),
        BlobRef(BlobId(bytes(33)), 5),
        BlobRef(BlobId(bytes(32)), -1),
    ],
)
def test_a_reference_that_does_not_follow_the_format_is_malformed(client: _Client, ref: BlobRef) -> None:
    with pytest.raises(MalformedError):
        client.reader.source.read(ref)
    with pytest.raises(MalformedError):
        client.reader.source.page(ref, decode_tree_page)


@pytest.mark.parametrize(
    ("size", "length"), [(1000, 999), (1000, 1001), (1000, 600_000), (600_000, 1000), (600_000, 600_001)]
)
def test_a_reference_with_another_length_is_malformed(client: _Client, size: int, length: int) -> None:
    (ref,) = client.put(_random_bytes(size))
    with pytest.raises(DamageError):
        client.reader.source.read(BlobRef(ref.id, length))
    assert size == len(client.reader.source.read(ref))
    with pytest.raises(DamageError):
        client.reader.source.read(BlobRef(ref.id, length))


def test_a_chunk_is_not_taken_for_a_page(client: _Client) -> None:
    page = msgspec.msgpack.encode([0, [Entry(b"a", EntryType.FILE)]])
    (chunk,) = client.put(page)
    with pytest.raises(MalformedError):
        client.reader.source.page(chunk, decode_tree_page)


def test_a_page_of_one_kind_is_not_taken_for_another(client: _Client) -> None:
    """Though its decoded form is in memory."""
    extents = msgspec.msgpack.encode([0, [Extent(BlobId(bytes(32)), 5)]])
    (ref,) = client.put(extents, kind=BlobKind.LIST)
    assert 5 == client.reader.source.page(ref, decode_list_page).size
    for decode in (decode_tree_page, decode_links_page):
        with pytest.raises(MalformedError):
            client.reader.source.page(ref, decode)


# Near and source


def test_what_is_near_is_what_was_read(client: _Client) -> None:
    blob = _random_bytes(1000)
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


def test_near_has_the_pieces_of_a_run_that_were_read(client: _Client) -> None:
    blob = _random_bytes(1 << 20)
    (ref,) = client.put(blob)
    client.reader.source.read(ref, 300_000, 10)
    assert blob[300_000:310_000] == client.reader.near.read(ref, 300_000, 10_000)
    with pytest.raises(NotInMemory):
        client.reader.near.read(ref, 250_000, 20_000)


def test_the_neighbours_of_a_blob_are_near(client: _Client) -> None:
    """They were put one after another, and so lie in one segment."""
    refs = client.put(*(b"neighbour %d" % number for number in range(100)))
    client.reader.source.read(refs[50])
    assert [b"neighbour %d" % number for number in range(100)] == [bytes(client.reader.near.read(ref)) for ref in refs]


def test_near_says_nothing_of_damage(client: _Client) -> None:
    """Asking the blocking source tells what it is."""
    (ref,) = client.put(_random_bytes(1000))
    ((pack, _),) = client.packs()
    _flip(_path(client.storage, pack), 100)
    with pytest.raises(NotInMemory):
        client.reader.near.read(ref)
    with pytest.raises(TamperedError):
        client.reader.source.read(ref)


def test_the_caches_are_bounded(client: _Client) -> None:
    refs = client.put(*(_random_bytes(1 << 20, number) for number in range(40)))
    for number, ref in enumerate(refs):
        assert _random_bytes(1 << 20, number) == bytes(client.reader.source.read(ref))
    assert 20 * fmt.MIB < client.reader.cached_bytes <= 57 * fmt.MIB


def test_many_threads_read_at_once(client: _Client) -> None:
    blobs = [_random_bytes(50_000 + number, number) for number in range(60)]
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


# Storage that fails


class _Failing(LocalStorage):
    """A storage that fails from the given put on."""

    def __init__(self, root: Path, *, puts: int) -> None:
        super().__init__(root)
        self._puts = puts

    def _count(self) -> None:
        self._puts -= 1
        if self._puts < 0:
            raise StorageError("the disk is on fire")

    def put(self, name: str, data: Buffer) -> None:
        self._count()
        super().put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        self._count()
        super().put_file(name, path)


@pytest.mark.parametrize("puts", range(6))
def test_a_storage_that_fails_stops_the_writer(tmp_path: Path, puts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In time, cleanly, and with the storage's own error; what it stored before stays usable."""
    monkeypatch.setattr(fmt, "PACK_BYTES_TARGET", 1 * fmt.MIB)
    monkeypatch.setattr(writer, "_PACKS_PER_INDEX", 2)
    failing = _Failing(tmp_path / "repository", puts=puts)
    failing.create()
    client = _Client(failing, tmp_path / "cache")
    with pytest.raises(StorageError, match="on fire"), client.writer() as own:
        for number in range(100):
            own.put(BlobKind.CHUNK, _random_bytes(300_000, number))
        own.flush()
    assert [] == list(Path(failing.location, "tmp").iterdir())
    assert [] == [thread.name for thread in threading.enumerate() if thread.name.startswith(("compress", "store"))]
    fresh = _Client(LocalStorage(tmp_path / "repository"), tmp_path / "fresh")
    index_orphans(fresh.storage, KEYS, fresh.index, [])
    for pack, length in fresh.packs():
        assert load_pack_directory(fresh.storage, KEYS, pack, length).blobs
    client.index.close()
    fresh.index.close()


def test_a_spool_that_fails_stops_the_writer(client: _Client, monkeypatch: pytest.MonkeyPatch) -> None:
    record = CipherRecord()
    record.watch(monkeypatch)
    opened: list[BinaryIO] = []

    def limited(folder: Path) -> tuple[Path, BinaryIO]:
        path, file = new_spool_file(folder)
        file.close()
        full = Path("/dev/full").open("wb")  # noqa: SIM115 - the writer has to close it
        opened.append(full)
        return path, full

    monkeypatch.setattr(writer, "new_spool_file", limited)
    with pytest.raises(StorageError, match="No space left"), client.writer() as own:
        for number in range(40):
            own.put(BlobKind.CHUNK, _random_bytes(300_000, number))
        own.flush()
    assert opened and all(file.closed for file in opened)
    record.check_unique(at_least=1)


_FILL = """
import sys
from pathlib import Path
from backthen.repository.crypto import BlobKind
from backthen.repository.errors import StorageError
from backthen.repository.storage import LocalStorage
from tests.unit.test_objects import _Client, _random_bytes
storage = LocalStorage(Path(sys.argv[1]) / "repository")
storage.create()
client = _Client(storage, Path(sys.argv[2]))
client.put(b"before")
try:
    with client.writer() as own:
        for number in range(400):
            own.put(BlobKind.CHUNK, _random_bytes(300_000, number))
        own.flush()
except StorageError as error:
    print("refused:", error)
print(len(client.packs()), sorted(Path(storage.location, "tmp").iterdir()))
client.reader.source.read(client.put(b"before")[0])
"""


def test_a_full_disk_is_an_error_and_nothing_is_left_behind(tmp_path: Path) -> None:
    """A real one of 40 MiB, in a mount namespace of the test's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = 'mount -t tmpfs -o size=40m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives nobody a mount namespace")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", disk, sys.executable, _FILL, tmp_path / "cache"],
        cwd=PROJECT,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("refused:")
    assert second in ("1 []", "2 []")
    assert "" == done.stderr


def test_an_error_of_the_storage_is_not_taken_for_damage(client: _Client, monkeypatch: pytest.MonkeyPatch) -> None:
    (ref,) = client.put(_random_bytes(1000))

    def fail(name: str, offset: int = 0, length: int | None = None) -> bytes:
        raise StorageError("no connection", transient=True)

    with monkeypatch.context() as patch:
        patch.setattr(client.storage, "get", fail)
        with pytest.raises(StorageError) as caught:
            client.reader.source.read(ref)
        assert caught.value.transient
    assert _random_bytes(1000) == client.reader.source.read(ref), "and it is tried again"
