"""Machines that save, forget and prune in one repository, at random, by the real code on real trees.

After every deletion each snapshot that was reported and not forgotten must have its root, and each blob it reaches in
an indexed pack that is there.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from backthen.repository import Client, Folders, Repository, Silent, SnapshotRequest, create_snapshot
from backthen.repository.content import blobs_of, entries_of
from backthen.repository.crypto import ConfigHeader, KdfParameters
from backthen.repository.errors import DamageError, SnapshotNotFound
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.index import decode_index
from backthen.repository.model.entry import BlobRef, Entry
from backthen.repository.model.page import Child, decode_links_page, decode_tree_page
from backthen.repository.objects import BlobSource
from backthen.repository.pruning import forget_snapshots, prune_repository
from backthen.repository.slots import OpenedSlot
from backthen.repository.storage import parse_pack_name, parse_root_name
from tests.support.fixed_keys import fixed_keys
from tests.support.memory_storage import MemoryStorage
from tests.support.scheduling import Loss, Process, RealProcess, SteppingStorage, WatchedStorage, run_processes

KEYS = fixed_keys()
HEADER = ConfigHeader(KEYS.repository_id, KdfParameters.fresh())
CONTENTS = 12
LARGE_BYTES = 300_000
STEPS = 500

Prefixes = frozenset[bytes]


class PruneWorld:
    """The storage, what was reported, and who works on it."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.rng = rng
        self.storage = WatchedStorage(self)
        self.saved: dict[SnapshotId, Prefixes] = {}
        self.forgotten: set[SnapshotId] = set()
        self.events: Counter[str] = Counter()
        self._folder = folder
        self._machines = count()
        self._described: dict[str, dict[PackId, Prefixes]] = {}

    @contextmanager
    def machine(self, storage: SteppingStorage | MemoryStorage) -> Iterator[tuple[Repository, Path]]:
        """A machine that has never seen the repository: it, open there, and an empty folder."""
        home = self._folder / str(next(self._machines))
        tree = home / "tree"
        tree.mkdir(parents=True)
        folders = Folders(cache=home / "cache", state=home / "state")
        opened = OpenedSlot(ObjectId(bytes(32)), KEYS)
        with Repository(storage, HEADER, opened, folders, Client("host", "user", "test")) as repository:
            yield repository, tree

    def check(self) -> None:
        """Stop at a loss.

        Raises:
            Loss: something is gone.
        """
        roots = {parse_root_name(stored.name) for stored in self.storage.list("roots")}
        packs = {parse_pack_name(stored.name) for stored in self.storage.list("packs")}
        available: set[bytes] = set()
        for stored in self.storage.list("index"):
            if stored.name not in self._described:
                self._described[stored.name] = _described(self.storage.get(stored.name), stored.name)
            for pack, prefixes in self._described[stored.name].items():
                if pack in packs:
                    available |= prefixes
        for id_, prefixes in self.saved.items():
            if id_ not in self.forgotten and (id_ not in roots or not prefixes <= available):
                raise Loss("root" if id_ not in roots else "blob")


def _described(data: bytes, name: str) -> dict[PackId, Prefixes]:
    index = decode_index(KEYS, data, name=name)
    return {
        pack.id: frozenset(pack.prefixes[at : at + 16] for at in range(0, len(pack.prefixes), 16))
        for pack in index.packs
    }


def reached(source: BlobSource, top: Entry, links: BlobRef | None) -> Prefixes:
    """The first halves of the ids of all blobs that a tree reaches, found out without what a prune uses for it."""
    found: set[bytes] = set()

    def pages(ref: BlobRef | None, decode: Callable[[bytes], object]) -> None:
        if ref is not None:
            found.add(ref.id[:16])
            for item in source.page(ref, decode).items:  # type: ignore[arg-type]
                if isinstance(item, Child):
                    pages(item.ref, decode)
                elif isinstance(item, Entry) and not item.is_directory:
                    found.update(blob.id[:16] for blob in blobs_of(source, item))

    def directory(entry: Entry) -> None:
        pages(entry.page, decode_tree_page)
        for child in entries_of(source, entry):
            if child.is_directory:
                directory(child)

    directory(top)
    pages(links, decode_links_page)
    return frozenset(found)


def _plant(tree: Path, rng: random.Random) -> None:
    """A few files of a few contents, so that machines store the same; one content is large and does not compress."""
    (tree / "folder").mkdir()
    for name in rng.sample("abcdefgh", rng.randint(1, 5)):
        number = rng.randrange(CONTENTS)
        content = random.Random(number).randbytes(LARGE_BYTES) if number == 0 else b"content %d " % number * 200
        (tree / rng.choice((".", "folder")) / name).write_bytes(content)
    if rng.random() < 0.3:
        first = next(path for path in sorted(tree.rglob("*")) if path.is_file())
        (tree / "hard link").hardlink_to(first)


def save(world: PruneWorld, rng: random.Random, storage: SteppingStorage) -> None:
    """Make a snapshot on a machine of its own, or of the last one's tree, changed."""
    with world.machine(storage) as (repository, tree):
        _plant(tree, rng)
        infos = repository.snapshots()
        parent = rng.choice(infos).id if infos and rng.random() < 0.7 else None
        request = SnapshotRequest(
            paths=(bytes(tree),), host="host", tags=(), parent=parent, find_parent=False, dry_run=False
        )
        try:
            report = create_snapshot(repository, request, Silent())
        except (DamageError, SnapshotNotFound) as error:
            world.events[f"not saved: {type(error).__name__}"] += 1  # its parent was forgotten, and may be gone
            return
        assert report.id is not None
        root = repository.catalog.snapshots()
        info = next(info for info in root if info.id == report.id)
        world.saved[report.id] = reached(repository.blobs.source, info.root.top, info.root.links)
        world.events["reported"] += 1
        world.check()


def forget(world: PruneWorld, rng: random.Random, storage: SteppingStorage) -> None:
    """Forget a snapshot."""
    with world.machine(storage) as (repository, _):
        infos = [info for info in repository.snapshots() if info.id in world.saved.keys() - world.forgotten]
        if len(infos) > 1:
            id_ = rng.choice(infos).id
            world.forgotten.add(id_)
            forget_snapshots(repository, [id_], Silent())
            world.events["forgotten"] += 1


def prune(world: PruneWorld, rng: random.Random, storage: SteppingStorage) -> None:
    """Prune; one that finds something missing while another works has deleted nothing, and is tried again later."""
    del rng
    with world.machine(storage) as (repository, _):
        try:
            prune_repository(repository, Silent(), dry_run=False)
            world.events["pruned"] += 1
        except DamageError:
            world.events["prune gave up"] += 1


def run_prune_schedule(seed: int, folder: Path) -> PruneWorld:
    """Run one schedule.

    Raises:
        Loss: something reported was lost.
    """
    rng = random.Random(seed)
    world = PruneWorld(rng, folder)
    starts: list[Callable[[], Process]] = [
        lambda: RealProcess(world, SteppingStorage, save),
        lambda: RealProcess(world, SteppingStorage, prune),
        lambda: RealProcess(world, SteppingStorage, forget),
    ]
    run_processes(rng, starts, (5, 4, 5), STEPS)
    return world
