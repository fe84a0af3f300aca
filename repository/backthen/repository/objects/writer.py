"""Storing blobs that are not stored yet.

Batches are compressed side by side, packs filled, indexed and put in the background.

Guarantees:
    * A blob counts as stored only if a pack that was in the storage's list, unmarked, holds it, or this writer
        stored it.
    * After `flush` returned every blob that was put is in a durable pack that a durable index object describes.
    * Memory is bounded: bytes waiting for compression, packs waiting for storage, and names of blobs not yet indexed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import combinations, count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from typing_extensions import Buffer

from backthen.repository import format as fmt
from backthen.repository.bounded import ByteBudget
from backthen.repository.compression import Compression
from backthen.repository.crypto import BlobKind, RepositoryKeys
from backthen.repository.errors import ObjectExists
from backthen.repository.ids import PackId
from backthen.repository.index import LocalIndex
from backthen.repository.model.entry import BlobRef
from backthen.repository.model.records import IndexedPack, IndexObject
from backthen.repository.objects.indexing import put_index
from backthen.repository.objects.spool import new_spool_file
from backthen.repository.packs import BlobRecord, BuiltPack, PackBuilder, Segment, make_run, make_solid
from backthen.repository.storage import CachedStorage, Storage, pack_name

_CLASSES: dict[int, int] = {
    BlobKind.CHUNK: fmt.PACK_CLASS_DATA,
    BlobKind.PAGE: fmt.PACK_CLASS_TREE,
    BlobKind.LIST: fmt.PACK_CLASS_TREE,
    BlobKind.XATTR: fmt.PACK_CLASS_TREE,
}
_WORKERS = 2
_BYTES_IN_FLIGHT_MAX = 8 * fmt.MIB
_PACKS_WAITING_MAX = 2
_PUTS_AT_ONCE_MAX = 2
"""Packs on their way to a storage that is far away: one fills the line while the other waits for an answer. What a
killed run loses is what was on its way, so not more of them."""
_LOOKAHEAD_UNITS = 8
_BEST_FIT_BELOW_BYTES = 4 * fmt.MIB
_BLOBS_PER_INDEX = 65_536
_PACKS_PER_INDEX = 8

Unit = list[Segment]


class BlobWriter:
    """Puts blobs from one thread; use in a `with`, which drops what was not flushed."""

    def __init__(
        self,
        storage: Storage,
        keys: RepositoryKeys,
        index: LocalIndex,
        *,
        usable: set[PackId],
        spool: Path,
        compression: Compression,
        cached: CachedStorage | None = None,
    ) -> None:
        """Write to `storage`.

        Args:
            storage: where packs and index objects go.
            keys: the repository's keys.
            index: says what is stored; what is stored now is added to it.
            usable: the packs that are in the storage's list and not marked; stored ones are added.
            spool: folder for packs being filled.
            compression: how segments are compressed.
            cached: keeps near what is stored of trees, which the next snapshot reads; None where storage is near.
        """
        self._storage = storage
        self._keys = keys
        self._index = index
        self._usable = usable
        self._compression = compression
        self._pending: set[bytes] = set()
        self._budget = ByteBudget(_BYTES_IN_FLIGHT_MAX)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="compress")
        self._uploads = _PackUploads(storage, keys, index, self._packs_are_indexed, cached)
        self._lanes = {
            pack_class: _Lane(keys, pack_class, spool, self._uploads.submit)
            for pack_class in (fmt.PACK_CLASS_DATA, fmt.PACK_CLASS_TREE)
        }
        self._futures: set[Future[None]] = set()
        self.relied: set[PackId] = set()

    def __enter__(self) -> BlobWriter:
        """Start."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop the threads; what was not flushed is dropped, and who is interrupted waits for no storage."""
        if kind is not None and not issubclass(kind, Exception):
            self._uploads.abandon()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.close()
        for lane in self._lanes.values():
            lane.discard()

    @property
    def bytes_added(self) -> int:
        """Bytes of packs and index objects stored so far."""
        return self._uploads.bytes_added

    def put(self, kind: BlobKind, data: Buffer) -> BlobRef:
        """Store a blob if it is not stored yet, and return its reference.

        Raises:
            StorageError: storing failed, now or for an earlier blob.
            CacheError: the local index cannot be written.
        """
        blob_id = self._keys.blob_id(kind, data)
        length = len(data) if type(data) is bytes else memoryview(data).nbytes
        prefix = blob_id[: fmt.ID_PREFIX_BYTES]
        if prefix not in self._pending and not self._is_stored(prefix):
            self._pending.add(prefix)
            try:
                self._append(BlobRecord(kind, blob_id, length), data)
            except BaseException as error:
                self._uploads.fail(error)  # the blob counts as put: nothing is flushed without it
                raise
        return BlobRef(blob_id, length)

    def move(self, unit: Unit) -> None:
        """Store segments of another pack again as they are; what is in them is not to be stored already.

        Raises:
            StorageError: storing failed, now or for an earlier blob.
            CacheError: the local index cannot be written.
        """
        blobs = [blob for segment in unit for blob in segment.blobs]
        self._pending.update(blob.id[: fmt.ID_PREFIX_BYTES] for blob in blobs)
        size = sum(len(segment.plaintext) for segment in unit)
        try:
            self._submit(self._lanes[_CLASSES[blobs[0].kind]], size, lambda: unit)
        except BaseException as error:
            self._uploads.fail(error)  # the blobs count as put: nothing is flushed without them
            raise

    def rely(self, ref: BlobRef) -> bool:
        """Whether a blob is stored in a pack that can be relied on; from now on it is."""
        return self._is_stored(ref.id[: fmt.ID_PREFIX_BYTES])

    def flush(self) -> None:
        """Wait until everything that was put is stored and indexed.

        Raises:
            StorageError: storing failed.
            CacheError: the local index cannot be written.
        """
        for lane in self._lanes.values():
            self._submit_batch(lane)
        for future in list(self._futures):
            future.result()
        self._futures.clear()
        for lane in self._lanes.values():
            lane.finish()
        self._uploads.flush()

    def _is_stored(self, prefix: bytes) -> bool:
        if prefix in self._pending:
            return True
        location = self._index.lookup(prefix)
        if location is None:
            return False
        for place in (location, *self._index.copies(prefix)):
            pack_id = self._index.pack_id(place)
            if pack_id in self._usable:
                self.relied.add(pack_id)
                return True
        return False

    def _append(self, record: BlobRecord, data: Buffer) -> None:
        lane = self._lanes[_CLASSES[record.kind]]
        if record.length > fmt.RUN_PIECE_BYTES and not self._compression.is_worthwhile(memoryview(data)):
            unit = make_run(data, record)
            self._submit(lane, record.length, lambda: unit)
            return
        if lane.batch_bytes + record.length > fmt.SOLID_BYTES_MAX or len(lane.batch) == fmt.SOLID_BLOBS_MAX:
            self._submit_batch(lane)
        lane.batch.append(data if type(data) is bytes else bytes(data))
        lane.batch_records.append(record)
        lane.batch_bytes += record.length

    def _submit_batch(self, lane: _Lane) -> None:
        if lane.batch:
            blobs, records, size = lane.take_batch()
            self._submit(lane, size, lambda: [make_solid(blobs, records, self._compression)])

    def _submit(self, lane: _Lane, size: int, make: Callable[[], Unit]) -> None:
        self._uploads.raise_failure()
        self._budget.take(size)
        future = self._pool.submit(self._work, lane, size, make)
        self._futures.add(future)
        for done in [future for future in self._futures if future.done()]:
            self._futures.discard(done)
            done.result()

    def _work(self, lane: _Lane, size: int, make: Callable[[], Unit]) -> None:
        try:
            lane.place(make())
        except BaseException as error:
            self._uploads.fail(error)  # whatever becomes of this error: nothing is flushed after it
            raise
        finally:
            self._budget.give_back(size)

    def _packs_are_indexed(self, packs: Iterable[IndexedPack]) -> None:
        step = fmt.ID_PREFIX_BYTES
        for pack in packs:
            self._usable.add(pack.id)
            self.relied.add(pack.id)
            prefixes = pack.prefixes
            self._pending.difference_update(prefixes[at : at + step] for at in range(0, len(prefixes), step))


class _OpenPack(NamedTuple):
    """A pack being filled and its spool file."""

    builder: PackBuilder
    path: Path
    file: BinaryIO


class _Lane:
    """Packs of one class being filled, at most one by each worker at a time.

    The open batch belongs to the thread that puts; units waiting for a place and packs nobody is filling are under the
    lock. Sealing and writing are done outside of it, or the workers would wait for each other.
    """

    def __init__(
        self, keys: RepositoryKeys, pack_class: int, spool: Path, store: Callable[[int, BuiltPack, BinaryIO], None]
    ) -> None:
        self._keys = keys
        self._class = pack_class
        self._spool = spool
        self._store = store
        self._lock = threading.Lock()
        self._ready: list[tuple[int, Unit]] = []
        self._idle: list[_OpenPack] = []
        self.batch: list[bytes] = []
        self.batch_records: list[BlobRecord] = []
        self.batch_bytes = 0

    def take_batch(self) -> tuple[list[bytes], list[BlobRecord], int]:
        """The open batch and its size; a new one is begun."""
        taken = (self.batch, self.batch_records, self.batch_bytes)
        self.batch, self.batch_records, self.batch_bytes = [], [], 0
        return taken

    def place(self, unit: Unit) -> None:
        """Hand over a compressed unit; it goes into a pack now or when there are enough to choose from."""
        with self._lock:
            self._ready.append((PackBuilder.cost(unit), unit))
        self._place_down_to(_LOOKAHEAD_UNITS)

    def finish(self) -> None:
        """Place what waits and close all packs. No unit may be on its way."""
        self._place_down_to(0)
        while self._idle:
            self._close(self._idle.pop())

    def discard(self) -> None:
        """Remove the files of packs that were not closed."""
        for pack in self._idle:
            with suppress(OSError):  # what a full disk did not take is dropped anyway
                pack.path.unlink(missing_ok=True)
                pack.file.close()

    def _place_down_to(self, waiting_max: int) -> None:
        pack: _OpenPack | None = None
        while True:
            with self._lock:
                if len(self._ready) <= waiting_max:
                    if pack is not None:
                        self._idle.append(pack)
                    return
                if pack is None:
                    pack = self._idle.pop() if self._idle else self._new_pack()
                chosen = self._choose(pack.builder.room, is_empty=pack.builder.is_empty)
                unit = None if chosen is None else self._ready.pop(chosen)[1]
            try:
                if unit is not None:
                    pack.builder.add(unit)
                    continue
            except BaseException:
                with self._lock:
                    self._idle.append(pack)
                raise
            self._close(pack)
            pack = None

    def _choose(self, room: int, *, is_empty: bool) -> int | None:
        """The next unit for a pack: in order while there is room, near its end one of the two that fill it best.

        None when none fits.
        """
        if is_empty or room >= _BEST_FIT_BELOW_BYTES:
            return 0
        costs = [cost for cost, _ in self._ready]
        pairs = [(one + other, index) for (index, one), (_, other) in combinations(enumerate(costs), 2)]
        fitting = [choice for choice in (*zip(costs, count(), strict=False), *pairs) if choice[0] <= room]
        return max(fitting)[1] if fitting else None

    def _new_pack(self) -> _OpenPack:
        path, file = new_spool_file(self._spool)
        return _OpenPack(PackBuilder(self._keys, self._class, path, file), path, file)

    def _close(self, pack: _OpenPack) -> None:
        self._store(self._class, pack.builder.finish(), pack.file)


class _PackUploads:
    """Puts finished packs, and an index object for every few of them: one after another, or a few at once far away."""

    def __init__(
        self,
        storage: Storage,
        keys: RepositoryKeys,
        index: LocalIndex,
        indexed: Callable[[Iterable[IndexedPack]], None],
        cached: CachedStorage | None,
    ) -> None:
        self._storage = storage
        self._cached = cached
        self._keys = keys
        self._index = index
        self._indexed = indexed
        self._waiting: dict[int, list[IndexedPack]] = {}
        self._lock = threading.Lock()
        at_once_max = min(storage.concurrency, _PUTS_AT_ONCE_MAX)
        self._slots = threading.BoundedSemaphore(at_once_max + _PACKS_WAITING_MAX - 1)
        self._pool = ThreadPoolExecutor(at_once_max, thread_name_prefix="store")
        self._futures: set[Future[None]] = set()
        self._failure: BaseException | None = None
        self._is_closing = False
        self.bytes_added = 0

    def submit(self, pack_class: int, built: BuiltPack, file: BinaryIO) -> None:
        """Store a pack in the background; waits while too many are waiting."""
        self._slots.acquire()
        future = self._pool.submit(self._store, pack_class, built, file)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)

    def raise_failure(self) -> None:
        """Raise what failed in the background, if anything did."""
        if self._failure is not None:
            raise self._failure

    def fail(self, error: BaseException) -> None:
        """Store nothing more; the first failure is raised by all that follows."""
        self._failure = self._failure or error

    def flush(self) -> None:
        """Wait for all packs, and index those that are not yet."""
        wait(list(self._futures))
        self.raise_failure()
        waiting, self._waiting = self._waiting, {}
        for _ in self._pool.map(self._write_index, waiting, waiting.values()):
            pass
        self.raise_failure()

    def abandon(self) -> None:
        """Break off what is being stored."""
        self._is_closing = True
        self._storage.close()

    def close(self) -> None:
        """Stop the threads after the packs they are storing; the files of those that wait are removed."""
        self._is_closing = True
        self._pool.shutdown(wait=True)

    def _store(self, pack_class: int, built: BuiltPack, file: BinaryIO) -> None:
        try:
            if self._failure is None and not self._is_closing:
                self._put(pack_class, built)
        except BaseException as error:  # noqa: BLE001 - kept, and raised in the thread that puts
            self.fail(error)
        finally:
            with suppress(OSError):  # a later run removes what a broken disk keeps; who waits must not wait for ever
                file.close()
                built.path.unlink(missing_ok=True)
            self._slots.release()

    def _put(self, pack_class: int, built: BuiltPack) -> None:
        name = pack_name(built.indexed.id)
        if self._cached is not None and pack_class == fmt.PACK_CLASS_TREE:
            self._cached.keep_pack(name, built.path)
        try:
            self._storage.put_file(name, built.path)
        except ObjectExists as error:
            raise AssertionError("a pack with a fresh salt exists already") from error
        with self._lock:
            self.bytes_added += built.length
            packs = self._waiting.setdefault(pack_class, [])
            packs.append(built.indexed)
            blobs = sum(len(pack.prefixes) for pack in packs) // fmt.ID_PREFIX_BYTES
            if len(packs) < _PACKS_PER_INDEX and blobs < _BLOBS_PER_INDEX:
                return
            del self._waiting[pack_class]
        self._write_index(pack_class, packs)

    def _write_index(self, pack_class: int, packs: list[IndexedPack]) -> None:
        index_id, length = put_index(self._storage, self._keys, pack_class, packs)
        with self._lock:
            self.bytes_added += length
            self._index.add([(index_id, IndexObject(pack_class, tuple(packs)))])
            self._indexed(packs)
