"""Sizes, counts, durations and times as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_NS = 1_000_000_000
_SIZE = re.compile(r"(?P<count>\d{1,15}(?:\.\d{1,6})?) ?(?:(?P<unit>[kmgt])(?:i?b)?|b)?", re.ASCII | re.IGNORECASE)


def size_text(size_bytes: int) -> str:
    """A size in binary units with three or four digits: `0 B`, `12.3 MiB`, `1,021 KiB`."""
    value, unit = float(size_bytes), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{size_bytes:,} B"
    return f"{value:.1f} {_UNITS[unit]}" if value < 99.95 else f"{value:,.0f} {_UNITS[unit]}"


def parse_size(text: str) -> int | None:
    """A size as people write it, in bytes: `200M`, `1.5 GiB`, `4096`; units are of 1024. None where it is none."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    power = " kmgt".index(match["unit"].lower()) if match["unit"] else 0
    return int(float(match["count"]) * 1024**power)


def count_text(count: int, one: str, several: str = "") -> str:
    """A number with its noun: `1 file`, `1,200 files`."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def duration_text(seconds: float) -> str:
    """A duration: `0.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def local_time(time_ns: int) -> str:
    """A time in the local zone, to the second: `2026-11-23 10:15:30`."""
    try:
        return datetime.fromtimestamp(time_ns // _NS, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"@{time_ns / _NS:.0f}"


def rfc3339(time_ns: int) -> str | None:
    """A time for programs: UTC, nine digits of fraction, `Z`; None before the year 1 and after 9999."""
    seconds, fraction = divmod(time_ns, _NS)
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return f"{moment.replace(tzinfo=None).isoformat()}.{fraction:09d}Z"
