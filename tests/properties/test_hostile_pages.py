"""Pages by somebody who has the keys and does not keep to the format: malformed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.content.file import read_file
from backthen.repository.content.tree import SnapshotTree
from backthen.repository.errors import MalformedError
from backthen.repository.ids import BlobId
from backthen.repository.model.entry import (
    HOLE,
    Entry,
    EntryType,
    Extent,
    decode_xattrs,
    unpack_extents,
)
from backthen.repository.model.page import (
    Child,
    Page,
    decode_links_page,
    decode_list_page,
    decode_tree_page,
)
from tests.support.fixed_keys import fixed_keys
from tests.support.page_blobs import PageBlobs
from tests.support.page_trees import Folder, file_entry, file_of_extents, filled, make_tree

KEYS = fixed_keys()
DECODERS = (decode_tree_page, decode_links_page, decode_list_page)


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
    "unsorted": _encoded(0, [file_entry(b"b"), file_entry(b"a")]),
    "twice": _encoded(0, [file_entry(b"a"), file_entry(b"a")]),
    "unsorted children": _encoded(1, [_child(b"b"), _child(b"a")]),
    "negative below": _encoded(0, [Entry(b"a", EntryType.DIRECTORY, below=-1)]),
    "negative size": _encoded(0, [file_entry(b"a", -1)]),
    "negative count": _encoded(1, [_child(b"a", count=-1)]),
    "no count": _encoded(1, [_child(b"a", count=0)]),
    "negative child size": _encoded(1, [_child(b"a", size=-1)]),
    "highest level": _encoded(fmt.PAGE_LEVELS_MAX, [_child(b"a")]),
    "huge level": _encoded((1 << 64) - 1, [_child(b"a")]),
    "negative level": _encoded(-1, [_child(b"a")]),
    "entries above the leaves": _encoded(1, [file_entry(b"a")]),
    "trailing bytes": _encoded(0, [file_entry(b"a")]) + b"\0",
    "user that is not UTF-8": b"\x92\x00\x91\x96\xc4\x01a\x00\x00\x00\x00\xa2\xff\xfe",
    "nested without end": b"\x92\x00" + DEEP,
    "nested after what is known": b"\x92\x00\x91\xdc\x00\x17" + msgspec.msgpack.encode(Entry(b"a", 0))[3:] + DEEP,
    "billions of items": b"\x92\x00\xdd\xff\xff\xff\xff",
    "name of a million bytes": _encoded(0, [file_entry(b"n" * 1_000_000)]),
} | {
    f"name {name!r}": _encoded(0, [file_entry(name)])
    for name in (b"", b".", b"..", b"/", b"a/b", b"../up", b"a\0b", b"\0", b"n" * (fmt.NAME_BYTES_MAX + 1))
}


@pytest.mark.parametrize("what", HOSTILE_TREE_PAGES)
def test_a_hostile_page_of_a_directory_is_malformed(what: str) -> None:
    with pytest.raises(MalformedError):
        decode_tree_page(HOSTILE_TREE_PAGES[what])


HOSTILE_LINKS_PAGES = {
    "short group key": _encoded(0, [file_entry(b"k" * 15)]),
    "long group key": _encoded(0, [file_entry(b"k" * 17)]),
    "short key of a child": _encoded(1, [_child(b"k")]),
    "entries below": _encoded(0, [Entry(b"k" * 16, EntryType.DIRECTORY, below=1)]),
    "unsorted": _encoded(0, [file_entry(b"l" * 16), file_entry(b"k" * 16)]),
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
    make_tree(filled({b"d": Folder({b"x": None}), b"l": b"%016d" % 3}, 200), blobs, {})
    file_of_extents([Extent(BlobId(b"e" * 32), number + 1) for number in range(500)], 1000, blobs)
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
    tree = make_tree(filled({}, 1000), blobs, {})
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
    tree = make_tree(filled({}, 1000), blobs, {})
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
    tree = make_tree(filled({}, 1000), blobs, {})
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
