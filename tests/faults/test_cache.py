"""The cache deleted, spoiled, and used by several processes at once: it costs time, and never data."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import User, program
from tests.support.damage_scene import Scene, contents_of
from tests.support.prepared_program import PreparedProgram

FUSE = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="this user cannot open /dev/fuse")
APPEARS_WITHIN_S = 10
SCRIBBLES = 8


def _all_is_well(scene: Scene) -> None:
    """Every command works, and finds what was saved."""
    assert list(scene.ids) == scene.listed()
    assert scene.contents[scene.ids[1]] == scene.restored(scene.ids[1])
    summary = scene.run("snapshot", "create", "--json", str(scene.tree)).events[-1]
    assert (0, len(scene.contents[scene.ids[1]])) == (summary["bytes_read"], summary["files_unchanged"])
    scene.run("check", "--read-data")


def test_the_cache_deleted_between_commands(scene: Scene) -> None:
    scene.put_back()
    shutil.rmtree(scene.user.home / "cache")
    _all_is_well(scene)
    for command in (["check"], ["stats"], ["ls", "latest"], ["snapshot", "create", "-q", str(scene.tree)]):
        shutil.rmtree(scene.user.home / "cache")
        scene.run(*command)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: os.truncate(path, 0),
    "cut in half": _cut,
    "extended": lambda path: os.truncate(path, path.stat().st_size + 5000),
    "garbage": lambda path: path.write_bytes(random.Random(1).randbytes(path.stat().st_size)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_of_the_cache_that_is_spoiled(scene: Scene, harm: str) -> None:
    scene.put_back()
    files = [path for path in (scene.user.home / "cache").rglob("*") if path.is_file() and path.stat().st_size > 200]
    assert {"current", "main", "delta", "delta-lock"} == {path.name for path in files}
    for file in files:
        scene.put_back()
        HARMS[harm](file)
        _all_is_well(scene)


@pytest.mark.parametrize("name", ["current", "lock", "index"])
def test_something_else_in_place_of_the_cache_is_named(scene: Scene, name: str) -> None:
    """And going on is what the hint says: another cache, or none."""
    scene.put_back()
    (path,) = (scene.user.home / "cache").glob(f"**/{name}")
    if path.is_dir():
        shutil.rmtree(path)
        path.write_bytes(b"")
    else:
        _make_folder(path)
    done = scene.run("restore", scene.ids[0], "--target", str(scene.target), code=None)
    shutil.rmtree(scene.target, ignore_errors=True)
    assert done.code in (0, 1)
    if done.code:
        assert "index cache" in done.err
        assert "--cache-dir" in done.err
    shutil.rmtree(scene.user.home / "cache")
    _all_is_well(scene)


def test_a_scribbled_page_never_reaches_the_repository(scene: Scene) -> None:
    """LMDB has no checksums: a page of it with other bytes may cost the command, even the process, but no data.

    What is read is held against its id, and what is stored counts only if its pack is there.
    """
    scene.put_back()
    (delta,) = (scene.user.home / "cache").glob("**/delta")
    pages = delta.stat().st_size // 4096
    for number in range(SCRIBBLES):
        scene.put_back(is_state_new=True)
        with delta.open("r+b") as file:
            file.seek(4096 * (2 + number % (pages - 2)))
            file.write(random.Random(number).randbytes(4096))
        done = scene.run("restore", scene.ids[1], "--target", str(scene.target), code=None)
        found = contents_of(scene.target / str(scene.tree).lstrip("/"))
        assert found.items() <= scene.contents[scene.ids[1]].items()
        assert (done.code == 0) <= (found == scene.contents[scene.ids[1]])
        shutil.rmtree(scene.target, ignore_errors=True)
        scene.run("snapshot", "create", "-q", "--parent", "none", str(scene.tree), code=None)
        shutil.rmtree(scene.user.home / "cache")
        scene.run("check", "--read-data")
        scene.run("restore", "latest", "--target", str(scene.target))
        assert scene.contents[scene.ids[1]] == contents_of(scene.target / str(scene.tree).lstrip("/"))
        shutil.rmtree(scene.target)


# Several at once


@pytest.fixture
def trees(tmp_path: Path) -> list[Path]:
    """Three folders that have half of their data in common."""
    common = random.Random(0).randbytes(3_000_000)
    folders = []
    for number in range(3):
        folder = tmp_path / f"tree {number}"
        folder.mkdir()
        (folder / "common").write_bytes(common)
        (folder / "own").write_bytes(random.Random(number + 1).randbytes(1_500_000))
        for small in range(50):
            (folder / f"small {small}").write_bytes(random.Random(f"{number} {small}").randbytes(200))
        folders.append(folder)
    return folders


def _start(user: User, tree: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*program(), "snapshot", "create", "--json", str(tree)],
        env=user.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _create_at_once(user: User, trees: list[Path]) -> None:
    for process in [_start(user, tree) for tree in trees]:
        out, err = process.communicate(timeout=100)
        assert (0, b"") == (process.returncode, err), out


def _assert_saved(prepared: PreparedProgram, user: User, trees: list[Path], count: int) -> None:
    """So many snapshots are shown, each is whole, and nothing is wrong."""
    done = prepared.run(user, "snapshot", "list", "--json")
    snapshots = done.document["snapshots"]
    assert isinstance(snapshots, list)
    assert ("", count) == (done.err, len(snapshots))
    for snapshot in snapshots:
        (path,) = snapshot["paths"]
        target = user.home / "target"
        prepared.run(user, "restore", snapshot["id"], "--target", str(target))
        assert contents_of(Path(path)) == contents_of(target / path.lstrip("/"))
        shutil.rmtree(target)
    assert {str(tree) for tree in trees} == {snapshot["paths"][0] for snapshot in snapshots}
    prepared.run(user, "check", "--read-data")


@pytest.mark.parametrize("is_cache_cold", [True, False])
def test_snapshots_at_once_with_one_cache(
    prepared: PreparedProgram, user: User, trees: list[Path], *, is_cache_cold: bool
) -> None:
    """Two of the same folder among them; every one is reported, whole, and in the log under one client."""
    if is_cache_cold:
        shutil.rmtree(user.home / "cache")
    together = [*trees, trees[0]]
    _create_at_once(user, together)
    _assert_saved(prepared, user, trees, len(together))
    _create_at_once(user, trees[:2])
    _assert_saved(prepared, user, trees, len(together) + 2)
    assert [] == list((user.home / "repository" / "tmp").iterdir())


def test_snapshots_at_once_with_a_cache_each(prepared: PreparedProgram, user: User, trees: list[Path]) -> None:
    """Two machines: what both store is there twice, and either copy serves when the other is gone."""
    other = User(user.home.with_name("another home"), user.variables)
    shutil.copytree(user.home, other.home)
    same = [_start(each, trees[0]) for each in (user, other)]
    for process in same:
        out, err = process.communicate(timeout=100)
        assert (0, b"") == (process.returncode, err), out
    _assert_saved(prepared, user, trees[:1], 2)
    _assert_saved(prepared, other, trees[:1], 2)


def _paths_shown(past: Path, trees: list[Path]) -> set[Path]:
    return {tree for tree in trees for entry in (past / "snapshots").iterdir() if (entry / str(tree)[1:]).exists()}


@pytest.fixture
def mounted(prepared: PreparedProgram, user: User, past: Path, tree: Path) -> Iterator[Path]:
    """A mount with one snapshot in it."""
    prepared.run(user, "snapshot", "create", "-q", str(tree))
    prepared.run(user, "mount", str(past))
    yield past
    prepared.run(user, "umount", str(past))


@FUSE
def test_snapshots_at_once_while_a_mount_is_open(
    prepared: PreparedProgram, user: User, trees: list[Path], tree: Path, mounted: Path
) -> None:
    before = contents_of(mounted / "latest" / str(tree)[1:])
    processes = [_start(user, each) for each in trees[:2]]
    while any(process.poll() is None for process in processes):
        assert before == contents_of(next((mounted / "snapshots").iterdir()) / str(tree)[1:])
    for process in processes:
        assert (0, b"") == (process.wait(), process.communicate()[1])
    deadline = time.monotonic() + APPEARS_WITHIN_S
    while _paths_shown(mounted, trees) != set(trees[:2]):
        assert time.monotonic() < deadline, "new snapshots do not appear in a mount"
    for each in trees[:2]:
        (top,) = (entry for entry in (mounted / "snapshots").iterdir() if (entry / str(each)[1:]).exists())
        assert contents_of(each) == contents_of(top / str(each)[1:])
    prepared.run(user, "check", "--read-data")


@FUSE
def test_the_cache_deleted_under_a_mount(
    prepared: PreparedProgram, user: User, trees: list[Path], tree: Path, mounted: Path
) -> None:
    shutil.rmtree(user.home / "cache")
    assert contents_of(tree) == contents_of(mounted / "latest" / str(tree)[1:])
    prepared.run(user, "snapshot", "create", "-q", str(trees[0]))
    deadline = time.monotonic() + APPEARS_WITHIN_S
    while not (mounted / "latest" / str(trees[0])[1:]).exists():
        assert time.monotonic() < deadline, "new snapshots do not appear in a mount"
    assert contents_of(trees[0]) == contents_of(mounted / "latest" / str(trees[0])[1:])
