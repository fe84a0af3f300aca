"""Every object of a repository changed in every way: it is named or does no harm, and never becomes wrong data.

What is legitimately not noticed is said beside the test that allows it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from backthen.repository.crypto import ObjectKind, object_id, seal_object
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.locked import Folders, find_repository
from backthen.repository.model.records import Mark, Root, encode_record
from backthen.repository.opening import Client, unlock
from backthen.repository.storage import mark_name, open_storage, root_name
from tests.cli.conftest import PASSWORD
from tests.support.damage_scene import CHANGES, Scene, contents_of, delete, spoil


def test_the_scene_has_objects_of_every_kind(scene: Scene) -> None:
    counts = {kind: len(scene.objects(kind)) for kind in ("config", "keys", "packs", "index", "roots", "log")}
    assert {"config": 1, "keys": 2, "packs": 4, "index": 4, "roots": 2, "log": 2} == counts
    scene.put_back()
    assert "No fault" in scene.run("check", "--read-data").text
    assert [len(scene.contents[id_]) for id_ in scene.ids] == [len(scene.restored(id_)) for id_ in scene.ids]


def _check(scene: Scene, *options: str) -> tuple[int, str]:
    done = scene.run("check", *options, code=None)
    return done.code, done.text + done.err


def _look_around(scene: Scene, *ids: str) -> None:
    """Restoring the given snapshots, and reading a file of the first one, gives right data or says why not."""
    for id_ in ids:
        scene.restored(id_)
    wanted = scene.contents[scene.ids[0]]["large"]
    done = scene.run("cat", f"{scene.ids[0]}:{scene.tree}/large", code=None)
    assert (done.code, done.out) == (0, wanted) or (done.code in (10, 12, 13) and wanted.startswith(done.out))


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("kind", ["packs", "index", "roots", "log"])
def test_a_changed_object_is_named_and_is_never_data(scene: Scene, kind: str, how: str) -> None:
    for number, name in enumerate(scene.objects(kind)):
        names = spoil(scene, name, CHANGES[how], is_cache_cold=number % 2 == 0)
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
        if kind in ("roots", "log"):
            scene.listed()
            _look_around(scene, *scene.ids)
        else:
            _look_around(scene, scene.ids[(number + len(how)) % 2])


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_configuration_is_named(scene: Scene, how: str) -> None:
    if how == "swapped":
        pytest.skip("there is one configuration")
    spoil(scene, "config", CHANGES[how], is_cache_cold=False)
    code, text = _check(scene, "--read-data")
    assert (13, True) == (code, "config: " in text), text
    assert [] == scene.listed()
    _look_around(scene, scene.ids[0])


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_way_in_is_named(scene: Scene, how: str) -> None:
    scene.put_back()
    keys = scene.run("key", "list", "--json").document["keys"]
    assert isinstance(keys, list)
    for slot in keys:
        names = spoil(scene, f"keys/{slot['id']}", CHANGES[how], is_cache_cold=False)
        code, text = _check(scene, "--read-data")
        if how == "deleted":
            # Removing a way in is what `key remove` does: whoever has another one is not harmed and not told.
            assert (12 if slot["current"] else 0) == code
        else:
            assert (13, True) == (code, any(named in text for named in names)), text
        _look_around(scene, scene.ids[0])


def test_check_without_reading_leaves_out_the_data_of_files_alone(scene: Scene) -> None:
    """A bit in a segment of file data is for `--read-data`; one in a page, a directory or a trailer is not."""
    codes = {}
    for name in scene.objects("packs"):
        for how in ("bit at a third", "last bit", "cut by one byte", "extended", "deleted"):
            spoil(scene, name, CHANGES[how], is_cache_cold=False)
            codes[name, how] = _check(scene)[0]
    unnoticed = [how for (_, how), code in codes.items() if code == 0]
    assert ["bit at a third"] * 2 == unnoticed
    assert {0, 13} == set(codes.values())


def test_a_damaged_index_object_costs_what_it_says_alone(scene: Scene) -> None:
    """Without a cache, and so from the index objects: one snapshot needs none of what the other added."""
    whole = []
    for name in scene.objects("index"):
        spoil(scene, name, CHANGES["bit in the middle"], is_cache_cold=True)
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
        spoil(scene, name, delete, is_cache_cold=False)
        done = scene.run("snapshot", "create", "--parent", "none", "--json", str(scene.tree))
        target = scene.target / str(scene.tree).lstrip("/")
        scene.run("restore", str(done.events[-1]["id"]), "--target", str(scene.target))
        assert contents_of(target) == scene.contents[scene.ids[1]]
        shutil.rmtree(scene.target)


# Objects that ordinary snapshots do not leave behind


def _put_rare_objects(scene: Scene) -> tuple[str, str]:
    """A mark, and the root of an unfinished run; their names."""
    folders = Folders(scene.user.home / "cache" / "backthen", scene.user.home / "state" / "backthen")
    locked = find_repository(open_storage(str(scene.repository)), folders)
    with unlock(locked, PASSWORD.encode(), Client("host", "user", "test")) as repository:
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
