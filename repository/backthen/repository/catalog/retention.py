"""Which snapshots rules keep, and which are to be forgotten. Pure.

The snapshots of each host and set of paths are looked at by themselves. Rules that count keep the newest snapshot of
each of the last so many hours, days and so on that have one. What they keep is the union of what they keep in the order
of the log and in the order of time: a machine whose clock is wrong, or whoever forges one, adds snapshots to what is
kept and pushes none out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from backthen.repository.catalog.roots import SnapshotInfo
from backthen.repository.errors import InvalidRequest
from backthen.repository.ids import SnapshotId
from backthen.repository.times import NS, parse_time

_Period = Callable[[datetime, int], object]


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """What is kept; a snapshot stays when any of them says so.

    Attributes:
        last: so many of the newest.
        hourly: the newest of each of the last so many hours that have one; the others alike.
        daily: days, local.
        weekly: weeks, from Monday.
        monthly: months.
        yearly: years.
        within: everything up to so long before the newest, such as `30 days`; None for nothing.
        tags: everything that has one of these tags.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str | None = None
    tags: frozenset[str] = frozenset()


class Verdict(NamedTuple):
    """Why a snapshot is kept; with no reason it is to be forgotten."""

    info: SnapshotInfo
    reasons: tuple[str, ...]


_PERIODS: tuple[tuple[str, _Period], ...] = (
    ("last", lambda _, order: order),
    ("hourly", lambda begun, _: (begun.date(), begun.hour, begun.utcoffset())),
    ("daily", lambda begun, _: begun.date()),
    ("weekly", lambda begun, _: begun.isocalendar()[:2]),
    ("monthly", lambda begun, _: (begun.year, begun.month)),
    ("yearly", lambda begun, _: begun.year),
)


def apply_retention(
    infos: Iterable[SnapshotInfo], rules: RetentionRules, now_ns: int, zone: tzinfo | None = None
) -> list[Verdict]:
    """What the rules say of each snapshot, in the given order.

    Args:
        infos: the snapshots that the rules are about.
        rules: at least one must be able to keep something.
        now_ns: now.
        zone: what is local; None for this machine's zone.

    Raises:
        InvalidRequest: no rule can keep anything, or they keep nothing of some host and paths, which a slip of the pen
            in a tag would ask for; or `within` is not a length of time.
    """
    if rules == RetentionRules():
        raise InvalidRequest("no rule says what to keep", hint="Keep at least something: `--keep-last 1`.")
    groups: dict[tuple[str, tuple[bytes, ...]], list[SnapshotInfo]] = {}
    infos = list(infos)
    for info in infos:
        groups.setdefault((info.host, info.paths), []).append(info)
    reasons: dict[SnapshotId, dict[str, None]] = {info.id: {} for info in infos}
    for group in groups.values():
        for id_, reason in _reasons_to_keep(group, rules, now_ns, zone):
            reasons[id_][reason] = None
        if not any(reasons[info.id] for info in group):
            raise InvalidRequest(
                f"the rules keep no snapshot of {group[0].host} and "
                + ", ".join(path.decode(errors="backslashreplace") for path in group[0].paths),
                hint="Nothing was forgotten. Add a rule such as `--keep-last 1`, or give the snapshots by their ids.",
            )
    return [Verdict(info, tuple(reasons[info.id])) for info in infos]


def _reasons_to_keep(
    group: Sequence[SnapshotInfo], rules: RetentionRules, now_ns: int, zone: tzinfo | None
) -> Iterable[tuple[SnapshotId, str]]:
    by_log = sorted(group, key=lambda info: info.order, reverse=True)
    by_time = sorted(group, key=lambda info: (info.started_ns, info.order), reverse=True)
    for name, period in _PERIODS:
        for ordered in (by_log, by_time):
            yield from ((info.id, name) for info in _newest_of_each(ordered, period, getattr(rules, name), zone))
    if rules.within is not None:
        since_ns = _since(rules.within, min(now_ns, by_time[0].started_ns), zone)
        yield from ((info.id, f"within {rules.within}") for info in group if info.started_ns >= since_ns)
    for info in group:
        yield from ((info.id, f"tag {tag}") for tag in sorted(rules.tags & set(info.tags)))
        if info.is_kept:
            yield info.id, "kept"


def _newest_of_each(
    ordered: Sequence[SnapshotInfo], period: _Period, count: int, zone: tzinfo | None
) -> Iterable[SnapshotInfo]:
    """The first snapshot of each of the first `count` periods."""
    seen: set[object] = set()
    for info in ordered:
        if len(seen) >= count:
            return
        key = period(_local(info.started_ns, zone), info.order)
        if key not in seen:
            seen.add(key)
            yield info


def _since(within: str, newest_ns: int, zone: tzinfo | None) -> int:
    since_ns = parse_time(f"{within} ago", newest_ns, zone)
    if since_ns is None:
        raise InvalidRequest(f"{within!r} is not a length of time", hint="Write it as in `30 days` or `6 months`.")
    return since_ns


def _local(time_ns: int, zone: tzinfo | None) -> datetime:
    """The local time; that of the first or last year where a forged clock is beyond what a calendar has."""
    try:
        return datetime.fromtimestamp(time_ns // NS, UTC).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return (datetime.max if time_ns > 0 else datetime.min).replace(tzinfo=UTC)
