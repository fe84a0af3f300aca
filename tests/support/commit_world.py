"""Writers, forgetters and pruners of one repository under a scheduler that may pause or kill each anywhere.

The writers are the real code, each in a thread that waits for the scheduler before every storage operation. The pruners
are written here after FORMAT.md, section 12, 3. After every step that can lose something, each snapshot that was
reported and not forgotten must have its root and all its blobs in present packs. Every schedule follows from its seed.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

from typing_extensions import Buffer

from backthen.repository import entropy
from backthen.repository.catalog import Again, Catalog, Condemned, Log, Marks, VolatileClient, read_record
from backthen.repository.crypto import ObjectKind, object_id, seal_object
from backthen.repository.errors import DamageError, ObjectMissing
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import LogKind, Mark, Root, Statistics, encode_record
from backthen.repository.storage import (
    StoredObject,
    index_name,
    mark_name,
    pack_name,
    parse_pack_name,
    parse_root_name,
    root_name,
)
from tests.support.catalog_records import KEYS
from tests.support.memory_storage import MemoryStorage

BLOBS = 5
PROCESSES_MAX = 6
STEPS = 250
TRIES_MAX = 8

Blobs = frozenset[int]


class Loss(Exception):
    """Something that was reported as saved is gone."""


class Killed(BaseException):
    """The process was killed."""


class World:
    """The storage, what was reported, and who runs."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.storage = MemoryStorage()
        self.saved: dict[SnapshotId, Blobs] = {}
        self.forgotten: set[SnapshotId] = set()
        self.events: Counter[str] = Counter()
        self._serial = itertools.count()
        self._reached: dict[SnapshotId, Blobs] = {}

    def put_pack(self, storage: MemoryStorage | SteppingStorage, blobs: Blobs) -> PackId:
        """Put a pack and its index object."""
        data = next(self._serial).to_bytes(8, "big") + bytes(sorted(blobs))
        pack = PackId(object_id(data))
        storage.put(pack_name(pack), data)
        index = pack + bytes(sorted(blobs))
        storage.put(index_name(object_id(index)), index)
        return pack

    def packs(self) -> dict[PackId, Blobs]:
        """The packs that are present, and what is in each."""
        found = {}
        for stored in self.storage.list("packs"):
            pack = parse_pack_name(stored.name)
            assert pack is not None
            found[pack] = frozenset(self.storage.get(stored.name)[8:])
        return found

    def index(self) -> dict[PackId, str]:
        """The packs that are indexed, each with its index object."""
        return {PackId(ObjectId(self.storage.get(s.name, 0, 32))): s.name for s in self.storage.list("index")}

    def roots(self) -> dict[SnapshotId, Blobs]:
        """All roots, and what each reaches."""
        ids = {id_ for stored in self.storage.list("roots") if (id_ := parse_root_name(stored.name)) is not None}
        return {id_: self.reached(id_) for id_ in sorted(ids)}

    def reached(self, id_: SnapshotId) -> Blobs:
        """What a root reaches."""
        if id_ not in self._reached:
            root = read_record(self.storage, KEYS, ObjectKind.ROOT, root_name(id_), id_, Root)
            self._reached[id_] = frozenset(map(int, root.excludes))
        return self._reached[id_]

    def delete(self, name: str) -> None:
        """Delete an object; nothing else can lose something that was there when it was reported.

        Raises:
            Loss: something is gone.
        """
        self.storage.delete(name)
        self.check()

    def check(self) -> None:
        """Stop at a loss.

        Raises:
            Loss: something is gone.
        """
        roots = {parse_root_name(stored.name) for stored in self.storage.list("roots")}
        available = frozenset[int]().union(*self.packs().values())
        for id_, blobs in self.saved.items():
            if id_ not in self.forgotten and (id_ not in roots or not blobs <= available):
                raise Loss("root" if id_ not in roots else "blob")


class SteppingStorage:
    """A storage whose every operation waits for the scheduler."""

    def __init__(self, storage: MemoryStorage, wait: Callable[[], None]) -> None:
        self._storage = storage
        self.wait = wait

    @property
    def location(self) -> str:
        """See `Storage.location`."""
        return self._storage.location

    @property
    def folder(self) -> Path | None:
        """See `Storage.folder`."""
        return None

    @property
    def spool(self) -> Path | None:
        """See `Storage.spool`."""
        return None

    @property
    def concurrency(self) -> int:
        """See `Storage.concurrency`."""
        return 1

    def create(self) -> None:
        """See `Storage.create`."""
        self._storage.create()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        self.wait()
        self._storage.put(name, data)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`."""
        self._storage.put_file(name, path)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`."""
        self.wait()
        return self._storage.get(name, offset, length)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        self.wait()
        return self._storage.list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`."""
        self.wait()
        self._storage.delete(name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`."""
        return 0

    def close(self) -> None:
        """See `Storage.close`."""


class WriterProcess:
    """A writer in a thread; takes one step at a time."""

    def __init__(self, world: World, kind: type[SteppingStorage]) -> None:
        self._go = threading.Semaphore(0)
        self._paused = threading.Semaphore(0)
        self._is_killed = False
        self._failure: BaseException | None = None
        self._is_done = False
        self._rng = random.Random(world.rng.random())
        self._storage = kind(world.storage, self._wait)
        self._world = world
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._paused.acquire()

    def step(self) -> bool:
        """Let it take one step; whether it goes on after that."""
        self._go.release()
        self._paused.acquire()
        if self._failure is not None:
            raise self._failure
        if self._is_done:
            self._thread.join()
        return not self._is_done

    def kill(self) -> None:
        """Stop it where it is."""
        self._is_killed = True
        self._go.release()
        self._thread.join()

    def _wait(self) -> None:
        self._paused.release()
        self._go.acquire()
        if self._is_killed:
            raise Killed

    def _run(self) -> None:
        try:
            self._wait()
            write(self._world, self._rng, self._storage)
        except Killed:
            pass
        except DamageError:
            # A storage that lies shows marks that are gone; the writer notices, and nothing is reported.
            assert type(self._storage) is not SteppingStorage
        except BaseException as error:  # noqa: BLE001 - `step` raises it where the test runs
            self._failure = error
        self._is_done = True
        self._paused.release()


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


def _read_log(world: World) -> tuple[set[SnapshotId], set[SnapshotId]]:
    """(the logged roots, those of them that are forgotten)."""
    log = Log(world.storage, KEYS, VolatileClient())
    log.refresh()
    snapshots = log.snapshots()
    return {s.id for s in snapshots}, {s.id for s in snapshots if s.is_forgotten}


def _condemned(world: World) -> Condemned:
    return Marks(world.storage, KEYS).load()


def _read_mark(world: World, name: str) -> Mark | None:
    try:
        data = world.storage.get(name)
        return read_record(world.storage, KEYS, ObjectKind.MARK, name, object_id(data), Mark)
    except ObjectMissing:
        return None


def prune(world: World, rng: random.Random) -> Iterator[None]:
    """Either step of a prune, or both."""
    pending = sorted(stored.name for stored in world.storage.list("marks"))
    yield
    if pending and rng.random() < 0.6:
        yield from _sweep(world, rng.choice(pending))
        return
    roots = world.roots()
    yield
    logged, forgotten = _read_log(world)
    yield
    condemned = _condemned(world)
    yield
    packs = world.packs()
    yield
    used = frozenset[int]().union(*roots.values())
    doomed = _choose_packs(rng, packs, condemned, used)
    abandoned = {id_ for id_ in roots if id_ not in logged and rng.random() < 0.3}
    dropped = {id_ for id_ in roots if id_ in forgotten and rng.random() < 0.5}
    if not doomed and not abandoned and not dropped:
        return
    mark = Mark(tuple(sorted(doomed)), tuple(sorted(abandoned)), tuple(sorted(dropped)))
    data = seal_object(KEYS, ObjectKind.MARK, encode_record(mark))
    name = mark_name(object_id(data))
    world.storage.put(name, data)
    yield
    if rng.random() < 0.7:
        yield from _sweep(world, name)


def _choose_packs(rng: random.Random, packs: dict[PackId, Blobs], condemned: Condemned, used: Blobs) -> set[PackId]:
    """Packs without use, packs whose blobs all have other copies, and some that are to be copied out."""
    doomed: set[PackId] = set()
    for pack, blobs in sorted(packs.items()):
        if pack in condemned.packs:
            continue
        others = [held for other, held in packs.items() if other != pack and other not in condemned.packs | doomed]
        is_spare = blobs & used <= frozenset[int]().union(*others)
        if rng.random() < (0.8 if not blobs & used else 1.0 if is_spare else 0.2):
            doomed.add(pack)
    return doomed


def _sweep(world: World, name: str) -> Iterator[None]:
    """The second step: list roots, log, marks, packs, index; delete roots; copy out; delete index, packs, mark."""
    mark = _read_mark(world, name)
    yield
    if mark is None:
        return
    roots = world.roots()
    yield
    logged, forgotten = _read_log(world)
    yield
    condemned = _condemned(world)
    yield
    packs = world.packs()
    yield
    index = world.index()
    yield
    named = {*mark.abandoned_roots, *mark.forgotten_roots}
    dead = sorted(id_ for id_ in named if id_ not in logged or id_ in forgotten)
    used = frozenset[int]().union(*(blobs for id_, blobs in roots.items() if id_ not in dead))
    for id_ in dead:
        world.delete(root_name(id_))
        world.events["roots deleted"] += id_ in roots
        yield
    for pack in sorted(set(mark.packs) & packs.keys()):
        for blob in sorted(packs[pack] & used):
            if not any(blob in packs[p] for p in packs if p != pack and p in index and p not in condemned.packs):
                world.put_pack(world.storage, frozenset({blob}))
                yield
        if pack in index:
            world.delete(index[pack])
            yield
        world.delete(pack_name(pack))
        world.events["packs deleted"] += 1
        yield
    if not named & world.roots().keys():
        world.delete(name)
    yield


class GeneratorProcess:
    """A process written as a generator."""

    def __init__(self, steps: Iterator[None]) -> None:
        self._steps = steps

    def step(self) -> bool:
        """Take one step; whether it goes on after that."""
        return next(self._steps, StopIteration) is None

    def kill(self) -> None:
        """Stop it where it is."""


def run_schedule(seed: int, kind: type[SteppingStorage] = SteppingStorage) -> Counter[str]:
    """Run one schedule; what happened in it. Ids follow from the seed too, so that it can be run again.

    Raises:
        Loss: something reported was lost.
    """
    salts = random.Random(f"salts {seed}")
    with (
        patch.object(entropy, "random_bytes", salts.randbytes),
        patch.object(entropy, "fresh_salt", lambda _: salts.randbytes(32)),
    ):
        return _run_schedule(random.Random(seed), kind)


def _run_schedule(rng: random.Random, kind: type[SteppingStorage]) -> Counter[str]:
    world = World(rng)
    starts: list[Callable[[], WriterProcess | GeneratorProcess]] = [
        lambda: WriterProcess(world, kind),
        lambda: GeneratorProcess(prune(world, random.Random(rng.random()))),
        lambda: GeneratorProcess(forget(world, random.Random(rng.random()))),
    ]
    running: list[tuple[WriterProcess | GeneratorProcess, float]] = []
    try:
        for _ in range(STEPS):
            if len(running) < PROCESSES_MAX and rng.random() < 0.25:
                running.append((rng.choices(starts, (4, 4, 3))[0](), 1.0))
            if not running:
                continue
            at = rng.choices(range(len(running)), [speed for _, speed in running])[0]
            process, speed = running.pop(at)
            if rng.random() < 0.004:
                process.kill()
                continue
            if rng.random() < 0.08:
                speed = rng.choice([0.01, 1.0, 5.0])  # goes to sleep or wakes
            if process.step():
                running.append((process, speed))
    finally:
        for process, _ in running:
            process.kill()
    return world.events
