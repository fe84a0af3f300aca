"""Every object of a repository changed in every way: it is named or does no harm, and never becomes wrong data.

What is legitimately not noticed is said beside the test that allows it.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from backthen.repository.crypto import ObjectKind, object_id, seal_object
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.records import Mark, Root, encode_record
from backthen.repository.opening import Client, Folders, find_repository
from backthen.repository.storage import mark_name, open_storage, root_name
from tests.cli.conftest import PASSWORD, Done, User, settle
from tests.support.prepared_program import PreparedProgram

FUSE = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="this user cannot open /dev/fuse")
Contents = Mapping[str, bytes]
Change = Callable[[Path, Path], list[Path]]
"""Changes an object, given another one of its kind; the names that it touched."""


# A small repository with a page of everything


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
        found = _contents(self.target / str(self.tree).lstrip("/"))
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


def _contents(folder: Path) -> Contents:
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


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, prepared: PreparedProgram) -> Scene:
    folder = tmp_path_factory.mktemp("damage")
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
        done = prepared.run(user, "snapshot", "create", "--json", str(tree))
        ids.append(str(done.events[-1]["id"]))
        contents[ids[-1]] = _contents(tree)
    for name in ("repository", "cache", "state"):
        shutil.copytree(user.home / name, kept / name)
    return Scene(user, prepared, tree, (ids[0], ids[1]), contents, kept)


def test_the_scene_has_objects_of_every_kind(scene: Scene) -> None:
    counts = {kind: len(scene.objects(kind)) for kind in ("config", "keys", "packs", "index", "roots", "log")}
    assert {"config": 1, "keys": 2, "packs": 4, "index": 4, "roots": 2, "log": 2} == counts
    scene.put_back()
    assert "No fault" in scene.run("check", "--read-data").text
    assert [len(scene.contents[id_]) for id_ in scene.ids] == [len(scene.restored(id_)) for id_ in scene.ids]


# Ways to change an object


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


def _delete(path: Path, other: Path) -> list[Path]:
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
    "deleted": _delete,
}


def _spoil(scene: Scene, name: str, change: Change, *, is_cache_cold: bool) -> list[str]:
    """Change one object of a good repository; the names of objects by which that may be told."""
    scene.put_back(is_cache_cold=is_cache_cold)
    kind = name.split("/")[0]
    others = [other for other in scene.objects(kind) if other != name]
    touched = change(scene.repository / name, scene.repository / (others or [name])[0])
    return [str(path.relative_to(scene.repository)) for path in touched]


def _check(scene: Scene, *options: str) -> tuple[int, str]:
    done = scene.run("check", *options, code=None)
    return done.code, done.text + done.err


def _look_around(scene: Scene, *, is_list_at_stake: bool = True) -> None:
    """Every other command gives right data, or says why not."""
    if is_list_at_stake:
        scene.listed()
    for id_ in scene.ids:
        scene.restored(id_)
    wanted = scene.contents[scene.ids[0]]["large"]
    done = scene.run("cat", f"{scene.ids[0]}:{scene.tree}/large", code=None)
    assert (done.code, done.out) == (0, wanted) or (done.code in (10, 12, 13) and wanted.startswith(done.out))


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kind", ["packs", "index", "roots", "log"])
def test_a_changed_object_is_named_and_is_never_data(scene: Scene, kind: str, how: str) -> None:
    for number, name in enumerate(scene.objects(kind)):
        names = _spoil(scene, name, CHANGES[how], is_cache_cold=number % 2 == 0)
        code, text = _check(scene, "--read-data")
        assert code == 13, f"{name} {how} went unnoticed: {text}"
        if (kind, how) == ("index", "deleted"):
            # Nothing says that there ever was such an object; what it makes missing is said, and what helps.
            assert "is missing" in text
            assert "1 pack is in no index" in text
        elif (kind, how) == ("log", "deleted"):
            # Told by the entry that cites it, or by the head that this user's state remembers.
            assert name.split("-")[1] in text
        else:
            assert any(named in text for named in names), f"{name} {how} was not named: {text}"
        _look_around(scene, is_list_at_stake=kind in ("roots", "log"))


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_configuration_is_named(scene: Scene, how: str) -> None:
    if how == "swapped":
        pytest.skip("there is one configuration")
    _spoil(scene, "config", CHANGES[how], is_cache_cold=False)
    code, text = _check(scene, "--read-data")
    # Without `config` there is no repository.
    expected = (10, "no repository") if how in ("renamed", "deleted") else (13, "config: ")
    assert (expected[0], True) == (code, expected[1] in text), text
    _look_around(scene)


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_way_in_is_named(scene: Scene, how: str) -> None:
    scene.put_back()
    keys = scene.run("key", "list", "--json").document["keys"]
    assert isinstance(keys, list)
    for slot in keys:
        names = _spoil(scene, f"keys/{slot['id']}", CHANGES[how], is_cache_cold=False)
        code, text = _check(scene, "--read-data")
        if how == "deleted":
            # Removing a way in is what `key remove` does: whoever has another one is not harmed and not told.
            assert (12 if slot["current"] else 0) == code
        else:
            assert (13, True) == (code, any(named in text for named in names)), text
        _look_around(scene)


def test_check_without_reading_leaves_out_the_data_of_files_alone(scene: Scene) -> None:
    """A bit in a segment of file data is for `--read-data`; one in a page, a directory or a trailer is not."""
    codes = {}
    for name in scene.objects("packs"):
        for how in ("bit at a third", "last bit", "cut by one byte", "extended", "deleted"):
            _spoil(scene, name, CHANGES[how], is_cache_cold=False)
            codes[name, how] = _check(scene)[0]
    unnoticed = [how for (_, how), code in codes.items() if code == 0]
    assert ["bit at a third"] * 2 == unnoticed
    assert {0, 13} == set(codes.values())


def test_a_damaged_index_object_costs_what_it_says_alone(scene: Scene) -> None:
    """Without a cache, and so from the index objects: one snapshot needs none of what the other added."""
    whole = []
    for name in scene.objects("index"):
        _spoil(scene, name, CHANGES["bit in the middle"], is_cache_cold=True)
        whole.append(scene.restored(scene.ids[0]) == scene.contents[scene.ids[0]])
    assert [False, False, True, True] == sorted(whole)


def test_packs_that_lost_their_index_are_taken_in_by_the_next_snapshot(scene: Scene) -> None:
    scene.put_back(is_cache_cold=True)
    for name in scene.objects("index"):
        (scene.repository / name).unlink()
    assert scene.restored(scene.ids[1]) == {}
    scene.run("snapshot", "create", str(scene.tree))
    assert scene.restored(scene.ids[0]) == scene.contents[scene.ids[0]]
    assert scene.restored(scene.ids[1]) == scene.contents[scene.ids[1]]
    scene.run("check", "--read-data")


def test_a_snapshot_does_not_rely_on_a_pack_that_is_gone(scene: Scene) -> None:
    """What a lost pack held is stored again from the live files, for the new snapshot and for the old ones."""
    for name in scene.objects("packs"):
        _spoil(scene, name, _delete, is_cache_cold=False)
        os.utime(scene.tree / "letter.txt")
        done = scene.run("snapshot", "create", "--parent", "none", "--json", str(scene.tree))
        target = scene.target / str(scene.tree).lstrip("/")
        scene.run("restore", str(done.events[-1]["id"]), "--target", str(scene.target))
        assert _contents(target) == scene.contents[scene.ids[1]]
        shutil.rmtree(scene.target)


# Objects that ordinary snapshots do not leave behind


def _put_rare_objects(scene: Scene) -> tuple[str, str]:
    """A mark, and the root of an unfinished run; their names."""
    folders = Folders(scene.user.home / "cache" / "backthen", scene.user.home / "state" / "backthen")
    locked = find_repository(open_storage(str(scene.repository)), folders)
    with locked.unlock(PASSWORD.encode(), Client("host", "user", "test")) as repository:
        root = repository.snapshots()[-1].root
        unfinished = Root(**{**{name: getattr(root, name) for name in root.__struct_fields__}, "partial": True})
        root_id = repository.catalog.put_partial(unfinished)
        nobody = ObjectId(bytes(32))
        mark = encode_record(Mark((PackId(nobody),), (SnapshotId(nobody),), ()))
        sealed = seal_object(repository.keys, ObjectKind.MARK, mark)
        name = mark_name(object_id(sealed))
        repository.storage.put(name, sealed)
    return name, root_name(root_id)


@pytest.mark.parametrize("how", ["bit 0", "bit in the middle", "cut in half", "emptied", "renamed"])
def test_what_only_a_prune_reads_is_checked_too(scene: Scene, how: str) -> None:
    for number in range(2):
        scene.put_back()
        name = _put_rare_objects(scene)[number]
        assert _check(scene)[0] == 0
        touched = CHANGES[how](scene.repository / name, scene.repository / name)
        code, text = _check(scene)
        assert (13, True) == (code, any(str(path.relative_to(scene.repository)) in text for path in touched)), text
        assert scene.restored(scene.ids[1]) == scene.contents[scene.ids[1]]


def test_a_snapshot_is_refused_while_a_mark_cannot_be_read(scene: Scene) -> None:
    """It could condemn anything; nothing of the refused run is shown."""
    scene.put_back()
    name, _ = _put_rare_objects(scene)
    CHANGES["bit in the middle"](scene.repository / name, Path())
    assert name in scene.run("snapshot", "create", str(scene.tree), code=13).err
    assert list(scene.ids) == scene.listed()


def test_deleted_unfinished_roots_and_marks_leave_snapshots_whole(scene: Scene) -> None:
    """Nothing that is shown needs them: their loss cannot be noticed, and harms nobody."""
    scene.put_back()
    for name in _put_rare_objects(scene):
        (scene.repository / name).unlink()
    assert _check(scene, "--read-data")[0] == 0
    assert list(scene.ids) == scene.listed()


def test_strangers_in_the_repository_are_named_and_ignored(scene: Scene) -> None:
    scene.put_back()
    strangers = ["packs/ab/Thumbs.db", "log/note", "keys/" + "g" * 64, "index/" + "a" * 63]
    for name in strangers:
        (scene.repository / name).parent.mkdir(exist_ok=True)
        (scene.repository / name).write_bytes(b"strange")
    code, text = _check(scene)
    assert code == 13
    assert [name for name in strangers if name not in text] == []
    assert list(scene.ids) == scene.listed()
    assert scene.restored(scene.ids[1]) == scene.contents[scene.ids[1]]


# The same in a mount


@dataclass(frozen=True)
class Seen:
    """What a mount gave of the files of each snapshot that it shows."""

    readable: Mapping[str, set[str]]
    is_alive: bool


@pytest.fixture
def mountpoint(scene: Scene) -> Iterator[Path]:
    folder = scene.user.home / "Past"
    folder.mkdir(exist_ok=True)
    yield folder
    subprocess.run(["fusermount3", "-u", "-z", "-q", str(folder)], check=False, stderr=subprocess.DEVNULL)


def _readable(top: Path, contents: Contents) -> set[str]:
    """The names that can be read, which must give the right bytes; the others give EIO, and are not just gone."""
    found = set()
    for name, data in contents.items():
        try:
            assert data == (top / name).read_bytes()
            found.add(name)
        except OSError as error:
            assert error.errno == errno.EIO, f"{name}: {error}"
    return found


def _seen(scene: Scene, mountpoint: Path) -> dict[str, set[str]]:
    """What can be read of each snapshot that is shown."""
    scene.run("mount", str(mountpoint))
    shown = {entry.name.rsplit("_", 1)[1]: entry for entry in (mountpoint / "snapshots").iterdir()}
    seen = {}
    for id_ in scene.ids:
        for digits in (digits for digits in shown if id_.startswith(digits)):
            seen[id_] = _readable(shown[digits] / str(scene.tree).lstrip("/"), scene.contents[id_])
    assert sorted(entry.name for entry in mountpoint.iterdir())
    scene.run("umount", str(mountpoint))
    return seen


@FUSE
@pytest.mark.parametrize("how", ["bit at a third", "deleted"])
@pytest.mark.parametrize("kind", ["packs", "index"])
def test_a_mount_gives_right_bytes_or_eio(scene: Scene, mountpoint: Path, kind: str, how: str) -> None:
    """And as much as a restore can have, which leaves out a file when one bit of it is gone."""
    for name in scene.objects(kind):
        _spoil(scene, name, CHANGES[how], is_cache_cold=True)
        seen = _seen(scene, mountpoint)
        assert {id_: set(scene.restored(id_)) for id_ in scene.ids} == seen
        if (kind, how) == ("packs", "bit at a third"):
            assert any(seen[id_] == set(scene.contents[id_]) for id_ in scene.ids) or len(seen[scene.ids[0]]) > 100


@FUSE
@pytest.mark.parametrize("kind", ["roots", "log"])
def test_a_mount_leaves_out_a_damaged_snapshot_and_shows_the_others(scene: Scene, mountpoint: Path, kind: str) -> None:
    for name in scene.objects(kind):
        _spoil(scene, name, CHANGES["bit in the middle"], is_cache_cold=True)
        (other,) = (id_ for id_ in scene.ids if id_ not in name)
        assert {other: set(scene.contents[other])} == _seen(scene, mountpoint)


@FUSE
def test_a_mount_outlives_damage_that_comes_while_it_serves(scene: Scene, mountpoint: Path) -> None:
    scene.put_back()
    scene.run("mount", str(mountpoint))
    top = mountpoint / "latest" / str(scene.tree).lstrip("/")
    assert (top / "noted").read_bytes() == b"noted"
    for name in scene.objects("packs"):
        CHANGES["bit in the middle"](scene.repository / name, Path())
    assert len(_readable(top, scene.contents[scene.ids[1]])) < len(scene.contents[scene.ids[1]])
    scene.put_back()
    assert _readable(top, scene.contents[scene.ids[1]]) == set(scene.contents[scene.ids[1]])
    scene.run("umount", str(mountpoint))


# An older copy of the repository


def _older(scene: Scene) -> None:
    """Put back the repository as it was before the second snapshot."""
    scene.put_back()
    for name in (*scene.objects("log"), *scene.objects("roots")):
        if scene.ids[1] in name:
            (scene.repository / name).unlink()


@pytest.mark.parametrize("is_cache_cold", [False, True])
def test_an_older_repository_is_refused_loudly(scene: Scene, mountpoint: Path, *, is_cache_cold: bool) -> None:
    _older(scene)
    if is_cache_cold:
        shutil.rmtree(scene.user.home / "cache")
    (state,) = scene.user.home.glob("state/backthen/*/client.json")
    for command in (
        ["snapshot", "list"],
        ["snapshot", "create", str(scene.tree)],
        ["snapshot", "show", "latest"],
        ["ls", "latest"],
        ["cat", f"latest:{scene.tree}/noted"],
        ["restore", "latest", "--target", str(scene.target)],
        ["mount", str(mountpoint)],
        ["stats"],
        ["check"],
    ):
        done = scene.run(*command, code=13)
        told = done.text + done.err
        assert "older or another past" in told, command
        assert scene.ids[1] in told, command
        if command != ["check"]:
            assert str(state) in done.err, command
    assert not scene.target.exists()


def test_whoever_knows_why_can_go_on_with_an_older_repository(scene: Scene) -> None:
    """The hint names the file that remembers; without it nothing can be noticed."""
    _older(scene)
    (state,) = scene.user.home.glob("state/backthen/*/client.json")
    state.unlink()
    assert [scene.ids[0]] == scene.listed()
    assert scene.restored(scene.ids[0]) == scene.contents[scene.ids[0]]
    scene.run("check", "--read-data")


def test_an_empty_log_is_a_rollback_too(scene: Scene) -> None:
    scene.put_back()
    shutil.rmtree(scene.repository / "log")
    assert "older or another past" in scene.run("snapshot", "list", code=13).err


def test_two_entries_with_one_counter_are_named(scene: Scene) -> None:
    """A state folder and a repository that were both put back: the same client wrote two second entries."""
    scene.put_back()
    (state,) = (scene.user.home / "state").glob("backthen/*/client.json")
    memory = json.loads(state.read_bytes())
    memory["counter"] = 1
    memory["heads"] = [name for name in scene.objects("log") if scene.ids[0] in name]
    state.write_text(json.dumps(memory))
    for name in (*scene.objects("log"), *scene.objects("roots")):
        if scene.ids[1] in name:
            (scene.repository / name).unlink()
    scene.run("snapshot", "create", "-q", str(scene.tree))
    shutil.copytree(scene.kept / "repository", scene.repository, dirs_exist_ok=True)
    entries = sorted(path.name for path in (scene.repository / "log").iterdir() if scene.ids[0] not in path.name)
    assert len(entries) == 2
    done = scene.run("snapshot", "list", code=13)
    assert "client and counter of another entry" in done.err
    code, text = _check(scene)
    assert (13, []) == (code, [name for name in entries if name not in text])
    assert scene.restored(scene.ids[1]) == scene.contents[scene.ids[1]]
