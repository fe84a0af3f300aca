"""The log: order, what it says of each snapshot, what it refuses, and what it names as damaged."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from backthen.repository.catalog import Log, VolatileClient
from backthen.repository.catalog.log import order_entries
from backthen.repository.crypto import ObjectKind, seal_object
from backthen.repository.errors import MalformedError, MissingError, NewerFormatError, RollbackError, TamperedError
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.model.records import LogEntry, LogKind, encode_record
from backthen.repository.storage import StoredObject, log_name
from tests.support.catalog_records import KEYS, OTHER_CLIENT, put_entry, seal_entry
from tests.support.memory_storage import MemoryStorage


def _id(number: int) -> ObjectId:
    return ObjectId(hashlib.sha256(b"%d" % number).digest())


ROOTS = [SnapshotId(_id(number)) for number in range(4)]


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def log(storage: MemoryStorage) -> Log:
    return Log(storage, KEYS, VolatileClient())


def _shown(log: Log) -> list[SnapshotId]:
    log.refresh()
    return [snapshot.id for snapshot in log.snapshots() if not snapshot.is_forgotten]


def test_an_empty_log(log: Log) -> None:
    assert _shown(log) == []
    assert (log.heads(), log.damage) == ((), ())


def test_appended_entries_are_read_by_others_in_order(storage: MemoryStorage, log: Log) -> None:
    for number, root in enumerate(ROOTS):
        log.refresh()
        log.append(LogKind.COMMIT, root, 100 - number)
    assert _shown(log) == ROOTS
    other = Log(storage, KEYS, VolatileClient())
    assert _shown(other) == ROOTS
    assert sorted(entry.counter for entry in other.entries.values()) == [1, 2, 3, 4]
    assert len(other.heads()) == 1


def test_two_heads_are_ordered_by_time_then_id(storage: MemoryStorage, log: Log) -> None:
    first = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1, time_ns=50)
    put_entry(storage, LogKind.COMMIT, ROOTS[1], [first], counter=2, time_ns=9)
    put_entry(storage, LogKind.COMMIT, ROOTS[2], [first], counter=1, client=b"c" * 16, time_ns=8)
    assert _shown(log) == [ROOTS[0], ROOTS[2], ROOTS[1]]
    assert (len(log.heads()), log.damage) == (2, ())
    merged = log.append(LogKind.COMMIT, ROOTS[3], 1)
    assert log.heads() == (merged,)
    assert _shown(log)[-1] == ROOTS[3]


def test_the_order_is_that_of_a_plain_reference() -> None:
    rng = random.Random(3)
    for _ in range(200):
        entries: dict[ObjectId, LogEntry] = {}
        for number in range(rng.randrange(9)):
            heads = tuple(rng.sample(sorted(entries), rng.randint(0, min(3, len(entries)))))
            entries[_id(number)] = LogEntry(0, ROOTS[0], heads, OTHER_CLIENT, number + 1, rng.randrange(4))
        expected: list[ObjectId] = []
        while len(expected) < len(entries):
            ready = [id_ for id_ in entries if id_ not in expected and set(entries[id_].heads) <= set(expected)]
            expected.append(min(ready, key=lambda id_: (entries[id_].time_ns, id_)))
        assert order_entries(entries) == expected


def test_a_clock_that_lies_does_not_come_before_what_it_cites(storage: MemoryStorage, log: Log) -> None:
    first = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1, time_ns=10**18)
    put_entry(storage, LogKind.COMMIT, ROOTS[1], [first], counter=2, time_ns=1)
    assert _shown(log) == ROOTS[:2]


def test_forget_and_unforget(storage: MemoryStorage, log: Log) -> None:
    commit = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    one = put_entry(storage, LogKind.FORGET, ROOTS[0], [commit], counter=2)
    assert _shown(log) == []
    two = put_entry(storage, LogKind.FORGET, ROOTS[0], [commit], counter=3)
    put_entry(storage, LogKind.UNFORGET, ROOTS[0], [one, two], counter=4, detail=one)
    assert _shown(log) == []
    put_entry(storage, LogKind.UNFORGET, ROOTS[0], [one, two], counter=5, detail=two)
    assert _shown(log) == [ROOTS[0]]


def test_the_last_tags_and_keeps_count(storage: MemoryStorage, log: Log) -> None:
    last = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    for counter, (kind, detail) in enumerate(
        [(LogKind.TAG, ["a", "b"]), (LogKind.KEEP, True), (LogKind.TAG, []), (LogKind.TAG, ["z"])], 2
    ):
        last = put_entry(storage, kind, ROOTS[0], [last], counter=counter, detail=detail, time_ns=9 - counter)
    log.refresh()
    (snapshot,) = log.snapshots()
    assert (snapshot.tags, snapshot.is_kept, snapshot.is_forgotten) == (("z",), True, False)
    put_entry(storage, LogKind.KEEP, ROOTS[0], [last], counter=9, detail=False)
    log.refresh()
    assert not log.snapshots()[0].is_kept


def _entry_named(storage: MemoryStorage, id_: ObjectId) -> LogEntry:
    log = Log(storage, KEYS, VolatileClient())
    log.refresh()
    return log.entries[id_]


def test_a_checkpoint_stands_for_what_it_names_also_within_another(storage: MemoryStorage, log: Log) -> None:
    ids: list[ObjectId] = []
    for counter, root in enumerate(ROOTS[:3], 1):
        ids.append(put_entry(storage, LogKind.COMMIT, root, ids[-1:], counter=counter))
    assert _shown(log) == ROOTS[:3]
    entries = [(id_, _entry_named(storage, id_)) for id_ in ids[:2]]
    inner = put_entry(storage, LogKind.CHECKPOINT, ROOTS[0], ids[2:], counter=4, detail=entries)
    for id_, entry in entries:
        storage.delete(log_name(entry.root, id_))
    assert (_shown(log), log.damage) == (ROOTS[:3], ())
    entries = [(id_, _entry_named(storage, id_)) for id_ in (ids[2], inner)]
    put_entry(storage, LogKind.CHECKPOINT, ROOTS[0], [inner], counter=5, detail=entries)
    for id_, entry in entries:
        storage.delete(log_name(entry.root, id_))
    assert (_shown(log), log.damage) == (ROOTS[:3], ())
    fresh = Log(storage, KEYS, VolatileClient())
    assert (_shown(fresh), fresh.damage) == (ROOTS[:3], ())


def test_entries_are_read_once(storage: MemoryStorage, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    log.refresh()
    generation = log.generation
    read: list[str] = []
    get = storage.get

    def count(name: str, offset: int = 0, length: int | None = None) -> bytes:
        read.append(name)
        return get(name, offset, length)

    monkeypatch.setattr(storage, "get", count)
    log.refresh()
    assert (read, log.generation) == ([], generation)
    put_entry(storage, LogKind.COMMIT, ROOTS[1], counter=2)
    log.refresh()
    assert (len(read), log.generation) == (1, generation + 1)


def test_a_missing_cited_entry_is_named_and_the_rest_stays(storage: MemoryStorage, log: Log) -> None:
    first = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    put_entry(storage, LogKind.COMMIT, ROOTS[1], [first], counter=2)
    storage.delete(log_name(ROOTS[0], first))
    assert _shown(log) == [ROOTS[1]]
    (damage,) = log.damage
    assert isinstance(damage, MissingError)
    assert first.hex() in str(damage)


class Lagging(MemoryStorage):
    """A storage whose first listing lacks one entry, as one made while entries are put can."""

    hidden: str = ""
    listings = 0

    def list(self, folder: str) -> Iterator[StoredObject]:
        self.listings += folder == "log"
        found = super().list(folder)
        return (stored for stored in found if stored.name != self.hidden or self.listings > 1)


def test_what_a_listing_lacks_is_looked_for_again() -> None:
    storage = Lagging()
    first = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    put_entry(storage, LogKind.COMMIT, ROOTS[1], [first], counter=2)
    storage.hidden = log_name(ROOTS[0], first)
    log = Log(storage, KEYS, VolatileClient())
    assert (_shown(log), log.damage, storage.listings) == (ROOTS[:2], (), 2)


def test_two_entries_with_one_counter_are_named(storage: MemoryStorage, log: Log) -> None:
    first = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    put_entry(storage, LogKind.COMMIT, ROOTS[1], [first], counter=1)
    assert _shown(log) == ROOTS[:2]
    (damage,) = log.damage
    assert isinstance(damage, MalformedError)
    assert "client and counter" in str(damage)


def _flip(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 1]) + data[61:]


def test_every_change_to_an_entry_is_noticed(storage: MemoryStorage) -> None:
    name, data = seal_entry(LogEntry(0, ROOTS[0], (), OTHER_CLIENT, 1, 0))
    other_name, other = seal_entry(LogEntry(0, ROOTS[1], (), OTHER_CLIENT, 2, 0))
    foreign = seal_object(KEYS, ObjectKind.ROOT, encode_record(LogEntry(0, ROOTS[0], (), OTHER_CLIENT, 1, 0)))
    rng = random.Random(1)
    for bad in (_flip(data), data[:-1], data + b"\0", b"", other, foreign, rng.randbytes(1024)):
        storage = MemoryStorage()
        storage.put(other_name, other)
        storage.tamper(name, bad)
        log = Log(storage, KEYS, VolatileClient())
        assert _shown(log) == [ROOTS[1]]
        assert [(type(damage), damage.name) for damage in log.damage] == [(TamperedError, name)]


def test_an_entry_under_the_name_of_another_root_is_noticed(storage: MemoryStorage, log: Log) -> None:
    name, data = seal_entry(LogEntry(0, ROOTS[0], (), OTHER_CLIENT, 1, 0))
    storage.put(name, data)
    swapped = log_name(ROOTS[1], ObjectId(bytes.fromhex(name[-64:])))
    storage.put(swapped, data)
    assert _shown(log) == [ROOTS[0]]
    assert [(type(damage), damage.name) for damage in log.damage] == [(TamperedError, swapped)]


@pytest.mark.parametrize(
    "entry",
    [
        LogEntry(0, SnapshotId(ObjectId(bytes(32))), (ObjectId(b"short"),), OTHER_CLIENT, 1, 0),
        LogEntry(0, SnapshotId(ObjectId(bytes(32))), (), b"short", 1, 0),
        LogEntry(0, SnapshotId(ObjectId(bytes(32))), (), OTHER_CLIENT, 0, 0),
        LogEntry(LogKind.TAG, SnapshotId(ObjectId(bytes(32))), (), OTHER_CLIENT, 1, 0),
        LogEntry(LogKind.KEEP, SnapshotId(ObjectId(bytes(32))), (), OTHER_CLIENT, 1, 0),
        LogEntry(LogKind.UNFORGET, SnapshotId(ObjectId(bytes(32))), (), OTHER_CLIENT, 1, 0),
        LogEntry(LogKind.CHECKPOINT, SnapshotId(ObjectId(bytes(32))), (), OTHER_CLIENT, 1, 0),
    ],
)
def test_authentic_nonsense_is_malformed(storage: MemoryStorage, log: Log, entry: LogEntry) -> None:
    name, data = seal_entry(entry)
    storage.put(name, data)
    assert _shown(log) == []
    assert [(type(damage), damage.name) for damage in log.damage] == [(MalformedError, name)]


def test_a_checkpoint_that_disagrees_with_an_entry_is_malformed(storage: MemoryStorage, log: Log) -> None:
    first = put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    other = LogEntry(0, ROOTS[1], (), OTHER_CLIENT, 7, 0)
    put_entry(storage, LogKind.CHECKPOINT, ROOTS[0], [first], counter=2, detail=[(first, other)])
    assert _shown(log) == [ROOTS[0]]
    assert [type(damage) for damage in log.damage] == [MalformedError]


def test_entries_in_a_circle_are_malformed(storage: MemoryStorage, log: Log) -> None:
    circle = [
        (_id(number), LogEntry(0, ROOTS[0], (_id(1 - number),), OTHER_CLIENT, number + 1, 0)) for number in (0, 1)
    ]
    put_entry(storage, LogKind.CHECKPOINT, ROOTS[0], counter=3, detail=circle)
    log.refresh()
    assert "circle" in str(log.damage[0])


def test_a_kind_of_a_newer_version_is_refused(storage: MemoryStorage, log: Log) -> None:
    put_entry(storage, 6, ROOTS[0], counter=1)
    with pytest.raises(NewerFormatError):
        log.refresh()
    with pytest.raises(NewerFormatError):
        log.refresh()


def test_foreign_names_are_ignored(storage: MemoryStorage, log: Log) -> None:
    storage.tamper("log/readme", b"")
    put_entry(storage, LogKind.COMMIT, ROOTS[0], counter=1)
    assert (_shown(log), log.damage) == ([ROOTS[0]], ())


def _chain(storage: MemoryStorage, count: int) -> list[ObjectId]:
    ids: list[ObjectId] = []
    for counter, root in enumerate(ROOTS[:count], 1):
        ids.append(put_entry(storage, LogKind.COMMIT, root, ids[-1:], counter=counter))
    return ids


@pytest.mark.parametrize("deleted", [[2], [1, 2], [0, 1, 2]])
def test_a_log_that_lost_what_was_seen_is_refused(storage: MemoryStorage, deleted: list[int]) -> None:
    client = VolatileClient()
    ids = _chain(storage, 3)
    assert _shown(Log(storage, KEYS, client)) == ROOTS[:3]
    assert client.pinned() == {log_name(ROOTS[2], ids[2])}
    for number in deleted:
        storage.delete(log_name(ROOTS[number], ids[number]))
    with pytest.raises(RollbackError) as caught:
        Log(storage, KEYS, client).refresh()
    assert log_name(ROOTS[2], ids[2]) in str(caught.value)
    assert client.place in caught.value.hint
    assert _shown(Log(storage, KEYS, VolatileClient())) == ROOTS[: deleted[0]]


def test_a_rollback_under_a_running_program_is_refused_again_and_again(storage: MemoryStorage, log: Log) -> None:
    ids = _chain(storage, 2)
    assert _shown(log) == ROOTS[:2]
    data = storage.get(log_name(ROOTS[1], ids[1]))
    storage.delete(log_name(ROOTS[1], ids[1]))
    for _ in range(2):
        with pytest.raises(RollbackError):
            log.refresh()
    storage.put(log_name(ROOTS[1], ids[1]), data)
    assert _shown(log) == ROOTS[:2]


def test_a_pin_is_not_lost_to_damage(storage: MemoryStorage) -> None:
    client = VolatileClient()
    ids = _chain(storage, 2)
    Log(storage, KEYS, client).refresh()
    pinned = client.pinned()
    storage.tamper(log_name(ROOTS[1], ids[1]), b"damaged")
    log = Log(storage, KEYS, client)
    assert _shown(log) == [ROOTS[0]]
    assert client.pinned() == pinned


def test_own_entries_are_pinned_in_place_of_those_they_cite(storage: MemoryStorage) -> None:
    client = VolatileClient()
    log = Log(storage, KEYS, client)
    _chain(storage, 2)
    log.refresh()
    id_ = log.append(LogKind.COMMIT, ROOTS[2], 0)
    log.pin(id_)
    assert client.pinned() == {log_name(ROOTS[2], id_)}


def test_every_interleaving_of_two_readers_keeps_the_newest_pin(storage: MemoryStorage) -> None:
    """Two programs of one client: one has seen more, whoever pins last."""
    for first in (0, 1):
        storage = MemoryStorage()
        client = VolatileClient()
        ids = _chain(storage, 1)
        behind = Log(storage, KEYS, client)
        behind.refresh()
        newest = put_entry(storage, LogKind.COMMIT, ROOTS[1], ids, counter=2)
        ahead = Log(storage, KEYS, client)
        ahead.refresh()
        heads = {log_name(ROOTS[0], ids[0])}
        for turn in (first, 1 - first):
            if turn:
                client.pin(heads, superseded=set())
            else:
                ahead.refresh()
        assert log_name(ROOTS[1], newest) in client.pinned()
