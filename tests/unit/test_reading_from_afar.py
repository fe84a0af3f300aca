"""What a reader of blobs asks of a storage that is far away."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backthen.repository import format as fmt
from backthen.repository.crypto import BlobKind
from backthen.repository.errors import DamageError
from backthen.repository.objects import refresh_index
from backthen.repository.storage import CachedStorage, ObjectCache, pack_name
from backthen.repository.storage.wrappers.cached import AHEAD_BYTES_MAX
from tests.support.blob_client import KEYS, Client
from tests.support.built_packs import random_bytes
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage

CHUNK = 1 << 20
CHUNKS = 20
ANSWERED_S = 30


class Scene:
    """A storage with twenty chunks of a file, and somebody far away who has only read its index."""

    def __init__(self, folder: Path, kind: BlobKind = BlobKind.CHUNK) -> None:
        self.memory = MemoryStorage()
        with Client(self.memory, folder / "writer") as writer:
            self.chunks = [random_bytes(CHUNK, seed) for seed in range(CHUNKS)]
            self.refs = writer.put(*self.chunks, kind=kind)
            self.packs = writer.packs()
        self.folder = folder
        self.far = FlakyStorage(self.memory, concurrency=4)
        self.near = self.storage()
        self.reader = Client(self.near, folder / "reader")
        refresh_index(self.near, KEYS, self.reader.index)
        self.far.calls.clear()

    def storage(self) -> CachedStorage:
        return CachedStorage(self.far, ObjectCache(self.folder / "objects", 256 << 20))

    def read(self, number: int, offset: int = 0, length: int = 4096) -> bytes:
        return bytes(self.reader.reader.source.read(self.refs[number], offset, length))

    def wait(self) -> None:
        """For what is being fetched ahead."""
        if self.near._pool is not None:
            self.near._pool.shutdown()
            self.near._pool = None

    @property
    def gets(self) -> int:
        return len(self.far.calls)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.reader.reader.close()
    scene.reader.index.close()
    scene.wait()


def test_who_reads_here_and_there_gets_what_they_ask_for(scene: Scene) -> None:
    for number in (3, 17, 9, 12):
        before = scene.gets
        assert scene.chunks[number][600_000:604_096] == scene.read(number, 600_000)
        scene.wait()
        assert 1 <= scene.gets - before <= 2  # the segment, and the header of a pack that is new


def test_a_first_byte_needs_one_round_trip(scene: Scene) -> None:
    scene.read(10, 600_000)
    assert {f"get {pack_name(pack)}" for pack, _ in scene.packs} >= set(scene.far.calls)
    assert 2 >= scene.gets


def test_what_is_expected_is_on_its_way(scene: Scene) -> None:
    assert all(scene.reader.reader.source.expect(ref) for ref in scene.refs[3:8])
    scene.wait()
    scene.far.calls.clear()
    assert scene.chunks[3:8] == [bytes(scene.reader.reader.source.read(ref)) for ref in scene.refs[3:8]]
    assert [] == scene.far.calls


def test_no_more_is_expected_than_there_is_room_for(scene: Scene) -> None:
    go = threading.Event()
    scene.far.on_call = lambda _: go.wait(ANSWERED_S)
    expected = [scene.reader.reader.source.expect(ref) for ref in scene.refs]
    go.set()
    assert (True, False) == (expected[0], expected[-1])
    assert AHEAD_BYTES_MAX // CHUNK - 4 <= sum(expected) <= AHEAD_BYTES_MAX // CHUNK


def test_a_large_chunk_that_is_read_in_order_is_fetched_to_its_end(scene: Scene) -> None:
    for at in (0, fmt.RUN_PIECE_BYTES):
        scene.read(4, at)
    scene.wait()
    scene.far.calls.clear()
    assert scene.chunks[4] == bytes(scene.reader.reader.source.read(scene.refs[4]))
    assert [] == scene.far.calls


def test_a_whole_chunk_is_asked_for_at_once(scene: Scene) -> None:
    assert scene.chunks[5] == bytes(scene.reader.reader.source.read(scene.refs[5]))
    assert scene.gets <= 3  # the header, and 5 blocks, 4 in one request


def test_a_pack_of_pages_comes_whole(tmp_path: Path) -> None:
    scene = Scene(tmp_path, BlobKind.XATTR)
    scene.read(7)
    scene.wait()
    scene.far.calls.clear()
    pack_of_7 = scene.reader.index.lookup(scene.refs[7].id[: fmt.ID_PREFIX_BYTES])
    assert pack_of_7 is not None
    for number, ref in enumerate(scene.refs):
        location = scene.reader.index.lookup(ref.id[: fmt.ID_PREFIX_BYTES])
        if location is not None and location.pack_number == pack_of_7.pack_number:
            assert scene.chunks[number] == bytes(scene.reader.reader.source.read(ref))
    assert [] == scene.far.calls
    scene.reader.reader.close()
    scene.reader.index.close()


def test_what_is_near_needs_no_storage(scene: Scene) -> None:
    expected = [bytes(scene.reader.reader.source.read(ref)) for ref in scene.refs]
    scene.far.calls.clear()
    with Client(scene.storage(), scene.folder / "reader 2") as again:
        refresh_index(again.storage, KEYS, again.index)
        scene.far.calls.clear()
        scene.far.fail(1000)
        assert expected == [bytes(again.reader.source.read(ref)) for ref in scene.refs]
        again.reader.close()
    assert [] == scene.far.calls


def test_what_came_damaged_once_is_asked_for_again(scene: Scene) -> None:
    names = [pack_name(pack) for pack, _ in scene.packs]
    whole = {name: scene.memory.get(name) for name in names}
    for name in names:
        scene.memory.tamper(name, bytes(len(whole[name])))
    with pytest.raises(DamageError):
        scene.read(0)
    for name in names:
        scene.memory.tamper(name, whole[name])
    assert scene.chunks[0][:4096] == scene.read(0)


def test_damage_that_stays_is_told(scene: Scene) -> None:
    for pack, length in scene.packs:
        scene.memory.tamper(pack_name(pack), bytes(length))
    for _ in range(2):
        with pytest.raises(DamageError):
            scene.read(0)
