"""A further snapshot reads and stores what changed, and says what it could not read."""

from __future__ import annotations

import os
import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.conftest import User, settle
from tests.support.role import role
from tests.support.sample_tree import make_sample_tree

KIB = 1024
MIB = 1024 * KIB
FILE_BYTES = 20_000
LARGE_BYTES = 64 * MIB


class Stored(NamedTuple):
    """What a repository holds: bytes of all objects, and the packs that hold file contents."""

    size: int
    data_packs: dict[str, int]


def stored(user: User) -> Stored:
    size = sum(path.stat().st_size for path in (user.home / "repository").rglob("*") if path.is_file())
    return Stored(size, user.data_packs)


def summary(user: User, *arguments: str | Path) -> dict[str, object]:
    return user.run("snapshot", "create", "--json", *map(str, arguments)).events[-1]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Ten folders of twenty files each, with contents that do not compress."""
    contents = random.Random(3)
    for number in range(200):
        folder = tmp_path / "saved" / "tree" / f"{number // 20:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:03d}").write_bytes(contents.randbytes(FILE_BYTES))
    return tmp_path / "saved" / "tree"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """One large file that does not compress."""
    path = tmp_path / "large"
    path.write_bytes(random.Random(4).randbytes(LARGE_BYTES))
    return path


def test_unchanged_tree_is_not_read_and_stores_next_to_nothing(user: User, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_sample_tree(tree, as_root=os.geteuid() == 0)
    if os.geteuid() != 0:
        (tree / "mode 0").unlink()
    first = summary(user, tree)
    before = stored(user)
    second = summary(user, tree)
    after = stored(user)

    assert first["id"] == second["parent"]
    assert (second["bytes_read"], second["files_new"], second["files_changed"]) == (0, 0, 0)
    assert first["files_new"] == second["files_unchanged"]
    assert before.data_packs == after.data_packs
    assert after.size - before.size <= 4 * KIB


def test_five_changed_files_are_read_and_stored_alone(user: User, folders: Path) -> None:
    summary(user, folders)
    before = stored(user)
    for number in (0, 41, 42, 100, 199):
        path = folders / f"{number // 20:02d}" / f"{number:03d}"
        path.write_bytes(path.read_bytes()[::-1])
    second = summary(user, folders)

    assert (second["files_new"], second["files_changed"], second["files_unchanged"]) == (0, 5, 195)
    assert second["bytes_read"] == 5 * FILE_BYTES
    assert stored(user).size - before.size <= 5 * FILE_BYTES + 32 * KIB


def test_insertion_at_the_start_of_a_large_file_stores_a_few_chunks(user: User, large: Path) -> None:
    summary(user, large)
    before = stored(user)
    large.write_bytes(b"inserted" + large.read_bytes())
    second = summary(user, large)

    assert second["bytes_read"] == LARGE_BYTES + len(b"inserted")
    assert stored(user).size - before.size < 6 * MIB


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_moved_or_copied_tree_stores_no_file_contents(user: User, folders: Path, how: str) -> None:
    summary(user, folders.parent)
    before = stored(user)
    if how == "moved":
        folders.rename(folders.parent / "moved")
    else:
        shutil.copytree(folders, folders.parent / "copied")
    second = summary(user, folders.parent)
    after = stored(user)

    assert second["files_new"] == 200
    assert before.data_packs == after.data_packs
    assert after.size - before.size <= 64 * KIB


def test_new_time_without_new_contents_stores_no_file_contents(user: User, folders: Path) -> None:
    summary(user, folders)
    before = stored(user)
    touched = folders / "05" / "110"
    os.utime(touched, ns=(0, 123_456_789))
    second = summary(user, folders)
    after = stored(user)

    assert (second["files_changed"], second["bytes_read"]) == (1, FILE_BYTES)
    assert before.data_packs == after.data_packs
    assert after.size - before.size <= 16 * KIB
    user.run("restore", f"latest:{touched}", "--target", str(folders.parent / "out"))
    assert (folders.parent / "out" / "110").stat().st_mtime_ns == 123_456_789


def test_without_a_parent_all_is_read_and_nothing_stored_again(user: User, folders: Path) -> None:
    summary(user, folders)
    before = stored(user)
    second = summary(user, folders, "--parent", "none")
    after = stored(user)

    assert (second["parent"], second["bytes_read"]) == (None, 200 * FILE_BYTES)
    assert before.data_packs == after.data_packs
    assert after.size - before.size <= 4 * KIB


def test_change_without_a_trace_in_size_and_mtime_is_noticed(user: User, tree: Path) -> None:
    letter = tree / "letter.txt"
    status = letter.stat()
    summary(user, tree)
    letter.write_bytes(b"Dear foes\n")
    os.utime(letter, ns=(status.st_atime_ns, status.st_mtime_ns))
    summary(user, tree)

    assert letter.stat().st_size == status.st_size
    assert user.run("cat", f"latest:{letter}").out == b"Dear foes\n"


@contextmanager
def growing(path: Path) -> Iterator[None]:
    """Have somebody append to a file without rest."""
    end = threading.Event()

    def append() -> None:
        with path.open("ab", buffering=0) as file:
            while not end.wait(0.001):
                file.write(b"more")

    writer = threading.Thread(target=append)
    writer.start()
    try:
        yield
    finally:
        end.set()
        writer.join()


def test_file_that_changes_while_it_is_read_is_named(user: User, tree: Path, large: Path) -> None:
    with growing(large):
        done = user.run("snapshot", "create", str(tree), str(large), code=3)

    assert str(large) in done.err
    assert str(tree) not in done.err
    assert user.run("cat", f"latest:{tree}/letter.txt").out == b"Dear all,\n"
    assert user.run("cat", f"latest:{large}").out[:LARGE_BYTES] == large.read_bytes()[:LARGE_BYTES]


def test_unreadable_file_is_named_and_kept_as_an_entry_with_its_error() -> None:
    with role("user") as owner:
        tree = owner.folder / "tree"
        tree.mkdir()
        for name in ("open", "closed"):
            (tree / name).write_text(name)
        home = owner.folder / "home"
        home.mkdir()
        somebody = User(home, prefix=owner.prefix)
        settle(somebody)
        owner.give(owner.folder)
        (tree / "closed").chmod(0)
        somebody.run("init")
        done = somebody.run("snapshot", "create", str(tree), "--json", code=3)
        entries = somebody.run("ls", f"latest:{tree}", "--json").document["entries"]

        assert [event["path"] for event in done.events if event["event"] == "problem"] == [str(tree / "closed")]
        assert isinstance(entries, list)
        assert [(str(tree / "closed"), "Permission denied"), (str(tree / "open"), None)] == [
            (entry["path"], entry.get("error")) for entry in entries
        ]
        assert somebody.run("cat", f"latest:{tree}/open").out == b"open"
        # It is tried again each time: nothing was saved that could be taken over.
        (tree / "closed").chmod(0o600)
        somebody.run("snapshot", "create", str(tree))
        assert somebody.run("cat", f"latest:{tree}/closed").out == b"closed"
