"""Packs that were damaged, changed or lost: the error names them, and what is whole elsewhere is read from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from backthen.repository.crypto import BlobKind
from backthen.repository.errors import (
    DamageError,
    MalformedError,
    MissingError,
    NewerFormatError,
    TamperedError,
)
from backthen.repository.ids import BlobId, PackId
from backthen.repository.model.entry import BlobRef, Entry, EntryType, Extent
from backthen.repository.model.page import decode_links_page, decode_list_page, decode_tree_page
from backthen.repository.objects import (
    BlobReader,
    NotInMemory,
    load_pack_directory,
    refresh_index,
)
from backthen.repository.storage import LocalStorage, pack_name
from tests.support.blob_client import (
    Client,
    change_file,
    flip_bit,
    new_storage,
    pack_path,
)
from tests.support.built_packs import random_bytes
from tests.support.fixed_keys import fixed_keys

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


@pytest.mark.parametrize("size", [1000, 600_000], ids=["small", "run"])
def test_a_damaged_segment_is_named_and_the_rest_stays_readable(client: Client, size: int) -> None:
    (ref,) = client.put(random_bytes(size))
    ((pack, _),) = client.packs()
    refs = client.put(*(random_bytes(size, number) for number in range(1, 20)))
    flip_bit(pack_path(client.storage, pack), 500)
    with pytest.raises(TamperedError, match=f"{pack_name(pack)}.*segment 0 at byte 44") as caught:
        client.reader.source.read(ref)
    assert pack_name(pack) == caught.value.name
    assert [random_bytes(size, number) for number in range(1, 20)] == [
        bytes(client.reader.source.read(ref)) for ref in refs
    ]


def test_a_damaged_piece_of_a_run_leaves_the_other_pieces_readable(client: Client) -> None:
    blob = random_bytes(1 << 20)
    (ref,) = client.put(blob)
    ((pack, _),) = client.packs()
    location = client.index.lookup(ref.id[:16])
    assert location is not None
    flip_bit(pack_path(client.storage, pack), client.index.pack(location).offsets[1] + 10)
    assert blob[: 256 * 1024] == client.reader.source.read(ref, 0, 256 * 1024)
    assert blob[512 * 1024 :] == client.reader.source.read(ref, 512 * 1024)
    with pytest.raises(TamperedError, match="segment 1"):
        client.reader.source.read(ref, 300_000, 10)
    with pytest.raises(TamperedError, match="segment 1"):
        client.reader.source.read(ref)


def test_every_damage_to_a_pack_is_an_error_that_names_it(client: Client) -> None:
    (ref,) = client.put(b"a small blob")
    ((pack, _),) = client.packs()
    path = pack_path(client.storage, pack)
    whole = path.read_bytes()
    location = client.index.lookup(ref.id[:16])
    assert location is not None
    end = client.index.pack(location).offsets[1]
    for at in range(end):
        fresh = BlobReader(client.storage, KEYS, client.index, lambda: False)
        flip_bit(path, at)
        with pytest.raises((DamageError, NewerFormatError), match=pack_name(pack)):
            fresh.source.read(ref)
        change_file(path, whole)
    for length in (0, 10, 43, 44, 60, end - 1):
        fresh = BlobReader(client.storage, KEYS, client.index, lambda: False)
        change_file(path, whole[:length])
        with pytest.raises(DamageError, match=pack_name(pack)):
            fresh.source.read(ref)


@pytest.mark.parametrize("size", [1000, 600_000], ids=["small", "run"])
def test_packs_that_change_names_are_noticed(client: Client, size: int) -> None:
    """Each is authentic in itself, and has segments of the same lengths as the other."""
    (one,) = client.put(random_bytes(size, 1))
    (two,) = client.put(random_bytes(size, 2))
    (first, second) = (pack_path(client.storage, pack) for pack, _ in client.packs())
    data = first.read_bytes(), second.read_bytes()
    assert len(data[0]) == len(data[1])
    change_file(first, data[1])
    change_file(second, data[0])
    for ref in (one, two):
        with pytest.raises(MalformedError, match="another blob"):
            client.reader.source.read(ref)


def test_a_pack_that_is_gone_is_missing(client: Client) -> None:
    (ref,) = client.put(random_bytes(1000))
    ((pack, _),) = client.packs()
    client.storage.delete(pack_name(pack))
    with pytest.raises(MissingError, match=pack_name(pack)):
        client.reader.source.read(ref)


def test_a_blob_that_was_never_stored_is_missing(client: Client) -> None:
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
    client: Client, other: Client, damage: str, which: int, size: int
) -> None:
    """Two clients stored it at once; one of the packs is damaged."""
    blob = random_bytes(size)
    (ref,) = client.put(blob)
    other.put(blob)
    refresh_index(client.storage, KEYS, client.index)
    pack = client.index.pack_id(client.index.copies(ref.id[:16])[which])
    path = pack_path(client.storage, pack)
    _damage(client, path, pack, damage)
    assert blob == bytes(client.reader.source.read(ref))
    assert blob[500:600] == bytes(client.reader.source.read(ref, 500, 100))


def _damage(client: Client, path: Path, pack: PackId, damage: str) -> None:
    if damage == "flipped":
        flip_bit(path, 300)
    elif damage == "gone":
        client.storage.delete(pack_name(pack))
    elif damage == "newer":
        flip_bit(path, 6)
    elif damage == "empty":
        change_file(path, b"")
    else:
        client.put(random_bytes(2000, 99))
        (stranger,) = (own for own, _ in client.packs() if len(client.index.copies(_prefix_in(client, own))) == 1)
        change_file(path, pack_path(client.storage, stranger).read_bytes())


def _prefix_in(client: Client, pack: PackId) -> bytes:
    """The first blob of a pack."""
    length = pack_path(client.storage, pack).stat().st_size
    return load_pack_directory(client.storage, KEYS, pack, length).blobs[0].id[:16]


def test_a_copy_that_another_client_has_indexed_since_is_found(client: Client, other: Client) -> None:
    blob = random_bytes(1000)
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
def test_a_reference_that_does_not_follow_the_format_is_malformed(client: Client, ref: BlobRef) -> None:
    with pytest.raises(MalformedError):
        client.reader.source.read(ref)
    with pytest.raises(MalformedError):
        client.reader.source.page(ref, decode_tree_page)


@pytest.mark.parametrize(
    ("size", "length"), [(1000, 999), (1000, 1001), (1000, 600_000), (600_000, 1000), (600_000, 600_001)]
)
def test_a_reference_with_another_length_is_malformed(client: Client, size: int, length: int) -> None:
    (ref,) = client.put(random_bytes(size))
    with pytest.raises(DamageError):
        client.reader.source.read(BlobRef(ref.id, length))
    assert size == len(client.reader.source.read(ref))
    with pytest.raises(DamageError):
        client.reader.source.read(BlobRef(ref.id, length))


def test_a_chunk_is_not_taken_for_a_page(client: Client) -> None:
    page = msgspec.msgpack.encode([0, [Entry(b"a", EntryType.FILE)]])
    (chunk,) = client.put(page)
    with pytest.raises(MalformedError):
        client.reader.source.page(chunk, decode_tree_page)


def test_a_page_of_one_kind_is_not_taken_for_another(client: Client) -> None:
    """Though its decoded form is in memory."""
    extents = msgspec.msgpack.encode([0, [Extent(BlobId(bytes(32)), 5)]])
    (ref,) = client.put(extents, kind=BlobKind.LIST)
    assert 5 == client.reader.source.page(ref, decode_list_page).size
    for decode in (decode_tree_page, decode_links_page):
        with pytest.raises(MalformedError):
            client.reader.source.page(ref, decode)
