"""Restoring where links, files, full disks and missing rights stand in the way."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from backthen.repository.errors import TargetError
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.restore import RestoreReport
from backthen.repository.restore.sharing import FOLDERS_LEFT_MAX
from tests.support.comparison import Aspects, differences
from tests.support.memory import directory_of, snapshot_tree, with_extents
from tests.support.restoring import Work, chunk, fill
from tests.support.sample_tree import make_sample_tree

_IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not _IS_ROOT, reason="owners and devices need root")


@pytest.fixture(params=["alone", "shared"])
def work(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Work:
    work = Work(tmp_path)
    if request.param == "shared":
        work.share(monkeypatch)
    return work


def test_links_in_the_way_are_replaced_and_never_followed(work: Work, tmp_path: Path) -> None:
    fill(work.source, {"file": b"content", "folder/inside": b"content", "other/x": b"content"})
    work.save()
    outside = tmp_path / "outside"
    fill(outside, {"file": b"untouched"})
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
    fill(work.source, {"a/deep/file": b"content", "b": b"content"})
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
    fill(work.source, {"file": b"content", "empty": b"content", "folder/inside": b"content"})
    work.save()
    fill(work.target, {"file/precious": b"kept", "folder": b"a file"})
    (work.target / "empty").mkdir()
    work.restore()
    assert [os.fsencode(work.target / "file")] == [path for path, _ in work.listener.problems]
    assert ["empty", "file", "file/precious", "folder", "folder/inside"] == work.shown()
    assert (work.target / "empty").is_file()


def test_a_file_in_the_way_of_a_directory_stays_when_nothing_is_overwritten(work: Work) -> None:
    fill(work.source, {"folder/inside": b"content", "z": b"content"})
    work.save()
    fill(work.target, {"folder": b"a file"})
    work.restore(overwrite="never")
    assert ((["folder", "z"]), 1) == (work.shown(), len(work.listener.problems))


def test_ten_thousand_levels_are_restored_with_few_descriptors(work: Work) -> None:
    depth = 10_000
    blobs = work.blobs
    entry = with_extents(blobs, Entry(b"z", EntryType.FILE, 0o600, mtime_ns=5), [chunk(blobs, b"deepest")])
    for _ in range(depth):
        entry = directory_of(blobs, b"d", [entry, Entry(b"e", EntryType.FIFO, 0o600)], mode=0o500)
    work.tree = snapshot_tree(directory_of(blobs, b"", [entry]))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = 80 if work.forks is None else 80 + FOLDERS_LEFT_MAX
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + room, hard))
    try:
        report = work.restore("")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", str(work.target)], check=True)
    assert (depth, depth, 1, []) == (report.others, report.directories, report.files, work.listener.problems)


def test_who_may_have_no_more_processes_restores_alone(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(work.source, {"a/b": b"content", "c": b"content"})
    work.save()
    forked: list[int] = []
    fork = os.fork

    def refuse_the_second() -> int:
        if forked:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        forked.append(1)
        return fork()

    monkeypatch.setattr(os, "fork", refuse_the_second)
    report = work.restore()
    assert ([], [], 2) == (work.differences(), work.listener.problems, report.files)
    assert (work.forks is not None) == bool(forked)


def test_a_full_disk_ends_the_restore(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(work.source, {"a": b"content", "b": b"content"})
    work.save()

    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full)
    with pytest.raises(TargetError):
        work.restore()
    assert [] == os.listdir(work.target)


def test_inherited_access_control_lists_are_taken_off(work: Work) -> None:
    fill(work.source, {"folder/file": b"content"})
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
    fill(work.source, {"folder/a": b"1", "folder/b": b"2"})
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
