"""What a live tree, a repository inside it or a broken parent can do to a snapshot: it costs what it must, no more."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import msgspec
import pytest

from backthen.repository import (
    Client,
    EntryType,
    Folders,
    MissingError,
    Node,
    Repository,
    RepositoryExists,
    Silent,
    SnapshotId,
    SnapshotReport,
    SnapshotRequest,
    WrongPassword,
    create_repository,
    create_snapshot,
    find_repository,
    now_ns,
    open_storage,
    read_file,
    unlock,
)
from backthen.repository.backup import entries, parents, snapshot
from backthen.repository.model.entry import Entry
from backthen.repository.source import FileReplaced, OwnerNames, make_entry, open_file, stretches, walk
from backthen.repository.source.walk import Directory

CLIENT = Client("h", "u", "p")
TICK_NS = 20_000_000


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "home" / "cache", tmp_path / "state")


@pytest.fixture
def repository(tmp_path: Path, folders: Folders) -> Repository:
    return create_repository(open_storage(str(tmp_path / "home" / "repository")), b"password", folders, CLIENT)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


class Telling(Silent):
    """Keeps what could not be saved."""

    def __init__(self) -> None:
        self.problems: list[bytes] = []

    def problem(self, path: bytes, message: str) -> None:
        self.problems.append(path)


class Stopping(Silent):
    """Ends the snapshot at one file, as a power failure would."""

    def __init__(self, path: Path) -> None:
        self._path = os.fsencode(path)

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        if files and current == self._path:
            raise KeyboardInterrupt


def save(repository: Repository, path: Path, *, one_file_system: bool = False) -> SnapshotReport:
    request = SnapshotRequest((os.fsencode(path),), "host", one_file_system=one_file_system)
    return create_snapshot(repository, request, Silent())


def find(repository: Repository, id_: SnapshotId | None, path: Path) -> Node:
    (info,) = (info for info in repository.snapshots() if info.id == id_)
    return repository.tree(info).resolve(repository.blobs.source, os.fsencode(path))


def wait_for_the_clock() -> None:
    until = now_ns() + 2 * TICK_NS
    while now_ns() < until:
        pass


def test_times_beyond_all_reason_are_bounded_and_do_not_stop_a_snapshot() -> None:
    times = {"st_mtime_ns": 10**21, "st_ctime_ns": -(10**21), "st_rdev": 0}
    made = make_entry(b"f", os.stat_result((0o100644, 1, 1, 1, 0, 0, 0, 0, 0, 0), times), OwnerNames())
    assert made == msgspec.msgpack.decode(msgspec.msgpack.encode(made), type=Entry)
    assert ((1 << 64) - 1, -(1 << 63)) == (made.mtime_ns, made.ctime_ns)


def test_a_mount_point_that_is_not_entered_is_not_filled_from_the_parent(
    repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = home / "tree"
    (tree / "disk").mkdir(parents=True)
    (tree / "disk" / "file").write_bytes(b"on another file system")
    wait_for_the_clock()
    with repository:
        save(repository, tree)
        monkeypatch.setattr(Directory, "device", property(lambda self: -1))
        report = save(repository, tree, one_file_system=True)
        assert 0 == find(repository, report.id, tree / "disk").entry.below


def test_a_parent_whose_lists_cannot_be_read_costs_reading_the_files(
    repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = home / "tree"
    tree.mkdir(parents=True)
    for name in "abc":
        (tree / name).write_bytes(name.encode())
    wait_for_the_clock()

    def fail(*_: object) -> None:
        raise MissingError("a page is gone")

    with repository:
        monkeypatch.setattr(snapshot, "_CHECKPOINT_NS", -1)
        with pytest.raises(KeyboardInterrupt):
            create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host"), Stopping(tree / "c"))
        monkeypatch.setattr(parents, "blobs_of", fail)
        assert 3 == save(repository, tree).statistics.bytes_read


def test_a_file_that_was_one_of_several_names_keeps_its_own_name(repository: Repository, home: Path) -> None:
    """On a file system that does not touch the times when a name goes."""
    tree = home / "tree"
    tree.mkdir(parents=True)
    (tree / "a").write_bytes(b"content")
    os.link(tree / "a", tree / "b")
    wait_for_the_clock()
    with repository:
        report = save(repository, tree)
        (info,) = (info for info in repository.snapshots() if info.id == report.id)
        found = repository.tree(info)
        beside = parents.Parents.at_top(repository.blobs.source, [parents.Parent(found, vouches=True)], lambda _: True)
        for name in os.fsencode(tree).split(b"/")[1:]:
            beside = beside.enter(name)
        old, _ = beside.find_unchanged(b"a", EntryType.FILE, (tree / "a").stat())
        assert old is not None
        assert (b"a", 0) == (old.name, old.names)


def test_a_link_group_is_saved_through_a_later_name_when_the_first_is_gone(
    repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = home / "tree"
    tree.mkdir(parents=True)
    (tree / "a").write_bytes(b"content")
    for name in "bcd":
        os.link(tree / "a", tree / name)

    def opened(directory: int, name: bytes, status: os.stat_result) -> tuple[int, os.stat_result]:
        if name in (b"a", b"b"):
            raise FileReplaced
        return open_file(directory, name, status)

    monkeypatch.setattr(entries, "open_file", opened)
    telling = Telling()
    with repository:
        report = create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host"), telling)
        nodes = [find(repository, report.id, tree / name) for name in "abcd"]
        assert {(4, "")} == {(node.entry.names, node.entry.error) for node in nodes}
        assert b"content" == bytes(read_file(repository.blobs.source, nodes[0].entry, 0, 7))
    assert [os.fsencode(tree / name) for name in "ab"] == telling.problems


class Removing(Silent):
    """Removes a file while the one before it is saved."""

    def __init__(self, path: Path, after: Path) -> None:
        self._path = path
        self._after = os.fsencode(after)
        self.problems: list[bytes] = []

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        if files and current == self._after:
            self._path.unlink()

    def problem(self, path: bytes, message: str) -> None:
        self.problems.append(path)


@pytest.mark.parametrize("is_link_group", [False, True])
def test_a_file_that_disappears_after_it_was_looked_at_is_passed_over(
    repository: Repository, home: Path, *, is_link_group: bool
) -> None:
    tree = home / "tree"
    tree.mkdir(parents=True)
    for name in "abc":
        (tree / name).write_bytes(name.encode())
    if is_link_group:
        os.link(tree / "b", home / "elsewhere")
    removing = Removing(tree / "b", after=tree / "a")
    with repository:
        report = create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host"), removing)
        (info,) = repository.snapshots()
        folder = repository.tree(info).resolve(repository.blobs.source, os.fsencode(tree))
        names = [node.name for node in repository.tree(info).children(repository.blobs.source, folder)]
    assert [b"a", b"c"] == names
    assert (2, 0) == (report.statistics.files, report.statistics.errors)
    assert [] == removing.problems


@pytest.mark.parametrize("changed", ["a000", "a150", "z149", "gone a010", "new a0105"])
def test_a_folder_in_which_one_name_differs_is_the_one_a_first_snapshot_finds(
    repository: Repository, home: Path, changed: str
) -> None:
    """What is taken over from a parent in stretches must not lose, double or reorder a name."""
    tree = home / "tree"
    tree.mkdir(parents=True)
    for letter in "az":
        for number in range(200):
            (tree / f"{letter}{number:03}").write_bytes(f"{letter}{number}".encode())
    (tree / "m folder").mkdir()
    (tree / "m folder" / "below").write_bytes(b"below")
    os.link(tree / "a100", tree / "a100 again")
    wait_for_the_clock()
    with repository:
        save(repository, tree)
        how, _, name = changed.rpartition(" ")
        if how == "gone":
            (tree / name).unlink()
        else:
            (tree / name).write_bytes(b"different")
        again = save(repository, tree)
        first = create_snapshot(repository, SnapshotRequest((os.fsencode(tree),), "host", find_parent=False), Silent())
        pages = [find(repository, report.id, tree).entry.page for report in (again, first)]
    assert pages[0] == pages[1]
    assert 1 >= again.statistics.files_new + again.statistics.files_changed


def test_an_unfinished_run_is_taken_up_at_its_last_checkpoint_also_within_one_folder(
    repository: Repository, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = home / "tree"
    tree.mkdir(parents=True)
    names = [f"file {number:02}" for number in range(12)]
    for name in names:
        (tree / name).write_bytes(name.encode())
    os.link(tree / names[0], tree / "file 00 again")
    wait_for_the_clock()
    request = SnapshotRequest((os.fsencode(tree),), "host")
    with repository:
        with monkeypatch.context() as patch:
            patch.setattr(snapshot, "_CHECKPOINT_NS", -1)
            patch.setattr(sys.modules[walk.__module__], "_ITEMS_MAX", 1)
            with pytest.raises(KeyboardInterrupt):
                create_snapshot(repository, request, Stopping(tree / names[-1]))
        unlogged = repository.catalog.partial_roots(repository.survey().unlogged, "host", request.paths)
        assert 12 == len(unlogged)
        assert max(each.root.top.below for each in unlogged) == unlogged[0].root.top.below
        assert [] == repository.snapshots()
        report = create_snapshot(repository, request, Silent())
        assert 11 == report.statistics.files_unchanged - 1
        assert len(names[-1]) == report.statistics.bytes_read
        assert 2 == find(repository, report.id, tree / names[0]).entry.names


def test_the_repository_and_its_cache_are_not_saved_into_it(repository: Repository, home: Path) -> None:
    (home / "file").write_bytes(b"content")
    with repository:
        save(repository, home)
        report = save(repository, home)
        assert 0 == report.statistics.errors
        own = (home / "repository", repository.cache_folder)
        assert [0, 0] == [find(repository, report.id, folder).entry.below for folder in own]
        named = save(repository, home / "repository")
        assert find(repository, named.id, home / "repository").entry.below > 0, "what is asked for is saved"


def test_the_cache_says_that_it_is_one(repository: Repository) -> None:
    repository.close()
    tag = repository.cache_folder / "CACHEDIR.TAG"
    assert tag.read_bytes().startswith(b"Signature: 8a477f597d28d172789f06886806bc55")


def test_a_file_that_shrinks_between_two_looks_for_holes_is_read_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 20)

    def look(descriptor: int, offset: int, how: int) -> int:
        if how == os.SEEK_DATA:
            return offset
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    monkeypatch.setattr(os, "lseek", look)
    with path.open("rb") as file:
        found = list(stretches(file.fileno(), os.fstat(file.fileno())))
    assert [(0, 1 << 20, False)] == found


def test_a_file_system_that_does_not_know_of_holes_has_data_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 20)

    def refuse(descriptor: int, offset: int, how: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "lseek", refuse)
    with path.open("rb") as file:
        found = list(stretches(file.fileno(), os.fstat(file.fileno())))
    assert [(0, 1 << 20, False)] == found


def test_who_loses_a_race_to_make_a_repository_leaves_no_key_slot(tmp_path: Path, folders: Folders) -> None:
    storage = open_storage(str(tmp_path / "raced"))
    loser = open_storage(str(tmp_path / "raced"))
    loser.create()
    loser.create = lambda: None  # type: ignore[method-assign]  # it has looked before the winner came
    create_repository(storage, b"winner", folders, CLIENT).close()
    with pytest.raises(RepositoryExists):
        create_repository(loser, b"loser", folders, CLIENT)
    assert 1 == len(list(storage.list("keys")))
    with pytest.raises(WrongPassword):
        unlock(find_repository(storage, folders), b"loser", CLIENT)
