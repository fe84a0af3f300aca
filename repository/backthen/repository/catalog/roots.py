"""Roots read from storage, each once, and the snapshots that the log makes of them (FORMAT.md, sections 9 and 12)."""

from __future__ import annotations

from dataclasses import dataclass

from backthen.repository import format as fmt
from backthen.repository.catalog.reading import read_record
from backthen.repository.crypto import ObjectKind, RepositoryKeys, object_id, seal_object
from backthen.repository.errors import DamageError, MalformedError, MissingError, ObjectMissing, TamperedError
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.model.entry import EntryType
from backthen.repository.model.records import Root, encode_record
from backthen.repository.storage import Storage, parse_root_name, root_name

SHORT_BYTES = fmt.MIB // 4
"""Roots of so many bytes at most are read side by side, as nearly all are: no listing is asked how long they are."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot. `tags` are what the log says now; `order` is its place among all snapshots by the log, from 0.

    No rule of retention forgets one that `is_kept`.
    """

    id: SnapshotId
    root: Root
    tags: tuple[str, ...]
    order: int
    entry_id: ObjectId
    is_kept: bool = False

    @property
    def host(self) -> str:
        """The host it is of."""
        return self.root.host

    @property
    def paths(self) -> tuple[bytes, ...]:
        """The paths that were saved, absolute and sorted."""
        return self.root.paths

    @property
    def started_ns(self) -> int:
        """When it was begun."""
        return self.root.started_ns


@dataclass(frozen=True, slots=True)
class UnloggedRoot:
    """The root of a run that did not come to its end. It shows nothing, and vouches for nothing."""

    id: SnapshotId
    root: Root


class Roots:
    """The roots of a repository; each is read once. Safe to use from several threads."""

    def __init__(self, storage: Storage, keys: RepositoryKeys) -> None:
        """Read from `storage`; nothing is read yet."""
        self._storage = storage
        self._keys = keys
        self._known: dict[SnapshotId, Root] = {}

    def list_ids(self) -> set[SnapshotId]:
        """The roots in storage now.

        Raises:
            StorageError: the storage failed.
        """
        names = (stored.name for stored in self._storage.list("roots"))
        return {id_ for name in names if (id_ := parse_root_name(name)) is not None}

    def read(self, id_: SnapshotId, length_max: int = fmt.PAYLOAD_BYTES_MAX) -> Root:
        """One root, of so many bytes at most.

        Raises:
            MissingError: it is gone.
            TamperedError, MalformedError: it was damaged or changed.
            NewerFormatError: it needs a newer version of the program.
            StorageError: the storage failed.
        """
        root = self._known.get(id_)
        if root is None:
            name = root_name(id_)
            try:
                root = read_record(self._storage, self._keys, ObjectKind.ROOT, name, id_, Root, length_max)
            except ObjectMissing as error:
                raise MissingError("it is gone", name=name) from error
            if root.top.type != EntryType.DIRECTORY:
                raise MalformedError("its top is not a directory", name=name)
            self._known[id_] = root
        return root

    def read_short(self, id_: SnapshotId) -> Root | DamageError | None:
        """As `read_logged`; None for what has more than `SHORT_BYTES`, or was changed: that is to be read by itself.

        Raises:
            NewerFormatError: it needs a newer version of the program.
            StorageError: the storage failed.
        """
        found = self.read_logged(id_, SHORT_BYTES)
        return None if isinstance(found, TamperedError) else found

    def read_logged(self, id_: SnapshotId, length_max: int = fmt.PAYLOAD_BYTES_MAX) -> Root | DamageError:
        """The root of a snapshot, or what is wrong with it.

        Raises:
            NewerFormatError: it needs a newer version of the program.
            StorageError: the storage failed.
        """
        try:
            root = self.read(id_, length_max)
        except DamageError as error:
            return error
        if root.partial:
            return MalformedError("the log shows the root of an unfinished run", name=root_name(id_))
        return root


def put_root(storage: Storage, keys: RepositoryKeys, root: Root) -> SnapshotId:
    """Put a root; it protects its data from now on, and shows nothing before it is logged.

    Raises:
        StorageError: the storage failed.
    """
    data = seal_object(keys, ObjectKind.ROOT, encode_record(root))
    id_ = SnapshotId(object_id(data))
    storage.put(root_name(id_), data)
    return id_
