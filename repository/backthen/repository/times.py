"""Times as people write them, in local time unless they name a zone.

A text stands for the *end* of what it names: a date for the last instant of that day, `10:15` for the last of that
minute, `10:15:30` for the last of that second. So the time that a listing shows finds the snapshot it belongs to.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

NS = 1_000_000_000

_DAY = r"(?P<day>\d{4}-\d{1,2}-\d{1,2}|today|yesterday|(?:last )?(?:mon|tues|wednes|thurs|fri|satur|sun)day)"
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
_ZONE = r"(?: ?(?P<zone>z|utc|[+-]\d\d(?::?\d\d)?))?"
_MOMENT = re.compile(rf"(?:{_DAY}(?:(?: +|t){_CLOCK}{_ZONE})?)")
_TIME_TODAY = re.compile(_CLOCK)
_AGO = re.compile(r"(?P<count>\d{1,6}|an?|one) +(?P<unit>second|minute|hour|day|week|month|year)s? +ago")
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}


def parse_time(text: str, now_ns: int, zone: tzinfo | None) -> int | None:
    """The time that `text` names, in nanoseconds since 1970 UTC, or None where it is not a time.

    Args:
        text: what was written.
        now_ns: now.
        zone: what is local; None for this machine's zone.

    Understood are `2026-11-20`, `2026-11-20 10:15`, `2026-11-20T10:15:30.5+01:00`, `14:00` (today), `today`,
    `yesterday 14:00`, `last tuesday`, `3 days ago`, `now`.
    """
    words = " ".join(text.lower().split())
    today = datetime.fromtimestamp(now_ns // NS, UTC).astimezone(zone)
    try:
        if words == "now":
            return now_ns
        if match := _AGO.fullmatch(words):
            return _ago(match, today, now_ns, zone)
        if match := _TIME_TODAY.fullmatch(words):
            return _end_of_clock(match.groupdict(), today.date(), zone)
        if match := _MOMENT.fullmatch(words):
            return _end_of_moment(match.groupdict(), today.date(), zone)
    except (ValueError, OverflowError):
        return None
    return None


def _end_of_moment(groups: Mapping[str, str | None], today: date, zone: tzinfo | None) -> int:
    day = _day(groups["day"] or "", today)
    if groups["hour"] is None:
        return _seconds(datetime.combine(day + timedelta(days=1), datetime.min.time()), zone) * NS - 1
    return _end_of_clock(groups, day, zone)


def _end_of_clock(groups: Mapping[str, str | None], day: date, zone: tzinfo | None) -> int:
    second, fraction = groups["second"], groups["fraction"]
    moment = datetime(
        day.year, day.month, day.day, int(groups["hour"] or 0), int(groups["minute"] or 0), int(second or 0)
    )
    start = _seconds(moment, _zone(groups.get("zone")) or zone) * NS
    if second is None:
        return start + 60 * NS - 1
    if fraction is None:
        return start + NS - 1
    # All instants whose first digits are those: 0.25 stands for up to 0.259999999.
    return start + int(fraction.ljust(9, "9"))


def _zone(text: str | None) -> timezone | None:
    if text is None:
        return None
    if text in ("z", "utc"):
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _seconds(moment: datetime, zone: tzinfo | None) -> int:
    return int(moment.replace(tzinfo=zone).timestamp())


def _day(text: str, today: date) -> date:
    if text == "today":
        return today
    if text == "yesterday":
        return today - timedelta(days=1)
    weekday = text.removeprefix("last ")
    if weekday in _WEEKDAYS:
        back = (today.weekday() - _WEEKDAYS.index(weekday) - 1) % 7 + 1
        return today - timedelta(days=back)
    year, month, day = (int(part) for part in text.split("-"))
    return date(year, month, day)


def _ago(match: re.Match[str], today: datetime, now_ns: int, zone: tzinfo | None) -> int:
    count = int(match["count"]) if match["count"].isdigit() else 1
    unit = match["unit"]
    if unit in _SECONDS:
        return now_ns - count * _SECONDS[unit] * NS
    # A day ago is the same time on the clock, also over a change to summer time: hence without the zone.
    clock = today.replace(tzinfo=None)
    return _seconds(_EARLIER[unit](clock, count), zone) * NS + now_ns % NS


def _months_earlier(moment: datetime, count: int) -> datetime:
    year, month = divmod(moment.year * 12 + moment.month - 1 - count, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


_EARLIER: Mapping[str, Callable[[datetime, int], datetime]] = {
    "day": lambda moment, count: moment - timedelta(days=count),
    "week": lambda moment, count: moment - timedelta(weeks=count),
    "month": _months_earlier,
    "year": lambda moment, count: _months_earlier(moment, 12 * count),
}
