"""Inode numbers without a table."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backthen.fsmount.view.numbers import VIRTUAL_START, SnapshotRanges, VirtualNumbers
from tests.support.history import keyed


def _crowded(data: bytes) -> int:
    """A PRF with so few results that everything clashes."""
    return (keyed("test", data) % 4096) << 2


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=4), st.integers(1, 20)), unique_by=lambda item: item[0], max_size=20
    )
)
def test_ranges_never_overlap(snapshots: list[tuple[bytes, int]]) -> None:
    bases = SnapshotRanges(_crowded).assign(snapshots)

    ranges = sorted((bases[id_], bases[id_] + count) for id_, count in snapshots)
    assert all(end <= start for (_, end), (start, _) in pairwise(ranges))
    assert all(2 <= start and end <= VIRTUAL_START for start, end in ranges)


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=4), st.integers(1, 20)), unique_by=lambda item: item[0], max_size=20
    )
)
def test_later_snapshots_do_not_move_earlier_ones(snapshots: list[tuple[bytes, int]]) -> None:
    half = len(snapshots) // 2
    ranges = SnapshotRanges(_crowded)
    before = ranges.assign(snapshots[:half])

    after = ranges.assign(snapshots)

    assert before == {id_: after[id_] for id_ in before}
    assert after == SnapshotRanges(_crowded).assign(snapshots)


def test_snapshot_that_is_shown_keeps_its_range_when_another_turns_up_before_it() -> None:
    ranges = SnapshotRanges(lambda data: 400 if data.endswith((b"a", b"b")) else keyed("test", data))
    (base,) = ranges.assign([(b"b", 10)]).values()

    bases = ranges.assign([(b"a", 10), (b"b", 10)])

    assert bases[b"b"] == base == 100
    assert bases[b"a"] != base


def test_base_that_leads_beyond_the_range_is_drawn_again() -> None:
    drawn = iter([(1 << 64) - 1, 0, 4, 4000])

    assert SnapshotRanges(lambda _: next(drawn)).assign([(b"id", 10)]) == {b"id": 1000}


@given(st.lists(st.binary(), unique=True, max_size=50))
def test_virtual_numbers_are_distinct_and_above_all_snapshots(paths: list[bytes]) -> None:
    numbers = VirtualNumbers(lambda data: keyed("test", data) % 100)
    assigned = [numbers.assign(path) for path in paths]

    assert len(set(assigned)) == len(paths)
    assert all(VIRTUAL_START <= number < VIRTUAL_START + (1 << 61) for number in assigned)
