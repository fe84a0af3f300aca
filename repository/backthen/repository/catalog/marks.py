"""What prunes have condemned (FORMAT.md, section 11): for every writer it is gone from the moment a mark names it."""

from __future__ import annotations

from dataclasses import dataclass

from backthen.repository.catalog.reading import read_record
from backthen.repository.crypto import ObjectKind, RepositoryKeys
from backthen.repository.errors import MissingError, ObjectMissing
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.records import Mark
from backthen.repository.storage import Storage, mark_name, parse_mark_name, side_by_side


@dataclass(frozen=True, slots=True)
class Condemned:
    """Packs and roots that some mark names."""

    packs: frozenset[PackId]
    roots: frozenset[SnapshotId]


class Marks:
    """The marks of a repository; each is read once. Not safe to use from several threads."""

    def __init__(self, storage: Storage, keys: RepositoryKeys) -> None:
        """Read from `storage`; nothing is read yet."""
        self._storage = storage
        self._keys = keys
        self._known: dict[ObjectId, Mark] = {}
        self._packs: set[PackId] = set()
        self._roots: set[SnapshotId] = set()

    def load(self) -> Condemned:
        """Everything that the marks in storage name now, or that this object has seen named before.

        A mark that is gone when it is read did its work: all it names was gone before, and no later listing shows it.

        Raises:
            MissingError: a mark is listed but cannot be had.
            TamperedError, MalformedError: a mark was damaged or changed.
            NewerFormatError: a mark needs a newer version of the program.
            StorageError: the storage failed.
        """
        self.standing()
        return Condemned(frozenset(self._packs), frozenset(self._roots))

    def standing(self) -> dict[ObjectId, Mark]:
        """The marks in storage now.

        Raises:
            MissingError: a mark is listed but cannot be had.
            TamperedError, MalformedError: a mark was damaged or changed.
            NewerFormatError: a mark needs a newer version of the program.
            StorageError: the storage failed.
        """
        listed = self._list()
        vanished = self._read_new(listed)
        if vanished:
            listed = self._list()
            if still := vanished & self._read_new(listed):
                raise MissingError("it is listed but not there", name=mark_name(min(still)))
        return {id_: self._known[id_] for id_ in listed if id_ in self._known}

    def _list(self) -> dict[ObjectId, int]:
        """The marks that are listed, with their lengths in bytes."""
        listed = ((parse_mark_name(stored.name), stored.length) for stored in self._storage.list("marks"))
        return {id_: length for id_, length in listed if id_ is not None}

    def _read_new(self, listed: dict[ObjectId, int]) -> set[ObjectId]:
        """Read the marks not known yet; those that were gone."""
        new = sorted(listed.keys() - self._known.keys())

        def read(id_: ObjectId) -> Mark | None:
            return self._read(id_, listed[id_])

        vanished = set()
        for id_, mark in zip(new, side_by_side(self._storage, read, new, weigh=listed.__getitem__), strict=True):
            if mark is None:
                vanished.add(id_)
                continue
            self._packs.update(mark.packs)
            self._roots.update(mark.abandoned_roots, mark.forgotten_roots)
            self._known[id_] = mark
        return vanished

    def _read(self, id_: ObjectId, length: int) -> Mark | None:
        try:
            return read_record(self._storage, self._keys, ObjectKind.MARK, mark_name(id_), id_, Mark, length)
        except ObjectMissing:
            return None
