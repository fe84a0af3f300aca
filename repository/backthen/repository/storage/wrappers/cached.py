"""A storage that is far away, with what was fetched from it kept near.

Packs are fetched in aligned blocks of one size, so that whoever logs requests sees neither where segments begin nor
which of them are read. All other objects are fetched whole. What is kept is held against a digest when it is used, and
what cannot be kept is fetched again.

Invariants: a listing always comes from the storage. `config` and key slots are never kept: whether a way in is still
there is for the storage to say. An object that another client deleted may still be read, and only read: whoever has to
know if it is there lists.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from typing_extensions import Buffer

from backthen.repository.bounded import LRUCache
from backthen.repository.errors import StorageError
from backthen.repository.storage.contract import Storage, StoredObject
from backthen.repository.storage.names import check_object_name
from backthen.repository.storage.object_cache import ObjectCache
from backthen.repository.storage.wrappers.wrapper import StorageWrapper

BLOCK_BYTES = 256 * 1024
"""About as much as goes over a line of 20 MB/s in a quarter of a round trip of 50 ms: smaller ones save no time, and
larger ones cost who reads a little here and there."""
AHEAD_BYTES_MAX = 16 << 20
"""What is fetched ahead at one time: a line of 20 MB/s and 50 ms holds 1 MB, so this fills lines many times as long."""
_MEMORY_BYTES = 24 << 20
"""More than what is fetched ahead, so that it is still there when it is asked for, also where no disk keeps it."""
_RUN_BLOCKS_MAX = 4
"""So many blocks are fetched by one call when they are fetched ahead."""
_KEPT_WHOLE = ("index/", "log/", "marks/", "roots/")
_PACKS = "packs/"

_Key = tuple[str, int]


class CachedStorage(StorageWrapper):
    """A `Storage` over another one. Safe to use from several threads."""

    def __init__(self, storage: Storage, cache: ObjectCache) -> None:
        """Keep in `cache` what is fetched from `storage`."""
        super().__init__(storage)
        self._cache = cache
        self._lock = threading.Lock()
        self._memory: LRUCache[_Key, bytes] = LRUCache(_MEMORY_BYTES, len)
        self._fetching: dict[_Key, Future[bytes]] = {}
        self._ahead_bytes = 0
        self._pool: ThreadPoolExecutor | None = None

    def create(self) -> None:
        """See `Storage.create`.

        Raises:
            RepositoryExists: there is a repository.
            InvalidRequest: something else is there.
            StorageError: the storage failed.
        """
        self._storage.create()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`; what is read as a whole is kept.

        Raises:
            ObjectExists: the name is taken.
            StorageError: the storage failed.
        """
        self._storage.put(name, data)
        self._keep_whole(name, data)

    def put_file(self, name: str, path: Path) -> None:
        """See `Storage.put_file`.

        Raises:
            ObjectExists: the name is taken.
            StorageError: the storage failed.
        """
        self._storage.put_file(name, path)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`.

        Raises:
            ObjectMissing: there is no such object.
            StorageError: the storage failed.
        """
        check_object_name(name)
        if name.startswith(_PACKS):
            return self._get_of_pack(name, offset, length)
        kept = self._cache.get(name) if name.startswith(_KEPT_WHOLE) else None
        if kept is not None:
            return kept[offset:] if length is None else kept[offset : offset + length]
        data = self._storage.get(name, offset, length)
        self._keep_whole(name, data)
        return data

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        return self._storage.list(folder)

    def delete(self, name: str) -> None:
        """See `Storage.delete`; nothing of it is kept.

        Raises:
            StorageError: the storage failed.
        """
        self._storage.delete(name)
        self.forget(name)

    def remove_abandoned_spool(self) -> int:
        """See `Storage.remove_abandoned_spool`.

        Raises:
            StorageError: the storage failed.
        """
        return self._storage.remove_abandoned_spool()

    def close(self) -> None:
        """See `Storage.close`."""
        with self._lock:
            pool, self._pool = self._pool, None
        self._storage.close()
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def prefetch(self, name: str, offset: int, length: int) -> int:
        """Begin to fetch a part of a pack that will be asked for soon, as far as not too much is being fetched ahead.

        What fails is not told: whoever asks for it meets the same.

        Returns:
            Up to where all is near, or being fetched.
        """
        end = offset + length
        first, stop = _blocks(offset, length)
        with self._lock:
            room = (AHEAD_BYTES_MAX - self._ahead_bytes) // BLOCK_BYTES
        far: list[int] = []
        for number in range(first, stop):
            if not self._is_near(name, number):
                if len(far) >= room:
                    end = max(offset, number * BLOCK_BYTES)
                    break
                far.append(number)
        with self._lock:
            claimed = self._claim(name, far)
            self._ahead_bytes += len(claimed) * BLOCK_BYTES
        for run in _runs(name, claimed, _RUN_BLOCKS_MAX):
            self._submit(run).add_done_callback(partial(self._fetched_ahead, len(run.blocks) * BLOCK_BYTES))
        return end

    def is_near(self, name: str, offset: int, length: int) -> bool:
        """Whether a part of a pack is near, or being fetched."""
        return all(self._is_near(name, number) for number in range(*_blocks(offset, length)))

    def keep_pack(self, name: str, path: Path) -> None:
        """Keep the content of a file that is about to be put as a pack, as far as it can be read."""
        with suppress(OSError), path.open("rb") as file:
            number = 0
            while block := file.read(BLOCK_BYTES):
                self._cache.put(_block_key(name, number), block)
                number += 1

    def forget(self, name: str) -> None:
        """Keep nothing of an object: it is gone, or what was kept of it turned out to be wrong."""
        if not name.startswith(_PACKS):
            self._cache.remove(name)
            return
        self._memory.clear()
        self._cache.remove_beginning(f"{name}-")

    def _keep_whole(self, name: str, data: Buffer) -> None:
        """Keep an object if it is all of it: its name ends in its digest."""
        if name.startswith(_KEPT_WHOLE) and hashlib.sha256(data).hexdigest() == name[-64:]:
            self._cache.put(name, data)

    def _get_of_pack(self, name: str, offset: int, length: int | None) -> bytes:
        if length is None:
            begin = offset - offset % BLOCK_BYTES
            return self._storage.get(name, begin)[offset - begin :]
        if not length:
            return self._storage.get(name, offset, 0)  # it says if the object is there
        first, stop = _blocks(offset, length)
        blocks = {number: self._near(name, number) for number in range(first, stop)}
        far = [number for number, block in blocks.items() if block is None]
        if far:
            if first and not self._is_near(name, 0):
                far.insert(0, 0)  # who reads in a pack reads its header too
            blocks |= self._fetch_all(name, far)
        begin = first * BLOCK_BYTES
        data = b"".join(blocks[number] or b"" for number in range(first, stop))
        return data[offset - begin : offset - begin + length]

    def _near(self, name: str, number: int) -> bytes | None:
        """A block from memory or from the disk."""
        block = self._memory.get((name, number))
        if block is None:
            block = self._cache.get(_block_key(name, number))
            if block is not None:
                self._memory[name, number] = block
        return block

    def _is_near(self, name: str, number: int) -> bool:
        key = name, number
        return key in self._memory or key in self._fetching or _block_key(name, number) in self._cache

    def _fetch_all(self, name: str, numbers: Sequence[int]) -> dict[int, bytes]:
        """Blocks that are not near; what somebody else is fetching is waited for."""
        with self._lock:
            claimed = self._claim(name, numbers)
            awaited = {number: self._fetching.get((name, number)) for number in numbers}
        runs = list(_runs(name, claimed, len(numbers)))
        for run in runs[:-1]:
            if self.concurrency > 1:
                self._submit(run)
            else:
                self._fetch(run)
        for run in runs[-1:]:
            self._fetch(run)
        return {number: self._result(name, number, future) for number, future in awaited.items()}

    def _result(self, name: str, number: int, future: Future[bytes] | None) -> bytes:
        if future is not None:
            return future.result()
        return self._near(name, number) or self._fetch_all(name, [number])[number]  # it came in between

    def _claim(self, name: str, numbers: Iterable[int]) -> dict[int, Future[bytes]]:
        """Those of the blocks that nobody is fetching: from now on the caller is. To be called under the lock."""
        keys = [key for number in numbers if (key := (name, number)) not in self._fetching and key not in self._memory]
        claimed: dict[_Key, Future[bytes]] = {key: Future() for key in keys}
        self._fetching |= claimed
        return {number: future for (_, number), future in claimed.items()}

    def _fetch(self, run: _Run) -> None:
        """Fetch blocks that the caller has claimed; whoever waits for them is told."""
        length = len(run.blocks) * BLOCK_BYTES
        try:
            data = self._storage.get(run.name, run.first * BLOCK_BYTES, length)
        except BaseException as error:
            self._fail(run, error)
            if not isinstance(error, StorageError):
                raise
            return
        parts = [data[at : at + BLOCK_BYTES] for at in range(0, length, BLOCK_BYTES)]
        for number, part in enumerate(parts, start=run.first):
            self._memory[run.name, number] = part
        self._unclaim(run)
        for future, part in zip(run.blocks, parts, strict=True):
            future.set_result(part)
        for number, part in enumerate(parts, start=run.first):
            if part:
                self._cache.put(_block_key(run.name, number), part)

    def _fail(self, run: _Run, error: BaseException) -> None:
        self._unclaim(run)
        for future in run.blocks:
            future.set_exception(error)

    def _unclaim(self, run: _Run) -> None:
        with self._lock:
            for number in range(run.first, run.first + len(run.blocks)):
                del self._fetching[run.name, number]

    def _fetched_ahead(self, size: int, _: Future[None]) -> None:
        with self._lock:
            self._ahead_bytes -= size

    def _submit(self, run: _Run) -> Future[None]:
        """Fetch in the background; where that is not possible any more, whoever waits is told."""
        try:
            with self._lock:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="fetch")
                done = self._pool.submit(self._fetch, run)
        except RuntimeError:  # the program is ending, or the system gives it no thread
            done = Future()
            done.cancel()
        done.add_done_callback(partial(self._never_fetched, run))
        return done

    def _never_fetched(self, run: _Run, done: Future[None]) -> None:
        if done.cancelled():
            self._fail(run, StorageError("the storage was closed", transient=True))


class _Run(NamedTuple):
    """Blocks of a pack that follow one another, and who waits for them."""

    name: str
    first: int
    blocks: list[Future[bytes]]


def _runs(name: str, claimed: dict[int, Future[bytes]], blocks_max: int) -> Iterator[_Run]:
    run: _Run | None = None
    for number, future in claimed.items():
        if run is None or number != run.first + len(run.blocks) or len(run.blocks) == blocks_max:
            if run is not None:
                yield run
            run = _Run(name, number, [])
        run.blocks.append(future)
    if run is not None:
        yield run


def _blocks(offset: int, length: int) -> tuple[int, int]:
    """The first block that holds a part of a range, and the first behind it."""
    return offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)


def _block_key(name: str, number: int) -> str:
    return f"{name}-{number}"
