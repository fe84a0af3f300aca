"""Restoring real trees to real folders."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backthen.repository.content import SnapshotTree
from backthen.repository.errors import InvalidRequest, PathNotFound, StorageError, TargetError
from backthen.repository.model.entry import HOLE, BlobRef, Entry, EntryType, Extent
from backthen.repository.model.page import Page
from backthen.repository.progress import Silent
from backthen.repository.restore import Overwrite, RestoreReport, RestoreRequest, restore_tree
from tests.support.comparison import Aspects, differences
from tests.support.memory import MemoryBlobs, MemorySaver, directory_of, snapshot_tree, with_extents
from tests.support.sample_tree import make_sample_tree

_IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not _IS_ROOT, reason="owners and devices need root")
_SECOND_NS = 1_000_000_000


class Listener(Silent):
    """Remembers problems and progress."""

    def __init__(self) -> None:
        self.problems: list[tuple[bytes, str]] = []
        self.files = 0
        self.files_total: int | None = None

    def start(self, phase: str, *, files_total: int | None = None, bytes_total: int | None = None) -> None:
        if phase == "restore":
            self.files_total = files_total

    def advance(self, *, files: int = 0, size: int = 0, current: bytes = b"") -> None:
        self.files += files

    def problem(self, path: bytes, message: str) -> None:
        self.problems.append((path, message))


class Work:
    """A folder to save, a folder to restore to, and the snapshot between them."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "source"
        self.target = folder / "target"
        self.source.mkdir()
        self.saver = MemorySaver(folder / "spill")
        self.listener = Listener()
        self.tree: SnapshotTree | None = None

    @property
    def blobs(self) -> MemoryBlobs:
        return self.saver.blobs

    def save(self) -> None:
        self.tree = self.saver.save(os.fsencode(self.source))
        assert self.saver.problems == []

    def restore(self, path: str | None = None, **options: object) -> RestoreReport:
        """Restore what `source` was, or something else by its path."""
        assert self.tree is not None
        self.listener = Listener()
        request = msgspec.convert({"target": self.target, **options}, RestoreRequest)
        node_path = os.fsencode(self.source if path is None else path)
        report = restore_tree(self.blobs, self.tree, node_path, request, self.listener)
        assert report.problems == len(self.listener.problems)
        return report

    def differences(self) -> list[str]:
        return list(differences(os.fsencode(self.source), os.fsencode(self.target), Aspects()))

    def shown(self) -> list[str]:
        return sorted(str(path.relative_to(self.target)) for path in self.target.rglob("*"))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def _fill(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(0, 1_000 * _SECOND_NS))


def test_a_tree_with_one_of_everything_comes_back_the_same(work: Work) -> None:
    make_sample_tree(work.source, as_root=_IS_ROOT)
    work.save()
    report = work.restore(verify=True)
    assert (work.differences(), work.listener.problems, report.notes) == ([], [], ())
    assert report.verified == report.files + report.others
    assert work.listener.files_total == report.restored
    assert work.listener.files == report.restored + report.verified
    assert not [name for name in os.listdir(work.target) if name.startswith(".backthen")]


def test_holes_come_back_as_holes(work: Work) -> None:
    make_sample_tree(work.source, as_root=False)
    work.save()
    work.restore()
    blocks = [os.stat(folder / "sparse").st_blocks for folder in (work.source, work.target)]
    assert blocks[0] == blocks[1]


def test_a_whole_snapshot_makes_the_whole_path(work: Work) -> None:
    _fill(work.source, {"a/b": b"content"})
    work.save()
    report = work.restore("")
    below = os.fsencode(work.target) + os.fsencode(work.source)
    assert list(differences(os.fsencode(work.source), below)) == []
    assert report.files == 1
    for above in (work.source.parent, work.source.parent.parent):
        restored = os.lstat(os.fsencode(work.target) + os.fsencode(above))
        assert (restored.st_mode, restored.st_uid) == (os.lstat(above).st_mode, os.lstat(above).st_uid)


def test_a_single_file_becomes_a_name_in_the_target(work: Work) -> None:
    _fill(work.source, {"a/b": b"content", "a/c": b""})
    work.save()
    report = work.restore(f"{work.source}/a/b", verify=True)
    assert (["b"], 1, 1) == (work.shown(), report.files, report.verified)
    assert (work.target / "b").read_bytes() == b"content"


def test_what_is_not_in_the_snapshot_is_refused(work: Work) -> None:
    work.save()
    with pytest.raises(PathNotFound):
        work.restore("/nothing/there")
    with pytest.raises(InvalidRequest):
        work.restore(include=("a",) * 200_000)
    assert not work.target.exists()


def test_a_target_that_is_no_folder_is_refused(work: Work) -> None:
    work.save()
    work.target.write_text("a file")
    with pytest.raises(TargetError):
        work.restore()


@pytest.mark.parametrize("overwrite", ["if-changed", "always"])
def test_restoring_again_changes_nothing(work: Work, overwrite: str) -> None:
    make_sample_tree(work.source, as_root=_IS_ROOT)
    work.save()
    work.restore()
    kept = {path: os.lstat(path).st_ino for path in work.target.rglob("*")}
    report = work.restore(overwrite=overwrite)
    os.utime(work.target, ns=(0, os.lstat(work.source).st_mtime_ns))  # An existing target keeps its own attributes.
    assert work.differences() == []
    if overwrite == "if-changed":
        assert (0, 0) == (report.bytes_written, report.files)
        assert kept == {path: os.lstat(path).st_ino for path in work.target.rglob("*")}


def _prepare_overwriting(work: Work) -> None:
    _fill(
        work.source, {"same": b"same", "older": b"saved", "newer": b"saved", "missing": b"saved", "touched": b"saved"}
    )
    work.save()
    work.restore()
    (work.target / "missing").unlink()
    for name, seconds in (("older", 500), ("newer", 1500)):
        (work.target / name).write_bytes(b"other!")
        os.utime(work.target / name, ns=(0, seconds * _SECOND_NS))
    (work.target / "touched").chmod(0o604)


@pytest.mark.parametrize(
    ("overwrite", "replaced", "mode"),
    [
        ("always", {"older", "newer", "missing", "same", "touched"}, 0o644),
        ("if-changed", {"older", "newer", "missing"}, 0o644),
        ("if-newer", {"older", "missing"}, 0o604),
        ("never", {"missing"}, 0o604),
    ],
)
def test_what_is_there_is_treated_as_asked(work: Work, overwrite: str, replaced: set[str], mode: int) -> None:
    os.umask(0o022)
    _prepare_overwriting(work)
    before = {name: os.lstat(work.target / name).st_ino for name in os.listdir(work.target)}
    for dry_run in (True, False):
        report = work.restore(overwrite=overwrite, dry_run=dry_run)
        assert (len(replaced), 5 - len(replaced)) == (report.files, report.kept)
        if dry_run:
            assert before == {name: os.lstat(work.target / name).st_ino for name in os.listdir(work.target)}
    contents = {name: (work.target / name).read_bytes() for name in ("older", "newer", "missing")}
    assert {name: b"saved" if name in replaced else b"other!" for name in contents} == contents
    assert mode == stat.S_IMODE(os.lstat(work.target / "touched").st_mode)
    assert sorted(os.listdir(work.source)) == sorted(os.listdir(work.target))


def test_a_dry_run_makes_nothing(work: Work) -> None:
    make_sample_tree(work.source, as_root=False)
    work.save()
    planned = work.restore(dry_run=True)
    assert not work.target.exists()
    done = work.restore()
    assert (planned.files, planned.directories, planned.others) == (done.files, done.directories, done.others)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ["*.c"]}, ["a", "a/x.c", "a/y", "a/y/z.c"]),
        ({"include": ["/a/y/"]}, ["a", "a/y", "a/y/z.c", "a/y/z.h"]),
        ({"exclude": ["y/"]}, ["a", "a/x.c", "b", "b/u", "t"]),
        ({"include": ["a"], "exclude": ["*.c"]}, ["a", "a/y", "a/y/z.h"]),
        ({"include": ["nothing"]}, []),
        ({"include": ["a", "!a/y"]}, ["a", "a/x.c", "a/y", "a/y/z.c", "a/y/z.h"]),
    ],
)
def test_patterns_choose_what_is_restored(work: Work, options: dict[str, list[str]], expected: list[str]) -> None:
    _fill(work.source, {"a/x.c": b"", "a/y/z.c": b"", "a/y/z.h": b"", "b/u": b"", "t": b""})
    work.save()
    work.restore(None, **options)
    assert expected == work.shown()


def test_directories_on_the_way_to_what_is_included_get_their_attributes(work: Work) -> None:
    _fill(work.source, {"a/b/file": b""})
    (work.source / "a").chmod(0o500)
    work.save()
    work.restore(include=("file",))
    assert os.lstat(work.target / "a").st_mode == os.lstat(work.source / "a").st_mode
    assert os.lstat(work.target / "a" / "b").st_mtime_ns == os.lstat(work.source / "a" / "b").st_mtime_ns


def test_a_damaged_file_is_named_and_does_not_appear(work: Work) -> None:
    _fill(work.source, {"a": b"fine", "b": b"x" * 3_000_000, "c": b"damaged", "d/e": b"fine too"})
    work.save()
    work.blobs.damage(b"x" * (3_000_000 - 2 * (1 << 20)))
    work.blobs.damage(b"damaged")
    report = work.restore(verify=True)
    assert [b"b", b"c"] == [path.rsplit(b"/", 1)[1] for path, _ in work.listener.problems]
    assert all("changed" in message for _, message in work.listener.problems)
    assert (["a", "d", "d/e"], 2) == (work.shown(), report.files)


def test_a_damaged_file_leaves_the_old_one(work: Work) -> None:
    _fill(work.source, {"a": b"damaged"})
    work.save()
    _fill(work.target, {"a": b"old"})
    work.blobs.damage(b"damaged")
    work.restore()
    assert b"old" == (work.target / "a").read_bytes()
    assert ["a"] == os.listdir(work.target)


def test_a_damaged_directory_is_named_and_the_rest_restored(work: Work) -> None:
    _fill(work.source, {"a/b": b"1", "c": b"2"})
    work.save()
    assert work.tree is not None
    node = work.tree.resolve(work.blobs, os.fsencode(work.source / "a"))
    assert node.entry.page is not None
    work.blobs.damage(work.blobs.blobs[node.entry.page.id])
    work.restore()
    assert (["a", "c"], 1) == (work.shown(), len(work.listener.problems))
    assert os.fsencode(work.target / "a") + b"/" == work.listener.problems[0][0]


def test_damaged_link_records_do_not_hide_the_names_after_them(work: Work) -> None:
    _fill(work.source, {"a": b"1", "b": b"2", "d": b"4"})
    os.link(work.source / "b", work.source / "c")
    work.save()
    assert work.tree is not None and work.tree.root.links is not None
    work.blobs.damage(work.blobs.blobs[work.tree.root.links.id])
    work.restore()
    assert (["a", "d"], 2) == (work.shown(), len(work.listener.problems))


def test_a_failing_storage_ends_the_restore(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(work.source, {"a": b"content"})
    work.save()

    def fail(ref: BlobRef, offset: int = 0, length: int | None = None) -> bytes:
        raise StorageError("no connection", transient=True)

    monkeypatch.setattr(work.blobs, "read", fail)
    with pytest.raises(StorageError):
        work.restore()
    assert [] == os.listdir(work.target)


def test_what_was_not_saved_is_named_and_left_out(work: Work) -> None:
    blobs = work.blobs
    unread = Entry(b"unread", EntryType.FILE, 0o600, size=0, error="Permission denied")
    unknown = Entry(b"unknown", EntryType.UNKNOWN, error="Input/output error")
    partly = with_extents(blobs, Entry(b"partly", EntryType.FILE, 0o600, error="it changed"), [_chunk(blobs, b"data")])
    closed = Entry(b"closed", EntryType.DIRECTORY, 0o700, error="Permission denied")
    work.tree = snapshot_tree(directory_of(blobs, b"", [unread, unknown, partly, closed]))
    work.restore("")
    assert ["closed", "partly"] == work.shown()
    assert {b"closed", b"partly", b"unknown", b"unread"} == {
        path.rstrip(b"/").rsplit(b"/", 1)[1] for path, _ in work.listener.problems
    }


def _chunk(blobs: MemoryBlobs, data: bytes) -> Extent:
    ref = blobs.put(data)
    return Extent(ref.id, ref.length)


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: msgspec.structs.replace(entry, size=entry.size + 1),
        lambda entry: msgspec.structs.replace(entry, size=entry.size - 1),
        lambda entry: msgspec.structs.replace(entry, extents=entry.extents[:-1]),
        lambda entry: msgspec.structs.replace(entry, type=99),
    ],
)
def test_a_file_that_contradicts_itself_is_a_problem(work: Work, change: Callable[[Entry], Entry]) -> None:
    blobs = work.blobs
    good = with_extents(blobs, Entry(b"good", EntryType.FILE, 0o600), [_chunk(blobs, b"data"), Extent(HOLE, 10)])
    bad = change(msgspec.structs.replace(good, name=b"bad"))
    work.tree = snapshot_tree(directory_of(blobs, b"", [good, bad]))
    work.restore("")
    assert (["good"], 1) == (work.shown(), len(work.listener.problems))
    assert (work.target / "good").read_bytes() == b"data" + bytes(10)


def test_many_extents_and_a_hole_of_a_terabyte_come_back(work: Work) -> None:
    blobs = work.blobs
    extents = [_chunk(blobs, b"%05d" % number) for number in range(3000)]
    many = with_extents(blobs, Entry(b"many", EntryType.FILE, 0o600), extents)
    huge = with_extents(
        blobs, Entry(b"huge", EntryType.FILE, 0o600), [Extent(HOLE, 1 << 40), extents[0], Extent(HOLE, 5)]
    )
    work.tree = snapshot_tree(directory_of(blobs, b"", [many, huge]))
    work.restore("", verify=True)
    assert work.listener.problems == []
    assert b"".join(b"%05d" % number for number in range(3000)) == (work.target / "many").read_bytes()
    assert (1 << 40) + 10 == os.stat(work.target / "huge").st_size
    assert os.stat(work.target / "huge").st_blocks < 100


def test_verification_names_what_was_changed_since(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(work.source, {"a": b"content", "b": b"content", "c/d": b"content", "kept": b"content"})
    (work.source / "link").symlink_to("a")
    work.save()

    def spoil() -> None:
        (work.target / "a").write_bytes(b"cOntent")
        (work.target / "b").unlink()
        (work.target / "c").rename(work.target / "moved")
        (work.target / "link").unlink()
        (work.target / "link").symlink_to("b")

    monkeypatch.setattr(os, "sync", spoil)
    report = work.restore(verify=True)
    assert report.verified == 5
    assert [b"a", b"b", b"d", b"link"] == [path.rsplit(b"/", 1)[1] for path, _ in work.listener.problems]


def test_verification_passes_over_what_was_not_to_be_overwritten(work: Work) -> None:
    _prepare_overwriting(work)
    report = work.restore(overwrite="if-newer", verify=True)
    assert (2, []) == (report.verified, work.listener.problems)


def test_hard_links_across_many_folders_are_one_file_again(work: Work) -> None:
    for number in range(300):
        _fill(work.source, {f"{number % 7}/first {number}": b"%d" % number})
        (work.source / f"x{number % 5}" / "deep").mkdir(parents=True, exist_ok=True)
        os.link(
            work.source / f"{number % 7}/first {number}", work.source / f"x{number % 5}" / "deep" / f"second {number}"
        )
    os.link(work.source / "0/first 0", work.source / "third")
    os.link(work.source / "0/first 0", work.source / "0" / "fourth")
    work.save()
    report = work.restore(verify=True)
    assert (602, []) == (report.files, work.listener.problems)
    assert work.differences() == []
    assert report.bytes_written == sum(len(str(number)) for number in range(300))


def test_hard_links_that_fell_apart_are_joined_again(work: Work) -> None:
    _fill(work.source, {"a": b"content"})
    os.link(work.source / "a", work.source / "b")
    work.save()
    work.restore()
    (work.target / "b").unlink()
    _fill(work.target, {"b": b"content"})
    work.restore()
    assert os.path.samefile(work.target / "a", work.target / "b")
    assert ["a", "b"] == sorted(os.listdir(work.target))


def test_the_first_restored_name_is_the_file_when_others_are_left_out(work: Work) -> None:
    _fill(work.source, {"a": b"content"})
    os.link(work.source / "a", work.source / "b")
    os.link(work.source / "a", work.source / "c")
    work.save()
    work.restore(exclude=("a",))
    assert os.path.samefile(work.target / "b", work.target / "c")


def test_a_file_system_without_hard_links_gets_copies(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(work.source, {"a": b"content"})
    os.link(work.source / "a", work.source / "b")
    work.save()

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    report = work.restore()
    assert (["a", "b"], 1, []) == (work.shown(), len(report.notes), work.listener.problems)
    assert (work.target / "b").read_bytes() == b"content"


def test_links_in_the_way_are_replaced_and_never_followed(work: Work, tmp_path: Path) -> None:
    _fill(work.source, {"file": b"content", "folder/inside": b"content", "other/x": b"content"})
    work.save()
    outside = tmp_path / "outside"
    _fill(outside, {"file": b"untouched"})
    work.target.mkdir()
    (work.target / "file").symlink_to(outside / "file")
    (work.target / "folder").symlink_to(outside)
    (work.target / "other").symlink_to("/nowhere")
    before = os.lstat(outside)
    work.restore()
    assert ((work.target / "folder" / "inside").read_bytes(), work.listener.problems) == (b"content", [])
    assert not (work.target / "folder").is_symlink()
    assert (["file"], b"untouched") == (os.listdir(outside), (outside / "file").read_bytes())
    assert before == os.lstat(outside)


def test_a_link_planted_while_restoring_leads_nowhere(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fill(work.source, {"a/deep/file": b"content", "b": b"content"})
    work.save()
    outside = tmp_path / "outside"
    outside.mkdir()
    make = os.mkdir

    def make_and_plant(path: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        if path == b"deep":
            (work.target / "a" / "deep").rename(work.target / "a" / "was deep")
            (work.target / "a" / "deep").symlink_to(outside)
            (work.target / "b").symlink_to(outside / "b")

    monkeypatch.setattr(os, "mkdir", make_and_plant)
    work.restore()
    assert [] == os.listdir(outside)
    assert [os.fsencode(work.target / "a" / "deep")] == [path for path, _ in work.listener.problems]
    assert (False, b"content") == ((work.target / "b").is_symlink(), (work.target / "b").read_bytes())


def test_directories_and_files_in_each_others_way(work: Work) -> None:
    _fill(work.source, {"file": b"content", "empty": b"content", "folder/inside": b"content"})
    work.save()
    _fill(work.target, {"file/precious": b"kept", "folder": b"a file"})
    (work.target / "empty").mkdir()
    work.restore()
    assert [os.fsencode(work.target / "file")] == [path for path, _ in work.listener.problems]
    assert ["empty", "file", "file/precious", "folder", "folder/inside"] == work.shown()
    assert (work.target / "empty").is_file()


def test_a_file_in_the_way_of_a_directory_stays_when_nothing_is_overwritten(work: Work) -> None:
    _fill(work.source, {"folder/inside": b"content", "z": b"content"})
    work.save()
    _fill(work.target, {"folder": b"a file"})
    work.restore(overwrite="never")
    assert ((["folder", "z"]), 1) == (work.shown(), len(work.listener.problems))


def test_ten_thousand_levels_are_restored_with_few_descriptors(work: Work) -> None:
    depth = 10_000
    blobs = work.blobs
    entry = with_extents(blobs, Entry(b"z", EntryType.FILE, 0o600, mtime_ns=5), [_chunk(blobs, b"deepest")])
    for _ in range(depth):
        entry = directory_of(blobs, b"d", [entry, Entry(b"e", EntryType.FIFO, 0o600)], mode=0o500)
    work.tree = snapshot_tree(directory_of(blobs, b"", [entry]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 80, hard))
    try:
        report = work.restore("")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", str(work.target)], check=True)
    assert (depth, depth, 1, []) == (report.others, report.directories, report.files, work.listener.problems)


def test_a_full_disk_ends_the_restore(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(work.source, {"a": b"content", "b": b"content"})
    work.save()

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(TargetError):
        work.restore()
    assert [] == os.listdir(work.target)


def test_inherited_access_control_lists_are_taken_off(work: Work) -> None:
    _fill(work.source, {"folder/file": b"content"})
    work.save()
    work.target.mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:12:rwx", work.target], check=True)
    work.restore()
    for path in ("folder", "folder/file"):
        assert [] == [name for name in os.listxattr(work.target / path) if "acl" in name]
        assert os.lstat(work.source / path).st_mode == os.lstat(work.target / path).st_mode


@needs_root
def test_owners_are_restored_by_name_where_the_name_is_known(work: Work) -> None:
    entries = [
        Entry(b"known", EntryType.FIFO, 0o600, uid=4321, gid=4321, user="daemon", group="daemon"),
        Entry(b"unknown", EntryType.FIFO, 0o600, uid=4321, gid=4322, user="no such user", group=""),
    ]
    work.tree = snapshot_tree(directory_of(work.blobs, b"", entries))
    work.restore("")
    owners = {name: os.lstat(work.target / name)[4:6] for name in ("known", "unknown")}
    assert {"known": (1, 1), "unknown": (4321, 4322)} == owners


@needs_root
def test_an_ordinary_user_restores_what_is_allowed_and_is_told_once(work: Work, tmp_path: Path) -> None:
    make_sample_tree(work.source, as_root=True)
    work.save()
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    work.target = tmp_path / "theirs" / "target"
    work.target.parent.mkdir()
    os.chown(work.target.parent, 65534, 65534)
    reports = [_as_user(65534, work.restore) for _ in range(2)]
    for report in reports:
        assert (report.problems, any("owner" in note for note in report.notes)) == (0, True)
    assert any("device" in note for note in reports[0].notes)
    assert len(reports[0].notes) <= 5
    for path in work.target.rglob("*"):
        assert os.lstat(path).st_uid == 65534
        assert path.is_dir() or not os.lstat(path).st_mode & (stat.S_ISUID | stat.S_ISGID)
    aspects = Aspects(owner=False, xattrs=False)
    found = list(differences(os.fsencode(work.source), os.fsencode(work.target), aspects))
    assert {"b'block': only in the left", "b'character': only in the left"} == {
        line for line in found if "modes" not in line
    }


@needs_root
@pytest.mark.parametrize(("overwrite", "mode"), [("if-changed", 0o500), ("never", 0o400)])
def test_a_user_fills_folders_that_were_closed(work: Work, tmp_path: Path, overwrite: str, mode: int) -> None:
    _fill(work.source, {"folder/a": b"1", "folder/b": b"2"})
    (work.source / "folder").chmod(0o500)
    work.save()
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    work.restore()
    (work.target / "folder" / "b").unlink()
    (work.target / "folder").chmod(0o400)
    subprocess.run(["chown", "-R", "65534:65534", str(work.target)], check=True)
    report = _as_user(65534, lambda: work.restore(overwrite=overwrite))
    assert (0, 1) == (report.problems, report.files)
    assert (work.target / "folder" / "b").read_bytes() == b"2"
    assert mode == stat.S_IMODE(os.lstat(work.target / "folder").st_mode)


def _as_user(uid: int, action: Callable[[], RestoreReport]) -> RestoreReport:
    """Run in another process, which is that user from then on."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.write(writer, msgspec.msgpack.encode(action()))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    return msgspec.msgpack.decode(data, type=RestoreReport)


def test_pages_are_read_again_rather_than_kept(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(work.source, {f"{number}": b"" for number in range(3000)})
    work.save()
    pages: list[Page] = []
    find = work.blobs.page

    def remember(ref: BlobRef, decode: Callable[[bytes], Page]) -> Page:
        pages.append(find(ref, decode))
        return pages[-1]

    monkeypatch.setattr(work.blobs, "page", remember)
    report = work.restore()
    assert (3000, []) == (report.files, work.listener.problems)
    assert 3000 / 256 < len(pages) < 200


def test_the_four_ways_of_overwriting_have_the_names_of_the_command_line() -> None:
    assert ["always", "if-changed", "if-newer", "never"] == [way.value for way in Overwrite]
