"""The view on a history in memory: time, memory, trouble. What it looks like is in `tests/mount/test_behaviour.py`."""

from __future__ import annotations

import threading
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from backthen.fsmount.view import (
    ROOT_NUMBER,
    DamagedContent,
    Gone,
    NoSuchAttribute,
    NotADirectory,
    NotAFile,
    NotASymlink,
    NotFound,
    Owner,
    StorageUnavailable,
    View,
    history_view,
)
from backthen.fsmount.view.at import REMEMBERED_MAX
from backthen.fsmount.view.filesystem import LISTED_MIN, RECENT_NODES
from backthen.fsmount.view.recent import Recent
from backthen.fsmount.view.versions import STATES_AT_ONCE
from backthen.repository import NotInMemory, SnapshotInfo, StorageError
from backthen.repository import format as fmt
from backthen.repository.model.entry import BlobRef
from backthen.repository.model.page import Child, decode_tree_page
from tests.support.history import NS, Folder, MemoryHistory


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class Fixture:
    """A history of one snapshot, its view, and the clock."""

    def __init__(self) -> None:
        self.history = MemoryHistory()
        write = self.history.writer
        many = Folder({f"{number:04d}".encode(): write.file(b"") for number in range(1000)})
        self.info = self.add(Folder({b"file": write.file(b"content"), b"many": many}))
        self.clock = Clock()
        self.view = history_view(self.history, Owner(3, 4), self.clock)

    def add(self, folder: Folder) -> SnapshotInfo:
        return self.history.add(folder, started_ns=1000 * NS)

    def find(self, *names: bytes) -> int:
        number = ROOT_NUMBER
        for name in names:
            number = self.view.lookup(self.view.source, number, name).number
        return number

    def snapshots(self, view: View) -> list[bytes]:
        opened = view.open_directory(view.source, self.find(b"snapshots"))
        return [name for name, _, _ in view.read_directory(view.source, opened, 0)]

    def names(self, directory: int) -> list[bytes]:
        opened = self.view.open_directory(self.view.source, directory)
        return [name for name, _, _ in self.view.read_directory(self.view.source, opened, 0)]

    def target_at_now(self) -> bytes:
        return self.view.target(self.view.source, self.find(b"at", b"now", b"host"))

    def in_snapshot(self, *names: bytes) -> int:
        return self.find(b"snapshots", self.snapshots(self.view)[0], *names)


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


def test_list_of_snapshots_is_read_at_most_once_a_second(fixture: Fixture) -> None:
    for _ in range(3):
        fixture.snapshots(fixture.view)
    assert fixture.history.listings == 1

    fixture.clock.now_ns += NS
    fixture.add(Folder({}))
    assert len(fixture.snapshots(fixture.view)) == 2
    assert fixture.history.listings == 2


def test_near_source_does_not_wait_for_the_list(fixture: Fixture) -> None:
    assert fixture.view.attributes(fixture.view.near, ROOT_NUMBER).uid == 3
    fixture.clock.now_ns += NS

    gate = fixture.history.gate = threading.Event()
    with pytest.raises(NotInMemory):
        fixture.view.attributes(fixture.view.near, ROOT_NUMBER)
    gate.set()


def test_nobody_waits_for_a_list_that_was_waited_for_in_vain(fixture: Fixture) -> None:
    gate = fixture.history.gate = threading.Event()
    fixture.clock.now_ns += NS
    with pytest.raises(NotInMemory):
        fixture.view.attributes(fixture.view.near, ROOT_NUMBER)

    fixture.clock.now_ns += 2 * NS
    assert fixture.view.attributes(fixture.view.near, ROOT_NUMBER).uid == 3
    gate.set()


def test_nobody_waits_for_the_list_of_a_storage_that_is_silent(fixture: Fixture) -> None:
    gate = fixture.history.gate = threading.Event()
    fixture.clock.now_ns += 100 * NS
    fixture.history.storage_state = fixture.history.storage_state._replace(waiting=1, silent_since_ns=98 * NS)

    assert fixture.view.attributes(fixture.view.near, ROOT_NUMBER).uid == 3
    gate.set()


def test_what_is_in_a_snapshot_needs_no_list(fixture: Fixture) -> None:
    number = fixture.in_snapshot(b"file")
    fixture.clock.now_ns += 100 * NS

    assert fixture.view.attributes(fixture.view.near, number).size == 7
    assert fixture.history.listings == 1


def test_near_source_does_not_wait_for_blobs(fixture: Fixture) -> None:
    top = fixture.in_snapshot()
    fixture.history.blobs.distant = None

    with pytest.raises(NotInMemory):
        fixture.view.lookup(fixture.view.near, top, b"file")
    assert fixture.view.lookup(fixture.view.source, top, b"file").size == 7


def test_storage_that_hangs_does_not_hold_up_the_view(fixture: Fixture) -> None:
    gate = fixture.history.gate = threading.Event()
    fixture.clock.now_ns += NS
    first = threading.Thread(target=fixture.snapshots, args=(fixture.view,))
    first.start()
    first.join(10)
    assert not first.is_alive()

    fixture.clock.now_ns += 10 * NS
    assert len(fixture.snapshots(fixture.view)) == 1
    assert fixture.history.listings == 2
    gate.set()


def test_storage_that_fails_leaves_the_list_as_it_was(fixture: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    fixture.history.failure = StorageError("unplugged")
    for _ in range(3):
        fixture.clock.now_ns += NS
        assert len(fixture.snapshots(fixture.view)) == 1
    assert caplog.text.count("unplugged") == 1

    fixture.history.failure = None
    fixture.add(Folder({}))
    fixture.clock.now_ns += NS
    assert len(fixture.snapshots(fixture.view)) == 2


def test_number_of_a_forgotten_snapshot_is_gone(fixture: Fixture) -> None:
    number = fixture.in_snapshot(b"file")
    fixture.history.forget(fixture.info)
    fixture.clock.now_ns += NS
    assert fixture.snapshots(fixture.view) == []

    with pytest.raises(Gone):
        fixture.view.attributes(fixture.view.source, number)
    with pytest.raises(NotFound):
        fixture.find(b"latest")


def test_listing_of_a_virtual_directory_is_frozen_when_it_is_opened(fixture: Fixture) -> None:
    opened = fixture.view.open_directory(fixture.view.source, fixture.find(b"snapshots"))
    fixture.add(Folder({}))
    fixture.clock.now_ns += NS
    assert len(fixture.snapshots(fixture.view)) == 2

    assert len(fixture.view.read_directory(fixture.view.source, opened, 0)) == 1


@pytest.mark.parametrize("step", [1, 7, 100, 255])
def test_listing_goes_on_after_any_cookie(fixture: Fixture, step: int) -> None:
    opened = fixture.view.open_directory(fixture.view.source, fixture.in_snapshot(b"many"))
    names: list[bytes] = []
    after = 0
    while listed := fixture.view.read_directory(fixture.view.source, opened, after):
        assert len(listed) <= LISTED_MIN + fmt.PAGE_ITEMS_MAX
        names += [name for name, _, _ in listed[:step]]
        after = listed[:step][-1].cookie

    assert names == [f"{number:04d}".encode() for number in range(1000)]


def test_listing_gives_what_it_has_before_it_waits_or_fails(fixture: Fixture) -> None:
    number = fixture.in_snapshot(b"many")
    tree = fixture.history.tree(fixture.info)
    source = fixture.view.source
    top = tree.resolve(source, b"many").entry.page
    assert top is not None
    last = source.page(top, decode_tree_page).items[-1]
    assert isinstance(last, Child)
    fixture.history.blobs.distant = {last.id}
    opened = fixture.view.open_directory(fixture.view.near, number)

    listed = fixture.view.read_directory(fixture.view.near, opened, 0)

    while listed[-1].cookie < 1000 - last.count:
        listed = fixture.view.read_directory(fixture.view.near, opened, listed[-1].cookie)
    assert listed[-1].cookie == 1000 - last.count
    with pytest.raises(NotInMemory):
        fixture.view.read_directory(fixture.view.near, opened, listed[-1].cookie)


def test_directory_that_was_listed_is_found_after_many_files(fixture: Fixture) -> None:
    write = fixture.history.writer
    files = {f"{number:05d}".encode(): write.file(b"") for number in range(3 * RECENT_NODES)}
    fixture.add(Folder({b"small": Folder({b"file": write.file(b"")}), b"large": Folder(files)}))
    fixture.view = view = history_view(fixture.history, Owner(3, 4), fixture.clock)
    top = view.target(view.source, fixture.find(b"latest")).split(b"/")
    small, large = fixture.find(*top, b"small"), fixture.find(*top, b"large")
    view.open_directory(view.source, small)
    opened, after = view.open_directory(view.source, large), 0
    while listed := view.read_directory(view.source, opened, after):
        after = listed[-1].cookie
    fixture.history.blobs.distant = None

    view.open_directory(view.near, small)


def test_memory_of_nodes_is_bounded() -> None:
    recent: Recent[int] = Recent(10)
    for number in range(1000):
        recent.put(number, number)

    kept = [number for number in range(1000) if recent.get(number) is not None]
    assert kept == list(range(1000 - len(kept), 1000))
    assert 10 <= len(kept) <= 20


def test_wrong_kinds_are_refused(fixture: Fixture) -> None:
    view, file, top = fixture.view, fixture.in_snapshot(b"file"), fixture.in_snapshot()

    with pytest.raises(NotADirectory):
        view.lookup(view.source, file, b"x")
    with pytest.raises(NotADirectory):
        view.open_directory(view.source, fixture.find(b"latest"))
    with pytest.raises(NotAFile):
        view.open_file(view.source, top)
    with pytest.raises(NotAFile):
        view.open_file(view.source, ROOT_NUMBER)
    with pytest.raises(NotASymlink):
        view.target(view.source, file)


def test_trouble_is_told_apart_and_named(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    view = fixture.view
    file = view.open_file(view.source, fixture.in_snapshot(b"file"))
    fixture.history.blobs.damaged.update(fixture.history.blobs.ids())
    with pytest.raises(DamagedContent, match="packs/12/1234"):
        view.read(view.source, file, 0, 1)

    def fail(ref: BlobRef, *, is_near: bool) -> bytes:
        raise StorageError("unplugged")

    monkeypatch.setattr(fixture.history.blobs, "find", fail)
    with pytest.raises(StorageUnavailable, match="unplugged"):
        view.read(view.source, file, 0, 1)


def test_storage_is_not_asked_for_names_that_can_never_come(fixture: Fixture) -> None:
    view, places = fixture.view, [ROOT_NUMBER, fixture.find(b"snapshots"), fixture.find(b"hosts")]
    fixture.clock.now_ns += 10 * NS

    for name in (b".hidden", b".Trash", b".Trash-1000", b".directory"):
        for place in places:
            with pytest.raises(NotFound):
                view.lookup(view.near, place, name)
    with pytest.raises(NotFound):
        view.lookup(view.near, ROOT_NUMBER, b"autorun.inf")
    assert fixture.history.listings == 1
    gate = fixture.history.gate = threading.Event()
    for name in (b"latest", b"snapshots"):
        with pytest.raises(NotInMemory):
            view.lookup(view.near, ROOT_NUMBER, name)
    gate.set()


def test_symlink_that_leads_elsewhere_has_another_number(fixture: Fixture) -> None:
    first, host = fixture.find(b"latest"), fixture.find(b"hosts")
    fixture.add(Folder({}))
    fixture.clock.now_ns += 2 * NS

    assert first != fixture.find(b"latest")
    assert host == fixture.find(b"hosts")


def test_versions_and_times_follow_the_list(fixture: Fixture) -> None:
    write = fixture.history.writer
    folder = fixture.find(b"versions", b"file")
    now = fixture.find(b"at", b"now")
    before = fixture.target_at_now()
    second = fixture.add(Folder({b"file": write.file(b"changed"), b"new": write.file(b"")}))
    fixture.clock.now_ns += NS

    assert len(fixture.names(folder)) == 2
    assert fixture.names(fixture.find(b"versions")) == [b"file", b"many", b"new"]
    assert fixture.target_at_now() != before
    assert fixture.view.attributes(fixture.view.source, now).is_directory

    fixture.history.forget(second)
    fixture.clock.now_ns += NS
    assert len(fixture.names(folder)) == 1
    assert fixture.names(fixture.find(b"versions")) == [b"file", b"many"]
    assert fixture.target_at_now() == before

    fixture.history.forget(fixture.info)
    fixture.clock.now_ns += NS
    assert fixture.names(fixture.find(b"versions")) == fixture.names(now) == []
    for gone in (lambda: fixture.names(folder), lambda: fixture.view.attributes(fixture.view.source, folder)):
        with pytest.raises(Gone):
            gone()


def test_hidden_names_at_the_top_of_what_was_saved_are_in_versions(fixture: Fixture) -> None:
    fixture.add(Folder({b".hidden": fixture.history.writer.file(b"")}))
    fixture.clock.now_ns += NS

    assert fixture.view.attributes(fixture.view.source, fixture.find(b"versions", b".hidden")).is_directory
    with pytest.raises(NotFound):
        fixture.find(b"at", b".hidden")


def test_symlink_of_a_time_that_leads_elsewhere_has_another_number(fixture: Fixture) -> None:
    first = fixture.find(b"at", b"now", b"host")
    fixture.add(Folder({}))
    fixture.clock.now_ns += 2 * NS

    assert first != fixture.find(b"at", b"now", b"host")
    assert fixture.view.target(fixture.view.source, first) != fixture.target_at_now()


def test_folders_of_versions_are_found_again_after_very_many_others(fixture: Fixture) -> None:
    folder = fixture.find(b"versions", b"many", b"0007")
    view = history_view(fixture.history, Owner(3, 4), fixture.clock)

    assert view.attributes(view.source, folder) == fixture.view.attributes(fixture.view.source, folder)
    assert fixture.view.is_lasting(folder) is False


def test_times_that_were_looked_up_are_remembered_within_a_bound(fixture: Fixture) -> None:
    first = fixture.find(b"at", b"2026-01-01")
    for number in range(REMEMBERED_MAX + 1):
        fixture.find(b"at", b"%d minutes ago" % number)

    with pytest.raises(Gone):
        fixture.view.attributes(fixture.view.source, first)
    assert fixture.find(b"at", b"2026-01-01") == first


def test_near_source_does_not_merge_many_states(fixture: Fixture) -> None:
    write = fixture.history.writer
    for number in range(STATES_AT_ONCE):
        fixture.add(Folder({b"file": write.file(b"%d" % number)}))
    fixture.clock.now_ns += NS
    top = fixture.find(b"versions")

    with pytest.raises(NotInMemory):
        fixture.view.lookup(fixture.view.near, top, b"file")
    with pytest.raises(NotInMemory):
        fixture.view.open_directory(fixture.view.near, top)
    found = fixture.view.lookup(fixture.view.source, top, b"file")
    assert fixture.view.lookup(fixture.view.near, top, b"file") == found


def test_what_was_listed_in_versions_is_told_again_from_memory(fixture: Fixture) -> None:
    write = fixture.history.writer
    for number in range(STATES_AT_ONCE):
        fixture.add(Folder({b"file": write.file(b"%d" % number, mtime_ns=number), b"folder": Folder({})}))
    fixture.clock.now_ns += NS
    top = fixture.find(b"versions")
    listed = fixture.view.read_directory(fixture.view.source, fixture.view.open_directory(fixture.view.source, top), 0)

    assert [b"file", b"folder", b"many"] == [each.name for each in listed]
    for _, attributes, _ in listed:
        assert attributes == fixture.view.attributes(fixture.view.near, attributes.number)
        assert [] == fixture.view.xattr_names(fixture.view.near, attributes.number)
        with pytest.raises(NoSuchAttribute):
            fixture.view.xattr(fixture.view.near, attributes.number, b"system.posix_acl_access")
    for name, attributes, _ in listed:
        assert attributes == fixture.view.lookup(fixture.view.near, top, name)


def test_damage_in_one_snapshot_is_told_where_versions_need_it(fixture: Fixture) -> None:
    write = fixture.history.writer
    many = Folder({f"{number:04d}".encode(): write.file(b"x") for number in range(1000)})
    info = fixture.add(Folder({b"file": write.file(b"content"), b"many": many}))
    fixture.clock.now_ns += NS
    page = info.root.top.page
    assert page is not None
    fixture.history.blobs.damaged.add(page.id)

    with pytest.raises(DamagedContent):
        fixture.names(fixture.find(b"versions"))


def test_names_of_versions_are_local_to_the_zone_that_is_passed_in(fixture: Fixture) -> None:
    for zone, name in (("Europe/Berlin", b"1970-01-01 01.00.07"), ("America/New_York", b"1969-12-31 19.00.07")):
        view = history_view(fixture.history, Owner(3, 4), fixture.clock, zone=ZoneInfo(zone))
        folder = view.lookup(view.source, view.lookup(view.source, ROOT_NUMBER, b"versions").number, b"file").number
        opened = view.open_directory(view.source, folder)
        assert [name] == [each.name for each in view.read_directory(view.source, opened, 0)]


def test_a_content_never_takes_the_name_of_what_was_below_its_path(fixture: Fixture) -> None:
    write = fixture.history.writer
    view = history_view(fixture.history, Owner(3, 4), fixture.clock, zone=UTC)
    taken = Folder({b"1970-01-01 00.00.07": write.file(b"below")})
    fixture.add(Folder({b"file": taken}))
    fixture.clock.now_ns += NS
    folder = view.lookup(view.source, view.lookup(view.source, ROOT_NUMBER, b"versions").number, b"file").number

    listed = view.read_directory(view.source, view.open_directory(view.source, folder), 0)
    assert [(b"1970-01-01 00.00.07 (2)", False), (b"1970-01-01 00.00.07", True)] == [
        (each.name, each.attributes.is_directory) for each in listed
    ]
