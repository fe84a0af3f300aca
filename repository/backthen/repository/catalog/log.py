"""The hash-linked log: which roots are snapshots, in which order, and what was done to them (FORMAT.md, section 10).

Entries are read once and kept. What is wrong with single entries is collected, so that the others stay usable; a log
that has lost what this client saw is refused as a whole.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from backthen.repository import format as fmt
from backthen.repository.catalog.client import CLIENT_BYTES, ClientMemory
from backthen.repository.catalog.reading import read_record
from backthen.repository.crypto import ObjectKind, RepositoryKeys, object_id, seal_object
from backthen.repository.errors import (
    DamageError,
    MalformedError,
    MissingError,
    NewerFormatError,
    ObjectMissing,
    RollbackError,
    TamperedError,
)
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.model.records import LogEntry, LogKind, encode_record
from backthen.repository.storage import Storage, log_name, parse_log_name, side_by_side

_NAMES_SHOWN_MAX = 3
_KINDS = frozenset(LogKind)

Entries = dict[ObjectId, LogEntry]


@dataclass(frozen=True, slots=True)
class LoggedSnapshot:
    """What the log says of one root. `tags` is None when no entry has changed those of the root."""

    id: SnapshotId
    entry_id: ObjectId
    tags: tuple[str, ...] | None = None
    is_forgotten: bool = False
    is_kept: bool = False


class Log:
    """The log of a repository as far as it was read. Not safe to use from several threads.

    Attributes:
        entries: all entries that are present, also those that only a checkpoint holds.
        damage: what is wrong with single entries.
        generation: rises whenever the entries changed.
    """

    def __init__(self, storage: Storage, keys: RepositoryKeys, client: ClientMemory) -> None:
        """Read from `storage`; nothing is read yet."""
        self._storage = storage
        self._keys = keys
        self._client = client
        self._listed: frozenset[str] = frozenset()
        self._stored: dict[str, LogEntry] = {}
        self._unreadable: dict[str, DamageError] = {}
        self._order: list[ObjectId] = []
        self.entries: Entries = {}
        self.damage: tuple[DamageError, ...] = ()
        self.generation = 0

    def refresh(self) -> None:
        """Read what is new.

        What is missing is looked for once more: a listing may show an entry and not yet the one it cites, or no more
        what a checkpoint replaced.

        Raises:
            RollbackError: what this client saw is gone.
            NewerFormatError: an entry needs a newer version of the program.
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        pinned = self._client.pinned()  # read first: what is pinned later may be put after the listing
        self._read_listing()
        if self._is_incomplete(pinned):
            self._read_listing()
        self._check_pinned(pinned)
        if not self.damage:
            heads = {self._name(id_) for id_ in self.heads()}
            if heads != pinned:
                self._client.pin(heads, superseded={self._name(id_) for id_ in self.entries} - heads)

    def heads(self) -> tuple[ObjectId, ...]:
        """The entries that no other entry cites, sorted."""
        cited = {id_ for entry in self.entries.values() for id_ in entry.heads}
        return tuple(sorted(self.entries.keys() - cited))

    def snapshots(self) -> list[LoggedSnapshot]:
        """All committed roots in the order of the log, the forgotten ones too."""
        return _replay(self.entries, self._order)

    def append(self, kind: LogKind, root: SnapshotId, time_ns: int) -> ObjectId:
        """Put an entry that cites all heads known now; its id.

        Raises:
            StorageError: the storage failed.
            CacheError: the client's state cannot be read.
        """
        heads = self.heads()
        author = self._client.draw(self._counters())
        entry = LogEntry(kind, root, heads, author.client, author.counter, time_ns)
        data = seal_object(self._keys, ObjectKind.LOG, encode_record(entry))
        id_ = object_id(data)
        name = log_name(root, id_)
        self._storage.put(name, data)
        self._listed |= {name}
        self._stored[name] = entry
        self.entries[id_] = entry
        self._order.append(id_)  # it cites all heads, so nothing can come after it
        self.generation += 1
        return id_

    def pin(self, entry: ObjectId) -> None:
        """Remember an entry of this client's own in place of those it cites.

        Raises:
            CacheError: the client's state cannot be read.
        """
        cited = {self._name(id_) for id_ in self.entries[entry].heads}
        self._client.pin({self._name(entry)}, superseded=cited)

    def _name(self, id_: ObjectId) -> str:
        return log_name(self.entries[id_].root, id_)

    def _counters(self) -> dict[bytes, int]:
        """The highest counter of each client."""
        counters: dict[bytes, int] = {}
        for entry in self.entries.values():
            counters[entry.client] = max(entry.counter, counters.get(entry.client, 0))
        return counters

    def _read_listing(self) -> None:
        """Bring the entries up to a new listing, where it differs from the last or that had gaps."""
        lengths = {stored.name: stored.length for stored in self._storage.list("log")}
        listed = frozenset(lengths)
        if listed == self._listed and not any(isinstance(error, MissingError) for error in self._unreadable.values()):
            return
        self._listed = frozenset()  # until all of it is read, should reading fail
        self._stored = {name: entry for name, entry in self._stored.items() if name in listed}
        self._unreadable = {}
        new = sorted(name for name in listed - self._stored.keys() if parse_log_name(name))

        def read(name: str) -> LogEntry | DamageError:
            return self._try_to_read(name, lengths[name])

        read_all = side_by_side(self._storage, read, new, weigh=lengths.__getitem__)
        for name, entry in zip(new, read_all, strict=True):
            if isinstance(entry, DamageError):
                self._unreadable[name] = entry
            else:
                self._stored[name] = entry
        self.entries = {_entry_id(name): entry for name, entry in self._stored.items()}
        self._take_checkpoints()
        self._order = order_entries(self.entries)
        self.damage = tuple(self._find_damage())
        self.generation += 1
        self._listed = listed

    def _try_to_read(self, name: str, length: int) -> LogEntry | DamageError:
        try:
            return self._read(name, length)
        except ObjectMissing:
            return MissingError("it is listed but not there", name=name)
        except DamageError as error:
            return error

    def _read(self, name: str, length: int) -> LogEntry:
        entry = read_record(self._storage, self._keys, ObjectKind.LOG, name, _entry_id(name), LogEntry, length)
        _check_entry(entry, name)
        if log_name(entry.root, _entry_id(name)) != name:
            raise TamperedError("it is about another snapshot than its name says", name=name)
        return entry

    def _take_checkpoints(self) -> None:
        """Add the entries that checkpoints stand for, and those that checkpoints among them stand for."""
        waiting = [(name, entry) for name, entry in self._stored.items() if entry.kind == LogKind.CHECKPOINT]
        while waiting:
            name, checkpoint = waiting.pop()
            try:
                replaced = _decode_checkpoint(checkpoint, name)
            except MalformedError as error:
                self._unreadable[name] = error
                continue
            for id_, entry in replaced.items():
                if self.entries.setdefault(id_, entry) != entry:
                    self._unreadable[name] = MalformedError("it disagrees with an entry it stands for", name=name)
                elif entry.kind == LogKind.CHECKPOINT:
                    waiting.append((name, entry))

    def _missing(self) -> dict[ObjectId, str]:
        """The entries that are cited but not there, each with the name of one that cites it."""
        known = self.entries.keys() | {_entry_id(name) for name in self._unreadable}
        cited = {id_: log_name(entry.root, by) for by, entry in self.entries.items() for id_ in entry.heads}
        return {id_: name for id_, name in cited.items() if id_ not in known}

    def _lost(self, pinned: Collection[str]) -> list[str]:
        return sorted(name for name in pinned if _entry_id(name) not in self.entries and name not in self._unreadable)

    def _is_incomplete(self, pinned: Collection[str]) -> bool:
        vanished = any(isinstance(error, MissingError) for error in self._unreadable.values())
        return vanished or bool(self._missing()) or bool(self._lost(pinned))

    def _check_pinned(self, pinned: Collection[str]) -> None:
        """Refuse a log that has lost what this client saw.

        Raises:
            RollbackError: it has.
        """
        lost = self._lost(pinned)
        if lost:
            more = f" and {len(lost) - _NAMES_SHOWN_MAX} more" if len(lost) > _NAMES_SHOWN_MAX else ""
            raise RollbackError(
                f"the storage shows an older or another past than this machine has seen before: it has lost "
                f"{', '.join(lost[:_NAMES_SHOWN_MAX])}{more}",
                hint="Somebody put back an old copy of the repository, or removed snapshots from it. Find out who and "
                f"why; to go on with what is there now, remove {self._client.place}.",
            )

    def _find_damage(self) -> Iterable[DamageError]:
        yield from (self._unreadable[name] for name in sorted(self._unreadable))
        for id_, name in sorted(self._missing().items()):
            yield MissingError(f"the log entry {id_.hex()} that it cites is missing", name=name)
        if len(self._order) < len(self.entries):
            yield MalformedError("entries cite each other in a circle", name="log")
        authors: dict[tuple[bytes, int], ObjectId] = {}
        for id_ in sorted(self.entries):
            entry = self.entries[id_]
            other = authors.setdefault((entry.client, entry.counter), id_)
            if other != id_:
                yield MalformedError(
                    f"it has client and counter of another entry, {self._name(other)}",
                    name=self._name(id_),
                    hint="Two machines may have worked with copies of one state folder.",
                )


def order_entries(entries: Entries) -> list[ObjectId]:
    """The order of the log: after all they cite, and among those that could come next the smallest (time, id) first."""
    waiting = {id_: sum(cited in entries for cited in set(entry.heads)) for id_, entry in entries.items()}
    citing: dict[ObjectId, list[ObjectId]] = {}
    for id_, entry in entries.items():
        for cited in set(entry.heads):
            citing.setdefault(cited, []).append(id_)
    ready = [(entries[id_].time_ns, id_) for id_, count in waiting.items() if not count]
    heapq.heapify(ready)
    ordered: list[ObjectId] = []
    while ready:
        _, id_ = heapq.heappop(ready)
        ordered.append(id_)
        for later in citing.get(id_, ()):
            waiting[later] -= 1
            if not waiting[later]:
                heapq.heappush(ready, (entries[later].time_ns, later))
    return ordered


def _replay(entries: Entries, order: list[ObjectId]) -> list[LoggedSnapshot]:
    """What the entries, in this order, say of each root."""
    found: dict[SnapshotId, LoggedSnapshot] = {}
    forgets: dict[ObjectId, SnapshotId] = {}
    answered: set[bytes] = set()
    for id_ in order:
        entry = entries[id_]
        detail = _decode_detail(entry)
        if entry.kind == LogKind.COMMIT:
            found.setdefault(entry.root, LoggedSnapshot(entry.root, id_))
        elif entry.kind == LogKind.FORGET:
            forgets[id_] = entry.root
        elif isinstance(detail, bytes):
            answered.add(detail)
        elif entry.root in found and isinstance(detail, bool):
            found[entry.root] = dataclasses.replace(found[entry.root], is_kept=detail)
        elif entry.root in found and isinstance(detail, tuple):
            found[entry.root] = dataclasses.replace(found[entry.root], tags=detail)
    forgotten = {root for id_, root in forgets.items() if id_ not in answered}
    for root in forgotten & found.keys():
        found[root] = dataclasses.replace(found[root], is_forgotten=True)
    return list(found.values())


def _decode_detail(entry: LogEntry) -> bytes | bool | tuple[str, ...] | None:
    """The detail of an entry: the entry an unforget answers, whether to keep, or tags.

    Raises:
        msgspec.MsgspecError: it does not follow the format.
    """
    if entry.kind == LogKind.UNFORGET:
        return msgspec.msgpack.decode(entry.detail, type=bytes)
    if entry.kind == LogKind.KEEP:
        return msgspec.msgpack.decode(entry.detail, type=bool)
    if entry.kind == LogKind.TAG:
        return msgspec.msgpack.decode(entry.detail, type=tuple[str, ...])
    return None


def _decode_checkpoint(checkpoint: LogEntry, name: str) -> Entries:
    """The entries that a checkpoint stands for.

    Raises:
        MalformedError: they do not follow the format.
        NewerFormatError: one of them needs a newer version of the program.
    """
    try:
        replaced = msgspec.msgpack.decode(checkpoint.detail, type=tuple[tuple[ObjectId, LogEntry], ...])
    except msgspec.MsgspecError as error:
        raise MalformedError(f"its list of entries cannot be decoded ({error})", name=name) from error
    for id_, entry in replaced:
        _check_lengths((id_,), name)
        _check_entry(entry, name)
    return dict(replaced)


def _check_entry(entry: LogEntry, name: str) -> None:
    """Hold the fields of an entry against the format.

    Raises:
        MalformedError: they do not follow it.
        NewerFormatError: the entry is of a kind that this version does not know.
    """
    if entry.kind not in _KINDS:
        raise NewerFormatError(
            f"{name} was made by a newer version of Backthen", hint="Update Backthen on this machine and try again."
        )
    _check_lengths((entry.root, *entry.heads), name)
    if len(entry.client) != CLIENT_BYTES or entry.counter < 1:
        raise MalformedError("its client is not one", name=name)
    try:
        _decode_detail(entry)
    except msgspec.MsgspecError as error:
        raise MalformedError(f"its detail cannot be decoded ({error})", name=name) from error


def _check_lengths(ids: Iterable[bytes], name: str) -> None:
    if any(len(id_) != fmt.ID_BYTES for id_ in ids):
        raise MalformedError("an id in it has the wrong length", name=name)


def _entry_id(name: str) -> ObjectId:
    """The id in the name of a log entry that is known to be one."""
    parsed = parse_log_name(name)
    assert parsed is not None
    return parsed[1]
