"""The local table of all blobs: first 16 bytes of the id to pack, segment and ordinal (FORMAT.md, section 6).

It is a cache: deleting it costs time only. It is shared by all processes of a user through the page cache, and its
memory does not grow with the repository. A *main* generation is immutable and was written in sorted order; what came
since is in a small *delta*, merged when it has grown to a tenth; what is too much for that at once is sorted on the
disk and goes into the next main with it. Each folder holds one generation:

    current             sealed: number of the generation, least lengths of its files
    <number>/main       LMDB, immutable
    <number>/delta      LMDB, written under its own lock
    lock                held by whoever makes a new generation

Invariants: a file shorter than `current` says is never opened (LMDB would kill the process with SIGBUS). Nothing is
believed to be stored because it stands here: that is for the caller to hold against the storage's list of packs.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

import lmdb
import msgspec

from backthen.repository import format as fmt
from backthen.repository.bounded import LRUCache
from backthen.repository.crypto import ObjectKind, RepositoryKeys, open_object, seal_object
from backthen.repository.errors import CacheError, DamageError, NewerFormatError
from backthen.repository.ids import ObjectId, PackId
from backthen.repository.index.pack_records import LOCATION, PackRecord, blob_locations, decode_pack, encode_pack
from backthen.repository.index.sorter import Sorter
from backthen.repository.model.records import IndexObject
from backthen.repository.private import PRIVATE_FILE_MODE, make_private_folder, private_opener

_MAP_BYTES = 16 * 1024 * fmt.MIB
_READERS_MAX = 1024
_LOCK_BYTES = _READERS_MAX * 64 + 4 * fmt.KIB
_DELTA_ENTRIES_MIN = 200_000
_DELTA_SHARE = 10
_PACK_RECORDS_MAX = 256
_ENTRIES_PER_TRANSACTION = 32_768
_NUMBER = struct.Struct(">I")
_MARKER_BOUND_TO = b"local index"
_BLOBS, _COPIES, _PACKS, _NUMBERS, _OBJECTS = b"blobs", b"copies", b"packs", b"numbers", b"objects"
_TABLES = (_BLOBS, _COPIES, _PACKS, _NUMBERS, _OBJECTS)

_Objects = Iterable[tuple[ObjectId, IndexObject]]


class Location(NamedTuple):
    """Where a blob is: number of the pack in one generation of the table, segment in the pack.

    Ordinal in the segment.
    """

    generation: _Generation
    pack_number: int
    segment: int
    ordinal: int


class _Marker(msgspec.Struct, frozen=True, array_like=True):
    generation: int
    main_bytes: int
    delta_bytes: int


class _Environment:
    """One LMDB file with the five tables; one that is being built is flushed to the disk once, by `close_built`."""

    def __init__(self, path: Path, *, writable: bool, is_building: bool = False) -> None:
        self.path = path
        if writable:
            _reserve(path.with_name(f"{path.name}-lock"), _LOCK_BYTES)
        self.env = lmdb.open(
            str(path), subdir=False, map_size=_MAP_BYTES, max_dbs=len(_TABLES), readonly=not writable,
            lock=writable, create=writable, sync=not is_building, readahead=False, mode=0o600, max_readers=_READERS_MAX,
        )  # fmt: skip
        if writable:
            self.env.reader_check()
        self.tables = {name: self.env.open_db(name, create=writable, dupsort=name == _COPIES) for name in _TABLES}

    def close_built(self) -> None:
        """Flush and let go."""
        self.env.sync(True)
        self.env.close()

    def count(self, table: bytes) -> int:
        with self.env.begin() as txn:
            return int(txn.stat(self.tables[table])["entries"])


class _Generation:
    """The two open files of one generation. Numbers of packs have a meaning within it only."""

    def __init__(self, number: int, main: _Environment, delta: _Environment) -> None:
        self.number = number
        self.main = main
        self.delta = delta
        self._is_main_empty = not main.count(_OBJECTS)
        self.pack_ids: dict[int, PackId] = {}
        self.packs: LRUCache[int, PackRecord] = LRUCache(_PACK_RECORDS_MAX)

    def pack_value(self, number: int) -> bytes:
        """The stored record of a pack.

        Raises:
            CacheError: the table is damaged.
        """
        value = self.read(_PACKS, _NUMBER.pack(number))
        if value is None or len(value) % 8 != (fmt.ID_BYTES + 1) % 8:
            raise _damaged(self.main.path, "a location names a pack that is not in it")
        return value

    def read(self, table: bytes, key: bytes) -> bytes | None:
        """A value as it is now, or None.

        Raises:
            CacheError: the table is damaged.
        """
        try:
            with self.delta.env.begin() as transaction:
                return self.get(transaction, table, key)
        except lmdb.Error as error:
            raise _damaged(self.main.path, str(error)) from error

    def get(self, transaction: lmdb.Transaction, table: bytes, key: bytes) -> bytes | None:
        """A value, as an open transaction on the delta sees it."""
        value = transaction.get(key, db=self.delta.tables[table])
        if value is None and not self._is_main_empty:
            with self.main.env.begin() as main:
                value = main.get(key, db=self.main.tables[table])
        return cast("bytes | None", value)

    def merged(self, table: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All keys and values of a table in order."""
        with self.main.env.begin() as main, self.delta.env.begin() as delta:
            yield from heapq.merge(main.cursor(self.main.tables[table]), delta.cursor(self.delta.tables[table]))


class LocalIndex:
    """The open table. Look-ups are safe from several threads; `add` and `clear` from one at a time."""

    def __init__(self, folder: Path, keys: RepositoryKeys) -> None:
        """Open the table in `folder`, made anew where it is missing or not usable.

        Raises:
            CacheError: the folder cannot be used.
        """
        self._folder = folder
        self._keys = keys
        self._retired: list[_Generation] = []
        with self._cache_errors("used"), self._exclusive():
            self._generation = self._open_usable()

    def close(self) -> None:
        """Let go of the files."""
        for generation in (*self._retired, self._generation):
            generation.main.env.close()
            generation.delta.env.close()
        self._retired.clear()

    def reopen(self) -> None:
        """Open what was closed, perhaps in another process that was forked meanwhile: LMDB does not survive that.

        Raises:
            CacheError: the folder cannot be used.
        """
        with self._cache_errors("used"), self._exclusive():
            self._generation = self._open_usable()

    def lookup(self, prefix: bytes) -> Location | None:
        """Where a blob is, by the first 16 bytes of its id.

        Raises:
            CacheError: the table is damaged.
        """
        generation = self._generation
        value = generation.read(_BLOBS, prefix)
        if value is None:
            return None
        if len(value) != LOCATION.size:
            raise _damaged(self._folder, "a location has a broken length")
        return Location(generation, *LOCATION.unpack(value))

    def copies(self, prefix: bytes) -> list[Location]:
        """All places of a blob; there are several when two clients stored it at once.

        Raises:
            CacheError: the table is damaged.
        """
        first = self.lookup(prefix)
        places = [] if first is None else [first]
        generation = self._generation
        for environment in (generation.delta, generation.main):
            with self._cache_errors("read"), environment.env.begin() as transaction:
                cursor = transaction.cursor(environment.tables[_COPIES])
                if cursor.set_key(prefix):
                    places.extend(Location(generation, *LOCATION.unpack(value)) for value in cursor.iternext_dup())
        return places

    def pack_id(self, location: Location) -> PackId:
        """The id of the pack at a location.

        Raises:
            CacheError: the table is damaged.
        """
        generation, number = location.generation, location.pack_number
        pack_id = generation.pack_ids.get(number)
        if pack_id is None:
            pack_id = PackId(ObjectId(generation.pack_value(number)[: fmt.ID_BYTES]))
            generation.pack_ids[number] = pack_id
        return pack_id

    def pack(self, location: Location) -> PackRecord:
        """The pack at a location.

        Raises:
            CacheError: the table is damaged.
        """
        generation, number = location.generation, location.pack_number
        record = generation.packs.get(number)
        if record is None:
            record = decode_pack(generation.pack_value(number))
            generation.packs[number] = record
        return record

    def has_pack(self, pack_id: PackId) -> bool:
        """Whether a pack is in the table.

        Raises:
            CacheError: the table is damaged.
        """
        return self._generation.read(_NUMBERS, pack_id) is not None

    def packs(self) -> Iterator[PackRecord]:
        """All packs of the table."""
        return (decode_pack(value) for _, value in self._generation.merged(_PACKS))

    def object_ids(self) -> set[ObjectId]:
        """The ids of the index objects that are in the table.

        Raises:
            CacheError: the table is damaged.
        """
        with self._cache_errors("read"):
            return {ObjectId(key) for key, _ in self._generation.merged(_OBJECTS)}

    @property
    def blob_count(self) -> int:
        """How many blobs the table knows."""
        return self._generation.main.count(_BLOBS) + self._generation.delta.count(_BLOBS)

    def add(self, objects: _Objects) -> None:
        """Take in index objects; those already in are passed over.

        Raises:
            CacheError: the table cannot be written.
        """
        with self._cache_errors("written"), self._exclusive():
            self._follow()
            rest = iter(objects)
            is_more = True
            while is_more:
                is_more = self._insert(rest)
                if self._is_delta_full():
                    self._go_over(self._write_generation(self._generation, rest))
            self._mark(self._generation.number)

    def clear(self) -> None:
        """Forget everything, for an index whose objects were merged or removed.

        Raises:
            CacheError: the table cannot be written.
        """
        with self._cache_errors("written"), self._exclusive():
            self._go_over(self._write_generation(None))

    def _is_delta_full(self) -> bool:
        generation = self._generation
        entries_max = max(_DELTA_ENTRIES_MIN, generation.main.count(_BLOBS) // _DELTA_SHARE)
        return generation.delta.count(_BLOBS) > entries_max

    def _insert(self, objects: Iterator[tuple[ObjectId, IndexObject]]) -> bool:
        """Enter as many objects as one transaction may; whether there may be more."""
        generation, delta = self._generation, self._generation.delta
        left = _ENTRIES_PER_TRANSACTION
        with delta.env.begin(write=True) as transaction:

            def is_known(table: bytes, key: bytes) -> bool:
                return generation.get(transaction, table, key) is not None

            first = generation.main.count(_PACKS)
            for object_id, index in objects:
                for prefix, location in _take_in(delta, transaction, is_known, first, object_id, index):
                    table = _COPIES if is_known(_BLOBS, prefix) else _BLOBS
                    transaction.put(prefix, location, db=delta.tables[table])
                    left -= 1
                if left <= 0:
                    return True
        return False

    def _follow(self) -> None:
        """Go over to the generation that another process may have made."""
        number = self._usable_generation()
        if number is None:
            number = self._write_generation(None)
        if number != self._generation.number:
            self._go_over(number)

    def _open_usable(self) -> _Generation:
        """The current generation, or a new one where there is none or LMDB does not take it."""
        number = self._usable_generation()
        if number is not None:
            with suppress(lmdb.Error):
                return self._open(number)
        return self._open(self._write_generation(None))

    def _go_over(self, number: int) -> None:
        """Use another generation. The old one stays open: other threads may be reading it."""
        self._retired.append(self._generation)
        self._generation = self._open(number)

    def _open(self, number: int) -> _Generation:
        folder = self._folder / str(number)
        return _Generation(
            number, _Environment(folder / "main", writable=False), _Environment(folder / "delta", writable=True)
        )

    def _write_generation(self, source: _Generation | None, more: _Objects = ()) -> int:
        """Write the next generation, with all that `source` holds, and more, and make it the current one."""
        numbers = [int(path.name) for path in self._folder.iterdir() if path.name.isdigit()]
        number = max(numbers, default=0) + 1
        building = self._folder / f"{number}.building"
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(mode=0o700)
        _write_main(building / "main", source, more)
        _Environment(building / "delta", writable=True, is_building=True).close_built()
        os.rename(building, self._folder / str(number))
        self._mark(number)
        for old in numbers:
            shutil.rmtree(self._folder / str(old), ignore_errors=True)
        return number

    def _usable_generation(self) -> int | None:
        """What `current` says, if it is authentic and the files are as long as it says."""
        try:
            data = (self._folder / "current").read_bytes()
            payload = open_object(self._keys, ObjectKind.INDEX, data, name="current", associated=_MARKER_BOUND_TO)
            marker = msgspec.msgpack.decode(payload, type=_Marker)
            main_bytes, delta_bytes = self._lengths(marker.generation)
        except (OSError, DamageError, NewerFormatError, msgspec.MsgspecError):
            return None
        return marker.generation if main_bytes == marker.main_bytes and delta_bytes >= marker.delta_bytes else None

    def _mark(self, number: int) -> None:
        payload = msgspec.msgpack.encode(_Marker(number, *self._lengths(number)))
        sealed = seal_object(self._keys, ObjectKind.INDEX, payload, _MARKER_BOUND_TO)
        temporary = self._folder / "current.building"
        with open(temporary, "wb", opener=private_opener) as file:
            file.write(sealed)
        os.replace(temporary, self._folder / "current")

    def _lengths(self, number: int) -> tuple[int, int]:
        folder = self._folder / str(number)
        return os.stat(folder / "main").st_size, os.stat(folder / "delta").st_size

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        make_private_folder(self._folder)
        with open(self._folder / "lock", "wb", opener=private_opener) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _cache_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, lmdb.Error) as error:
            raise CacheError(
                f"the index cache in {self._folder} cannot be {what}: {error}",
                hint="Make room, or choose another --cache-dir; the folder may be deleted, it is made anew.",
            ) from error


def _damaged(path: Path, what: str) -> CacheError:
    return CacheError(f"the index cache in {path} is damaged: {what}", hint="Delete the folder: it is made anew.")


def _reserve(path: Path, length: int) -> None:
    """Have room on the disk for a file that LMDB writes through memory: a full disk would kill the process there.

    Raises:
        OSError: there is no room.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE_MODE)
    try:
        os.posix_fallocate(descriptor, 0, length)
    finally:
        os.close(descriptor)


def _write_main(path: Path, source: _Generation | None, more: _Objects) -> None:
    """An immutable file, appended in sorted order (five times as fast and half as large as in random order)."""
    environment = _Environment(path, writable=True, is_building=True)
    with closing(Sorter(path.parent, key_bytes=fmt.ID_PREFIX_BYTES, value_bytes=LOCATION.size)) as fresh:
        if source is not None:
            for table in _TABLES:
                if table != _BLOBS:
                    _append(environment, table, source.merged(table))
        for object_id, index in more:
            with environment.env.begin(write=True) as transaction:
                known = partial(_is_in, environment, transaction)
                for prefix, location in _take_in(environment, transaction, known, 0, object_id, index):
                    fresh.add(prefix, location)
        _append_blobs(environment, fresh if source is None else heapq.merge(source.merged(_BLOBS), fresh))
    environment.close_built()
    path.with_name("main-lock").unlink(missing_ok=True)


def _append(environment: _Environment, table: bytes, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """Write a table in order."""
    for batch in _batches(entries):
        with environment.env.begin(write=True) as transaction:
            transaction.cursor(environment.tables[table]).putmulti(batch, append=table != _COPIES)


def _append_blobs(environment: _Environment, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """Write the blobs in order: of those with one id the first, the others are its copies."""
    last = b""
    for batch in _batches(entries):
        firsts: list[tuple[bytes, bytes]] = []
        copies: list[tuple[bytes, bytes]] = []
        for entry in batch:
            (copies if entry[0] == last else firsts).append(entry)
            last = entry[0]
        with environment.env.begin(write=True) as transaction:
            transaction.cursor(environment.tables[_BLOBS]).putmulti(firsts, append=True)
            transaction.cursor(environment.tables[_COPIES]).putmulti(copies)


def _batches(entries: Iterable[tuple[bytes, bytes]]) -> Iterator[list[tuple[bytes, bytes]]]:
    """So many entries at a time as one transaction may write: it keeps them in memory until it is committed."""
    rest = iter(entries)
    while batch := list(islice(rest, _ENTRIES_PER_TRANSACTION)):
        yield batch


def _is_in(environment: _Environment, transaction: lmdb.Transaction, table: bytes, key: bytes) -> bool:
    return transaction.get(key, db=environment.tables[table]) is not None


def _take_in(
    environment: _Environment,
    transaction: lmdb.Transaction,
    is_known: Callable[[bytes, bytes], bool],
    first_number: int,
    object_id: ObjectId,
    index: IndexObject,
) -> Iterator[tuple[bytes, bytes]]:
    """Enter an object that is not known, and its packs; (prefix, packed location) of the blobs that come with it."""
    if is_known(_OBJECTS, object_id):
        return
    tables = environment.tables
    transaction.put(object_id, b"", db=tables[_OBJECTS])
    for pack in index.packs:
        if is_known(_NUMBERS, pack.id):
            continue  # all records of one pack are equal
        number = first_number + int(transaction.stat(tables[_PACKS])["entries"])
        key = _NUMBER.pack(number)
        transaction.put(key, encode_pack(pack, index.pack_class), db=tables[_PACKS])
        transaction.put(pack.id, key, db=tables[_NUMBERS])
        yield from blob_locations(number, pack)
