"""Times as people write them, in local time unless they name a zone.

A text stands for the *end* of what it names: a date for the last instant of that day, `10:15` for the last of that
minute, `10:15:30` for the last of that second. So the time that a listing shows finds the snapshot it belongs to.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo

NS = 1_000_000_000

_MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
    "december",
)  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}

_NAME = r"(?P<name>[a-z]{3,9})\.?"
_NAMED_YEAR = r"(?:,? (?P<year>\d{4}))?"
_DATES = (
    re.compile(r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"),
    re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})"),
    re.compile(rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)? {_NAME}{_NAMED_YEAR}"),
    re.compile(rf"{_NAME} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?{_NAMED_YEAR}"),
)
_PERIODS = (re.compile(r"(?P<year>\d{4})(?:-(?P<month>\d{1,2}))?"), re.compile(rf"{_NAME}{_NAMED_YEAR}"))
_CLOCK = re.compile(
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"(?: ?(?P<half>[ap])m)?(?: ?(?P<zone>z|utc|[+-]\d\d(?::?\d\d)?))?"
)
_SEAM = re.compile(r"(?<=\d)t(?=\d)|,? (?:at )?")
"""What may stand between a day and a time of day."""
_AGO = re.compile(r"(?P<count>\d{1,6}|an?|one) (?P<unit>second|minute|hour|day|week|month|year)s? ago")

_Groups = Mapping[str, str | None]


def parse_time(text: str, now_ns: int, zone: tzinfo | None) -> int | None:
    """The time that `text` names, in nanoseconds since 1970 UTC, or None where it is not a time.

    Args:
        text: what was written.
        now_ns: now.
        zone: what is local; None for this machine's zone.

    Understood are days (`2026-11-20`, `20.11.2026`, `20 November 2026`, `nov 20`, `today`, `yesterday`, `tuesday`,
    `last tuesday`), times of day (`14:00`, `14:00:30.5`, `2pm`, `2:15 pm`, `noon`, all with a zone behind, `Z` or
    `+01:00`), both in either order (`2026-11-20T10:15`, `yesterday at noon`, `2pm yesterday`), months and years
    (`2026-11`, `november 2026`, `november`, `2026`, `last month`), and what is counted from now (`3 days ago`, `now`).
    Where no year is said it is the latest that makes a time which has begun.
    """
    words = " ".join(text.lower().split())
    today = datetime.fromtimestamp(now_ns // NS, UTC).astimezone(zone)
    try:
        if words == "now":
            return now_ns
        if match := _AGO.fullmatch(words):
            return _ago(match, today, now_ns, zone)
        clock = _clock(words)
        if clock is not None:
            return _end_of_clock(clock, today.date(), zone)
        after = _day_after(words, today.date())
        if after is not None:
            return _seconds(datetime.combine(after, datetime.min.time()), zone) * NS - 1
        return _end_of_moment(words, today.date(), zone)
    except (ValueError, OverflowError):
        return None


def _end_of_moment(words: str, today: date, zone: tzinfo | None) -> int | None:
    """The end of a time of day on a day, in either order."""
    for seam in _SEAM.finditer(words):
        before, behind = words[: seam.start()], words[seam.end() :]
        for day_words, clock_words in ((before, behind), (behind, before)):
            clock = _clock(clock_words)
            day = None if clock is None else _day(day_words, today)
            if clock is not None and day is not None:
                return _end_of_clock(clock, day, zone)
    return None


def _clock(words: str) -> _Groups | None:
    """The parts of a time of day."""
    match = _CLOCK.fullmatch("12:00" if words == "noon" else words)
    if match is None or (match["minute"] is None and match["half"] is None):
        return None  # a lone number may be anything
    return match.groupdict()


def _end_of_clock(groups: _Groups, day: date, zone: tzinfo | None) -> int:
    hour, minute, second, fraction = int(groups["hour"] or 0), groups["minute"], groups["second"], groups["fraction"]
    if groups["half"] is not None:
        hour = _hour_of_half(hour, groups["half"])
    moment = datetime(day.year, day.month, day.day, hour, int(minute or 0), int(second or 0))
    start = _seconds(moment, _zone(groups["zone"]) or zone) * NS
    if second is None:
        return start + 60 * NS - 1
    if fraction is None:
        return start + NS - 1
    # All instants whose first digits are those: 0.25 stands for up to 0.259999999.
    return start + int(fraction.ljust(9, "9"))


def _hour_of_half(hour: int, half: str) -> int:
    if not 1 <= hour <= 12:
        raise ValueError("no such hour")
    return hour % 12 + (12 if half == "p" else 0)


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


def _day(words: str, today: date) -> date | None:
    """The day that is meant."""
    if words == "today":
        return today
    if words == "yesterday":
        return today - timedelta(days=1)
    weekday = words.removeprefix("last ")
    if weekday in _WEEKDAYS:
        return today - timedelta(days=(today.weekday() - _WEEKDAYS.index(weekday) - 1) % 7 + 1)
    groups = _match_any(_DATES, words)
    month = None if groups is None else _month(groups)
    if groups is None or month is None:
        return None
    day = int(groups["day"] or 0)
    if groups["year"] is not None:
        return date(int(groups["year"]), month, day)
    return _latest_day(month, day, today)


def _latest_day(month: int, day: int, today: date) -> date:
    """The last such day that has begun; of 29 February there may be none for eight years."""
    for year in range(today.year, today.year - 9, -1):
        with suppress(ValueError):
            found = date(year, month, day)
            if found <= today:
                return found
    raise ValueError("no such day")


def _day_after(words: str, today: date) -> date | None:
    """The first day after the day, month or year that is meant, or after the last week, month or year."""
    if words == "last week":
        return today - timedelta(days=today.weekday())
    if words == "last month":
        return today.replace(day=1)
    if words == "last year":
        return date(today.year, 1, 1)
    day = _day(words, today)
    if day is not None:
        return day + timedelta(days=1)
    groups = _match_any(_PERIODS, words)
    if groups is None:
        return None
    month = _month(groups)
    if month is None:
        return None if "name" in groups else date(int(groups["year"] or 0) + 1, 1, 1)
    year = int(groups["year"] or today.year - (month > today.month))
    return date(year + month // 12, month % 12 + 1, 1)


def _match_any(patterns: tuple[re.Pattern[str], ...], words: str) -> _Groups | None:
    for pattern in patterns:
        if match := pattern.fullmatch(words):
            return match.groupdict()
    return None


def _month(groups: _Groups) -> int | None:
    """The number of a month that is written as a number, as a name, or as its beginning."""
    name = groups.get("name")
    if name is None:
        month = groups.get("month")
        return None if month is None else date(1, int(month), 1).month
    return next((number for number, full in enumerate(_MONTHS, 1) if full.startswith(name)), None)


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
