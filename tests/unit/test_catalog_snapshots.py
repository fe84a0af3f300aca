"""Snapshots as the catalog shows them, what unfinished runs leave, and each step of a commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from typing_extensions import Buffer

from backthen.repository.catalog import Again, Catalog, Committed, VolatileClient
from backthen.repository.crypto import ObjectKind, object_id, seal_object
from backthen.repository.errors import MalformedError, MissingError, RollbackError, StorageError, TamperedError
from backthen.repository.ids import ObjectId, PackId, SnapshotId
from backthen.repository.model.entry import Entry, EntryType
from backthen.repository.model.records import LogKind, Root
from backthen.repository.storage import StoredObject, log_name, mark_name, parse_root_name, root_name
from tests.support.catalog_records import KEYS, make_root, put_entry, put_mark, put_pack, put_root
from tests.support.memory_storage import MemoryStorage


class Recording(MemoryStorage):
    """Remembers what was asked of it, and lets a test do something before an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.before: dict[tuple[str, int], Callable[[], object]] = {}

    def _note(self, what: str) -> None:
        self.asked.append(what)
        action = self.before.pop((what, self.asked.count(what)), None)
        if action is not None:
            action()

    def put(self, name: str, data: Buffer) -> None:
        """See `Storage.put`."""
        self._note(f"put {name.split('/')[0]}")
        super().put(name, data)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Storage.get`."""
        self._note(f"get {name.split('/')[0]}")
        return super().get(name, offset, length)

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        self._note(f"list {folder}")
        return super().list(folder)

    def reset(self) -> None:
        """Forget what was asked."""
        self.asked.clear()


@pytest.fixture
def storage() -> Recording:
    return Recording()


@pytest.fixture
def catalog(storage: Recording) -> Catalog:
    return Catalog(storage, KEYS, VolatileClient())


def _commit(catalog: Catalog, root: Root, relied: frozenset[PackId] = frozenset()) -> SnapshotId:
    outcome = catalog.commit(root, relied, time_ns=root.started_ns)
    assert isinstance(outcome, Committed)
    return outcome.id


def _ids(catalog: Catalog) -> list[SnapshotId]:
    return [info.id for info in catalog.snapshots()]


def test_snapshots_are_shown_in_the_order_of_the_log(storage: Recording, catalog: Catalog) -> None:
    ids = [_commit(catalog, make_root(number)) for number in (5, 3, 9)]
    other = Catalog(storage, KEYS, VolatileClient())
    infos = other.snapshots()
    assert [info.id for info in infos] == ids
    assert [(info.order, info.started_ns, info.host, info.paths, info.tags) for info in infos] == [
        (order, number * 10**9, "host", (b"/home",), ("tag",)) for order, number in enumerate((5, 3, 9))
    ]
    assert [log_name(info.id, info.entry_id) in {s.name for s in storage.list("log")} for info in infos] == [True] * 3
    assert _ids(catalog) == ids


def test_only_what_is_new_is_read(storage: Recording, catalog: Catalog) -> None:
    other = Catalog(storage, KEYS, VolatileClient())
    _commit(other, make_root(1))
    catalog.snapshots()
    storage.reset()
    catalog.snapshots()
    assert storage.asked == ["list log"]
    _commit(other, make_root(2))
    storage.reset()
    assert len(catalog.snapshots()) == 2
    assert storage.asked == ["list log", "get log", "get roots"]


def test_forgotten_and_tagged(storage: Recording, catalog: Catalog) -> None:
    first, second = _commit(catalog, make_root(1)), _commit(catalog, make_root(2))
    entry_id = catalog.snapshots()[-1].entry_id
    put_entry(storage, LogKind.FORGET, first, [entry_id], counter=1)
    put_entry(storage, LogKind.TAG, second, [entry_id], counter=2, detail=["new"])
    (info,) = catalog.snapshots()
    assert (info.id, info.tags, info.order) == (second, ("new",), 0)


def test_a_lost_or_damaged_root_leaves_the_others(storage: Recording) -> None:
    catalog = Catalog(storage, KEYS, VolatileClient())
    ids = [_commit(catalog, make_root(number)) for number in range(5)]
    name = [root_name(id_) for id_ in ids]
    storage.delete(name[0])
    storage.tamper(name[1], b"x" * 1024)
    data = storage.get(name[2])
    storage.tamper(name[2], data[:100] + b"!" + data[101:])
    storage.tamper(name[3], storage.get(name[4]))
    fresh = Catalog(storage, KEYS, VolatileClient())
    assert _ids(fresh) == [ids[4]]
    assert fresh.snapshots()[0].order == 0
    assert [(type(damage), damage.name) for damage in fresh.damage] == [
        (MissingError, name[0]),
        (TamperedError, name[1]),
        (TamperedError, name[2]),
        (TamperedError, name[3]),
    ]
    storage.reset()
    fresh.snapshots()
    assert storage.asked == ["list log"]


def test_an_object_of_another_kind_is_no_root(storage: Recording, catalog: Catalog) -> None:
    mark_bytes = seal_object(KEYS, ObjectKind.MARK, b"\x90")
    id_ = SnapshotId(object_id(mark_bytes))
    storage.put(root_name(id_), mark_bytes)
    put_entry(storage, LogKind.COMMIT, id_, counter=1)
    assert _ids(catalog) == []
    assert [type(damage) for damage in catalog.damage] == [MalformedError]


@pytest.mark.parametrize("root", [make_root(partial=True), make_root(top=Entry(b"", EntryType.FILE))])
def test_a_logged_root_that_cannot_be_one_is_named(storage: Recording, catalog: Catalog, root: Root) -> None:
    id_ = put_root(storage, root)
    put_entry(storage, LogKind.COMMIT, id_, counter=1)
    assert _ids(catalog) == []
    assert [(type(damage), damage.name) for damage in catalog.damage] == [(MalformedError, root_name(id_))]


def test_a_snapshot_pruned_while_it_was_being_read_is_no_damage(storage: Recording, catalog: Catalog) -> None:
    writer = Catalog(storage, KEYS, VolatileClient())
    id_ = _commit(writer, make_root(1))
    (entry_id,) = [info.entry_id for info in writer.snapshots()]

    def forget_and_prune() -> None:
        put_entry(storage, LogKind.FORGET, id_, [entry_id], counter=1)
        storage.delete(root_name(id_))

    storage.reset()
    storage.before[("get roots", 1)] = forget_and_prune
    assert (_ids(catalog), catalog.damage) == ([], ())


def test_a_storage_failure_half_way_is_made_good_by_the_next_look(storage: Recording, catalog: Catalog) -> None:
    writer = Catalog(storage, KEYS, VolatileClient())
    ids = [_commit(writer, make_root(number)) for number in range(3)]

    def fail() -> None:
        raise StorageError("the disk reported an input/output error")

    for what in ("get log", "get roots"):
        for count in (1, 2, 3):
            storage.reset()
            storage.before[(what, count)] = fail
            catalog = Catalog(storage, KEYS, VolatileClient())
            with pytest.raises(StorageError):
                catalog.snapshots()
            assert _ids(catalog) == ids


def test_unfinished_runs_are_not_shown_and_are_taken_up(storage: Recording, catalog: Catalog) -> None:
    old = catalog.put_partial(make_root(1, partial=True))
    new = catalog.put_partial(make_root(2, partial=True))
    unlogged = put_root(storage, make_root(3))
    catalog.put_partial(make_root(4, partial=True, host="other"))
    catalog.put_partial(make_root(5, partial=True, paths=(b"/etc",)))
    condemned = catalog.put_partial(make_root(6, partial=True))
    put_mark(storage, abandoned=[condemned])
    damaged = catalog.put_partial(make_root(7, partial=True))
    storage.tamper(root_name(damaged), b"")
    _commit(catalog, make_root(8))
    survey = catalog.survey()
    assert [8] == [info.started_ns // 10**9 for info in survey.snapshots]
    assert frozenset({condemned}) == survey.condemned.roots
    found = catalog.partial_roots(survey.unlogged, "host", (b"/home",))
    assert [(left.id, left.root.started_ns // 10**9) for left in found] == [(unlogged, 3), (new, 2), (old, 1)]


def test_a_commit_takes_its_steps_in_order(storage: Recording, catalog: Catalog) -> None:
    pack = put_pack(storage, b"pack")
    parent = _commit(catalog, make_root(1))
    storage.reset()
    _commit(catalog, make_root(2, parents=(parent,)), frozenset({pack}))
    assert storage.asked == [
        "put roots",
        "list log",
        "list marks",
        "list roots",
        "list packs",
        "put log",
        "list marks",
        "list roots",
    ]


def test_packs_are_not_listed_where_none_is_relied_on_by_itself(storage: Recording, catalog: Catalog) -> None:
    parent = _commit(catalog, make_root(1))
    storage.reset()
    _commit(catalog, make_root(2, parents=(parent,)))
    assert "list packs" not in storage.asked


def _again(catalog: Catalog, root: Root, relied: frozenset[PackId] = frozenset()) -> Again:
    outcome = catalog.commit(root, relied, time_ns=0)
    assert isinstance(outcome, Again)
    return outcome


def _last_root(storage: MemoryStorage, known: set[SnapshotId]) -> SnapshotId:
    (new,) = {id_ for stored in storage.list("roots") if (id_ := parse_root_name(stored.name)) is not None} - known
    return new


def test_packs_that_are_gone_or_marked_are_bad(storage: Recording, catalog: Catalog) -> None:
    good, marked = put_pack(storage, b"good"), put_pack(storage, b"marked")
    gone = PackId(ObjectId(bytes(32)))
    put_mark(storage, packs=[marked])
    assert catalog.condemned().packs == {marked}
    assert _again(catalog, make_root(), frozenset({good, marked, gone})) == Again(frozenset({marked, gone}))
    assert _ids(catalog) == []


def test_parents_that_are_gone_marked_or_were_never_logged_are_lost(storage: Recording, catalog: Catalog) -> None:
    good, gone, marked = (_commit(catalog, make_root(number)) for number in range(3))
    partial = catalog.put_partial(make_root(3, partial=True))
    storage.delete(root_name(gone))
    put_mark(storage, abandoned=[marked])
    outcome = _again(catalog, make_root(4, parents=(good, gone, marked, partial)))
    assert outcome == Again(lost_parents=frozenset({gone, marked, partial}))


@pytest.mark.parametrize("how", ["marked", "deleted"])
def test_a_root_condemned_before_the_look_is_never_logged(storage: Recording, catalog: Catalog, how: str) -> None:
    def condemn() -> None:
        id_ = _last_root(storage, set())
        put_mark(storage, abandoned=[id_]) if how == "marked" else storage.delete(root_name(id_))

    storage.before[("list marks", 1)] = condemn
    assert _again(catalog, make_root()) == Again(is_root_condemned=True)
    assert list(storage.list("log")) == []


@pytest.mark.parametrize("how", ["marked", "deleted"])
def test_a_root_condemned_after_the_look_is_not_reported(storage: Recording, how: str) -> None:
    client = VolatileClient()
    catalog = Catalog(storage, KEYS, client)

    def condemn() -> None:
        id_ = _last_root(storage, set())
        put_mark(storage, abandoned=[id_]) if how == "marked" else storage.delete(root_name(id_))

    storage.before[("put log", 1)] = condemn
    assert _again(catalog, make_root()) == Again(is_root_condemned=True)
    fresh = Catalog(storage, KEYS, VolatileClient())
    assert (_ids(fresh), fresh.damage) == ([], ())
    assert len(list(storage.list("log"))) == 2
    assert len(_ids(catalog)) == 0
    again = _commit(catalog, make_root())
    assert _ids(fresh) == [again]


def test_unreadable_marks_stop_a_commit(storage: Recording, catalog: Catalog) -> None:
    mark = put_mark(storage)
    data = storage.get(mark_name(mark))
    for bad in (b"", data[:-1], data[:-1] + b"!"):
        storage.tamper(mark_name(mark), bad)
        with pytest.raises(TamperedError, match=mark_name(mark)):
            catalog.commit(make_root(), frozenset(), time_ns=0)
    assert list(storage.list("log")) == []


class Withholding(Recording):
    """Lists an object that it then says it does not have."""

    def list(self, folder: str) -> Iterator[StoredObject]:
        """See `Storage.list`."""
        yield from super().list(folder)
        if folder == "marks":
            yield StoredObject(mark_name(ObjectId(bytes(32))), 1024)


def test_a_mark_that_is_withheld_stops_a_commit() -> None:
    storage = Withholding()
    with pytest.raises(MissingError, match="marks/"):
        Catalog(storage, KEYS, VolatileClient()).commit(make_root(), frozenset(), time_ns=0)
    assert "put log" not in storage.asked


def test_a_mark_done_with_while_it_was_being_read_is_no_damage(storage: Recording, catalog: Catalog) -> None:
    mark = put_mark(storage, packs=[PackId(ObjectId(bytes(32)))])
    storage.reset()
    storage.before[("get marks", 1)] = lambda: storage.delete(mark_name(mark))
    assert catalog.condemned().packs == frozenset()


def test_a_mark_once_seen_counts_for_ever(storage: Recording, catalog: Catalog) -> None:
    pack = put_pack(storage, b"pack")
    mark = put_mark(storage, packs=[pack])
    assert catalog.condemned().packs == {pack}
    storage.delete(mark_name(mark))
    assert catalog.condemned().packs == {pack}


def test_a_commit_is_pinned_only_when_it_is_reported(storage: Recording) -> None:
    client = VolatileClient()
    catalog = Catalog(storage, KEYS, client)
    id_ = _commit(catalog, make_root())
    (pinned,) = client.pinned()
    assert pinned.startswith(f"log/{id_.hex()}-")
    storage.delete(pinned)
    with pytest.raises(RollbackError):
        catalog.snapshots()
    with pytest.raises(RollbackError):
        catalog.commit(make_root(), frozenset(), time_ns=0)


def test_damage_in_one_entry_does_not_stop_backups(storage: Recording, catalog: Catalog) -> None:
    first = _commit(catalog, make_root(1))
    (name,) = [stored.name for stored in storage.list("log")]
    storage.tamper(name, b"")
    fresh = Catalog(storage, KEYS, VolatileClient())
    assert _ids(fresh) == []
    second = _commit(fresh, make_root(2))
    assert _ids(fresh) == [second]
    assert [(type(damage), damage.name) for damage in fresh.damage] == [(TamperedError, name)]
    assert first not in _ids(fresh)


def test_many_threads_commit_and_look(storage: Recording) -> None:
    catalogs = [Catalog(storage, KEYS, VolatileClient()) for _ in range(4)]

    def work(number: int) -> None:
        for step in range(5):
            _commit(catalogs[number % 4], make_root(number * 10 + step))
            catalogs[number % 4].snapshots()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [None] * 8
    fresh = Catalog(storage, KEYS, VolatileClient())
    assert (len(_ids(fresh)), fresh.damage) == (40, ())
    assert [_ids(catalog) for catalog in catalogs] == [_ids(fresh)] * 4
