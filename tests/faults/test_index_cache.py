"""What can happen to the local index: as a cache it may cost time, never the process, never a wrong answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backthen.repository import format as fmt
from backthen.repository.crypto import object_id as stored_id
from backthen.repository.errors import CacheError, TamperedError
from backthen.repository.ids import ObjectId
from backthen.repository.index import LocalIndex, encode_index, table
from backthen.repository.objects import refresh_index
from backthen.repository.storage import LocalStorage, StoredObject, index_name
from tests.support.fixed_keys import fixed_keys
from tests.support.index_records import blob_id, index_object, indexed_pack, object_id, pack_id

KEYS = fixed_keys()
PROJECT = Path(__file__).parents[2]
BLOBS = 5000


def _run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", _PRELUDE + code, *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


_PRELUDE = """
import sys
from pathlib import Path
from backthen.repository.index import LocalIndex, table
from tests.support.fixed_keys import fixed_keys
from tests.support.index_records import blob_id, index_object, indexed_pack, object_id
index = LocalIndex(Path(sys.argv[1]), fixed_keys())
"""
_COUNT = f"print(sum(index.lookup(blob_id(n)[:16]) is not None for n in range({BLOBS})), index.blob_count)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An index of 5,000 blobs, most of them in `main` and some in `delta`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table, "_DELTA_ENTRIES_MIN", 1000)
        index = LocalIndex(tmp_path / "index", KEYS)
        index.add([(object_id(1), index_object(indexed_pack(1, range(BLOBS - 500))))])
        index.add([(object_id(2), index_object(indexed_pack(2, range(BLOBS - 500, BLOBS))))])
        index.close()
    return tmp_path / "index"


def _generation(folder: Path) -> Path:
    (found,) = (path for path in folder.iterdir() if path.name.isdigit())
    return found


def test_another_process_reads_what_this_one_wrote(folder: Path) -> None:
    done = _run(_COUNT, folder)
    assert (0, f"{BLOBS} {BLOBS}\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize("name", ["main", "delta"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_never_opened(folder: Path, name: str, share: float) -> None:
    """LMDB would map it and die with SIGBUS; the table is made anew instead."""
    path = _generation(folder) / name
    os.truncate(path, int(path.stat().st_size * share))
    done = _run(_COUNT, folder)
    assert (0, "0 0\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize("name", ["main", "delta"])
def test_a_missing_file_costs_time_only(folder: Path, name: str) -> None:
    (_generation(folder) / name).unlink()
    index = LocalIndex(folder, KEYS)
    assert 0 == index.blob_count
    index.close()


@pytest.mark.parametrize("name", ["main", "delta"])
def test_a_file_of_garbage_costs_time_only(folder: Path, name: str) -> None:
    path = _generation(folder) / name
    path.write_bytes(os.urandom(path.stat().st_size))
    done = _run(_COUNT, folder)
    assert (0, "0 0\n") == (done.returncode, done.stdout), done.stderr


CURRENT: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "garbage": lambda data: os.urandom(len(data)),
    "cut": lambda data: data[:-1],
    "flipped": lambda data: data[:100] + bytes((data[100] ^ 1,)) + data[101:],
    "newer": lambda data: data[:4] + b"\x02" + data[5:],
    "an index object": lambda data: encode_index(KEYS, 1, []),
}


@pytest.mark.parametrize("what", CURRENT)
def test_a_marker_that_is_not_authentic_is_not_believed(folder: Path, what: str) -> None:
    current = folder / "current"
    current.write_bytes(CURRENT[what](current.read_bytes()))
    index = LocalIndex(folder, KEYS)
    assert 0 == index.blob_count
    index.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    assert index.lookup(blob_id(1)[:16]) is not None
    index.close()


def test_a_marker_of_another_generation_is_not_believed(folder: Path) -> None:
    generation = _generation(folder)
    generation.rename(folder / "77")
    index = LocalIndex(folder, KEYS)
    assert 0 == index.blob_count
    index.close()
    assert not (folder / "77").exists(), "what nobody uses goes"


def test_what_a_killed_merge_left_is_no_obstacle(folder: Path) -> None:
    number = int(_generation(folder).name)
    (folder / f"{number + 1}.building").mkdir()
    (folder / f"{number + 1}.building" / "main").write_bytes(b"half")
    (folder / "current.building").write_bytes(b"half")
    index = LocalIndex(folder, KEYS)
    assert BLOBS == index.blob_count
    index.clear()
    index.add([(object_id(1), index_object(indexed_pack(1, range(10))))])
    assert 10 == index.blob_count
    index.close()


def test_a_merge_killed_before_its_marker_leaves_the_old_generation(folder: Path) -> None:
    old = _generation(folder)
    shutil.copytree(old, folder / str(int(old.name) + 1))
    index = LocalIndex(folder, KEYS)
    assert BLOBS == index.blob_count
    index.clear()
    index.close()
    assert 1 == len([path for path in folder.iterdir() if path.name.isdigit()])


def test_a_folder_deleted_before_opening_is_made_anew(folder: Path) -> None:
    shutil.rmtree(folder)
    index = LocalIndex(folder, KEYS)
    assert 0 == index.blob_count
    index.close()


def test_a_folder_deleted_while_open_costs_time_only(folder: Path) -> None:
    index = LocalIndex(folder, KEYS)
    shutil.rmtree(folder)
    assert index.lookup(blob_id(1)[:16]) is not None, "the open files are still good"
    index.add([(object_id(9), index_object(indexed_pack(9, range(20_000, 20_010))))])
    assert index.lookup(blob_id(20_001)[:16]) is not None
    index.close()
    again = LocalIndex(folder, KEYS)
    assert {object_id(9)} == again.object_ids()
    again.close()


def test_a_damaged_table_is_an_error_with_a_way_out(folder: Path) -> None:
    """LMDB has no checksums: what it notices while reading is told, with the folder that may be deleted."""
    path = _generation(folder) / "main"
    data = bytearray(path.read_bytes())
    flags_at = 10
    for page in range(12, 40):  # they hold blobs; what is read at opening stands before and after them
        data[page * _LMDB_PAGE_BYTES + flags_at] = _LMDB_OVERFLOW_PAGE
    path.write_bytes(data)
    done = _run(_LOOK_UP, folder)
    assert 0 == done.returncode, done.stderr
    assert "made anew" in done.stdout


_LMDB_PAGE_BYTES = 4096
_LMDB_OVERFLOW_PAGE = 4
_LOOK_UP = """
from backthen.repository.errors import CacheError
try:
    [index.lookup(blob_id(n)[:16]) for n in range(100)]
except CacheError as error:
    print(error.hint)
"""
_ADD_MANY = """
table._DELTA_ENTRIES_MIN = 700
own = int(sys.argv[2])
for n in range(own, own + 40):
    blobs = range(100_000 + n * 100, 100_000 + n * 100 + 100)
    index.add([(object_id(1000 + n), index_object(indexed_pack(1000 + n, blobs)))])
    assert index.lookup(blob_id(blobs[0])[:16]) is not None
"""


def test_two_processes_add_at_once_and_lose_nothing(folder: Path) -> None:
    """Each follows the generations that the other makes."""
    outcomes: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda begin=begin: outcomes.append(_run(_ADD_MANY, folder, begin)))
        for begin in (0, 40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [0, 0] == [done.returncode for done in outcomes], [done.stderr for done in outcomes]
    index = LocalIndex(folder, KEYS)
    assert BLOBS + 80 * 100 == index.blob_count
    assert {object_id(1), object_id(2), *(object_id(1000 + number) for number in range(80))} == index.object_ids()
    found = [index.lookup(blob_id(100_000 + number)[:16]) for number in range(80 * 100)]
    assert [pack_id(1000 + number // 100) for number in range(80 * 100)] == [index.pack_id(at) for at in found if at]
    index.close()


def test_one_process_opens_while_another_makes_generations(folder: Path) -> None:
    """Whoever opens never finds a generation gone that it just read of."""
    outcome: list[subprocess.CompletedProcess[str]] = []
    writer = threading.Thread(target=lambda: outcome.append(_run("for _ in range(25): index.clear()", folder)))
    writer.start()
    opened = 0
    while writer.is_alive() or not opened:
        LocalIndex(folder, KEYS).close()
        opened += 1
    writer.join()
    assert 0 == outcome[0].returncode, outcome[0].stderr


def test_a_process_that_reads_keeps_its_generation_while_another_clears(folder: Path) -> None:
    index = LocalIndex(folder, KEYS)
    done = _run("index.clear()", folder)
    assert 0 == done.returncode, done.stderr
    assert index.lookup(blob_id(1)[:16]) is not None
    index.add([])
    assert index.lookup(blob_id(1)[:16]) is None, "it follows when it writes"
    index.close()


# Against the storage


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    made = LocalStorage(tmp_path / "repository")
    made.create()
    return made


def _store(storage: LocalStorage, number: int) -> ObjectId:
    data = encode_index(KEYS, fmt.PACK_CLASS_DATA, [indexed_pack(number, range(number * 10, number * 10 + 10))])
    storage.put(index_name(stored_id(data)), data)
    return stored_id(data)


@pytest.fixture
def index(tmp_path: Path) -> LocalIndex:
    return LocalIndex(tmp_path / "own", KEYS)


def test_a_refresh_takes_in_what_is_new_and_says_so(storage: LocalStorage, index: LocalIndex) -> None:
    assert not refresh_index(storage, KEYS, index)
    ids = {_store(storage, number) for number in range(3)}
    assert refresh_index(storage, KEYS, index)
    assert ids == index.object_ids()
    assert not refresh_index(storage, KEYS, index)
    assert 30 == index.blob_count
    index.close()


def test_index_objects_that_vanish_are_forgotten(storage: LocalStorage, index: LocalIndex) -> None:
    """Their packs may be gone as well; what the others say is taken in again."""
    first, second = _store(storage, 1), _store(storage, 2)
    refresh_index(storage, KEYS, index)
    storage.delete(index_name(first))
    assert refresh_index(storage, KEYS, index)
    assert {second} == index.object_ids()
    assert index.lookup(blob_id(11)[:16]) is None
    assert index.lookup(blob_id(21)[:16]) is not None
    storage.delete(index_name(second))
    assert refresh_index(storage, KEYS, index)
    assert 0 == index.blob_count
    index.close()


class _Racing(LocalStorage):
    """Another process stores and takes in one more object just after the listing."""

    def __init__(self, root: Path, index: LocalIndex) -> None:
        super().__init__(root)
        self._index = index
        self.stored: ObjectId | None = None

    def list(self, folder: str) -> Iterator[StoredObject]:
        found = list(super().list(folder))
        if self.stored is None:
            self.stored = _store(self, 7)
            self._index.add([(self.stored, index_object(indexed_pack(7, range(70, 80))))])
        return iter(found)


def test_an_object_added_while_listing_does_not_look_as_if_it_were_gone(
    storage: LocalStorage, index: LocalIndex
) -> None:
    _store(storage, 1)
    refresh_index(storage, KEYS, index)
    generation = index._generation.number
    refresh_index(_Racing(Path(storage.location), index), KEYS, index)
    assert generation == index._generation.number, "nothing was cleared"
    assert index.lookup(blob_id(71)[:16]) is not None
    index.close()


def test_a_changed_index_object_is_named(storage: LocalStorage, index: LocalIndex) -> None:
    name = index_name(_store(storage, 1))
    path = Path(storage.location) / name
    path.chmod(0o600)
    path.write_bytes(encode_index(KEYS, fmt.PACK_CLASS_DATA, []))
    with pytest.raises(TamperedError, match=name):
        refresh_index(storage, KEYS, index)
    index.close()


def test_a_cache_that_cannot_be_written_is_an_error(folder: Path) -> None:
    index = LocalIndex(folder, KEYS)
    shutil.rmtree(folder)
    folder.write_bytes(b"")
    with pytest.raises(CacheError):
        index.add([(object_id(9), index_object(indexed_pack(9, range(10))))])
    index.close()
