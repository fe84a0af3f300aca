"""Writers, forgetters and pruners of one repository under a scheduler that may pause or kill each anywhere.

Writers and pruners are the real code, each in a thread that waits for the scheduler before every storage operation;
what is in packs, and which of it roots need, is made up here. After every step that can lose something, each snapshot
that was reported and not forgotten must have its root and all its blobs in present, indexed packs. Every schedule
follows from its seed.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Set
from unittest.mock import patch

from backthen.repository import entropy
from backthen.repository.catalog import Again, Catalog, Log, VolatileClient
from backthen.repository.crypto import object_id
from backthen.repository.errors import ObjectMissing
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import LogKind, Root, Statistics
from backthen.repository.storage import (
    index_name,
    pack_name,
    parse_pack_name,
    parse_root_name,
)
from tests.support.catalog_records import KEYS
from tests.support.memory_storage import MemoryStorage
from tests.support.scheduling import (
    GeneratorProcess,
    Loss,
    Process,
    RealProcess,
    SteppingStorage,
    WatchedStorage,
    run_processes,
)

BLOBS = 5
STEPS = 250
TRIES_MAX = 8

Blobs = frozenset[int]


class World:
    """The storage, what was reported, and who runs."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.storage = WatchedStorage(self)
        self.saved: dict[SnapshotId, Blobs] = {}
        self.forgotten: set[SnapshotId] = set()
        self.events: Counter[str] = Counter()
        self.packs_ever: dict[PackId, Blobs] = {}
        self._serial = itertools.count()

    def put_pack(self, storage: MemoryStorage | SteppingStorage, blobs: Blobs) -> PackId:
        """Put a pack and its index object."""
        data = next(self._serial).to_bytes(8, "big") + bytes(sorted(blobs))
        pack = PackId(object_id(data))
        self.packs_ever[pack] = blobs
        storage.put(pack_name(pack), data)
        self.put_index(storage, pack)
        return pack

    def put_index(self, storage: MemoryStorage | SteppingStorage, pack: PackId) -> str:
        """Put an index object of a pack, each under a name of its own; its name."""
        index = pack + next(self._serial).to_bytes(8, "big")
        name = index_name(object_id(index))
        storage.put(name, index)
        return name

    def packs(self) -> dict[PackId, Blobs]:
        """The packs that are present, and what is in each."""
        found = {}
        for stored in self.storage.list("packs"):
            pack = parse_pack_name(stored.name)
            assert pack is not None
            found[pack] = frozenset(self.storage.get(stored.name)[8:])
        return found

    def index(self) -> dict[PackId, list[str]]:
        """The packs that are indexed, each with its index objects."""
        found: dict[PackId, list[str]] = {}
        for stored in self.storage.list("index"):
            found.setdefault(PackId(ObjectId(self.storage.get(stored.name, 0, 32))), []).append(stored.name)
        return found

    def check(self) -> None:
        """Stop at a loss.

        Raises:
            Loss: something is gone.
        """
        roots = {parse_root_name(stored.name) for stored in self.storage.list("roots")}
        indexed = self.index()
        available = frozenset[int]().union(*(blobs for pack, blobs in self.packs().items() if pack in indexed))
        for id_, blobs in self.saved.items():
            if id_ not in self.forgotten and (id_ not in roots or not blobs <= available):
                raise Loss("root" if id_ not in roots else "blob")


def _new_root(rng: random.Random, blobs: Blobs, parents: tuple[SnapshotId, ...]) -> Root:
    """A root that lists its blobs where others have their exclusions."""
    top = Entry(b"", EntryType.DIRECTORY)
    texts = tuple(map(str, sorted(blobs)))
    return Root(
        rng.randbytes(32), 1, 2, "host", "user", (b"/",), (), top, None, 0, parents, False, "test", texts, Statistics()
    )


def write(world: World, rng: random.Random, storage: SteppingStorage) -> None:
    """Save some blobs: some inherited from a parent, some stored before, some new. Whatever fails is done again."""
    catalog = Catalog(storage, KEYS, VolatileClient())
    condemned = catalog.condemned()
    storage.wait()
    packs, indexed = world.packs(), world.index()
    usable = {pack: blobs for pack, blobs in packs.items() if pack in indexed and pack not in condemned.packs}
    infos = catalog.snapshots()
    chosen = [rng.choice(infos)] if infos and rng.random() < 0.7 else []
    parents = {parent.id for parent in chosen}
    inherited = frozenset(int(text) for parent in chosen for text in parent.root.excludes)
    inherited = frozenset(rng.sample(sorted(inherited), rng.randint(1, len(inherited)))) if inherited else inherited
    wanted = inherited | frozenset(rng.sample(range(BLOBS), rng.randint(1, 3)))
    relied: dict[int, PackId] = {}
    for _ in range(TRIES_MAX):
        for blob in sorted(wanted - inherited - relied.keys()):
            places = sorted(pack for pack, blobs in usable.items() if blob in blobs)
            relied[blob] = rng.choice(places) if places else world.put_pack(storage, frozenset({blob}))
        outcome = catalog.commit(
            _new_root(rng, wanted, tuple(parents)), frozenset(relied.values()), time_ns=rng.randrange(9)
        )
        if not isinstance(outcome, Again):
            storage.wait()
            world.saved[outcome.id] = wanted
            world.events["reported"] += 1
            world.check()
            return
        world.events["condemned"] += outcome.is_root_condemned
        world.events["bad packs"] += bool(outcome.bad_packs)
        world.events["lost parents"] += bool(outcome.lost_parents)
        usable = {pack: blobs for pack, blobs in usable.items() if pack not in outcome.bad_packs}
        relied = {blob: pack for blob, pack in relied.items() if pack not in outcome.bad_packs}
        if outcome.lost_parents:
            parents, inherited = parents - outcome.lost_parents, frozenset()


def forget(world: World, rng: random.Random) -> Iterator[None]:
    """Forget a snapshot."""
    log = Log(world.storage, KEYS, VolatileClient())
    log.refresh()
    yield
    known = {snapshot.id for snapshot in log.snapshots()} & world.saved.keys() - world.forgotten
    if len(known) > 1:
        id_ = rng.choice(sorted(known))
        world.forgotten.add(id_)
        log.append(LogKind.FORGET, id_, rng.randrange(9))
        world.events["forgotten"] += 1
        yield


class SyntheticContents:
    """What the roots of this world need of its packs, for the real `Pruner`."""

    def __init__(self, world: World, rng: random.Random, storage: SteppingStorage) -> None:
        self._world = world
        self._rng = rng
        self._storage = storage
        self._packs: dict[PackId, Blobs] = {}
        self._condemned: Set[PackId] = frozenset()
        self._index: dict[PackId, list[str]] = {}
        self._needed: Blobs = frozenset()

    def look(self, packs: Mapping[PackId, int], condemned: Set[PackId]) -> None:
        """See `Contents.look`."""
        self._storage.wait()
        held = self._world.packs_ever
        self._packs = {pack: held[pack] for pack in packs}
        self._condemned = condemned
        self._index = self._world.index()
        for pack in sorted(self._packs.keys() - self._index.keys()):
            self._index[pack] = [self._world.put_index(self._storage, pack)]

    def need(self, roots: Mapping[SnapshotId, Root], leaving: Set[PackId]) -> None:
        """See `Contents.need`."""
        self._needed = frozenset(int(text) for root in roots.values() for text in root.excludes)

    def expendable(self) -> frozenset[PackId]:
        """Packs without use, packs whose blobs all have other copies, and some that are to be moved."""
        doomed: set[PackId] = set()
        for pack, blobs in sorted(self._packs.items()):
            if pack in self._condemned:
                continue
            others = [held for other, held in self._usable().items() if other not in doomed | {pack}]
            is_spare = blobs & self._needed <= frozenset[int]().union(*others)
            if self._rng.random() < (0.8 if not blobs & self._needed else 1.0 if is_spare else 0.2):
                doomed.add(pack)
        return frozenset(doomed)

    def move_out(self, packs: Set[PackId]) -> None:
        """See `Contents.move_out`."""
        held = frozenset[int]().union(*(blobs for pack, blobs in self._usable().items() if pack not in packs))
        for pack in sorted(packs):
            try:
                self._storage.get(pack_name(pack))
            except ObjectMissing:
                continue
            for blob in sorted(self._packs[pack] & self._needed - held):
                self._world.put_pack(self._storage, frozenset({blob}))
        for pack in sorted(packs & self._index.keys()):
            for name in self._index[pack]:
                self._storage.delete(name)

    def _usable(self) -> dict[PackId, Blobs]:
        return {p: blobs for p, blobs in self._packs.items() if p not in self._condemned and p in self._index}


def prune(world: World, rng: random.Random, storage: SteppingStorage) -> None:
    """Either step of a prune, or both, by the real code."""
    catalog = Catalog(storage, KEYS, VolatileClient())
    pruner = catalog.pruner(SyntheticContents(world, rng, storage))
    if any(True for _ in storage.list("marks")) and rng.random() < 0.6:
        pruner.sweep()
        return
    # A clock that runs ahead: roots of runs that go on look abandoned, which spoils them and loses nothing.
    plan = pruner.plan(rng.choice([0, 1 << 62]))
    if plan.mark.is_empty:
        return
    pruner.condemn(plan.mark)
    if rng.random() < 0.7:
        pruner.sweep()


def run_schedule(
    seed: int, writing: type[SteppingStorage] = SteppingStorage, pruning: type[SteppingStorage] = SteppingStorage
) -> Counter[str]:
    """Run one schedule; what happened in it. Ids follow from the seed too, so that it can be run again.

    Args:
        seed: of all that is random.
        writing: what writers take for the storage.
        pruning: what pruners take for it.

    Raises:
        Loss: something reported was lost.
    """
    salts = random.Random(f"salts {seed}")
    with (
        patch.object(entropy, "random_bytes", salts.randbytes),
        patch.object(entropy, "fresh_salt", lambda _: salts.randbytes(32)),
    ):
        return _run_schedule(random.Random(seed), writing, pruning)


def _run_schedule(rng: random.Random, writing: type[SteppingStorage], pruning: type[SteppingStorage]) -> Counter[str]:
    world = World(rng)
    starts: list[Callable[[], Process]] = [
        lambda: RealProcess(world, writing, write),
        lambda: RealProcess(world, pruning, prune),
        lambda: GeneratorProcess(forget(world, random.Random(rng.random()))),
    ]
    run_processes(rng, starts, (4, 4, 3), STEPS)
    return world.events
