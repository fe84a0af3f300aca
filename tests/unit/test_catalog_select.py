"""Which snapshot is meant."""

from __future__ import annotations

import hashlib

import pytest

from backthen.repository.catalog import AtTime, IdPrefix, Latest, SnapshotInfo, filter_snapshots, select_snapshot
from backthen.repository.errors import AmbiguousSnapshot, SnapshotNotFound
from backthen.repository.ids import ObjectId, SnapshotId
from tests.support.catalog_records import make_root

SECOND = 1_000_000_000


def _info(
    order: int, seconds: int, *, id_: bytes = b"", host: str = "host", tags: tuple[str, ...] = ()
) -> SnapshotInfo:
    id_ = id_ or hashlib.sha256(b"%d" % order).digest()
    root = make_root(seconds, host=host, paths=(b"/etc", b"/home/\x1b[31mme\xff"))
    return SnapshotInfo(SnapshotId(ObjectId(id_)), root, tags, order, ObjectId(bytes(32)))


INFOS = [_info(0, 100, tags=("a", "b")), _info(1, 300, host="other"), _info(2, 200, tags=("a",))]


@pytest.mark.parametrize(("back", "order"), [(0, 2), (1, 1), (2, 0)])
def test_latest_goes_by_the_log(back: int, order: int) -> None:
    assert select_snapshot(INFOS, Latest(back)).order == order


def test_latest_before_the_first() -> None:
    with pytest.raises(SnapshotNotFound, match="only 3 snapshots"):
        select_snapshot(INFOS, Latest(3))


@pytest.mark.parametrize(("seconds", "order"), [(100, 0), (199, 0), (200, 2), (299, 2), (300, 1), (10**9, 1)])
def test_at_a_time_the_newest_begun(seconds: int, order: int) -> None:
    assert select_snapshot(INFOS, AtTime(seconds * SECOND)).order == order


def test_of_two_begun_at_once_the_later_in_the_log() -> None:
    assert select_snapshot([_info(0, 5), _info(1, 5)], AtTime(5 * SECOND)).order == 1


def test_before_all_times() -> None:
    with pytest.raises(SnapshotNotFound, match="1970-01-01 00:01:39 UTC"):
        select_snapshot(INFOS, AtTime(100 * SECOND - 1))
    with pytest.raises(SnapshotNotFound):
        select_snapshot(INFOS, AtTime(-(10**30)))


def test_by_id() -> None:
    text = INFOS[1].id.hex()
    assert select_snapshot(INFOS, IdPrefix(text)).order == 1
    assert select_snapshot(INFOS, IdPrefix(text[:8].upper())).order == 1
    with pytest.raises(SnapshotNotFound, match="'ffff0000'"):
        select_snapshot(INFOS, IdPrefix("ffff0000"))


def test_ambiguity_lists_the_candidates_without_control_characters() -> None:
    infos = [_info(order, 60 * order, id_=b"\xab" + bytes([order]) * 31) for order in range(12)]
    with pytest.raises(AmbiguousSnapshot) as caught:
        select_snapshot(infos, IdPrefix("AB"))
    first, *lines = str(caught.value).splitlines()
    assert first == "12 snapshots have ids that begin with 'ab':"
    assert lines[1] == r"  ab0101010101  1970-01-01 00:01:00 UTC  host  /etc /home/\x1b[31mme\xff"
    assert (len(lines), lines[-1]) == (11, "  and 2 more")


def test_among_none() -> None:
    for selector in (Latest(), AtTime(0), IdPrefix("a")):
        with pytest.raises(SnapshotNotFound, match="no snapshot to choose from"):
            select_snapshot([], selector)


def test_filters_narrow_together() -> None:
    def orders(*, host: str | None = None, tags: tuple[str, ...] = (), path: bytes | None = None) -> list[int]:
        return [info.order for info in filter_snapshots(INFOS, host=host, tags=tags, path=path)]

    assert orders() == [0, 1, 2]
    assert orders(host="other") == [1]
    assert orders(tags=("a",)) == [0, 2]
    assert orders(tags=("a", "b")) == [0]
    assert orders(path=b"/etc") == [0, 1, 2]
    assert orders(path=b"/et") == []
    assert orders(host="host", tags=("a",), path=b"/etc") == [0, 2]
