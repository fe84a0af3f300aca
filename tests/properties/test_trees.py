"""Trees and files: everything is found again by name, place, cookie and offset."""

from __future__ import annotations

from itertools import accumulate

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.content.file import extents_from, next_data, next_hole, read_file, read_xattrs
from backthen.repository.content.tree import Node, SnapshotTree
from backthen.repository.errors import MalformedError, MissingError, PathNotFound
from backthen.repository.model.entry import (
    HOLE,
    Entry,
    EntryType,
    Extent,
    encode_xattrs,
)
from backthen.repository.model.page import (
    Child,
    decode_tree_page,
)
from tests.support.fixed_keys import fixed_keys
from tests.support.page_blobs import PageBlobs
from tests.support.page_trees import Folder, file_of_extents, filled, make_tree

KEYS = fixed_keys()
SAMPLES = settings(max_examples=40, deadline=None)
FEW = settings(max_examples=15, deadline=None)


def _levels(blobs: PageBlobs, directory: Node) -> int:
    assert directory.entry.page is not None
    return blobs.page(directory.entry.page, decode_tree_page).level + 1


NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)


GROUPS = st.binary(min_size=fmt.GROUP_KEY_BYTES, max_size=fmt.GROUP_KEY_BYTES)


def _folders() -> st.SearchStrategy[Folder]:
    """Nested folders; some have hundreds of files, so that their pages have several levels."""

    def grown(inner: st.SearchStrategy[Folder]) -> st.SearchStrategy[Folder]:
        return st.builds(
            filled,
            st.dictionaries(
                NAMES, st.one_of(st.none(), inner, st.sampled_from([b"%016d" % n for n in range(4)])), max_size=6
            ),
            st.sampled_from([0, 0, 0, 300, 2000]),
        )

    return st.recursive(st.builds(filled, st.just({}), st.sampled_from([0, 1, 100])), grown, max_leaves=5)


def _walk(tree: SnapshotTree, blobs: PageBlobs, node: Node, path: bytes = b"") -> list[tuple[bytes, Node]]:
    found = [(path, node)]
    if node.entry.is_directory:
        for child in tree.children(blobs, node):
            found.extend(_walk(tree, blobs, child, path + b"/" + child.name))
    return found


@FEW
@given(_folders())
def test_places_number_a_tree_in_walk_order_and_lead_back(folder: Folder) -> None:
    blobs = PageBlobs(KEYS)
    groups: dict[bytes, int] = {}
    tree = make_tree(folder, blobs, groups)
    walked = _walk(tree, blobs, tree.top)
    assert list(range(1 + tree.root.top.below)) == [node.place for _, node in walked]
    assert 1 + tree.root.top.below + len(groups) == tree.position_count
    for path, node in walked[:: max(1, len(walked) // 50)]:
        assert node == tree.resolve(blobs, path)
        assert node == tree.at(blobs, node.place)
        by_inode = tree.at(blobs, node.position)
        assert (node.position, node.entry) == (by_inode.position, by_inode.entry)


@FEW
@given(_folders())
def test_lookup_finds_every_child_and_nothing_else(folder: Folder) -> None:
    blobs = PageBlobs(KEYS)
    tree = make_tree(folder, blobs, {})
    children = list(tree.children(blobs, tree.top))
    assert sorted(folder.children) == [child.name for child in children]
    for child in children[:: max(1, len(children) // 30)]:
        assert child == tree.lookup(blobs, tree.top, child.name)
        for absent in (child.name + b"\x01", child.name[:-1], b"", b"\xff" * 50):
            if absent not in folder.children:
                assert tree.lookup(blobs, tree.top, absent) is None


@FEW
@given(_folders())
def test_a_listing_resumes_at_every_cookie(folder: Folder) -> None:
    blobs = PageBlobs(KEYS)
    tree = make_tree(folder, blobs, {})
    children = list(tree.children(blobs, tree.top))
    cookies = [child.place - tree.top.position for child in children]
    assert cookies == sorted(set(cookies))
    step = max(1, len(children) // 40)
    for index in {*range(0, len(children), step), len(children) - 1} - {-1}:
        rest = tree.children(blobs, tree.top, after=cookies[index])
        assert children[index + 1 : index + 4] == [node for node, _ in zip(rest, range(3), strict=False)]
    assert [] == list(tree.children(blobs, tree.top, after=tree.root.top.below + 5))


def test_a_listing_resumes_between_entries_with_much_below_them() -> None:
    """A cookie inside a subtree, as a damaged client might send, goes on after that subtree."""
    blobs = PageBlobs(KEYS)
    inner = Folder({b"%04d" % number: None for number in range(500)})
    tree = make_tree(Folder({b"a": inner, b"b": inner, b"c": None}), blobs, {})
    for after, names in (
        (0, [b"a", b"b", b"c"]),
        (1, [b"b", b"c"]),
        (300, [b"b", b"c"]),
        (501, [b"b", b"c"]),
        (502, [b"c"]),
    ):
        assert names == [node.name for node in tree.children(blobs, tree.top, after=after)]


def test_a_listing_resumes_without_reading_what_came_before() -> None:
    blobs = PageBlobs(KEYS)
    tree = make_tree(filled({}, 30_000), blobs, {})
    levels = _levels(blobs, tree.top)
    for after in (1, 15_000, 29_999):
        blobs.reads = 0
        assert after + 1 == next(tree.children(blobs, tree.top, after=after)).place
        assert blobs.reads <= levels + 2, "the top is read once more to check it, and the next leaf where one ends"


def test_names_of_a_link_group_share_the_position_of_its_record() -> None:
    blobs = PageBlobs(KEYS)
    groups: dict[bytes, int] = {}
    keys = [b"%016d" % number for number in range(1000)]
    names: dict[bytes, Folder | bytes | None] = {b"%04d" % number: key for number, key in enumerate(keys)}
    tree = make_tree(Folder({b"one": Folder(names), b"two": Folder(dict(names))}), blobs, groups)
    one, two = tree.children(blobs, tree.top)
    for first, second in zip(tree.children(blobs, one), tree.children(blobs, two), strict=True):
        assert first.place != second.place
        assert (first.position, first.entry) == (second.position, second.entry)
        assert 2 == first.entry.names
        assert 1 + tree.root.top.below <= first.position < tree.position_count
        assert first.entry == tree.at(blobs, first.position).entry


def test_positions_outside_a_snapshot_are_not_found() -> None:
    blobs = PageBlobs(KEYS)
    tree = make_tree(Folder({b"a": None, b"b": b"%016d" % 1}), blobs, {})
    assert 4 == tree.position_count
    for position in (-1, -(1 << 70), 4, 5, 1 << 62):
        with pytest.raises(PathNotFound):
            tree.at(blobs, position)


@pytest.mark.parametrize("path", [b"/nothing", b"a/b", b"/f00001/deeper", b"a/\xff"])
def test_a_path_that_is_not_there_is_not_found(path: bytes) -> None:
    blobs = PageBlobs(KEYS)
    tree = make_tree(filled({b"a": Folder({})}, 3), blobs, {})
    with pytest.raises(PathNotFound):
        tree.resolve(blobs, path)


def test_a_name_whose_group_has_no_record_is_missing() -> None:
    blobs = PageBlobs(KEYS)
    tree = make_tree(Folder({b"a": b"%016d" % 1}), blobs, {})
    bare = SnapshotTree(tree.id, msgspec.structs.replace(tree.root, links=None, link_count=0))
    with pytest.raises(MissingError):
        list(bare.children(blobs, bare.top))


@st.composite
def _files(draw: st.DrawFn) -> tuple[Entry, bytes, PageBlobs]:
    """A file of a few or of hundreds of extents, among them holes."""
    count = draw(st.sampled_from([0, 1, 2, 8, 9, 300, 1500]))
    rng = draw(st.randoms(use_true_random=False))
    blobs = PageBlobs(KEYS)
    extents, content = [], []
    for number in range(count):
        length = rng.randint(1, 50)
        data = bytes(length) if rng.random() < 0.3 else rng.randbytes(length)
        is_hole = not any(data) and number % 2 == 0
        extents.append(Extent(HOLE, length) if is_hole else Extent(blobs.put(data).id, length))
        content.append(data)
    whole = b"".join(content)
    return file_of_extents(extents, len(whole), blobs), whole, blobs


@SAMPLES
@given(_files(), st.data())
def test_reading_a_file_anywhere_gives_its_bytes(file: tuple[Entry, bytes, PageBlobs], data: st.DataObject) -> None:
    entry, content, blobs = file
    assert content == read_file(blobs, entry, 0, len(content) + 10)
    for _ in range(10):
        offset = data.draw(st.integers(0, len(content) + 5))
        length = data.draw(st.integers(0, 300))
        assert content[offset : offset + length] == read_file(blobs, entry, offset, length)


@SAMPLES
@given(_files(), st.data())
def test_the_extents_from_an_offset_are_a_tail_of_all(
    file: tuple[Entry, bytes, PageBlobs], data: st.DataObject
) -> None:
    entry, content, blobs = file
    every = list(extents_from(blobs, entry, 0))
    assert [0, *accumulate(extent.length for _, extent in every)] == [*(start for start, _ in every), len(content)]
    offset = data.draw(st.integers(0, len(content) + 5))
    expected = [(start, extent) for start, extent in every if start + extent.length > offset]
    assert expected == list(extents_from(blobs, entry, offset))


@SAMPLES
@given(_files(), st.data())
def test_data_and_holes_are_found_from_anywhere(file: tuple[Entry, bytes, PageBlobs], data: st.DataObject) -> None:
    entry, content, blobs = file
    is_hole = [extent.is_hole for _, extent in extents_from(blobs, entry, 0) for _ in range(extent.length)]
    entry = msgspec.structs.replace(entry, allocated=is_hole.count(False))
    for _ in range(10):
        offset = data.draw(st.integers(0, len(content) + 5))
        rest = is_hole[offset:]
        assert next_data(blobs, entry, offset) == (offset + rest.index(False) if False in rest else None)
        expected = offset + [*rest, True].index(True) if offset < len(content) else None
        assert expected == next_hole(blobs, entry, offset)


def test_a_file_of_ten_million_chunks_is_read_at_its_end_at_once() -> None:
    """The list is one page tree whose pages repeat, so that it can be made; a read touches one page a level."""
    blobs = PageBlobs(KEYS)
    chunk = blobs.put(b"c" * 100)
    page = blobs.put(msgspec.msgpack.encode([0, [Extent(chunk.id, 100)] * 256]))
    count, size = 256, 25_600
    for level in (1, 2, 3):
        items = [Child(chunk.id, page.id, page.length, count, size)] * 35
        page = blobs.put(msgspec.msgpack.encode([level, items]))
        count, size = count * 35, size * 35
    assert count > 10_000_000
    entry = Entry(b"file", EntryType.FILE, size=size, page=page)
    assert b"c" * 50 == read_file(blobs, entry, size - 50, 100)
    assert (size - 100, Extent(chunk.id, 100)) == next(extents_from(blobs, entry, size - 1))


@pytest.mark.parametrize("count", [2, 20])
def test_a_file_whose_extents_are_too_short_is_malformed(count: int) -> None:
    blobs = PageBlobs(KEYS)
    entry = msgspec.structs.replace(
        file_of_extents([Extent(blobs.put(b"abc").id, 3)] * count, 3 * count, blobs), size=100
    )
    with pytest.raises(MalformedError):
        read_file(blobs, entry, 0, 100)
    with pytest.raises(MalformedError):
        read_file(blobs, entry, 90, 5)


@SAMPLES
@given(st.dictionaries(st.binary(min_size=1, max_size=20), st.binary(max_size=100), max_size=10))
def test_extended_attributes_come_back_from_the_entry_and_from_a_blob(xattrs: dict[bytes, bytes]) -> None:
    blobs = PageBlobs(KEYS)
    pairs = tuple(sorted(xattrs.items()))
    assert pairs == read_xattrs(blobs, Entry(b"a", EntryType.FILE, xattrs=pairs))
    assert pairs == read_xattrs(blobs, Entry(b"a", EntryType.FILE, xattr_blob=blobs.put(encode_xattrs(pairs))))
