"""The past of paths over snapshots that live in memory."""

from __future__ import annotations

import msgspec
import pytest

from backthen.repository import Entry, EntryType, PathNotFound, SnapshotTree, TamperedError, read_file
from backthen.repository.history import (
    Past,
    count_contents,
    find_sighting,
    past_at,
    timeline,
    top_past,
    union_children,
)
from backthen.repository.model.page import Page
from tests.support.history import NS, Folder, MemoryHistory, Name


class World:
    """A history with its trees, and what is asked of it."""

    def __init__(self) -> None:
        self.history = MemoryHistory()
        self.file = self.history.writer.file

    def add(self, folder: Folder, at_s: int | None = None) -> None:
        count = len(self.history.snapshots())
        self.history.add(folder, started_ns=(count if at_s is None else at_s) * NS)

    @property
    def trees(self) -> tuple[SnapshotTree, ...]:
        return tuple(timeline([self.history.tree(info) for info in self.history.snapshots()]))

    def past(self, path: bytes) -> Past:
        return past_at(self.history.blobs.source, self.trees, path)

    def spans(self, path: bytes) -> list[tuple[int, int]]:
        return [(sighting.first, sighting.last) for sighting in self.past(path).contents]

    def names(self, path: bytes) -> list[bytes]:
        return [child.name for child in union_children(self.history.blobs.source, self.trees, self.past(path))]


@pytest.fixture
def world() -> World:
    return World()


def test_each_distinct_content_is_seen_once(world: World) -> None:
    for content in (b"one", b"two", b"two", b"one"):
        world.add(Folder({b"home": Folder({b"a": world.file(content)})}))

    assert [(0, 3), (1, 2)] == world.spans(b"home/a")


def test_other_metadata_makes_no_new_content(world: World) -> None:
    world.add(Folder({b"a": world.file(b"x", mtime_ns=5)}))
    world.add(Folder({b"a": world.file(b"x", mtime_ns=9, mode=0o600)}))

    past = world.past(b"a")
    assert [(0, 1)] == world.spans(b"a")
    assert 5 == past.contents[0].node.entry.mtime_ns
    assert 9 == past.mtime_ns


def test_what_was_deleted_is_still_there(world: World) -> None:
    world.add(
        Folder({b"gone": world.file(b"x"), b"stays": world.file(b"y"), b"dir": Folder({b"in": world.file(b"z")})})
    )
    world.add(Folder({b"new": world.file(b"x"), b"stays": world.file(b"y")}))

    assert [b"dir", b"gone", b"new", b"stays"] == world.names(b"")
    assert [b"in"] == world.names(b"dir")
    assert [(0, 0)] == world.spans(b"gone")


def test_a_path_that_never_was_is_named(world: World) -> None:
    world.add(Folder({b"a": world.file(b"x")}))

    with pytest.raises(PathNotFound, match="no snapshot has '/a/b'"):
        world.past(b"/a/b")


def test_without_snapshots_there_is_nothing(world: World) -> None:
    assert top_past(()) is None
    with pytest.raises(PathNotFound):
        world.past(b"")


def test_file_and_folder_at_one_path_are_both_kept(world: World) -> None:
    world.add(Folder({b"a": world.file(b"x")}))
    world.add(Folder({b"a": Folder({b"b": world.file(b"y")})}))

    past = world.past(b"a")
    assert (1, 1) == count_contents(past)
    assert [b"b"] == world.names(b"a")
    children = union_children(world.history.blobs.source, world.trees, world.past(b""))
    assert [True] == [child.is_folder for child in children]


def test_snapshots_come_in_the_order_of_their_times(world: World) -> None:
    world.add(Folder({b"a": world.file(b"late")}), at_s=100)
    world.add(Folder({b"a": world.file(b"early")}), at_s=50)

    contents = [read_file(world.history.blobs.source, each.node.entry, 0, 9) for each in world.past(b"a").contents]
    assert [b"early", b"late"] == contents


def test_symlinks_and_devices_are_contents_too(world: World) -> None:
    link = Entry(b"", EntryType.SYMLINK, target=b"there")
    world.add(Folder({b"a": link}))
    world.add(Folder({b"a": msgspec.structs.replace(link, target=b"elsewhere")}))
    world.add(Folder({b"a": Entry(b"", EntryType.CHARACTER_DEVICE, device_major=1)}))
    world.add(Folder({b"a": Entry(b"", EntryType.CHARACTER_DEVICE, device_major=2)}))
    world.add(Folder({b"a": link}))

    assert [(0, 4), (1, 1), (2, 2), (3, 3)] == world.spans(b"a")


def test_content_that_could_not_be_read_counts_once(world: World) -> None:
    world.add(Folder({b"a": world.file(b"", error="Permission denied", mtime_ns=1)}))
    world.add(Folder({b"a": world.file(b"x")}))
    world.add(Folder({b"a": world.file(b"", error="Input/output error", mtime_ns=2)}))

    assert [(0, 2), (1, 1)] == world.spans(b"a")


def test_content_of_linked_names_is_found_though_their_folder_is_the_same(world: World) -> None:
    for content in (b"one", b"two", b"two"):
        linked = Name(b"group", world.file(content))
        world.add(Folder({b"dir": Folder({b"a": linked, b"b": linked, b"plain": world.file(b"same")})}))

    assert [(0, 0), (1, 2)] == world.spans(b"dir/a")
    assert [(0, 2)] == world.spans(b"dir/plain")
    assert (0, 1) == count_contents(world.past(b"dir"))


def test_a_sighting_is_found_again(world: World) -> None:
    for content in (b"one", b"two", b"one"):
        world.add(Folder({b"dir": Folder({b"a": world.file(content)})}))

    for index, tree in enumerate(world.trees):
        for path in (b"dir/a", b"dir"):
            found = find_sighting(world.past(path), tree.resolve(world.history.blobs.source, path).entry)
            assert found is not None
            assert [(0, 2), (1, 1), (0, 2)][index] == (found.first, found.last)
    assert find_sighting(world.past(b"dir/a"), world.file(b"three")) is None


def test_equal_pages_are_read_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"{number:05d}".encode(): world.file(b"x") for number in range(3000)}
    for number in range(20):
        changed = {**many, b"01500": world.file(b"%d" % number)}
        world.add(Folder({b"many": Folder(changed), b"same": Folder(many)}))
    trees, source = world.trees, world.history.blobs.source
    many_past, same_past = world.past(b"many"), world.past(b"same")
    assert (20, 1) == (len(many_past.folders), len(same_past.folders))

    read: list[Page] = []
    page = type(world.history.blobs).page

    def counted(*args: object, **kwargs: object) -> Page:
        read.append(page(*args, **kwargs))  # type: ignore[arg-type]
        return read[-1]

    monkeypatch.setattr(type(world.history.blobs), "page", counted)
    assert 3000 == len(union_children(source, trees, many_past))
    leaves = {id(each) for each in read if each.level == 0}
    # Each once: those of the first state, and one for each further state.
    assert len(leaves) == sum(each.level == 0 for each in read)
    read.clear()
    assert 3000 == len(union_children(source, trees, same_past))
    assert len(leaves) == len({id(each) for each in read if each.level == 0}) + 19


def test_damage_below_a_name_does_not_hide_the_name(world: World) -> None:
    for content in (b"one", b"two"):
        world.add(Folder({b"dir": Folder({b"deeper": Folder({b"a": world.file(content)})})}))
    deeper = world.trees[1].resolve(world.history.blobs.source, b"dir/deeper").entry
    assert deeper.page is not None
    world.history.blobs.damaged.add(deeper.page.id)

    assert [b"dir"] == world.names(b"")
    assert [b"deeper"] == world.names(b"dir")
    assert 2 == len(world.past(b"dir/deeper").folders)
    with pytest.raises(TamperedError):
        world.names(b"dir/deeper")
