"""Taking away what no snapshot needs any more, without locks (FORMAT.md, section 12, 3).

`tests/properties/test_commit_protocol.py` runs this code against writers, forgets and other prunes under random
schedules. The order of the steps is the protocol: change none without having seen those schedules pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple, Protocol

from backthen.repository.catalog.log import Log
from backthen.repository.catalog.marks import Condemned, Marks
from backthen.repository.catalog.roots import SHORT_BYTES, Roots
from backthen.repository.crypto import ObjectKind, RepositoryKeys, object_id, seal_object
from backthen.repository.errors import MissingError, TamperedError
from backthen.repository.ids import PackId, SnapshotId
from backthen.repository.model.records import LogKind, Mark, Root, encode_record
from backthen.repository.storage import (
    Storage,
    mark_name,
    pack_name,
    parse_pack_name,
    root_name,
    side_by_side,
)

_DAY_NS = 24 * 60 * 60 * 1_000_000_000
_ABANDONED_AFTER_NS = 30 * _DAY_NS
"""An unfinished run that nobody took up for so long will not be: until then its root spares its owner sending again.
Safety does not rest on it."""


class Contents(Protocol):
    """What roots need of what is in packs."""

    def look(self, packs: Mapping[PackId, int], condemned: Set[PackId]) -> None:
        """Take in the index as it is in storage now.

        Args:
            packs: those in storage, with their lengths in bytes.
            condemned: the packs that marks name.
        """
        ...

    def need(self, roots: Mapping[SnapshotId, Root], leaving: Set[PackId]) -> None:
        """Find out what these roots need, and that all of it is there.

        Args:
            roots: nothing else counts as needed.
            leaving: the packs in storage that `move_out` will be given.

        Raises:
            MissingError: something is not.
            DamageError: something cannot be read.
        """
        ...

    def expendable(self) -> frozenset[PackId]:
        """The packs, not condemned yet, that hold nothing which is needed, or so little that it is better moved."""
        ...

    def move_out(self, packs: Set[PackId]) -> None:
        """Let these packs be needed for nothing.

        What is needed of them, and is in no indexed pack that is in storage and not condemned, is stored again; then
        index objects that do not name them take the place of those that do.
        """
        ...


class Going(NamedTuple):
    """What a prune deletes: roots that were forgotten, roots that were never logged, and packs."""

    forgotten: dict[SnapshotId, Root]
    abandoned: frozenset[SnapshotId]
    packs: frozenset[PackId]


class Plan(NamedTuple):
    """What is to be condemned, and all that goes when it is swept away, with what others have condemned."""

    mark: Mark
    going: Going


class _View(NamedTuple):
    """What there is, looked at in this order."""

    roots: dict[SnapshotId, Root]
    logged: frozenset[SnapshotId]
    forgotten: frozenset[SnapshotId]
    condemned: Condemned
    packs: dict[PackId, int]

    def is_dead(self, root: SnapshotId) -> bool:
        """Whether a condemned root is to go: one that was logged in spite of it, and is not forgotten, stays."""
        return root not in self.logged or root in self.forgotten

    def going(self, dead: Set[SnapshotId], packs: Set[PackId]) -> Going:
        """Those of the dead roots and packs that are there."""
        present = dead & self.roots.keys()
        forgotten = {id_: self.roots[id_] for id_ in sorted(present & self.logged)}
        return Going(forgotten, frozenset(present - self.logged), frozenset(packs))


class Pruner:
    """The two steps of a prune. Not to be used while others use the same log, marks and roots."""

    def __init__(
        self, storage: Storage, keys: RepositoryKeys, log: Log, marks: Marks, roots: Roots, contents: Contents
    ) -> None:
        """Work on what the given parts read."""
        self._storage = storage
        self._keys = keys
        self._log = log
        self._marks = marks
        self._roots = roots
        self._contents = contents

    def plan(self, now_ns: int) -> Plan:
        """What is to be condemned: the first step's mark, which is not put. It may be empty.

        Raises:
            DamageError: a root, log entry, mark or index object, or something that a snapshot needs, is damaged or
                missing.
            NewerFormatError: one of them needs a newer version of the program.
            RollbackError: the storage shows an older or another past than this client saw.
            StorageError: the storage failed.
            CacheError: the cache or the client's state cannot be used.
        """
        view = self._look()
        fresh = view.roots.keys() - view.condemned.roots
        forgotten = fresh & view.forgotten
        abandoned = {id_ for id_ in fresh - view.logged if _is_abandoned(view.roots[id_], view, now_ns)}
        abandoned |= self._incomplete({id_: view.roots[id_] for id_ in fresh - view.logged - abandoned})
        dying = forgotten | abandoned | {id_ for id_ in view.condemned.roots if view.is_dead(id_)}
        self._contents.need({id_: root for id_, root in view.roots.items() if id_ not in dying}, frozenset())
        packs = self._contents.expendable()
        mark = Mark(tuple(sorted(packs)), tuple(sorted(abandoned)), tuple(sorted(forgotten)))
        return Plan(mark, view.going(dying, packs | view.condemned.packs & view.packs.keys()))

    def condemn(self, mark: Mark) -> None:
        """Put a mark. Whatever happens after that, all it names is as good as gone for writers.

        Raises:
            StorageError: the storage failed.
        """
        data = seal_object(self._keys, ObjectKind.MARK, encode_record(mark))
        self._storage.put(mark_name(object_id(data)), data)

    def sweep(self) -> Going:
        """The second step, for all marks there are: delete what they name, and them. What was deleted.

        Nothing is deleted before it is known what is needed, and that it is there.

        Raises:
            DamageError: a root, log entry, mark or index object, or something that a snapshot needs, is damaged or
                missing.
            NewerFormatError: one of them needs a newer version of the program.
            RollbackError: the storage shows an older or another past than this client saw.
            StorageError: the storage failed.
            CacheError: the cache or the client's state cannot be used.
        """
        marks = self._marks.standing()  # before all else: who logs a root later looks at these marks after that
        if not marks:
            return Going({}, frozenset(), frozenset())
        view = self._look()
        named = {id_ for mark in marks.values() for id_ in (*mark.abandoned_roots, *mark.forgotten_roots)}
        dead = {id_ for id_ in named if view.is_dead(id_)}
        packs = {pack for mark in marks.values() for pack in mark.packs} & view.packs.keys()
        if packs:
            self._contents.need({id_: root for id_, root in view.roots.items() if id_ not in dead}, packs)
        going = view.going(dead, packs)
        self._delete(root_name(id_) for id_ in sorted(going.forgotten.keys() | going.abandoned))
        if packs:
            self._contents.move_out(packs)
        self._delete(pack_name(pack) for pack in sorted(packs))
        left = self._roots.list_ids()
        self._delete(
            mark_name(id_)
            for id_, mark in marks.items()
            if left.isdisjoint(mark.abandoned_roots) and left.isdisjoint(mark.forgotten_roots)
        )
        return going

    def _incomplete(self, unlogged: Mapping[SnapshotId, Root]) -> set[SnapshotId]:
        """The unlogged roots of which something is missing: an earlier prune took it before their writers looked.

        They can never be logged as they are, and must not keep prunes from making room.
        """
        incomplete = set()
        for id_, root in sorted(unlogged.items()):
            try:
                self._contents.need({id_: root}, frozenset())
            except MissingError:
                incomplete.add(id_)
        return incomplete

    def _look(self) -> _View:
        """Look at roots, log, marks, packs and index, in this order."""
        roots = self._read_roots()
        self._log.refresh()
        if self._log.damage:
            raise self._log.damage[0]
        logged = {entry.root for entry in self._log.entries.values() if entry.kind == LogKind.COMMIT}
        forgotten = {snapshot.id for snapshot in self._log.snapshots() if snapshot.is_forgotten}
        condemned = self._marks.load()
        packs = {
            pack: stored.length
            for stored in self._storage.list("packs")
            if (pack := parse_pack_name(stored.name)) is not None
        }
        self._contents.look(packs, condemned.packs)
        return _View(roots, frozenset(logged), frozenset(forgotten), condemned, packs)

    def _read_roots(self) -> dict[SnapshotId, Root]:
        """All roots; of those listed, one that is gone when it is read was deleted by another prune."""
        listed = sorted(self._roots.list_ids())
        short = side_by_side(self._storage, self._try_to_read, listed, weigh=lambda _: SHORT_BYTES)
        read = {id_: root or self._roots.read(id_) for id_, root in zip(listed, short, strict=True)}
        gone = {id_: root for id_, root in read.items() if isinstance(root, MissingError)}
        if gone:
            left = self._roots.list_ids()
            for id_, error in gone.items():
                if id_ in left:
                    raise error
        return {id_: root for id_, root in read.items() if not isinstance(root, MissingError)}

    def _try_to_read(self, id_: SnapshotId) -> Root | MissingError | None:
        """A root; None for what is longer than most, or was changed, which is to be read by itself."""
        try:
            return self._roots.read(id_, SHORT_BYTES)
        except MissingError as error:
            return error
        except TamperedError:
            return None

    def _delete(self, names: Iterable[str]) -> None:
        for _ in side_by_side(self._storage, self._storage.delete, names, weigh=lambda _: 0):
            pass


def _is_abandoned(root: Root, view: _View, now_ns: int) -> bool:
    """Whether nobody will take up an unlogged root.

    Its owner has come further since, in the same run or in a later one, or has not come back.
    """
    if now_ns - root.ended_ns > _ABANDONED_AFTER_NS:
        return True
    return any(
        id_ in view.logged
        and (later.host, later.paths) == (root.host, root.paths)
        and later.started_ns >= root.started_ns
        for id_, later in view.roots.items()
    )
