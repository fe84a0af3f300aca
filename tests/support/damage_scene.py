"""A small repository with one of everything, to be spoiled in every way and put back."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cli.conftest import Done, User, settle
from tests.support.prepared_program import PreparedProgram

Contents = Mapping[str, bytes]
Change = Callable[[Path, Path], list[Path]]
"""Changes an object, given another one of its kind; the names that it touched."""


@dataclass(frozen=True)
class Scene:
    """A repository with two snapshots, and copies of what a test may spoil."""

    user: User
    prepared: PreparedProgram
    tree: Path
    ids: tuple[str, str]
    contents: Mapping[str, Contents]
    kept: Path

    @property
    def repository(self) -> Path:
        return self.user.home / "repository"

    @property
    def target(self) -> Path:
        return self.user.home / "target"

    def objects(self, kind: str) -> list[str]:
        found = (path for path in (self.kept / "repository").rglob("*") if path.is_file())
        names = sorted(str(path.relative_to(self.kept / "repository")) for path in found)
        return [name for name in names if name.split("/")[0] == kind]

    def put_back(self, *, is_cache_cold: bool = False, is_state_new: bool = False) -> None:
        for name in ("repository", "cache", "state"):
            shutil.rmtree(self.user.home / name, ignore_errors=True)
            if not (name == "cache" and is_cache_cold) and not (name == "state" and is_state_new):
                shutil.copytree(self.kept / name, self.user.home / name)

    def run(self, *arguments: str, code: int | None = 0) -> Done:
        return self.prepared.run(self.user, *arguments, code=code)

    def restored(self, id_: str) -> Contents:
        """Restore a snapshot: what arrived, which must be right, whole when the program says so, else explained."""
        done = self.run("restore", id_, "--target", str(self.target), code=None)
        found = contents_of(self.target / str(self.tree).lstrip("/"))
        shutil.rmtree(self.target, ignore_errors=True)
        assert found.items() <= self.contents[id_].items(), "restored wrong bytes"
        assert done.code in (0, 3, 12, 13, 10)
        assert (done.code == 0) == (found == self.contents[id_])
        assert (done.err == "") <= (done.code == 0)
        return found

    def listed(self) -> list[str]:
        done = self.run("snapshot", "list", "--json", code=None)
        if not done.out:
            assert done.code in (10, 12, 13)
            return []
        snapshots = done.document["snapshots"]
        assert isinstance(snapshots, list)
        ids = [snapshot["id"] for snapshot in snapshots]
        assert set(ids) <= set(self.ids)
        assert (done.code == 0) or (done.code == 13 and done.err)
        return ids


def contents_of(folder: Path) -> Contents:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def _fill(tree: Path) -> None:
    """One page of a directory is not enough, one segment neither; a list of extents, a set of attributes, a group."""
    random_bytes = random.Random(7).randbytes
    (tree / "below").mkdir(parents=True)
    for number in range(120):
        (tree / "below" / f"file {number}").write_bytes(random_bytes(300))
    (tree / "letter.txt").write_text("Dear all,\n")
    (tree / "large").write_bytes(random_bytes(900_000))
    with (tree / "sparse").open("wb") as file:
        for number in range(12):
            file.seek(number * 65_536)
            file.write(random_bytes(4096))
    (tree / "noted").write_bytes(b"noted")
    os.setxattr(tree / "noted", "user.note", random_bytes(2500))
    (tree / "linked").write_bytes(b"linked")
    os.link(tree / "linked", tree / "further")
    (tree / "link").symlink_to("letter.txt")


def make_scene(folder: Path, prepared: PreparedProgram) -> Scene:
    """Two snapshots of a tree, and copies to be put back."""
    user, tree, kept = User(folder / "home"), folder / "tree", folder / "kept"
    user.home.mkdir()
    settle(user)
    prepared.run(user, "init")
    (folder / "second").write_text("another way in\n")
    prepared.run(user, "key", "add", "--new-password-file", str(folder / "second"))
    _fill(tree)
    ids, contents = [], {}
    for text in ("Dear all,\n", "Dear all, once more\n"):
        (tree / "letter.txt").write_text(text)
        (tree / "below" / text[:8]).write_bytes(random.Random(text).randbytes(300_000))
        prepared.run(user, "check")  # takes a while: what changed in the tick of a snapshot's begin is read again
        done = prepared.run(user, "snapshot", "create", "--json", str(tree))
        ids.append(str(done.events[-1]["id"]))
        contents[ids[-1]] = contents_of(tree)
    for name in ("repository", "cache", "state"):
        shutil.copytree(user.home / name, kept / name)
    return Scene(user, prepared, tree, (ids[0], ids[1]), contents, kept)


def _flip(place: float) -> Change:
    def change(path: Path, other: Path) -> list[Path]:
        data = bytearray(path.read_bytes())
        at = round(place * (len(data) - 1))
        data[at] ^= 1 << at % 8
        path.write_bytes(data)
        return [path]

    return change


def _rewrite(edit: Callable[[bytes], bytes]) -> Change:
    def change(path: Path, other: Path) -> list[Path]:
        path.write_bytes(edit(path.read_bytes()))
        return [path]

    return change


def _swap(path: Path, other: Path) -> list[Path]:
    data = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return [path, other]


def _rename(path: Path, other: Path) -> list[Path]:
    target = path.with_name(path.name[:-1] + ("0" if path.name[-1] != "0" else "1"))
    path.rename(target)
    return [path, target]


def delete(path: Path, other: Path) -> list[Path]:
    path.unlink()
    return [path]


CHANGES: Mapping[str, Change] = {
    "bit 0": _flip(0),
    "bit at a third": _flip(0.33),
    "bit in the middle": _flip(0.5),
    "last bit": _flip(1),
    "cut by one byte": _rewrite(lambda data: data[:-1]),
    "cut in half": _rewrite(lambda data: data[: len(data) // 2]),
    "extended": _rewrite(lambda data: data + bytes(64)),
    "emptied": _rewrite(lambda data: b""),
    "swapped": _swap,
    "renamed": _rename,
    "deleted": delete,
}


def spoil(scene: Scene, name: str, change: Change, *, is_cache_cold: bool) -> list[str]:
    """Change one object of a good repository; the names of objects by which that may be told."""
    scene.put_back(is_cache_cold=is_cache_cold)
    kind = name.split("/")[0]
    others = [other for other in scene.objects(kind) if other != name]
    touched = change(scene.repository / name, scene.repository / (others or [name])[0])
    return [str(path.relative_to(scene.repository)) for path in touched]
