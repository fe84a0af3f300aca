"""The snapshots of one repository, as far as they were read, and the way to add one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Set
from typing import NamedTuple

from backthen.repository.catalog.client import ClientMemory
from backthen.repository.catalog.commit import Again, Committed, Committer
from backthen.repository.catalog.log import Log, LoggedSnapshot
from backthen.repository.catalog.marks import Condemned, Marks
from backthen.repository.catalog.prune import Contents, Pruner
from backthen.repository.catalog.roots import SHORT_BYTES, Roots, SnapshotInfo, UnloggedRoot, put_root
from backthen.repository.crypto import RepositoryKeys
from backthen.repository.errors import DamageError, MissingError
from backthen.repository.ids import PackId, SnapshotId
from backthen.repository.model.records import LogKind, Root
from backthen.repository.storage import Storage, at_once, side_by_side

_log = logging.getLogger(__name__)


class Survey(NamedTuple):
    """What there is when a snapshot is begun: all snapshots, what is condemned, and the roots that are neither."""

    snapshots: list[SnapshotInfo]
    condemned: Condemned
    unlogged: frozenset[SnapshotId]


class Catalog:
    """The snapshots of a repository. Safe to use from several threads.

    Attributes:
        damage: what the last `snapshots` found wrong with single log entries and roots. What is damaged is not among
            the snapshots, and must be said loudly.
    """

    def __init__(self, storage: Storage, keys: RepositoryKeys, client: ClientMemory) -> None:
        """Read from `storage` as `client`; nothing is read yet."""
        self._storage = storage
        self._keys = keys
        self._log = Log(storage, keys, client)
        self._marks = Marks(storage, keys)
        self._roots = Roots(storage, keys)
        self._committer = Committer(storage, self._log, self._marks, self._roots)
        self._lock = threading.RLock()
        self._generation = self._log.generation
        self._infos: list[SnapshotInfo] = []
        self.damage: tuple[DamageError, ...] = ()

    def snapshots(self) -> list[SnapshotInfo]:
        """All snapshots in the order of the log, oldest first; reads only what is new.

        Raises:
            RollbackError: the storage shows an older or another past than this client saw.
            NewerFormatError: an entry or root needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        with self._lock:
            self._log.refresh()
            if self._log.generation != self._generation:
                self._read_roots()
            return list(self._infos)

    def survey(self) -> Survey:
        """What there is when a snapshot is begun.

        Raises:
            RollbackError: the storage shows an older or another past than this client saw.
            DamageError: a mark was damaged.
            NewerFormatError: a mark, log entry or root needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        with self._lock, at_once(self._storage) as begin:
            condemned, present = begin(self._marks.load), begin(self._roots.list_ids)
            snapshots = self.snapshots()
            logged = {snapshot.id for snapshot in self._log.snapshots()}
            return Survey(snapshots, condemned(), frozenset(present() - condemned().roots - logged))

    def partial_roots(self, unlogged: Iterable[SnapshotId], host: str, paths: tuple[bytes, ...]) -> list[UnloggedRoot]:
        """What unfinished runs of this host and these paths left, newest first, to be taken up.

        They were never looked at, so they vouch for nothing: every pack whose blobs are taken over from them must be
        relied on by itself, and they cannot be parents of a root.

        Args:
            unlogged: the roots to look through, see `Survey.unlogged`.
            host: the host of the runs.
            paths: what they were to save.

        Raises:
            NewerFormatError: a root needs a newer version of the program.
            StorageError: the storage failed.
        """
        with self._lock:
            found = []
            for id_ in sorted(unlogged):
                try:
                    root = self._roots.read(id_)
                except MissingError:
                    continue  # pruned since the listing
                except DamageError as error:
                    _log.warning("what an unfinished run left cannot be taken up: %s", error)
                    continue
                if (root.host, root.paths) == (host, paths):
                    found.append(UnloggedRoot(id_, root))
            return sorted(found, key=lambda unlogged: (unlogged.root.started_ns, unlogged.root.ended_ns), reverse=True)

    def condemned(self) -> Condemned:
        """The packs and roots that prunes have condemned, now or since this object was made.

        Raises:
            DamageError: a mark was damaged.
            NewerFormatError: a mark needs a newer version of the program.
            StorageError: the storage failed.
        """
        with self._lock:
            return self._marks.load()

    def put_partial(self, root: Root) -> SnapshotId:
        """Put the root of a run that goes on: what it stored is protected, and is taken up should the run be killed.

        All its packs are durable, and described by durable index objects.

        Raises:
            StorageError: the storage failed.
        """
        assert root.partial
        return put_root(self._storage, self._keys, root)

    def commit(self, root: Root, relied: Set[PackId], *, time_ns: int) -> Committed | Again:
        """Make a snapshot of a root, all of whose packs are durable and described by durable index objects.

        The snapshot may be reported when it is `Committed`, not before.

        Args:
            root: what to store; its parents are snapshots whose data it took over without naming the packs.
            relied: all other packs it needs.
            time_ns: now.

        Raises:
            RollbackError: the storage shows an older or another past than this client saw.
            DamageError: a mark was damaged.
            NewerFormatError: a mark or log entry needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        assert not root.partial
        with self._lock:
            id_ = put_root(self._storage, self._keys, root)
            return self._committer.commit(id_, frozenset(root.parents), relied, time_ns=time_ns)

    def shown_ids(self) -> list[SnapshotId]:
        """The ids of all snapshots in the order of the log, those too whose roots are damaged or gone.

        Raises:
            RollbackError: the storage shows an older or another past than this client saw.
            NewerFormatError: an entry needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        with self._lock:
            self._log.refresh()
            return [logged.id for logged in self._shown()]

    def forget(self, id_: SnapshotId, *, time_ns: int) -> None:
        """Let a snapshot not be shown any more; what it alone needs goes with the next prune.

        Raises:
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        with self._lock:
            self._log.pin(self._log.append(LogKind.FORGET, id_, time_ns))

    def pruner(self, contents: Contents) -> Pruner:
        """What takes away all that no snapshot needs; nobody else may use this object meanwhile."""
        return Pruner(self._storage, self._keys, self._log, self._marks, self._roots, contents)

    def _read_roots(self) -> None:
        shown = self._shown()
        ids = [logged.id for logged in shown]
        short = side_by_side(self._storage, self._roots.read_short, ids, weigh=lambda _: SHORT_BYTES)
        roots = dict(zip(ids, short, strict=True))
        if any(isinstance(root, MissingError) for root in roots.values()):
            self._log.refresh()  # it may have been forgotten and pruned since the log was read
            shown = self._shown()
        infos: list[SnapshotInfo] = []
        damage = list(self._log.damage)
        for logged in shown:
            root = roots.get(logged.id) or self._roots.read_logged(logged.id)
            if isinstance(root, DamageError):
                damage.append(root)
            else:
                tags = root.tags if logged.tags is None else logged.tags
                infos.append(SnapshotInfo(logged.id, root, tags, len(infos), logged.entry_id, logged.is_kept))
        self._generation = self._log.generation
        self._infos = infos
        self.damage = tuple(damage)

    def _shown(self) -> list[LoggedSnapshot]:
        return [logged for logged in self._log.snapshots() if not logged.is_forgotten]
