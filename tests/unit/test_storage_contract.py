"""What `storage/contract.py` promises, run on every backend."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backthen.repository.errors import InvalidRequest, ObjectExists, ObjectMissing, RepositoryExists, StorageError
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.storage import (
    CONFIG_NAME,
    FOLDERS,
    CachedStorage,
    ListedAhead,
    LocalStorage,
    ObjectCache,
    ObservedStorage,
    RetryingStorage,
    Storage,
    StoredObject,
    index_name,
    is_object_name,
    key_name,
    log_name,
    mark_name,
    open_storage,
    pack_name,
    parse_index_name,
    parse_key_name,
    parse_log_name,
    parse_mark_name,
    parse_pack_name,
    parse_root_name,
    root_name,
)
from backthen.repository.storage.backends.sftp import SftpStorage
from tests.support.flaky_storage import FlakyStorage
from tests.support.memory_storage import MemoryStorage
from tests.support.s3_server import S3Server
from tests.support.ssh_server import SshServer

RACERS = 16


def _local(folder: Path) -> Storage:
    storage = LocalStorage(folder / "repository")
    storage.create()
    return storage


def _bucket(request: pytest.FixtureRequest) -> Storage:
    server: S3Server = request.getfixturevalue("s3_server")
    return open_storage(server.new_location(), server.access)


def _sftp(request: pytest.FixtureRequest, folder: Path) -> Storage:
    server: SshServer = request.getfixturevalue("ssh_server")
    storage = SftpStorage(server.location(folder / "repository"), server.access)
    storage.create()
    return storage


def _cached(storage: Storage, folder: Path) -> Storage:
    return CachedStorage(storage, ObjectCache(folder / "cache", 64 << 20))


def _distant() -> Storage:
    return FlakyStorage(MemoryStorage(), concurrency=4)


# Servers are fixtures: they run only where they are asked for, and once.
BACKENDS: dict[str, Callable[[Path, pytest.FixtureRequest], Storage]] = {
    "bucket": lambda _, request: _bucket(request),
    "cached": lambda folder, _: _cached(MemoryStorage(), folder),
    "cached without a disk": lambda folder, _: CachedStorage(MemoryStorage(), ObjectCache(folder, 0)),
    "listed ahead": lambda *_: ListedAhead(MemoryStorage(), FOLDERS),
    "local": lambda folder, _: _local(folder),
    "memory": lambda *_: MemoryStorage(),
    "observed": lambda folder, _: ObservedStorage(_local(folder)),
    "retrying": lambda *_: RetryingStorage(MemoryStorage()),
    "sftp": lambda folder, request: _sftp(request, folder),
    "sftp, stacked": lambda folder, request: _cached(RetryingStorage(_sftp(request, folder)), folder),
    "stacked": lambda folder, _: _cached(ObservedStorage(RetryingStorage(_distant())), folder),
}


@pytest.fixture(params=sorted(BACKENDS))
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    storage = BACKENDS[request.param](tmp_path, request)
    yield storage
    storage.close()


def _id(number: int) -> ObjectId:
    return ObjectId(hashlib.sha256(b"%d" % number).digest())


def _every_name() -> list[str]:
    one, two = _id(1), _id(2)
    return [
        CONFIG_NAME,
        key_name(one),
        pack_name(PackId(one)),
        index_name(one),
        root_name(SnapshotId(one)),
        log_name(SnapshotId(one), two),
        mark_name(one),
    ]


def _in_threads(count: int, work: Callable[[int], bool]) -> list[bool]:
    """Let all begin at once."""
    barrier = threading.Barrier(count)

    def begin(number: int) -> bool:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(begin, range(count)))


@pytest.mark.parametrize("name", _every_name())
def test_what_was_put_is_got_and_listed(storage: Storage, name: str) -> None:
    storage.put(name, b"content")
    assert storage.get(name) == b"content"
    listed = [stored for folder in FOLDERS for stored in storage.list(folder)]
    assert listed == ([] if name == CONFIG_NAME else [StoredObject(name, 7)])


def test_put_never_changes_an_object(storage: Storage) -> None:
    storage.put(CONFIG_NAME, b"first")
    with pytest.raises(ObjectExists):
        storage.put(CONFIG_NAME, b"second")
    assert storage.get(CONFIG_NAME) == b"first"


def test_any_buffer_is_put(storage: Storage) -> None:
    storage.put(index_name(_id(1)), bytearray(b"array"))
    storage.put(index_name(_id(2)), memoryview(b"a view")[2:])
    assert (storage.get(index_name(_id(1))), storage.get(index_name(_id(2)))) == (b"array", b"view")


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    storage.put(mark_name(_id(1)), b"")
    assert storage.get(mark_name(_id(1))) == b""
    assert list(storage.list("marks")) == [StoredObject(mark_name(_id(1)), 0)]


@pytest.mark.parametrize("place", ["spool", "elsewhere"])
def test_put_file_takes_the_file(storage: Storage, tmp_path: Path, place: str) -> None:
    folder = tmp_path if place == "elsewhere" or storage.spool is None else storage.spool
    folder.mkdir(exist_ok=True)
    file = folder / "pack"
    file.write_bytes(b"content" * 500_000)
    storage.put_file(pack_name(PackId(_id(1))), file)
    assert storage.get(pack_name(PackId(_id(1)))) == b"content" * 500_000
    assert not file.exists()


@pytest.mark.parametrize("place", ["spool", "elsewhere"])
def test_put_file_of_a_taken_name_removes_the_file_alone(storage: Storage, tmp_path: Path, place: str) -> None:
    name = pack_name(PackId(_id(1)))
    storage.put(name, b"first")
    folder = tmp_path if place == "elsewhere" or storage.spool is None else storage.spool
    file = folder / "pack"
    file.write_bytes(b"second")
    with pytest.raises(ObjectExists):
        storage.put_file(name, file)
    assert storage.get(name) == b"first"
    assert not file.exists()


def test_put_file_names_a_file_that_is_gone_and_trying_again_would_not_help(storage: Storage, tmp_path: Path) -> None:
    """As where the cache was removed under a run."""
    with pytest.raises(StorageError) as caught:
        storage.put_file(pack_name(PackId(_id(1))), tmp_path / "gone")
    assert (f"{tmp_path}/gone: No such file or directory", False) == (str(caught.value), caught.value.transient)
    assert [] == list(storage.list("packs"))


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (0, 0, b""),
        (8, 5, b"89"),
        (10, 1, b""),
        (99, None, b""),
        (99, 5, b""),
    ],
)
def test_ranges(storage: Storage, offset: int, length: int | None, expected: bytes) -> None:
    storage.put(pack_name(PackId(_id(1))), b"0123456789")
    assert storage.get(pack_name(PackId(_id(1))), offset, length) == expected


@pytest.mark.parametrize("name", _every_name())
def test_a_missing_object_is_missing(storage: Storage, name: str) -> None:
    with pytest.raises(ObjectMissing):
        storage.get(name)


def test_deleted_is_gone_and_may_be_deleted_again(storage: Storage) -> None:
    name = root_name(SnapshotId(_id(1)))
    storage.put(name, b"x")
    storage.delete(name)
    storage.delete(name)
    assert list(storage.list("roots")) == []
    with pytest.raises(ObjectMissing):
        storage.get(name)
    storage.put(name, b"y")
    assert storage.get(name) == b"y"


def test_thousands_of_objects_are_all_listed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    expected = {StoredObject(pack_name(PackId(_id(number))), number % 7) for number in range(3000)}
    for stored in expected:
        storage.put(stored.name, bytes(stored.length))
    listed = list(storage.list("packs"))
    assert len(listed) == 3000
    assert set(listed) == expected
    assert list(storage.list("index")) == []


def test_one_of_many_racers_wins(storage: Storage) -> None:
    for name in _every_name():

        def put(number: int, name: str = name) -> bool:
            try:
                storage.put(name, b"%02d" % number * 50_000)
            except ObjectExists:
                return False
            return True

        won = _in_threads(RACERS, put)
        assert sum(won) == 1
        assert storage.get(name) == b"%02d" % won.index(True) * 50_000


def test_nobody_sees_a_part_of_an_object(storage: Storage) -> None:
    size = 3_000_000
    done = threading.Event()
    names = [pack_name(PackId(_id(number))) for number in range(12)]

    def put_all() -> None:
        for name in names:
            storage.put(name, b"x" * size)
        done.set()

    seen: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(put_all)
        while not done.is_set() and not writing.done():
            for stored in storage.list("packs"):
                seen |= {stored.length, len(storage.get(stored.name))}
        writing.result()
    assert seen <= {size}
    assert {stored.length for stored in storage.list("packs")} == {size}


def test_threads_put_get_list_and_delete_side_by_side(storage: Storage) -> None:
    def work(number: int) -> bool:
        for step in range(20):
            name = pack_name(PackId(_id(number * 100 + step)))
            storage.put(name, name.encode())
            assert storage.get(name) == name.encode()
            assert name in {stored.name for stored in storage.list("packs")}
            if step % 2:
                storage.delete(name)
        return True

    assert all(_in_threads(8, work))
    assert len(list(storage.list("packs"))) == 80


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../config", "packs/../config", "index/xyz", f"packs/00/{'f' * 64}", f"index/{'F' * 64}",
     f"index/{'f' * 64}\n", f"tmp/{'f' * 64}", f"log/{'f' * 64}", "config\0"],
)  # fmt: skip
def test_names_from_elsewhere_are_refused(storage: Storage, tmp_path: Path, name: str) -> None:
    assert not is_object_name(name)
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    for action in (
        lambda: storage.put(name, b""),
        lambda: storage.put_file(name, file),
        lambda: storage.get(name),
        lambda: storage.delete(name),
    ):
        with pytest.raises(ValueError, match="not the name of an object"):
            action()
    assert file.read_bytes() == b"kept"


@pytest.mark.parametrize("folder", ["", ".", "..", "tmp", "packs/", "packs/00", "/"])
def test_folders_from_elsewhere_are_refused(storage: Storage, folder: str) -> None:
    with pytest.raises(ValueError, match="not a folder of objects"):
        storage.list(folder)


def test_create_refuses_a_repository_and_what_may_be_one(storage: Storage) -> None:
    storage.create()
    storage.put(key_name(_id(1)), b"what a killed create left")
    storage.create()
    storage.put(pack_name(PackId(_id(2))), b"data")
    with pytest.raises(InvalidRequest):
        storage.create()
    storage.put(CONFIG_NAME, b"config")
    with pytest.raises(RepositoryExists):
        storage.create()


def test_names_are_parsed_back() -> None:
    one, two = _id(1), _id(2)
    assert parse_key_name(key_name(one)) == one
    assert parse_pack_name(pack_name(PackId(one))) == one
    assert parse_index_name(index_name(one)) == one
    assert parse_root_name(root_name(SnapshotId(one))) == one
    assert parse_log_name(log_name(SnapshotId(one), two)) == (one, two)
    assert parse_mark_name(mark_name(one)) == one


def test_a_name_parses_as_its_own_kind_alone() -> None:
    parsers = [
        parse_key_name, parse_pack_name, parse_index_name, parse_root_name, parse_log_name, parse_mark_name,
    ]  # fmt: skip
    for name in _every_name()[1:]:
        assert sum(parse(name) is not None for parse in parsers) == 1
    for name in (CONFIG_NAME, "", "packs/", "packs/readme.txt", "index/" + "g" * 64):
        assert all(parse(name) is None for parse in parsers)


@pytest.mark.parametrize("form", ["{}", "file://{}", "FILE://{}", "file://localhost{}"])
def test_local_locations(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "my backups"
    text = str(folder).replace(" ", "%20") if "://" in form else str(folder)
    assert open_storage(form.format(text)).location == str(folder)


def test_relative_and_home_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_storage("backups").location == str(tmp_path / "backups")
    assert open_storage("~/backups").location == str(tmp_path / "home" / "backups")


@pytest.mark.parametrize(
    "location",
    [
        "",
        "file://",
        "file://elsewhere/path",
        "sftp://host",
        "sftp://user:secret@host/path",
        "s3://x",
        "s3:///path",
        "s3://key:secret@bucket/path",
        "s3://bucket/a//b",
        "gs://bucket/../up",
        "a\0b",
        "~nobody-here/x",
    ],
)
def test_other_locations_are_refused(location: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_storage(location)
    assert caught.value.hint


def test_a_closed_storage_begins_anew(storage: Storage) -> None:
    storage.put(CONFIG_NAME, b"content")
    storage.close()
    storage.close()
    assert storage.get(CONFIG_NAME) == b"content"
