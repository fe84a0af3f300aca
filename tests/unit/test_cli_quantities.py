"""Sizes, durations, times, tables, the columns of `ls --long`."""

from __future__ import annotations

import pytest

from backthen.cli.listing import mode_text
from backthen.cli.quantities import count_text, duration_text, local_time, rfc3339, size_text
from backthen.cli.tables import facts_lines, table_lines


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1024 * 1024 - 1, "1.0 MiB"),
        (104_857_600, "100 MiB"),
        (10**13, "9.1 TiB"),
        (2**70, "1,024 EiB"),
    ],
)
def test_sizes_are_in_units_of_1024(size: int, expected: str) -> None:
    assert expected == size_text(size)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert expected == duration_text(seconds)


def test_a_count_has_its_noun() -> None:
    assert [
        count_text(1, "file"),
        count_text(0, "file"),
        count_text(1200, "entry", "entries"),
    ] == ["1 file", "0 files", "1,200 entries"]


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_795_000_000_123_456_789, "2026-11-18T11:06:40.123456789Z"),
        (-62_135_596_800 * 10**9, "0001-01-01T00:00:00.000000000Z"),
        (10**21, None),
        (-(10**21), None),
    ],
)
def test_times_for_programs(time_ns: int, expected: str | None) -> None:
    assert expected == rfc3339(time_ns)


def test_a_time_beyond_the_calendar_can_still_be_shown() -> None:
    assert local_time(10**21) == "@1000000000000"


def test_columns_are_aligned_by_width_on_the_terminal() -> None:
    rows = [("a", "1", "x"), ("日本", "10", "")]
    assert table_lines(("ID", "N", "Name"), rows, right=(1,)) == ["ID     N  Name", "a      1  x", "日本  10"]


def test_facts_are_below_one_another() -> None:
    assert facts_lines([("a", "1"), ("bcd", "2")]) == ["  a    1", "  bcd  2"]


@pytest.mark.parametrize(
    ("entry_type", "mode", "expected"),
    [
        (0, 0o644, "-rw-r--r--"),
        (1, 0o1777, "drwxrwxrwt"),
        (0, 0o4755, "-rwsr-xr-x"),
        (0, 0o6644, "-rwSr-Sr--"),
        (2, 0o777, "lrwxrwxrwx"),
        (1, 0o1776, "drwxrwxrwT"),
        (6, 0o660, "brw-rw----"),
    ],
)
def test_modes_look_as_in_ls(entry_type: int, mode: int, expected: str) -> None:
    assert expected == mode_text(entry_type, mode)
