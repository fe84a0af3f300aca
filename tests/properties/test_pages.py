"""Pages: equal sequences give equal trees, borders fall where the format says, and an edit costs little."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from backthen.repository import format as fmt
from backthen.repository.compression import compress
from backthen.repository.crypto import BlobKind
from backthen.repository.model.entry import (
    BlobRef,
    Entry,
    EntryType,
    Extent,
    pack_extents,
)
from backthen.repository.model.page import (
    Child,
    Page,
    PageWriter,
    Summary,
    check_child,
    decode_tree_page,
)
from tests.support.fixed_keys import fixed_keys
from tests.support.page_blobs import PageBlobs
from tests.support.page_trees import file_entry, write_pages

KEYS = fixed_keys()
SAMPLES = settings(max_examples=40, deadline=None)
FEW = settings(max_examples=15, deadline=None)


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
    return [file_entry(name, sizes * (len(name) + number)) for number, name in enumerate(sorted(drawn | made))]


@SAMPLES
@given(_directories())
def test_what_goes_into_pages_comes_out_and_adds_up(entries: list[Entry]) -> None:
    blobs = PageBlobs(KEYS)
    summary = write_pages(entries, blobs)
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
    assert [write_pages(entries[:at], PageBlobs(KEYS))] == copies
    assert write_pages(entries, PageBlobs(KEYS)) == writer.finish()


@FEW
@given(st.sets(st.integers(0, 5000), max_size=400), st.randoms(use_true_random=False))
def test_equal_directories_have_equal_pages_whatever_their_history(removed: set[int], rng: random.Random) -> None:
    """Entries come and go in any order; a table of all pages ever put holds those of the last state."""
    names = {b"%05d" % number for number in range(2000)}
    churned = set(names)
    history = PageBlobs(KEYS)
    for number in rng.sample(sorted(removed), len(removed))[:3]:
        churned ^= {b"%05d" % number}
        write_pages([file_entry(name) for name in sorted(churned)], history)
    last = write_pages([file_entry(name) for name in sorted(names)], history)
    alone = PageBlobs(KEYS)
    assert write_pages([file_entry(name) for name in sorted(names)], alone) == last
    assert alone.pages.items() <= history.pages.items()


def test_other_keys_give_other_borders() -> None:
    entries = [file_entry(b"%05d" % number) for number in range(5000)]
    other = PageWriter(PageBlobs(KEYS).put, fixed_keys(1).page_border)
    for entry in entries:
        other.add(entry, entry.name, count=1, size=1)
    assert write_pages(entries, PageBlobs(KEYS)) != other.finish()


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
    entries = [file_entry(b"%05d" % number) for number in range(1000)]
    assert [[256, 256, 256, 232], [4]] == _page_lengths(entries, _never)


def test_a_border_needs_32_items() -> None:
    entries = [file_entry(b"%05d" % number) for number in range(100)]
    assert [[32, 32, 32, 4], [4]] == _page_lengths(entries, _always)


def test_a_border_is_forced_when_the_items_reach_32_kib() -> None:
    entries = [Entry(b"%05d" % number, EntryType.SYMLINK, target=b"t" * 4096) for number in range(20)]
    encoded = len(msgspec.msgpack.encode(entries[0]))
    each = -(-fmt.PAGE_ITEM_BYTES_MAX // encoded)
    leaves, _ = _page_lengths(entries, _never)
    assert [each] * (20 // each) == leaves[: 20 // each]


def test_a_page_that_ends_with_the_directory_leaves_no_empty_page() -> None:
    entries = [file_entry(b"%05d" % number) for number in range(512)]
    assert [[256, 256], [2]] == _page_lengths(entries, _never)
    assert [[256]] == _page_lengths(entries[:256], _never)


def test_pages_are_as_long_as_the_format_says_on_average() -> None:
    blobs = PageBlobs(KEYS)
    summary = write_pages([file_entry(b"%06d" % number) for number in range(50_000)], blobs)
    assert summary.page is not None
    leaves = _leaves(blobs, summary.page)
    assert all(fmt.PAGE_ITEMS_MIN <= len(leaf.items) <= fmt.PAGE_ITEMS_MAX for leaf in leaves[:-1])
    assert 31 + 40 < 50_000 / len(leaves) < 31 + 56, "31 and a geometric wait of 48"


def test_one_change_in_a_folder_of_300_000_costs_little() -> None:
    """An edit writes the pages on its path again and no others; what they take when stored is small."""
    entries = [_large_entry(number) for number in range(300_000)]
    blobs = PageBlobs(KEYS)
    summary = write_pages(entries, blobs)
    rng = random.Random(3)
    assert summary.page is not None
    costs = [
        sum(_stored_length(data) for data in _path(blobs, summary.page, rng.randrange(300_000))) for _ in range(100)
    ]
    assert sum(costs) / len(costs) < 16 * fmt.KIB
    before = set(blobs.pages)
    changed = rng.randrange(300_000)
    entries[changed] = msgspec.structs.replace(entries[changed], mode=0o600, size=7)
    after = write_pages(entries, blobs)
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
    summary = write_pages(entries, blobs)
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


def test_ids_of_blobs_differ_by_kind() -> None:
    assert len(BlobKind) == len({KEYS.blob_id(kind, b"same") for kind in BlobKind})
