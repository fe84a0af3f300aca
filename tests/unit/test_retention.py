"""Which snapshots rules keep."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from backthen.repository.catalog import RetentionRules, SnapshotInfo, apply_retention
from backthen.repository.errors import InvalidRequest
from backthen.repository.ids import ObjectId, SnapshotId
from backthen.repository.times import NS
from tests.support.catalog_records import make_root

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_NS = int(NOW.timestamp()) * NS


def _info(
    order: int, begun: datetime, *, host: str = "host", tags: tuple[str, ...] = (), kept: bool = False
) -> SnapshotInfo:
    root = make_root(int(begun.timestamp()), host=host)
    id_ = ObjectId(order.to_bytes(32, "big"))
    return SnapshotInfo(SnapshotId(id_), root, tags, order, id_, kept)


def _hourly(days: int) -> list[SnapshotInfo]:
    """One snapshot each hour of the last days, the last one now."""
    hours = days * 24
    return [_info(number, NOW - timedelta(hours=hours - 1 - number)) for number in range(hours)]


def _kept(infos: list[SnapshotInfo], **rules: object) -> list[datetime]:
    verdicts = apply_retention(infos, RetentionRules(**rules), NOW_NS, UTC)  # type: ignore[arg-type]
    assert [verdict.info for verdict in verdicts] == infos
    return [datetime.fromtimestamp(info.started_ns / NS, UTC) for info, reasons in verdicts if reasons]


def test_the_last_ones_are_kept() -> None:
    assert [NOW - timedelta(hours=1), NOW] == _kept(_hourly(3), last=2)


def test_the_newest_of_each_day_is_kept() -> None:
    found = _kept(_hourly(10), daily=3)
    assert [NOW.replace(day=18, hour=23), NOW.replace(day=19, hour=23), NOW] == found


def test_hours_weeks_months_and_years_are_kept() -> None:
    infos = [_info(number, NOW - timedelta(days=399 - number)) for number in range(400)]
    assert [NOW - timedelta(days=1), NOW] == _kept(infos, hourly=2)
    assert [NOW.replace(day=8), NOW.replace(day=15), NOW] == _kept(infos, weekly=3)
    assert [NOW.replace(month=9, day=30), NOW.replace(month=10, day=31), NOW] == _kept(infos, monthly=3)
    assert [NOW.replace(year=2025, month=12, day=31), NOW] == _kept(infos, yearly=9)


def test_periods_without_a_snapshot_do_not_count() -> None:
    infos = [_info(0, NOW - timedelta(days=500)), _info(1, NOW - timedelta(days=300)), _info(2, NOW)]
    assert 3 == len(_kept(infos, daily=3))


def test_all_within_a_time_before_the_newest_are_kept() -> None:
    old = timedelta(days=1000)
    infos = [_info(number, NOW - old - timedelta(days=10 - number)) for number in range(11)]
    assert [NOW - old - timedelta(days=days) for days in (2, 1, 0)] == _kept(infos, within="2 days")


def test_tags_and_marks_keep() -> None:
    infos = _hourly(1)
    infos[3] = _info(3, NOW - timedelta(hours=20), tags=("a", "b"))
    infos[5] = _info(5, NOW - timedelta(hours=18), kept=True)
    assert [NOW - timedelta(hours=hours) for hours in (20, 18, 0)] == _kept(infos, last=1, tags=frozenset({"b", "c"}))


def test_each_host_is_looked_at_by_itself() -> None:
    infos = [_info(0, NOW - timedelta(days=9), host="old"), *(_info(number, NOW, host="new") for number in range(1, 4))]
    assert [NOW - timedelta(days=9), NOW] == _kept(infos, last=1)


def test_a_clock_ahead_pushes_no_snapshot_out() -> None:
    infos = _hourly(1)
    forged = _info(24, NOW.replace(year=2099))
    late = [_info(25, NOW + timedelta(hours=1)), _info(26, NOW + timedelta(hours=2))]
    found = _kept([*infos, forged, *late], last=2, within="3 hours")
    assert {NOW + timedelta(hours=1), NOW + timedelta(hours=2)} <= set(found)
    assert NOW in found, "what is within a time is reckoned from now where the newest is of the future"


def test_a_clock_behind_pushes_no_snapshot_out() -> None:
    infos = [*_hourly(3), _info(100, NOW.replace(year=1971))]
    assert [NOW - timedelta(hours=1), NOW, NOW.replace(year=1971)] == _kept(infos, last=2)


def test_times_that_no_calendar_has_are_kept_like_others() -> None:
    infos = [
        replace(_info(order, NOW), root=make_root(order, started_ns=started_ns))
        for order, started_ns in enumerate((-(1 << 63), (1 << 63) - 1))
    ]
    verdicts = apply_retention(infos, RetentionRules(yearly=5), NOW_NS, UTC)
    assert all(reasons for _, reasons in verdicts)


def test_something_is_always_kept_of_each_group() -> None:
    rng = random.Random(4)
    for _ in range(200):
        infos = [_info(number, NOW + timedelta(hours=rng.randint(-9999, 99))) for number in range(rng.randint(1, 30))]
        name = rng.choice(("last", "hourly", "daily", "weekly", "monthly", "yearly"))
        newest = max(infos, key=lambda info: (info.started_ns, info.order))
        count = rng.randint(1, 5)
        found = apply_retention(infos, RetentionRules(**{name: count}), NOW_NS, UTC)  # type: ignore[arg-type]
        kept = [info for info, reasons in found if reasons]
        assert newest in kept
        assert infos[-1] in kept
        assert len(kept) <= 2 * count


@pytest.mark.parametrize("rules", [RetentionRules(), RetentionRules(within="never")])
def test_rules_that_cannot_keep_are_refused(rules: RetentionRules) -> None:
    with pytest.raises(InvalidRequest):
        apply_retention(_hourly(1), rules, NOW_NS, UTC)


def test_rules_that_keep_nothing_of_a_host_are_refused() -> None:
    infos = [_info(0, NOW, tags=("release",)), _info(1, NOW, host="other")]
    with pytest.raises(InvalidRequest, match="keep no snapshot of other and /home"):
        apply_retention(infos, RetentionRules(tags=frozenset({"release"})), NOW_NS, UTC)
