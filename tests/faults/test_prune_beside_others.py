"""Prunes beside other prunes and snapshots, each stopped where it hurts most: nothing is lost, and all can go on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from backthen.repository import (
    CheckRequest,
    Silent,
    SnapshotRequest,
    check_repository,
    create_snapshot,
    forget_snapshots,
    prune_repository,
)
from backthen.repository.crypto import BlobKind
from backthen.repository.errors import StorageError
from backthen.repository.ids import SnapshotId
from backthen.repository.index import decode_index
from backthen.repository.objects.indexing import put_index
from backthen.repository.pruning.contents import RepositoryContents
from backthen.repository.storage import Storage, pack_name, parse_pack_name, root_name
from tests.support.flaky_storage import FlakyStorage
from tests.support.prune_world import KEYS, PruneWorld

MIB = 1 << 20
TRIES_MAX = 60
NOW_NS = 1_800_000_000_000_000_000


@pytest.fixture
def world(tmp_path: Path) -> PruneWorld:
    return PruneWorld(random.Random(0), tmp_path / "machines")


def _noise(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


def _save(world: PruneWorld, storage: Storage, **files: bytes) -> SnapshotId:
    """A snapshot, by a machine that compares with none, of a folder with these files."""
    with world.machine(storage) as (repository, tree):  # type: ignore[arg-type]
        for name, content in files.items():
            (tree / name).write_bytes(content)
        request = SnapshotRequest(paths=(bytes(tree),), host="host", find_parent=False)
        report = create_snapshot(repository, request, Silent())
        assert report.id is not None
        return report.id


def _forget(world: PruneWorld, *ids: SnapshotId) -> None:
    with world.machine(world.storage) as (repository, _):
        forget_snapshots(repository, ids, Silent())


def _findings(world: PruneWorld) -> list[str]:
    with world.machine(world.storage) as (repository, _):
        report = check_repository(repository, CheckRequest(read_data_percent=100), Silent())
        return [f"{finding.name}: {finding.message}" for finding in report.findings]


def _place(world: PruneWorld, content: bytes) -> str:
    """The pack that the index gives first for a content of one chunk."""
    with world.machine(world.storage) as (repository, _):
        repository.refresh()
        location = repository.index.lookup(repository.keys.blob_id(BlobKind.CHUNK, content)[:16])
        assert location is not None
        return pack_name(repository.index.pack_id(location))


def _packs(world: PruneWorld) -> set[str]:
    return {stored.name for stored in world.storage.list("packs") if stored.length > 250_000}


def _prune(world: PruneWorld) -> None:
    with world.machine(world.storage) as (repository, _):
        prune_repository(repository, Silent(), dry_run=False)


def test_two_prunes_do_not_count_on_each_others_copy_of_a_blob(tmp_path: Path) -> None:
    """Each knows the blob in the pack that the other deletes; one found that out before the other began.

    Which blobs share a pack, and which copy the index gives, is chance.
    """
    worlds = (PruneWorld(random.Random(0), tmp_path / str(number)) for number in range(TRIES_MAX))
    assert any(_let_prunes_clash(world) for world in worlds)


def _let_prunes_clash(world: PruneWorld) -> bool:
    """Whether they condemn a copy each; if so nothing is lost."""
    shared, one, two = (_noise(number, size) for number, size in enumerate((270_000, 6 * MIB, 6 * MIB)))
    beside = FlakyStorage(world.storage)
    nested: list[SnapshotId] = []
    of_second: set[str] = set()

    def save_beside(call: str) -> None:
        if call.startswith("put_file packs/") and not nested:
            nested.append(_save(world, world.storage, shared=shared, two=two))
            of_second.update(_packs(world))

    beside.on_call = save_beside
    first = _save(world, beside, shared=shared, one=one)
    (second,) = nested
    both = _packs(world)
    _save(world, world.storage, shared=shared)
    place = _place(world, shared)
    if place in of_second:
        first, second, one, two = second, first, two, one
    _forget(world, second)
    storage_a, storage_b = FlakyStorage(world.storage), FlakyStorage(world.storage)
    with (
        world.machine(storage_a) as (machine_a, _),  # type: ignore[arg-type]
        world.machine(storage_b) as (machine_b, _),  # type: ignore[arg-type]
        RepositoryContents(machine_a, Silent(), dry_run=False) as contents_a,
        RepositoryContents(machine_b, Silent(), dry_run=False) as contents_b,
    ):
        pruner_b = machine_b.catalog.pruner(contents_b)
        plan_b = pruner_b.plan(NOW_NS)
        _save(world, world.storage, two=two)
        _forget(world, first)
        pruner_a = machine_a.catalog.pruner(contents_a)
        plan_a = pruner_a.plan(NOW_NS)
        going_a, going_b = ({name for name in both if parse_pack_name(name) in p.mark.packs} for p in (plan_a, plan_b))
        if place not in going_a or not going_b or going_a & going_b:
            return False
        pruner_a.condemn(plan_a.mark)

        def delete_first(call: str) -> None:
            """What the other prune does next."""
            if call == f"get {place}":
                world.storage.delete(place)

        def prune_beside(call: str) -> None:
            if call.startswith("delete index/"):
                storage_a.on_call = lambda _: None
                pruner_b.condemn(plan_b.mark)
                storage_b.on_call = delete_first
                pruner_b.sweep()

        storage_a.on_call = prune_beside
        pruner_a.sweep()
    assert place not in _packs(world)
    assert not _findings(world)
    return True


def _save_and_be_killed(world: PruneWorld, beside: Callable[[], None], **files: bytes) -> None:
    """A snapshot beside which something happens before its root is put, and that is killed right after that."""
    storage = FlakyStorage(world.storage)

    def die_after_root(call: str) -> None:
        if call.startswith("put roots/"):
            beside()
            storage.on_call = lambda _: storage.fail(error=StorageError("killed"))

    storage.on_call = die_after_root
    with pytest.raises(StorageError, match="killed"):
        _save(world, storage, **files)


def test_an_unfinished_run_that_has_lost_what_it_needs_stops_no_prune(world: PruneWorld) -> None:
    """A prune took away what it relied on, and it was killed before it looked."""
    old = _noise(1, 500_000)
    first = _save(world, world.storage, old=old)
    kept = _save(world, world.storage, kept=b"kept")
    _forget(world, first)
    _save_and_be_killed(world, lambda: _prune(world), old=old)
    assert 2 == len(list(world.storage.list("roots")))
    _prune(world)
    assert [root_name(kept)] == [stored.name for stored in world.storage.list("roots")]
    assert not _findings(world)


def test_an_unfinished_run_that_has_all_it_needs_is_spared(world: PruneWorld) -> None:
    old = _noise(1, 500_000)
    first = _save(world, world.storage, old=old)
    _save(world, world.storage, kept=b"kept")
    _save_and_be_killed(world, lambda: None, old=old)
    _forget(world, first)
    before = _packs(world)
    _prune(world)
    assert before == _packs(world)
    assert 2 == len(list(world.storage.list("roots")))


def test_two_prunes_on_one_machine_do_not_disturb_each_other(world: PruneWorld) -> None:
    """They have one cache folder."""
    first = _save(world, world.storage, a=_noise(1, 500_000))
    _save(world, world.storage, b=_noise(2, 500_000))
    _forget(world, first)
    storage = FlakyStorage(world.storage)
    with world.machine(storage) as (repository, _):  # type: ignore[arg-type]

        def prune_beside(call: str) -> None:
            if call.startswith("get roots/"):
                storage.on_call = lambda _: None
                prune_repository(repository, Silent(), dry_run=True)

        storage.on_call = prune_beside
        prune_repository(repository, Silent(), dry_run=False)
        assert not list((repository.cache_folder / "prune").iterdir())
    assert 1 == len(_packs(world))
    assert not _findings(world)


def test_a_pack_that_is_described_twice_is_described_once_after_a_prune(world: PruneWorld) -> None:
    first = _save(world, world.storage, a=_noise(1, 500_000))
    _save(world, world.storage, b=_noise(2, 500_000))
    names = [stored.name for stored in world.storage.list("index")]
    described = [decode_index(KEYS, world.storage.get(name), name=name) for name in names]
    for pack_class in {index.pack_class for index in described}:
        packs = [pack for index in described if index.pack_class == pack_class for pack in index.packs]
        for _ in range(2):
            put_index(world.storage, KEYS, pack_class, packs)
    for name in names:
        world.storage.delete(name)
    _forget(world, first)
    _prune(world)
    left = [
        pack.id
        for stored in world.storage.list("index")
        for pack in decode_index(KEYS, world.storage.get(stored.name), name=stored.name).packs
    ]
    present = sorted(parse_pack_name(stored.name) or b"" for stored in world.storage.list("packs"))
    assert present == sorted(left)
    assert not _findings(world)
