"""Making a snapshot of a root without locks (FORMAT.md, section 12, 1).

`tests/properties/test_commit_protocol.py` runs this code against prunes under random schedules. The order of the steps
is the protocol: change none without having seen those schedules pass.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

from backthen.repository.catalog.log import Log
from backthen.repository.catalog.marks import Condemned, Marks
from backthen.repository.catalog.roots import Roots
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.records import LogKind
from backthen.repository.storage import Storage, at_once, parse_pack_name


@dataclass(frozen=True, slots=True)
class Committed:
    """The snapshot is in the log, and may be reported."""

    id: SnapshotId
    entry_id: ObjectId


@dataclass(frozen=True, slots=True)
class Again:
    """The snapshot was not made. All begins again with a new root, without what is named here.

    Attributes:
        bad_packs: packs that are gone or condemned; what they held must be stored again.
        lost_parents: parents that vouch for nothing; every pack taken over from them must be relied on by itself.
        is_root_condemned: the root itself was condemned as abandoned.
    """

    bad_packs: frozenset[PackId] = frozenset()
    lost_parents: frozenset[SnapshotId] = frozenset()
    is_root_condemned: bool = False


class _Seen(NamedTuple):
    """What is condemned, which roots there are, and which of the packs that are relied on are not."""

    condemned: Condemned
    roots: set[SnapshotId]
    missing_packs: frozenset[PackId]


class Committer:
    """The steps from a root in storage to a snapshot."""

    def __init__(self, storage: Storage, log: Log, marks: Marks, roots: Roots) -> None:
        """Work on what the given parts read."""
        self._storage = storage
        self._log = log
        self._marks = marks
        self._roots = roots

    def commit(
        self, root: SnapshotId, parents: Set[SnapshotId], relied: Set[PackId], *, time_ns: int
    ) -> Committed | Again:
        """Look at what the root in storage stands on, log it, and look once more.

        Args:
            root: its id; all packs it relies on, and index objects that describe them, are durable.
            parents: the snapshots whose stored data it took over without naming its packs.
            relied: all other packs it needs.
            time_ns: now.

        Raises:
            RollbackError: the log has lost what this client saw.
            DamageError: a mark was damaged.
            NewerFormatError: a mark or log entry needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        with at_once(self._storage) as begin:
            refreshed, looked = begin(self._log.refresh), begin(lambda: self._look(relied))
            refreshed()
            again = self._judge(looked(), root, parents, relied)
        if again is not None:
            return again
        entry_id = self._log.append(LogKind.COMMIT, root, time_ns)
        if self._is_condemned(root):
            # Nobody was told of this snapshot, and its root may be gone: readers must not look for it.
            self._log.append(LogKind.FORGET, root, time_ns)
            return Again(is_root_condemned=True)
        self._log.pin(entry_id)
        return Committed(root, entry_id)

    def _look(self, relied: Set[PackId]) -> _Seen:
        """Look at marks, roots and packs, in this order; at no packs where none is asked for."""
        condemned = self._marks.load()
        roots = self._roots.list_ids()
        return _Seen(condemned, roots, self._missing(relied) if relied else frozenset())

    def _judge(self, seen: _Seen, root: SnapshotId, parents: Set[SnapshotId], relied: Set[PackId]) -> Again | None:
        """What stands in the way.

        A parent that was never logged was never looked at itself, and so vouches for nothing.
        """
        logged = {entry.root for entry in self._log.entries.values() if entry.kind == LogKind.COMMIT}
        bad_packs = seen.missing_packs | relied & seen.condemned.packs
        lost_parents = frozenset(parents & seen.condemned.roots | parents - seen.roots | parents - logged)
        is_root_condemned = root in seen.condemned.roots or root not in seen.roots
        if bad_packs or lost_parents or is_root_condemned:
            return Again(bad_packs, lost_parents, is_root_condemned)
        return None

    def _missing(self, relied: Set[PackId]) -> frozenset[PackId]:
        missing = set(relied)
        for stored in self._storage.list("packs"):
            pack_id = parse_pack_name(stored.name)
            if pack_id is not None:
                missing.discard(pack_id)
        return frozenset(missing)

    def _is_condemned(self, root: SnapshotId) -> bool:
        return root in self._marks.load().roots or root not in self._roots.list_ids()
