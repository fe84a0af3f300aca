"""Pages: equal sequences give equal trees, and everything in a tree is found again by name, place and offset."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.compression import compress
from backthen.repository.content.file import extents_from, read_file, read_xattrs
from backthen.repository.content.tree import Node, SnapshotTree
from backthen.repository.crypto import BlobKind
from backthen.repository.errors import MalformedError, MissingError, PathNotFound
from backthen.repository.ids import BlobId, ObjectId, SnapshotId
from backthen.repository.model.entry import (
    HOLE,
    BlobRef,
    Entry,
    EntryType,
    Extent,
    decode_xattrs,
    encode_xattrs,
    pack_extents,
    unpack_extents,
)
from backthen.repository.model.page import (
    Child,
    Page,
    PageWriter,
    Summary,
    check_child,
    decode_links_page,
    decode_list_page,
    decode_tree_page,
)
from backthen.repository.model.records import Root, Statistics
from tests.support.fixed_keys import fixed_keys
from tests.support.page_blobs import PageBlobs

KEYS = fixed_keys()
SAMPLES = settings(max_examples=40, deadline=None)
FEW = settings(max_examples=15, deadline=None)
DECODERS = (decode_tree_page, decode_links_page, decode_list_page)


def _file(name: bytes, size: int = 1) -> Entry:
    return Entry(name, EntryType.FILE, 0o644, size=size)


def _write(entries: Sequence[Entry], blobs: PageBlobs) -> Summary:
    writer = PageWriter(blobs.put, KEYS.page_border)
    for entry in entries:
        writer.add(entry, entry.name, count=1 + entry.below, size=entry.size)
    return writer.finish()


def _leaves(blobs: PageBlobs, ref: BlobRef, decode: Callable[[bytes], Page] = decode_tree_page) -> list[Page]:
    """All leaves below a page, every child held against its parent's word."""
    page = blobs.page(ref, decode)
    if page.level == 0:
        return [page]
    leaves = []
    for child in page.items:
        assert isinstance(child, Child)
        check_child(child, blobs.page(child.ref, decode), parent_level=page.level)
        leaves.extend(_leaves(blobs, child.ref, decode))
    return leaves


def _levels(blobs: PageBlobs, directory: Node) -> int:
    assert directory.entry.page is not None
    return blobs.page(directory.entry.page, decode_tree_page).level + 1


NAMES = st.binary(min_size=1, max_size=40).filter(
    lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
)


@st.composite
def _directories(draw: st.DrawFn) -> list[Entry]:
    """Sorted entries: a few drawn ones among up to some thousand made from a number."""
    drawn = draw(st.sets(NAMES, max_size=30))
    count = draw(st.sampled_from([0, 0, 1, 31, 32, 33, 255, 256, 257, 3000]))
    made = {b"%06d" % number for number in range(count)}
    sizes = draw(st.integers(1, 1 << 40))
    return [_file(name, sizes * (len(name) + number)) for number, name in enumerate(sorted(drawn | made))]


@SAMPLES
@given(_directories())
def test_what_goes_into_pages_comes_out_and_adds_up(entries: list[Entry]) -> None:
    blobs = PageBlobs(KEYS)
    summary = _write(entries, blobs)
    if not entries:
        assert Summary(None, 0, 0) == summary
        return
    assert summary.page is not None
    found = [item for leaf in _leaves(blobs, summary.page) for item in leaf.items]
    assert entries == found
    assert (len(entries), sum(entry.size for entry in entries)) == (summary.count, summary.size)
    top = blobs.page(summary.page, decode_tree_page)
    assert (summary.count, summary.size) == (top.count, top.size)
    assert top.level == 0 or len(top.items) > 1, "no level for a single page"


@SAMPLES
@given(_directories(), st.data())
def test_a_copied_writer_finishes_alone_and_leaves_the_first_unchanged(
    entries: list[Entry], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(entries)))
    blobs = PageBlobs(KEYS)
    writer = PageWriter(blobs.put, KEYS.page_border)
    copies: list[Summary] = []
    for number, entry in enumerate([*entries, None]):
        if number == at:
            copies.append(writer.copy().finish())
        if entry is not None:
            writer.add(entry, entry.name, count=1, size=entry.size)
    assert [_write(entries[:at], PageBlobs(KEYS))] == copies
    assert _write(entries, PageBlobs(KEYS)) == writer.finish()


@FEW
@given(st.sets(st.integers(0, 5000), max_size=400), st.randoms(use_true_random=False))
def test_equal_directories_have_equal_pages_whatever_their_history(removed: set[int], rng: random.Random) -> None:
    """Entries come and go in any order; a table of all pages ever put holds those of the last state."""
    names = {b"%05d" % number for number in range(2000)}
    churned = set(names)
    history = PageBlobs(KEYS)
    for number in rng.sample(sorted(removed), len(removed))[:3]:
        churned ^= {b"%05d" % number}
        _write([_file(name) for name in sorted(churned)], history)
    last = _write([_file(name) for name in sorted(names)], history)
    alone = PageBlobs(KEYS)
    assert _write([_file(name) for name in sorted(names)], alone) == last
    assert alone.pages.items() <= history.pages.items()


def test_other_keys_give_other_borders() -> None:
    entries = [_file(b"%05d" % number) for number in range(5000)]
    other = PageWriter(PageBlobs(KEYS).put, fixed_keys(1).page_border)
    for entry in entries:
        other.add(entry, entry.name, count=1, size=1)
    assert _write(entries, PageBlobs(KEYS)) != other.finish()


def _never(_level: int, _key: bytes) -> int:
    return (1 << 64) - 1


def _always(_level: int, _key: bytes) -> int:
    return 0


def _page_lengths(entries: Sequence[Entry], border: Callable[[int, bytes], int]) -> list[list[int]]:
    """How many items each page of each level has."""
    blobs = PageBlobs(KEYS)
    writer = PageWriter(blobs.put, border)
    for entry in entries:
        writer.add(entry, entry.name, count=1, size=entry.size)
    writer.finish()
    lengths: dict[int, list[int]] = {}
    for data in blobs.pages.values():
        page = decode_tree_page(data)
        lengths.setdefault(page.level, []).append(len(page.items))
    return [lengths[level] for level in sorted(lengths)]


def test_a_border_is_forced_after_256_items() -> None:
    entries = [_file(b"%05d" % number) for number in range(1000)]
    assert [[256, 256, 256, 232], [4]] == _page_lengths(entries, _never)


def test_a_border_needs_32_items() -> None:
    entries = [_file(b"%05d" % number) for number in range(100)]
    assert [[32, 32, 32, 4], [4]] == _page_lengths(entries, _always)


def test_a_border_is_forced_when_the_items_reach_32_kib() -> None:
    entries = [Entry(b"%05d" % number, EntryType.SYMLINK, target=b"t" * 4096) for number in range(20)]
    encoded = len(msgspec.msgpack.encode(entries[0]))
    each = -(-fmt.PAGE_ITEM_BYTES_MAX // encoded)
    leaves, _ = _page_lengths(entries, _never)
    assert [each] * (20 // each) == leaves[: 20 // each]


def test_a_page_that_ends_with_the_directory_leaves_no_empty_page() -> None:
    entries = [_file(b"%05d" % number) for number in range(512)]
    assert [[256, 256], [2]] == _page_lengths(entries, _never)
    assert [[256]] == _page_lengths(entries[:256], _never)


def test_pages_are_as_long_as_the_format_says_on_average() -> None:
    blobs = PageBlobs(KEYS)
    summary = _write([_file(b"%06d" % number) for number in range(50_000)], blobs)
    assert summary.page is not None
    leaves = _leaves(blobs, summary.page)
    assert all(fmt.PAGE_ITEMS_MIN <= len(leaf.items) <= fmt.PAGE_ITEMS_MAX for leaf in leaves[:-1])
    assert 31 + 40 < 50_000 / len(leaves) < 31 + 56, "31 and a geometric wait of 48"


def test_one_change_in_a_folder_of_300_000_costs_little() -> None:
    """An edit writes the pages on its path again and no others; what they take when stored is small."""
    entries = [_large_entry(number) for number in range(300_000)]
    blobs = PageBlobs(KEYS)
    summary = _write(entries, blobs)
    rng = random.Random(3)
    assert summary.page is not None
    costs = [
        sum(_stored_length(data) for data in _path(blobs, summary.page, rng.randrange(300_000))) for _ in range(100)
    ]
    assert sum(costs) / len(costs) < 16 * fmt.KIB
    before = set(blobs.pages)
    changed = rng.randrange(300_000)
    entries[changed] = msgspec.structs.replace(entries[changed], mode=0o600, size=7)
    after = _write(entries, blobs)
    assert after.page is not None
    path = _path(blobs, after.page, changed)
    assert sorted(path) == sorted(data for id_, data in blobs.pages.items() if id_ not in before)


def _large_entry(number: int) -> Entry:
    extents = pack_extents([Extent(KEYS.blob_id(BlobKind.CHUNK, b"%d" % number), number)])
    times = 1_790_000_000_000_000_000 + number * 999_999_937
    name = b"IMG_%08d.jpeg" % number
    return Entry(
        name, EntryType.FILE, 0o644, 1000, 1000, "me", "me", times, times, number, extents=extents, allocated=number
    )


def _path(blobs: PageBlobs, ref: BlobRef, position: int) -> list[bytes]:
    """The pages above one entry of a folder of files."""
    page = blobs.page(ref, decode_tree_page)
    path = [blobs.pages[ref.id]]
    while page.level:
        index = page.index_at(position)
        child = page.items[index]
        assert isinstance(child, Child)
        position -= page.starts[index]
        path.append(blobs.pages[child.id])
        page = blobs.page(child.ref, decode_tree_page)
    return path


def _stored_length(data: bytes) -> int:
    return len(compress(data, 3))


def _borders(items: list[tuple[bytes, bytes]], level: int) -> list[int]:
    """Where the pages of a level end, by the rule of FORMAT.md, section 8.1, written down once more."""
    ends: list[int] = []
    begin = size = 0
    for index, (key, encoded) in enumerate(items, 1):
        size += len(encoded)
        is_border = index - begin >= 32 and KEYS.page_border(level, key) < (1 << 64) // 48
        if is_border or index - begin >= 256 or size >= 32 * fmt.KIB:
            ends.append(index)
            begin, size = index, 0
    return ends if begin == len(items) else [*ends, len(items)]


def test_the_rule_of_the_format_written_down_again_gives_the_same_pages() -> None:
    """On every level."""
    entries = [_large_entry(number) for number in range(30_000)]
    blobs = PageBlobs(KEYS)
    summary = _write(entries, blobs)
    assert summary.page is not None
    pages = [decode_tree_page(data) for data in blobs.pages.values()]
    levels = range(blobs.page(summary.page, decode_tree_page).level + 1)
    assert len(levels) == 3
    for level in levels:
        own = sorted((page for page in pages if page.level == level), key=lambda page: page.first)
        items = [
            (item.name if isinstance(item, Entry) else item.first, msgspec.msgpack.encode(item))
            for page in own
            for item in page.items
            if not isinstance(item, Extent)
        ]
        assert _borders(items, level) == list(accumulate(len(page.items) for page in own))


# Trees: names, places, cookies


@dataclass(frozen=True)
class _Folder:
    """A directory as the tests describe it: names to folders, files (None) or link groups (their keys)."""

    children: dict[bytes, _Folder | bytes | None]


def _make_tree(folder: _Folder, blobs: PageBlobs, groups: dict[bytes, int]) -> SnapshotTree:
    top = _make_folder(b"", folder, blobs, groups)
    links = PageWriter(blobs.put, KEYS.page_border)
    for key, names in sorted(groups.items()):
        links.add(Entry(key, EntryType.FILE, size=5, link_group=key, names=names), key, count=1, size=5)
    summary = links.finish()
    root = Root(
        bytes(32),
        1,
        2,
        "host",
        "user",
        (b"/",),
        (),
        top,
        summary.page,
        summary.count,
        (),
        False,
        "test",
        (),
        Statistics(),
    )
    return SnapshotTree(SnapshotId(ObjectId(bytes(32))), root)


def _make_folder(name: bytes, folder: _Folder, blobs: PageBlobs, groups: dict[bytes, int]) -> Entry:
    entries = []
    for child, what in sorted(folder.children.items()):
        if isinstance(what, _Folder):
            entries.append(_make_folder(child, what, blobs, groups))
        elif what is None:
            entries.append(_file(child, len(child)))
        else:
            groups[what] = groups.get(what, 0) + 1
            entries.append(Entry(child, EntryType.LINK_NAME, link_group=what))
    summary = _write(entries, blobs)
    return Entry(name, EntryType.DIRECTORY, 0o755, size=summary.size, below=summary.count, page=summary.page)


GROUPS = st.binary(min_size=fmt.GROUP_KEY_BYTES, max_size=fmt.GROUP_KEY_BYTES)


def _folders() -> st.SearchStrategy[_Folder]:
    """Nested folders; some have hundreds of files, so that their pages have several levels."""

    def grown(inner: st.SearchStrategy[_Folder]) -> st.SearchStrategy[_Folder]:
        return st.builds(
            _filled,
            st.dictionaries(
                NAMES, st.one_of(st.none(), inner, st.sampled_from([b"%016d" % n for n in range(4)])), max_size=6
            ),
            st.sampled_from([0, 0, 0, 300, 2000]),
        )

    return st.recursive(st.builds(_filled, st.just({}), st.sampled_from([0, 1, 100])), grown, max_leaves=5)


def _filled(children: dict[bytes, _Folder | bytes | None], count: int) -> _Folder:
    made: dict[bytes, _Folder | bytes | None] = {b"f%05d" % number: None for number in range(count)}
    return _Folder(made | children)


def _walk(tree: SnapshotTree, blobs: PageBlobs, node: Node, path: bytes = b"") -> list[tuple[bytes, Node]]:
    found = [(path, node)]
    if node.entry.is_directory:
        for child in tree.children(blobs, node):
            found.extend(_walk(tree, blobs, child, path + b"/" + child.name))
    return found


@FEW
@given(_folders())
def test_places_number_a_tree_in_walk_order_and_lead_back(folder: _Folder) -> None:
    blobs = PageBlobs(KEYS)
    groups: dict[bytes, int] = {}
    tree = _make_tree(folder, blobs, groups)
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
def test_lookup_finds_every_child_and_nothing_else(folder: _Folder) -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(folder, blobs, {})
    children = list(tree.children(blobs, tree.top))
    assert sorted(folder.children) == [child.name for child in children]
    for child in children[:: max(1, len(children) // 30)]:
        assert child == tree.lookup(blobs, tree.top, child.name)
        for absent in (child.name + b"\x01", child.name[:-1], b"", b"\xff" * 50):
            if absent not in folder.children:
                assert tree.lookup(blobs, tree.top, absent) is None


@FEW
@given(_folders())
def test_a_listing_resumes_at_every_cookie(folder: _Folder) -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(folder, blobs, {})
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
    inner = _Folder({b"%04d" % number: None for number in range(500)})
    tree = _make_tree(_Folder({b"a": inner, b"b": inner, b"c": None}), blobs, {})
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
    tree = _make_tree(_filled({}, 30_000), blobs, {})
    levels = _levels(blobs, tree.top)
    for after in (1, 15_000, 29_999):
        blobs.reads = 0
        assert after + 1 == next(tree.children(blobs, tree.top, after=after)).place
        assert blobs.reads <= levels + 2, "the top is read once more to check it, and the next leaf where one ends"


def test_names_of_a_link_group_share_the_position_of_its_record() -> None:
    blobs = PageBlobs(KEYS)
    groups: dict[bytes, int] = {}
    keys = [b"%016d" % number for number in range(1000)]
    names: dict[bytes, _Folder | bytes | None] = {b"%04d" % number: key for number, key in enumerate(keys)}
    tree = _make_tree(_Folder({b"one": _Folder(names), b"two": _Folder(dict(names))}), blobs, groups)
    one, two = tree.children(blobs, tree.top)
    for first, second in zip(tree.children(blobs, one), tree.children(blobs, two), strict=True):
        assert first.place != second.place
        assert (first.position, first.entry) == (second.position, second.entry)
        assert 2 == first.entry.names
        assert 1 + tree.root.top.below <= first.position < tree.position_count
        assert first.entry == tree.at(blobs, first.position).entry


def test_positions_outside_a_snapshot_are_not_found() -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(_Folder({b"a": None, b"b": b"%016d" % 1}), blobs, {})
    assert 4 == tree.position_count
    for position in (-1, -(1 << 70), 4, 5, 1 << 62):
        with pytest.raises(PathNotFound):
            tree.at(blobs, position)


@pytest.mark.parametrize("path", [b"/nothing", b"a/b", b"/f00001/deeper", b"a/\xff"])
def test_a_path_that_is_not_there_is_not_found(path: bytes) -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(_filled({b"a": _Folder({})}, 3), blobs, {})
    with pytest.raises(PathNotFound):
        tree.resolve(blobs, path)


def test_a_name_whose_group_has_no_record_is_missing() -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(_Folder({b"a": b"%016d" % 1}), blobs, {})
    bare = SnapshotTree(tree.id, msgspec.structs.replace(tree.root, links=None, link_count=0))
    with pytest.raises(MissingError):
        list(bare.children(blobs, bare.top))


# Files


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
    return _file_of(extents, len(whole), blobs), whole, blobs


def _file_of(extents: list[Extent], size: int, blobs: PageBlobs) -> Entry:
    if len(extents) <= fmt.INLINE_EXTENTS_MAX:
        return Entry(b"file", EntryType.FILE, size=size, extents=pack_extents(extents))
    writer = PageWriter(blobs.put, KEYS.page_border)
    for extent in extents:
        writer.add(extent, extent.id, count=1, size=extent.length)
    return Entry(b"file", EntryType.FILE, size=size, page=writer.finish().page)


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
    entry = msgspec.structs.replace(_file_of([Extent(blobs.put(b"abc").id, 3)] * count, 3 * count, blobs), size=100)
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


# Hostile pages


def _encoded(level: int, items: Sequence[object]) -> bytes:
    return msgspec.msgpack.encode([level, items])


def _child(first: bytes, *, count: int = 1, size: int = 1) -> list[object]:
    return [first, b"i" * 32, 10, count, size]


DEEP = b"\x91" * 100_000
HOSTILE_TREE_PAGES = {
    "empty": b"",
    "no array": b"\x01",
    "no items": _encoded(0, []),
    "no children": _encoded(1, []),
    "unsorted": _encoded(0, [_file(b"b"), _file(b"a")]),
    "twice": _encoded(0, [_file(b"a"), _file(b"a")]),
    "unsorted children": _encoded(1, [_child(b"b"), _child(b"a")]),
    "negative below": _encoded(0, [Entry(b"a", EntryType.DIRECTORY, below=-1)]),
    "negative size": _encoded(0, [_file(b"a", -1)]),
    "negative count": _encoded(1, [_child(b"a", count=-1)]),
    "no count": _encoded(1, [_child(b"a", count=0)]),
    "negative child size": _encoded(1, [_child(b"a", size=-1)]),
    "highest level": _encoded(fmt.PAGE_LEVELS_MAX, [_child(b"a")]),
    "huge level": _encoded((1 << 64) - 1, [_child(b"a")]),
    "negative level": _encoded(-1, [_child(b"a")]),
    "entries above the leaves": _encoded(1, [_file(b"a")]),
    "trailing bytes": _encoded(0, [_file(b"a")]) + b"\0",
    "user that is not UTF-8": b"\x92\x00\x91\x96\xc4\x01a\x00\x00\x00\x00\xa2\xff\xfe",
    "nested without end": b"\x92\x00" + DEEP,
    "nested after what is known": b"\x92\x00\x91\xdc\x00\x17" + msgspec.msgpack.encode(Entry(b"a", 0))[3:] + DEEP,
    "billions of items": b"\x92\x00\xdd\xff\xff\xff\xff",
    "name of a million bytes": _encoded(0, [_file(b"n" * 1_000_000)]),
} | {
    f"name {name!r}": _encoded(0, [_file(name)])
    for name in (b"", b".", b"..", b"/", b"a/b", b"../up", b"a\0b", b"\0", b"n" * (fmt.NAME_BYTES_MAX + 1))
}


@pytest.mark.parametrize("what", HOSTILE_TREE_PAGES)
def test_a_hostile_page_of_a_directory_is_malformed(what: str) -> None:
    with pytest.raises(MalformedError):
        decode_tree_page(HOSTILE_TREE_PAGES[what])


HOSTILE_LINKS_PAGES = {
    "short group key": _encoded(0, [_file(b"k" * 15)]),
    "long group key": _encoded(0, [_file(b"k" * 17)]),
    "short key of a child": _encoded(1, [_child(b"k")]),
    "entries below": _encoded(0, [Entry(b"k" * 16, EntryType.DIRECTORY, below=1)]),
    "unsorted": _encoded(0, [_file(b"l" * 16), _file(b"k" * 16)]),
}


@pytest.mark.parametrize("what", HOSTILE_LINKS_PAGES)
def test_a_hostile_page_of_link_groups_is_malformed(what: str) -> None:
    with pytest.raises(MalformedError):
        decode_links_page(HOSTILE_LINKS_PAGES[what])


HOSTILE_LIST_PAGES = {
    "no extents": _encoded(0, []),
    "empty extent": _encoded(0, [Extent(HOLE, 0)]),
    "negative extent": _encoded(0, [Extent(HOLE, -1)]),
    "no children": _encoded(1, []),
    "negative size": _encoded(1, [_child(b"a", size=-1)]),
    "huge level": _encoded(200, [_child(b"a")]),
    "nested without end": b"\x92\x00" + DEEP,
}


@pytest.mark.parametrize("what", HOSTILE_LIST_PAGES)
def test_a_hostile_page_of_extents_is_malformed(what: str) -> None:
    with pytest.raises(MalformedError):
        decode_list_page(HOSTILE_LIST_PAGES[what])


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(DECODERS))
def test_random_bytes_are_malformed_or_a_page(data: bytes, decode: Callable[[bytes], Page]) -> None:
    _decode_or_malformed(decode, data)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.sampled_from(DECODERS))
def test_a_changed_page_is_malformed_or_a_page(data: st.DataObject, decode: Callable[[bytes], Page]) -> None:
    page = bytearray(data.draw(st.sampled_from(_real_pages())))
    for _ in range(data.draw(st.integers(1, 3))):
        page[data.draw(st.integers(0, len(page) - 1))] = data.draw(st.integers(0, 255))
    _decode_or_malformed(decode, bytes(page))
    _decode_or_malformed(decode, bytes(page[: data.draw(st.integers(0, len(page)))]))


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.integers(-5, 300) | st.binary(max_size=40) | st.text(max_size=5) | st.none(), st.lists, max_leaves=40
    )
)
def test_any_value_is_malformed_or_a_page(value: object) -> None:
    for decode in DECODERS:
        for level in (0, 1):
            _decode_or_malformed(decode, msgspec.msgpack.encode([level, value]))
    _decode_or_malformed(decode_xattrs, msgspec.msgpack.encode(value))


def _decode_or_malformed(decode: Callable[[bytes], object], data: bytes) -> None:
    """Anything but `MalformedError` fails the test; what decodes has something in it."""
    try:
        page = decode(data)
    except MalformedError:
        return
    assert not isinstance(page, Page) or (page.items and page.starts[-1] >= 0)


@cache
def _real_pages() -> list[bytes]:
    blobs = PageBlobs(KEYS)
    _make_tree(_filled({b"d": _Folder({b"x": None}), b"l": b"%016d" % 3}, 200), blobs, {})
    _file_of([Extent(BlobId(b"e" * 32), number + 1) for number in range(500)], 1000, blobs)
    return sorted(blobs.pages.values())


@pytest.mark.parametrize(
    "data", [b"", b"\x91\x91\xc4\x00", b"\xdd\xff\xff\xff\xff", DEEP, b"\x91\x92\xa1\xff\xa1\xff", b"\x90\x00"]
)
def test_hostile_extended_attributes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_xattrs(data)


@pytest.mark.parametrize("length", [1, 39, 41, 79])
def test_extents_of_a_broken_length_are_malformed(length: int) -> None:
    with pytest.raises(MalformedError):
        list(unpack_extents(bytes(length)))


LIES: dict[str, Callable[[Child], Child]] = {
    "first": lambda child: msgspec.structs.replace(child, first=child.first + b"\x01"),
    "count": lambda child: msgspec.structs.replace(child, count=child.count + 1),
    "size": lambda child: msgspec.structs.replace(child, size=child.size + 1),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_page_that_lies_about_its_children_is_malformed(lie: str) -> None:
    """Wherever one goes down: by name, by position, by listing."""
    blobs = PageBlobs(KEYS)
    tree = _make_tree(_filled({}, 1000), blobs, {})
    tree = _with_changed_top(tree, blobs, lambda level, items: (level, [LIES[lie](items[0]), *items[1:]]))
    for use in (
        lambda: tree.lookup(blobs, tree.top, b"f00001"),
        lambda: tree.at(blobs, 2),
        lambda: list(tree.children(blobs, tree.top)),
    ):
        with pytest.raises(MalformedError):
            use()


def test_a_page_on_a_wrong_level_is_malformed() -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(_filled({}, 1000), blobs, {})
    tree = _with_changed_top(tree, blobs, lambda level, items: (level + 1, items))
    with pytest.raises(MalformedError):
        tree.lookup(blobs, tree.top, b"f00001")


def _with_changed_top(
    tree: SnapshotTree, blobs: PageBlobs, change: Callable[[int, list[Child]], tuple[int, list[Child]]]
) -> SnapshotTree:
    """The tree with another top page, and a top entry that agrees with it."""
    top = tree.root.top
    assert top.page is not None
    level, items = msgspec.msgpack.decode(blobs.pages[top.page.id], type=tuple[int, list[Child]])
    changed = change(level, items)
    count, size = sum(child.count for child in changed[1]), sum(child.size for child in changed[1])
    entry = msgspec.structs.replace(top, page=blobs.put(_encoded(*changed)), below=count, size=size)
    return SnapshotTree(tree.id, msgspec.structs.replace(tree.root, top=entry))


@pytest.mark.parametrize(("below", "size"), [(999, 6000), (1001, 6000), (1000, 5999)])
def test_a_directory_that_lies_about_what_is_below_is_malformed(below: int, size: int) -> None:
    blobs = PageBlobs(KEYS)
    tree = _make_tree(_filled({}, 1000), blobs, {})
    assert (1000, 6000) == (tree.root.top.below, tree.root.top.size)
    entry = msgspec.structs.replace(tree.root.top, below=below, size=size)
    tree = SnapshotTree(tree.id, msgspec.structs.replace(tree.root, top=entry))
    with pytest.raises(MalformedError):
        tree.lookup(blobs, tree.top, b"f00001")


def test_a_list_page_that_lies_about_its_children_is_malformed() -> None:
    blobs = PageBlobs(KEYS)
    chunk = blobs.put(b"c" * 10)
    leaf = blobs.put(_encoded(0, [Extent(chunk.id, 10)] * 40))
    top = blobs.put(_encoded(1, [Child(chunk.id, leaf.id, leaf.length, 40, 401)] * 2))
    entry = Entry(b"file", EntryType.FILE, size=800, page=top)
    with pytest.raises(MalformedError):
        read_file(blobs, entry, 0, 10)


def test_ids_of_blobs_differ_by_kind() -> None:
    assert len(BlobKind) == len({KEYS.blob_id(kind, b"same") for kind in BlobKind})
