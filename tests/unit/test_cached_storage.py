"""What is kept of a storage that is far away, and how it is asked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from backthen.repository.errors import ObjectMissing, StorageError
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.storage import (
    CONFIG_NAME,
    CachedStorage,
    ObjectCache,
    index_name,
    key_name,
    log_name,
    mark_name,
    pack_name,
    root_name,
)
from backthen.repository.storage.wrappers.cached import AHEAD_BYTES_MAX, BLOCK_BYTES
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage

PACK = pack_name(PackId(ObjectId(bytes(32))))
CONTENT = hashlib.shake_256(b"a pack").digest(10 * BLOCK_BYTES + 1000)
ANSWERED_S = 30


def _id(data: bytes) -> ObjectId:
    return ObjectId(hashlib.sha256(data).digest())


class Ranges(FlakyStorage):
    """Writes down which parts were asked for, as (offset, length) in blocks."""

    def __init__(self, *, concurrency: int = 1) -> None:
        super().__init__(MemoryStorage(), concurrency=concurrency)
        self.ranges: list[tuple[float, float]] = []

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.ranges.append((offset / BLOCK_BYTES, (length or 0) / BLOCK_BYTES))
        return super().get(name, offset, length)


class Scene:
    """A storage with a pack, and two clients that share a cache folder."""

    def __init__(self, folder: Path, *, bytes_max: int = 64 << 20, concurrency: int = 1) -> None:
        self.far = Ranges(concurrency=concurrency)
        self.far.put(PACK, CONTENT)
        self.folder = folder
        self.bytes_max = bytes_max
        self.storage = self.client()
        self.far.calls.clear()

    def client(self) -> CachedStorage:
        return CachedStorage(self.far, ObjectCache(self.folder, self.bytes_max))

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != "reserved")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "objects")


def test_packs_are_asked_for_in_aligned_blocks(scene: Scene) -> None:
    assert CONTENT[10:30] == scene.storage.get(PACK, 10, 20)
    assert CONTENT[3 * BLOCK_BYTES - 1 :][: BLOCK_BYTES + 2] == scene.storage.get(
        PACK, 3 * BLOCK_BYTES - 1, BLOCK_BYTES + 2
    )
    assert [(0, 1), (2, 3)] == scene.far.ranges


def test_who_reads_in_a_pack_gets_its_header_too(scene: Scene) -> None:
    scene.storage.get(PACK, 5 * BLOCK_BYTES, 10)
    scene.storage.get(PACK, 0, 44)
    assert [(0, 1), (5, 1)] == scene.far.ranges


def test_blocks_and_header_are_asked_for_at_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, concurrency=4)
    meeting = threading.Barrier(2)
    scene.far.on_call = lambda _: meeting.wait(ANSWERED_S)
    assert CONTENT[5 * BLOCK_BYTES :][:10] == scene.storage.get(PACK, 5 * BLOCK_BYTES, 10)


def test_what_is_kept_is_not_asked_for_again(scene: Scene) -> None:
    expected = scene.storage.get(PACK, 1000, 3 * BLOCK_BYTES)
    scene.far.calls.clear()
    assert expected == scene.storage.get(PACK, 1000, 3 * BLOCK_BYTES)
    assert expected == scene.client().get(PACK, 1000, 3 * BLOCK_BYTES)
    assert [] == scene.far.calls


def test_only_blocks_that_are_not_kept_are_asked_for(scene: Scene) -> None:
    scene.storage.get(PACK, 0, 10)
    scene.storage.get(PACK, 3 * BLOCK_BYTES, 10)
    scene.far.ranges.clear()
    assert CONTENT[: 6 * BLOCK_BYTES] == scene.storage.get(PACK, 0, 6 * BLOCK_BYTES)
    assert [(1, 2), (4, 2)] == scene.far.ranges


@pytest.mark.parametrize(
    ("offset", "length"), [(len(CONTENT) - 5, 100), (len(CONTENT), 5), (50 * BLOCK_BYTES, 5), (7, None)]
)
def test_the_end_of_a_pack_is_its_end(scene: Scene, offset: int, length: int | None) -> None:
    expected = CONTENT[offset:] if length is None else CONTENT[offset : offset + length]
    assert [expected] * 3 == [storage.get(PACK, offset, length) for storage in (*[scene.storage] * 2, scene.client())]


def _small_objects() -> list[tuple[str, bytes]]:
    data = b"a record"
    id_ = _id(data)
    names = (index_name(id_), root_name(SnapshotId(id_)), log_name(SnapshotId(_id(b"root")), id_), mark_name(id_))
    return [(name, data) for name in names]


@pytest.mark.parametrize(("name", "data"), _small_objects())
def test_small_objects_are_kept_whole(scene: Scene, name: str, data: bytes) -> None:
    scene.far.put(name, data)
    assert data == scene.storage.get(name, 0, 1000)
    scene.far.calls.clear()
    assert [data, data[2:], data[2:5]] == [
        scene.client().get(name, offset, length) for offset, length in ((0, None), (2, None), (2, 3))
    ]
    assert [] == scene.far.calls


def test_what_was_put_is_near(scene: Scene) -> None:
    for name, data in _small_objects():
        scene.storage.put(name, data)
    scene.far.calls.clear()
    assert [data for _, data in _small_objects()] == [scene.client().get(name) for name, _ in _small_objects()]
    assert [] == scene.far.calls


def test_a_pack_that_is_to_be_kept_is_near(scene: Scene, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    scene.storage.keep_pack(PACK, file)
    assert CONTENT == scene.client().get(PACK, 0, len(CONTENT))
    assert [] == scene.far.calls


@pytest.mark.parametrize("name", [CONFIG_NAME, key_name(_id(b"x"))])
def test_the_ways_in_are_never_kept(scene: Scene, name: str) -> None:
    scene.storage.put(name, b"x")
    scene.storage.get(name)
    scene.far.delete(name)
    with pytest.raises(ObjectMissing):
        scene.storage.get(name)


def test_a_part_of_an_object_is_not_kept_as_the_whole(scene: Scene) -> None:
    name, data = _small_objects()[0]
    scene.far.put(name, data)
    assert b"a" == scene.storage.get(name, 0, 1)
    assert data == scene.storage.get(name)


def test_an_object_that_is_not_what_its_name_says_is_not_kept(scene: Scene) -> None:
    name = index_name(_id(b"something else"))
    scene.far.put(name, b"a record")
    scene.storage.get(name)
    assert [] == scene.files()


def test_what_is_deleted_is_gone(scene: Scene) -> None:
    for name in (PACK, _small_objects()[0][0]):
        if name != PACK:
            scene.storage.put(name, _small_objects()[0][1])
        scene.storage.get(name, 0, 10)
        scene.storage.delete(name)
        with pytest.raises(ObjectMissing):
            scene.storage.get(name, 0, 10)
    assert [] == scene.files()


def test_listings_always_come_from_the_storage(scene: Scene) -> None:
    name, data = _small_objects()[0]
    scene.storage.put(name, data)
    scene.far.delete(name)
    assert [] == list(scene.storage.list("index"))


def test_a_file_that_was_damaged_is_fetched_again(scene: Scene) -> None:
    name, data = _small_objects()[0]
    scene.storage.put(name, data)
    scene.storage.get(PACK, 0, 10)
    for file in scene.files():
        raw = bytearray(file.read_bytes())
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    client = scene.client()
    scene.far.calls.clear()
    assert (data, CONTENT[:10]) == (client.get(name), client.get(PACK, 0, 10))
    assert [f"get {name}", f"get {PACK}"] == scene.far.calls
    assert (data, CONTENT[:10]) == (scene.client().get(name), scene.client().get(PACK, 0, 10))
    assert 2 == len(scene.far.calls)


def test_files_that_were_exchanged_are_fetched_again(scene: Scene) -> None:
    scene.storage.get(PACK, 0, 2 * BLOCK_BYTES)
    one, other = scene.files()
    one.write_bytes(other.read_bytes())
    assert CONTENT[:10] == scene.client().get(PACK, 0, 10)


def test_what_is_forgotten_is_fetched_again(scene: Scene) -> None:
    scene.storage.get(PACK, 0, 10)
    scene.storage.forget(PACK)
    assert [] == scene.files()
    scene.storage.get(PACK, 0, 10)
    assert 2 == len(scene.far.ranges)


def test_a_failure_is_told_and_not_kept(scene: Scene) -> None:
    scene.far.fail()
    with pytest.raises(StorageError, match="the connection broke"):
        scene.storage.get(PACK, 0, 10)
    assert CONTENT[:10] == scene.storage.get(PACK, 0, 10)


def test_what_is_fetched_ahead_is_asked_for_once(tmp_path: Path) -> None:
    scene = Scene(tmp_path, concurrency=4)
    scene.storage.prefetch(PACK, 100, len(CONTENT) - 200)
    assert CONTENT == scene.storage.get(PACK, 0, len(CONTENT))
    assert [(0, 4), (4, 4), (8, 3)] == sorted(scene.far.ranges)


def test_what_is_being_fetched_is_waited_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, concurrency=4)
    go = threading.Event()
    scene.far.on_call = lambda _: go.wait(ANSWERED_S)
    scene.storage.prefetch(PACK, 0, BLOCK_BYTES)
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda: read.append(scene.storage.get(PACK, 0, 10))) for _ in range(3)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join()
    assert [CONTENT[:10]] * 3 == read
    assert [(0, 1)] == scene.far.ranges


def test_no_more_is_fetched_ahead_than_the_bound(tmp_path: Path) -> None:
    scene = Scene(tmp_path, concurrency=2)
    go = threading.Event()
    scene.far.on_call = lambda _: go.wait(ANSWERED_S)
    for number in range(3):
        scene.storage.prefetch(pack_name(PackId(_id(b"%d" % number))), 0, AHEAD_BYTES_MAX // 2 + BLOCK_BYTES)
    assert AHEAD_BYTES_MAX == scene.storage._ahead_bytes
    go.set()
    scene.storage.close()
    assert CONTENT[:10] == scene.storage.get(PACK, 0, 10)


def test_who_waits_for_what_is_fetched_ahead_meets_its_failure(tmp_path: Path) -> None:
    scene = Scene(tmp_path, concurrency=2)
    go = threading.Event()
    scene.far.on_call = lambda _: go.wait(ANSWERED_S)
    scene.far.fail()
    scene.storage.prefetch(PACK, 0, BLOCK_BYTES)
    waiting = scene.storage._fetching[PACK, 0]
    go.set()
    with pytest.raises(StorageError, match="the connection broke"):
        waiting.result(ANSWERED_S)
    assert CONTENT[:10] == scene.storage.get(PACK, 0, 10)


def test_closing_tells_those_who_wait_for_what_was_not_begun(tmp_path: Path) -> None:
    scene = Scene(tmp_path, concurrency=1)
    go, begun = threading.Event(), threading.Event()

    def on_call(what: str) -> None:
        if what.startswith("get"):
            begun.set()
            go.wait(ANSWERED_S)

    scene.far.on_call = on_call
    scene.storage.prefetch(PACK, 0, 4 * BLOCK_BYTES)
    scene.storage.prefetch(PACK, 4 * BLOCK_BYTES, BLOCK_BYTES)
    begun.wait(ANSWERED_S)
    waiting = scene.storage._fetching[PACK, 4]
    scene.storage.close()
    with pytest.raises(StorageError, match="closed"):
        waiting.result(ANSWERED_S)
    go.set()


AT_THE_END = """
import atexit, sys
from pathlib import Path
from backthen.repository import StorageError
from tests.unit.test_cached_storage import BLOCK_BYTES, PACK, Scene

scene = Scene(Path(sys.argv[1]), concurrency=2)

@atexit.register
def read():
    scene.storage.prefetch(PACK, 8 * BLOCK_BYTES, BLOCK_BYTES)
    scene.storage.get(PACK, 0, 1)
    for part in ((6 * BLOCK_BYTES, 1), (2 * BLOCK_BYTES, 1)):
        print(len(scene.storage.get(PACK, *part)))
    scene.storage.get(PACK, 4 * BLOCK_BYTES, 1)
    try:
        scene.storage.get(PACK, 3 * BLOCK_BYTES, 7 * BLOCK_BYTES)
    except StorageError as error:
        print(error)
    print(scene.storage._ahead_bytes, len(scene.storage._fetching))
"""


def test_at_the_end_of_the_program_nobody_waits_for_ever(tmp_path: Path) -> None:
    """No more threads are given then, so nothing is fetched in the background."""
    command = [sys.executable, "-c", AT_THE_END, str(tmp_path / "objects")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERED_S, check=False)
    assert ("", ["1", "1", "the storage was closed", "0 0"]) == (done.stderr, done.stdout.splitlines())
