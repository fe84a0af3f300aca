"""What a snapshot asks of a storage, and what of it has to wait for an answer, so that it does not creep up."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from backthen.repository import (
    Client,
    Folders,
    Silent,
    SnapshotReport,
    SnapshotRequest,
    create_repository,
    create_snapshot,
    find_repository,
    unlock,
)
from tests.support.distant_storage import DistantStorage
from tests.support.memory_storage import MemoryStorage

PASSWORD = b"password"
CLIENT = Client("host", "user", "test")
ANSWER_S = 0.1
"""So long that what is begun at once is begun before the first answer, also on a busy machine."""
TRIES_MAX = 20
LOOKS = Counter({"list keys": 1, "list log": 2, "list marks": 3, "list roots": 3, "list packs": 1, "list index": 1})


class Scene:
    """A tree of old files, and a repository in a storage that is far away."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        for number in range(200):
            path = self.tree / f"folder {number % 10}" / f"file {number}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(100))
            os.utime(path, (1, 1))
        self.folders = Folders(cache=folder / "cache", state=folder / "state")
        self.objects = MemoryStorage()
        create_repository(self.objects, PASSWORD, self.folders, CLIENT).close()

    def snapshot(self, storage: DistantStorage) -> SnapshotReport:
        with unlock(find_repository(storage, self.folders), PASSWORD, CLIENT, for_snapshot=True) as repository:
            return create_snapshot(repository, SnapshotRequest((os.fsencode(self.tree),), "host"), Silent())


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """With two snapshots, of which the second found nothing new."""
    made = Scene(tmp_path)
    for _ in range(2):
        made.snapshot(DistantStorage(made.objects))
    return made


@pytest.mark.parametrize("concurrency", [1, 8])
def test_an_unchanged_snapshot_asks_for_little(scene: Scene, concurrency: int) -> None:
    storage = DistantStorage(scene.objects, concurrency=concurrency)
    for _ in range(TRIES_MAX):
        storage.forget()
        assert 0 == scene.snapshot(storage).statistics.bytes_read
        if not any((call.what, call.folder) == ("put", "packs") for call in storage.calls):
            break  # else other programs have changed a folder above the tree meanwhile, which is saved too
    asked = Counter(f"{call.what} {call.folder}" for call in storage.calls)
    assert LOOKS + Counter({"get config": 1, "get keys": 1, "clean ": 1, "put roots": 1, "put log": 1}) == asked


def test_a_changed_file_adds_a_pack_and_an_index_object_of_each_class_and_one_look(scene: Scene) -> None:
    (scene.tree / "folder 3" / "file 3").write_text("new")
    storage = DistantStorage(scene.objects)
    assert 3 == scene.snapshot(storage).statistics.bytes_read
    asked = Counter(f"{call.what} {call.folder}" for call in storage.calls)
    puts = Counter({"put packs": 2, "put index": 2, "put roots": 1, "put log": 1})
    assert puts == Counter({name: asked[name] for name in asked if name.startswith("put")})
    assert LOOKS + Counter({"list packs": 1}) == Counter({name: asked[name] for name in asked if "list" in name})


def test_what_need_not_wait_is_asked_for_at_once(scene: Scene) -> None:
    (scene.tree / "folder 3" / "file 3").write_text("new")
    storage = DistantStorage(scene.objects, answer_s=ANSWER_S, concurrency=8)
    scene.snapshot(storage)
    rounds = [sorted(set(asked)) for asked in storage.rounds]
    assert rounds == [
        ["get config", "list keys"],
        ["get keys", "list log", "list marks", "list packs", "list roots"],
        ["clean ", "list index"],
        ["put packs"],
        ["put index"],
        ["put roots"],
        ["list log", "list marks"],
        ["list roots"],
        ["list packs"],
        ["put log"],
        ["list marks"],
        ["list roots"],
    ]
