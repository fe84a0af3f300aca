"""Times as people write them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backthen.cli.quantities import local_time
from backthen.repository.times import NS, parse_time


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# A Monday, 23:30 in Berlin.
NOW = int(datetime(2026, 11, 23, 22, 30, tzinfo=UTC).timestamp()) * NS + 7


def utc(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * NS  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("2026-11-20", utc(2026, 11, 20, 23) - 1),
        ("2026-11-20 10:15", utc(2026, 11, 20, 9, 16) - 1),
        ("2026-11-20T10:15:30", utc(2026, 11, 20, 9, 15, 31) - 1),
        ("2026-11-20T10:15:30Z", utc(2026, 11, 20, 10, 15, 31) - 1),
        ("2026-11-20T10:15:30.25Z", utc(2026, 11, 20, 10, 15, 30) + 259_999_999),
        ("2026-11-20T10:15:30.123456789Z", utc(2026, 11, 20, 10, 15, 30) + 123_456_789),
        ("2026-11-20 10:15 +05:30", utc(2026, 11, 20, 4, 46) - 1),
        ("2026-11-20 10:15-0100", utc(2026, 11, 20, 11, 16) - 1),
        ("14:00", utc(2026, 11, 23, 13, 1) - 1),
        ("today", utc(2026, 11, 23, 23) - 1),
        ("yesterday", utc(2026, 11, 22, 23) - 1),
        ("Yesterday  14:00", utc(2026, 11, 22, 13, 1) - 1),
        ("monday", utc(2026, 11, 16, 23) - 1),
        ("last tuesday", utc(2026, 11, 17, 23) - 1),
        ("sunday 9:30", utc(2026, 11, 22, 8, 31) - 1),
        ("2 hours ago", NOW - 7200 * NS),
        ("3 days ago", NOW - 3 * 86400 * NS),
        ("a week ago", NOW - 7 * 86400 * NS),
        ("1 month ago", utc(2026, 10, 23, 21, 30) + 7),
        ("one year ago", utc(2025, 11, 23, 22, 30) + 7),
        ("20.11.2026", utc(2026, 11, 20, 23) - 1),
        ("20.11.2026 10:15", utc(2026, 11, 20, 9, 16) - 1),
        ("20 November 2026", utc(2026, 11, 20, 23) - 1),
        ("20. nov 2026", utc(2026, 11, 20, 23) - 1),
        ("Nov 20, 2026 at 3pm", utc(2026, 11, 20, 14, 1) - 1),
        ("Sept. 3rd", utc(2026, 9, 3, 22) - 1),
        ("23 nov", utc(2026, 11, 23, 23) - 1),
        ("24 nov", utc(2025, 11, 24, 23) - 1),
        ("29 feb", utc(2024, 2, 29, 23) - 1),
        ("2pm", utc(2026, 11, 23, 13, 1) - 1),
        ("12:30 am", utc(2026, 11, 22, 23, 31) - 1),
        ("12:30:15 PM", utc(2026, 11, 23, 11, 30, 16) - 1),
        ("14:00Z", utc(2026, 11, 23, 14, 1) - 1),
        ("yesterday at noon", utc(2026, 11, 22, 11, 1) - 1),
        ("14:00 yesterday", utc(2026, 11, 22, 13, 1) - 1),
        ("3pm last tuesday", utc(2026, 11, 17, 14, 1) - 1),
        ("2026-10", utc(2026, 10, 31, 23) - 1),
        ("2025", utc(2025, 12, 31, 23) - 1),
        ("october 2025", utc(2025, 10, 31, 23) - 1),
        ("november", utc(2026, 11, 30, 23) - 1),
        ("dec", utc(2025, 12, 31, 23) - 1),
        ("last week", utc(2026, 11, 22, 23) - 1),
        ("last month", utc(2026, 10, 31, 23) - 1),
        ("last year", utc(2025, 12, 31, 23) - 1),
    ],
)
def test_a_time_is_understood(text: str, expected: int) -> None:
    assert expected == parse_time(text, NOW, None)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "latest",
            "3f2a91c0",
            "20261120",
            "2026-13-01",
            "2026-11-20 25:00",
            "25:00",
            "9999-12-31",
            "soon",
            "x ago",
        ),
        *(
            "13pm",
            "0 am",
            "20 nov 15",
            "15",
            "2026-13",
            "9999",
            "mon",
            "next week",
            "32 may",
            "may be",
            "29.02.2025",
            "30 feb",
            "3rd of may",
        ),
    ],
)
def test_what_is_not_a_time_is_none(text: str) -> None:
    assert parse_time(text, NOW, None) is None


def test_a_day_of_twenty_three_hours_ends_at_midnight() -> None:
    assert utc(2026, 3, 29, 22) - 1 == parse_time("2026-03-29", NOW, None)


def test_a_month_ago_from_the_end_of_a_long_month_is_the_end_of_the_short_one() -> None:
    assert utc(2026, 2, 28, 11) == parse_time("1 month ago", utc(2026, 3, 31, 10), None)


@given(st.integers(min_value=0, max_value=4_000_000_000 * NS))
def test_a_time_as_it_is_shown_finds_the_instant_it_shows(time_ns: int) -> None:
    found = parse_time(local_time(time_ns), NOW, None)
    assert found is not None
    # In the hour that an autumn night has twice, the shown time is the earlier one.
    assert 0 <= (found - time_ns) % (3600 * NS) < NS


@pytest.mark.parametrize("text", ["2026-11-20", "2026-11-20 10:15", "14:00", "yesterday 14:00", "last tuesday"])
def test_a_zone_that_is_passed_in_holds_in_place_of_the_machines(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = parse_time(text, NOW, None)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()

    assert expected != parse_time(text, NOW, None)
    assert expected == parse_time(text, NOW, ZoneInfo("Europe/Berlin"))
