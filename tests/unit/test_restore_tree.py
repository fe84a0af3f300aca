"""Restoring real trees to real folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backthen.repository.errors import InvalidRequest, PathNotFound, StorageError, TargetError
from backthen.repository.model.entry import HOLE, BlobRef, Entry, EntryType, Extent
from backthen.repository.model.page import Page
from backthen.repository.restore import Overwrite
from backthen.repository.restore.sharing import SHARED_BYTES_MAX
from tests.support.comparison import differences
from tests.support.memory import directory_of, snapshot_tree, with_extents
from tests.support.restoring import SECOND_NS, Work, chunk, fill
from tests.support.sample_tree import make_sample_tree

_IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not _IS_ROOT, reason="owners and devices need root")


@pytest.fixture(params=["alone", "shared"])
def work(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work(tmp_path)
    if request.param == "shared":
        work.share(monkeypatch)
    return work


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


def test_large_files_come_back_among_many_small_ones(work: Work) -> None:
    small = {f"{folder}/{number}": b"%d" % number for folder in range(80) for number in range(8)}
    large = {f"{folder}/large": bytes((folder,)) * (SHARED_BYTES_MAX + folder) for folder in (7, 70)}
    fill(work.source, small | large)
    for folder in range(80):
        os.utime(work.source / str(folder), ns=(0, folder * SECOND_NS))
    os.link(work.source / "3" / "0", work.source / "60" / "further name")
    work.save()
    report = work.restore()
    assert ([], []) == (work.differences(), work.listener.problems)
    assert (len(small) + len(large) + 1, 80) == (report.files, report.directories)
    assert report.bytes_written == sum(map(len, (small | large).values()))


def test_a_whole_snapshot_makes_the_whole_path(work: Work) -> None:
    fill(work.source, {"a/b": b"content"})
    work.save()
    report = work.restore("")
    below = os.fsencode(work.target) + os.fsencode(work.source)
    assert list(differences(os.fsencode(work.source), below)) == []
    assert report.files == 1
    for above in (work.source.parent, work.source.parent.parent):
        restored = os.lstat(os.fsencode(work.target) + os.fsencode(above))
        assert (restored.st_mode, restored.st_uid) == (os.lstat(above).st_mode, os.lstat(above).st_uid)


def test_a_single_file_becomes_a_name_in_the_target(work: Work) -> None:
    fill(work.source, {"a/b": b"content", "a/c": b""})
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
    fill(work.source, {"same": b"same", "older": b"saved", "newer": b"saved", "missing": b"saved", "touched": b"saved"})
    work.save()
    work.restore()
    (work.target / "missing").unlink()
    for name, seconds in (("older", 500), ("newer", 1500)):
        (work.target / name).write_bytes(b"other!")
        os.utime(work.target / name, ns=(0, seconds * SECOND_NS))
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
    fill(work.source, {"a/x.c": b"", "a/y/z.c": b"", "a/y/z.h": b"", "b/u": b"", "t": b""})
    work.save()
    work.restore(None, **options)
    assert expected == work.shown()


def test_directories_on_the_way_to_what_is_included_get_their_attributes(work: Work) -> None:
    fill(work.source, {"a/b/file": b""})
    (work.source / "a").chmod(0o500)
    work.save()
    work.restore(include=("file",))
    assert os.lstat(work.target / "a").st_mode == os.lstat(work.source / "a").st_mode
    assert os.lstat(work.target / "a" / "b").st_mtime_ns == os.lstat(work.source / "a" / "b").st_mtime_ns


def test_a_damaged_file_is_named_and_does_not_appear(work: Work) -> None:
    fill(work.source, {"a": b"fine", "b": b"x" * 3_000_000, "c": b"damaged", "d/e": b"fine too"})
    work.save()
    work.blobs.damage(b"x" * (3_000_000 - 2 * (1 << 20)))
    work.blobs.damage(b"damaged")
    report = work.restore(verify=True)
    assert [b"b", b"c"] == [path.rsplit(b"/", 1)[1] for path, _ in work.listener.problems]
    assert all("changed" in message for _, message in work.listener.problems)
    assert (["a", "d", "d/e"], 2) == (work.shown(), report.files)


def test_a_damaged_file_leaves_the_old_one(work: Work) -> None:
    fill(work.source, {"a": b"damaged"})
    work.save()
    fill(work.target, {"a": b"old"})
    work.blobs.damage(b"damaged")
    work.restore()
    assert b"old" == (work.target / "a").read_bytes()
    assert ["a"] == os.listdir(work.target)


def test_a_damaged_directory_is_named_and_the_rest_restored(work: Work) -> None:
    fill(work.source, {"a/b": b"1", "c": b"2"})
    work.save()
    assert work.tree is not None
    node = work.tree.resolve(work.blobs, os.fsencode(work.source / "a"))
    assert node.entry.page is not None
    work.blobs.damage(work.blobs.blobs[node.entry.page.id])
    work.restore()
    assert (["a", "c"], 1) == (work.shown(), len(work.listener.problems))
    assert os.fsencode(work.target / "a") + b"/" == work.listener.problems[0][0]


def test_damaged_link_records_do_not_hide_the_names_after_them(work: Work) -> None:
    fill(work.source, {"a": b"1", "b": b"2", "d": b"4"})
    os.link(work.source / "b", work.source / "c")
    work.save()
    assert work.tree is not None and work.tree.root.links is not None
    work.blobs.damage(work.blobs.blobs[work.tree.root.links.id])
    work.restore()
    assert (["a", "d"], 2) == (work.shown(), len(work.listener.problems))


def test_a_failing_storage_ends_the_restore(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(work.source, {"a": b"content"})
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
    partly = with_extents(blobs, Entry(b"partly", EntryType.FILE, 0o600, error="it changed"), [chunk(blobs, b"data")])
    closed = Entry(b"closed", EntryType.DIRECTORY, 0o700, error="Permission denied")
    work.tree = snapshot_tree(directory_of(blobs, b"", [unread, unknown, partly, closed]))
    work.restore("")
    assert ["closed", "partly"] == work.shown()
    assert {b"closed", b"partly", b"unknown", b"unread"} == {
        path.rstrip(b"/").rsplit(b"/", 1)[1] for path, _ in work.listener.problems
    }


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
    good = with_extents(blobs, Entry(b"good", EntryType.FILE, 0o600), [chunk(blobs, b"data"), Extent(HOLE, 10)])
    bad = change(msgspec.structs.replace(good, name=b"bad"))
    work.tree = snapshot_tree(directory_of(blobs, b"", [good, bad]))
    work.restore("")
    assert (["good"], 1) == (work.shown(), len(work.listener.problems))
    assert (work.target / "good").read_bytes() == b"data" + bytes(10)


def test_many_extents_and_a_hole_of_a_terabyte_come_back(work: Work) -> None:
    blobs = work.blobs
    extents = [chunk(blobs, b"%05d" % number) for number in range(3000)]
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
    fill(work.source, {"a": b"content", "b": b"content", "c/d": b"content", "kept": b"content"})
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
        fill(work.source, {f"{number % 7}/first {number}": b"%d" % number})
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
    fill(work.source, {"a": b"content"})
    os.link(work.source / "a", work.source / "b")
    work.save()
    work.restore()
    (work.target / "b").unlink()
    fill(work.target, {"b": b"content"})
    work.restore()
    assert os.path.samefile(work.target / "a", work.target / "b")
    assert ["a", "b"] == sorted(os.listdir(work.target))


def test_the_first_restored_name_is_the_file_when_others_are_left_out(work: Work) -> None:
    fill(work.source, {"a": b"content"})
    os.link(work.source / "a", work.source / "b")
    os.link(work.source / "a", work.source / "c")
    work.save()
    work.restore(exclude=("a",))
    assert os.path.samefile(work.target / "b", work.target / "c")


def test_a_file_system_without_hard_links_gets_copies(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(work.source, {"a": b"content"})
    os.link(work.source / "a", work.source / "b")
    work.save()

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    report = work.restore()
    assert (["a", "b"], 1, []) == (work.shown(), len(report.notes), work.listener.problems)
    assert (work.target / "b").read_bytes() == b"content"


def test_pages_are_read_again_rather_than_kept(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(work.source, {f"{number}": b"" for number in range(3000)})
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
