"""A repository that is open, with its keys, index and catalog; making one, and the second step of opening one."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from backthen.repository import clock, entropy
from backthen.repository import format as fmt
from backthen.repository.catalog import Catalog, ClientState, SnapshotInfo, Survey
from backthen.repository.content import SnapshotTree
from backthen.repository.crypto import (
    ConfigHeader,
    KdfParameters,
    RepositoryKeys,
    SlotKind,
    encode_config,
    new_bundle,
)
from backthen.repository.errors import DamageError, ObjectExists, RepositoryExists
from backthen.repository.ids import RepositoryId
from backthen.repository.index import LocalIndex
from backthen.repository.locked import CHUNKER, Folders, LockedRepository, Unlocking, read_config
from backthen.repository.model.records import Configuration, SlotNote
from backthen.repository.objects import BlobReader, BlobSource, CacheUse, refresh_index, remove_abandoned_packs
from backthen.repository.processes import can_fork
from backthen.repository.slots import OpenedSlot, put_slot, remove_foreign_slots
from backthen.repository.source import tag_cache
from backthen.repository.storage import (
    CONFIG_NAME,
    CachedStorage,
    ObjectCache,
    ObservedStorage,
    Storage,
    StorageState,
    key_name,
)

INDEX_FOLDER = "index"
OBJECTS_FOLDER = "objects"
"""Where in a repository's cache folder the local index is, and the objects that were fetched."""

_FORKED_CACHE_BYTES = 16 * fmt.MIB
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at work: names of host and user, name and version of the program."""

    host: str
    user: str
    program: str


class Repository:
    """An open repository. Safe to use from several threads but for what says otherwise; use in a `with`."""

    def __init__(
        self, storage: Storage, header: ConfigHeader, opened: OpenedSlot, folders: Folders, client: Client
    ) -> None:
        """Open index and catalog. What comes from elsewhere is kept near.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        name = header.repository_id.hex()
        self.cache_folder = folders.cache / name
        self._observed = ObservedStorage(storage)
        self.cached: CachedStorage | None = None
        if storage.folder is None:
            cache = ObjectCache(self.cache_folder / OBJECTS_FOLDER, folders.cache_bytes_max)
            self.cached = CachedStorage(self._observed, cache)
        self.storage = storage = self.cached or self._observed
        self.header = header
        self.opened = opened
        self.client = client
        self.index = LocalIndex(self.cache_folder / INDEX_FOLDER, opened.keys)
        with suppress(OSError):  # it is a courtesy
            tag_cache(self.cache_folder)
        self.blobs = BlobReader(storage, opened.keys, self.index, self.refresh, self.cached)
        self.state = ClientState(folders.state / name)
        self.catalog = Catalog(storage, opened.keys, self.state)
        self._said: set[str] = set()

    def __enter__(self) -> Repository:
        """Use it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop reading ahead, let go of the local index and of the storage."""
        self.blobs.close()
        self.index.close()
        self.storage.close()
        self._observed.end()

    @contextmanager
    def reading_anew(self) -> Iterator[Repository]:
        """The same repository, believing nothing that was fetched before; where it is on this machine, this one."""
        if self.cached is None:
            yield self
            return
        anew = copy.copy(self)
        anew.cached = CachedStorage(self._observed, ObjectCache(self.cache_folder / OBJECTS_FOLDER, 0))
        anew.storage = anew.cached
        anew.blobs = BlobReader(anew.storage, self.keys, self.index, anew.refresh, anew.cached)
        anew.catalog = Catalog(anew.storage, self.keys, self.state)
        try:
            yield anew
        finally:
            anew.blobs.close()
            anew.storage.close()

    @contextmanager
    def forking(self) -> Iterator[bool]:
        """Let go of what does not survive a fork, threads and the index; whether this process may fork meanwhile.

        Raises:
            CacheError: the cache folder cannot be used any more.
        """
        self.blobs.rest()
        if not can_fork():
            yield False
            return
        self.index.close()
        try:
            yield True
        finally:
            self.index.reopen()

    def forked_source(self) -> BlobSource:
        """The blobs for a process that was forked: with little memory, and without threads.

        Raises:
            CacheError: the cache folder cannot be used.
        """
        self.index.reopen()
        self.blobs.be_modest(_FORKED_CACHE_BYTES)
        return self.blobs.source

    @property
    def id(self) -> RepositoryId:
        """The repository's id."""
        return self.header.repository_id

    @property
    def keys(self) -> RepositoryKeys:
        """The repository's keys."""
        return self.opened.keys

    @property
    def location(self) -> str:
        """Where it is, for messages."""
        return self.storage.location

    @property
    def storage_state(self) -> StorageState:
        """How the storage answers now."""
        return self._observed.state

    @property
    def cache_uses(self) -> tuple[CacheUse, ...]:
        """How full each of the caches in memory is."""
        return self.blobs.cache_uses

    def bound_caches(self, bytes_max: int) -> None:
        """Let the caches in memory hold so many bytes in all; to be called before anything is read."""
        self.blobs.bound_caches(bytes_max)

    def snapshots(self) -> list[SnapshotInfo]:
        """All snapshots in the order of the log, oldest first; reads from storage what is new.

        Those that are damaged are not among them: each is logged as a warning once, and stands in `damage`.

        Raises:
            StorageError: the storage failed.
            RollbackError: the storage shows an older or another past than this client saw.
            CacheError: the client's state cannot be read.
        """
        infos = self.catalog.snapshots()
        self._tell_damage()
        return infos

    def survey(self) -> Survey:
        """What there is when a snapshot is begun; damage is told as by `snapshots`.

        Raises:
            StorageError: the storage failed.
            DamageError: a mark was damaged, or the storage shows an older or another past than this client saw.
            NewerFormatError: a mark, log entry or root needs a newer version of the program.
            CacheError: the client's state cannot be read.
        """
        survey = self.catalog.survey()
        self._tell_damage()
        return survey

    @property
    def damage(self) -> tuple[DamageError, ...]:
        """What the last `snapshots` found wrong with single snapshots and log entries."""
        return self.catalog.damage

    def tree(self, info: SnapshotInfo) -> SnapshotTree:
        """The tree of a snapshot."""
        return SnapshotTree(info.id, info.root)

    def inode_prf(self, data: bytes) -> int:
        """A keyed number below 2^64, for inodes in a mount."""
        return self.keys.inode_prf(data)

    def refresh(self) -> bool:
        """Take in what is new in the repository's index; whether anything was.

        Raises:
            StorageError: the storage failed.
            DamageError: an index object was damaged or changed.
            CacheError: the local index cannot be written.
        """
        return refresh_index(self.storage, self.keys, self.index)

    @property
    def spool(self) -> Path:
        """Where packs being filled are kept: in the storage when it takes files without a copy, else in the cache."""
        return self.storage.spool or self.cache_folder / "spool"

    def remove_abandoned_spool(self) -> int:
        """Remove what killed writers left half-way, here and in the storage; how many files there were.

        Raises:
            StorageError: the storage failed.
            CacheError: the cache folder cannot be cleaned.
        """
        here = 0 if self.storage.spool is not None else remove_abandoned_packs(self.spool)
        return here + self.storage.remove_abandoned_spool()

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """The folders of this machine that it fills itself."""
        folder = self.storage.folder
        return (self.cache_folder,) if folder is None else (self.cache_folder, folder)

    def stored_bytes(self) -> int:
        """Bytes of all packs in storage.

        Raises:
            StorageError: the storage failed.
        """
        return sum(stored.length for stored in self.storage.list("packs"))

    def _tell_damage(self) -> None:
        for damage in self.damage:
            if str(damage) not in self._said:
                self._said.add(str(damage))
                _log.warning("a snapshot or log entry is damaged: %s", damage)


def create_repository(storage: Storage, password: bytes, folders: Folders, client: Client) -> Repository:
    """Make a repository in an empty storage.

    The key slot is put before `config`, so that a repository without a way in is never found.

    Raises:
        RepositoryExists: there is one.
        InvalidRequest: the password is empty, or something else is in the storage.
        StorageError: the storage failed.
        CacheError: the cache folder cannot be used.
    """
    storage.create()
    header = ConfigHeader(RepositoryId(entropy.random_bytes(fmt.ID_BYTES)), KdfParameters.fresh())
    keys = RepositoryKeys(header.repository_id, new_bundle())
    note = SlotNote(clock.now_ns(), client.host, client.user, "")
    slot_id = put_slot(storage, header, keys, password, SlotKind.PASSWORD, note)
    config = encode_config(header, keys, Configuration(clock.now_ns(), (), CHUNKER))
    try:
        storage.put(CONFIG_NAME, config)
    except ObjectExists as error:
        if read_config(storage) != config:
            storage.delete(key_name(slot_id))  # another was quicker: nobody's password opens it there
        raise RepositoryExists(f"there is a repository at {storage.location} already") from error
    remove_foreign_slots(storage, header)
    return Repository(storage, header, OpenedSlot(slot_id, keys), folders, client)


def finish_unlock(unlocking: Unlocking, client: Client) -> Repository:
    """Open a repository whose keys are on their way.

    Raises:
        WrongPassword: no key slot belongs to the password.
        DamageError: `config` or the key slot was damaged or changed.
        NewerFormatError: it needs a newer version of the program.
        InvalidRequest: this version, or this machine's cryptography library, does not know how.
        StorageError: the storage failed.
        CacheError: the cache folder cannot be used.
    """
    return Repository(unlocking.storage, unlocking.header, unlocking.opened(), unlocking.folders, client)


def unlock(locked: LockedRepository, password: bytes, client: Client, *, for_snapshot: bool = False) -> Repository:
    """Open a repository in one go.

    Raises:
        As `LockedRepository.begin_unlock` and `finish_unlock`.
    """
    return finish_unlock(locked.begin_unlock(password, for_snapshot=for_snapshot), client)
