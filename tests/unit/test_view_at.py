"""Times as they can be written in a path."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backthen.fsmount.view.at import Times
from backthen.repository import parse_time
from tests.support.history import NS, keyed

NOW_NS = int(datetime(2026, 11, 23, 22, 30, tzinfo=UTC).timestamp()) * NS


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-11-20T10:15", "2026-11-20 10:15"),
        ("2026-11-20 10.15", "2026-11-20 10:15"),
        ("2026-11-20 10.15.30", "2026-11-20 10:15:30"),
        ("2026-11-20_10.15", "2026-11-20 10:15"),
        ("2026-11-20T00.11.28Z", "2026-11-20 00:11:28Z"),
        ("20.11.2026", "2026-11-20"),
        ("20.11.2026_10.15", "2026-11-20 10:15"),
        ("20-nov-2026", "2026-11-20"),
        ("November_20", "2026-11-20"),
        ("10.15", "10:15"),
        ("10.15 yesterday", "yesterday 10:15"),
        ("3.15pm", "15:15"),
        ("yesterday-at-noon", "yesterday 12:00"),
        ("last-tuesday", "last tuesday"),
        ("3-days-ago", "3 days ago"),
        ("2026-10", "2026-10-31"),
        ("2026-11-20T10.15-01.00", None),
        ("2026-11-20T10:15-0100", "2026-11-20 11:15Z"),
        ("-", None),
        ("notes-2026", None),
        ("20.11.20266", None),
    ],
)
def test_a_time_in_a_path_is_what_it_is_on_the_command_line(text: str, meant: str | None) -> None:
    times = Times(lambda data: keyed("inode", data), lambda: NOW_NS, UTC)

    assert (None if meant is None else parse_time(meant, NOW_NS, UTC)) == times.time_ns(text.encode())
    assert meant is None or times.time_ns(text.encode()) is not None
