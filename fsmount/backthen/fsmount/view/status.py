"""The text of the file `.backthen`: what a mount is doing, for people.

Every line is of one length whatever it says, so the size of the file never changes: no program is misled that looks at
the size first, and the kernel never cuts off what it reads. The text fits into one page of memory. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from backthen.fsmount.view.activity import SILENT_S, SLOWEST_MAX, Activity
from backthen.fsmount.view.names import utc
from backthen.repository import CacheUse, StorageState

STATUS_NAME = b".backthen"

_NS_PER_S = 1_000_000_000
_LINE_BYTES = 80
_KEY_WIDTH = 16
_FAILURE_LINES = 3
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@dataclass(frozen=True, slots=True)
class Serving:
    """Which process serves a view, and since when: nanoseconds since 1970 UTC."""

    process: int = 0
    since_ns: int = 0


NOBODY = Serving()


class Figures(NamedTuple):
    """All that the text says."""

    serving: Serving
    location: str
    snapshots: int
    storage: StorageState
    caches: Sequence[CacheUse]
    activity: Activity
    now_ns: int


def status_text(figures: Figures) -> bytes:
    """The text; `now_ns` is by the monotonic clock, like the times of storage and activity."""
    storage, activity, now_ns = figures.storage, figures.activity, figures.now_ns
    waiting = activity.waiting_since()
    longest = f", the longest for {_seconds(now_ns - waiting[0])}" if waiting else ""
    lines = [
        ("mounted", f"{utc(figures.serving.since_ns):%Y-%m-%dT%H:%M:%SZ}, process {figures.serving.process}"),
        ("repository", _tail(_printable(figures.location))),
        ("snapshots", f"{figures.snapshots:,}"),
        ("storage", _storage_words(figures)),
        ("storage calls", f"{storage.calls:,}, {_size(storage.bytes_read)} read, {storage.waiting:,} not answered yet"),
        *(
            ("memory", f"{cache.name} {_size(cache.bytes_used)} of {_size(cache.bytes_max)}")
            for cache in figures.caches
        ),
        ("requests", f"{activity.from_memory + activity.waited:,}, {activity.from_memory:,} answered from memory"),
        ("failed", f"{activity.failed:,}, and {activity.given_up:,} not waited for any longer"),
        ("waiting", f"{len(waiting):,}{longest}"),
        *_slowest_lines(activity, now_ns),
        *_failure_lines(storage.failure),
    ]
    return b"".join(_line(f"{key + ':' if key else '':{_KEY_WIDTH}}{value}") for key, value in lines)


def _storage_words(figures: Figures) -> str:
    storage, now_ns = figures.storage, figures.now_ns
    silent_s = figures.activity.silent_s(storage)
    if silent_s >= SILENT_S:
        return f"has not answered for {silent_s:.0f} s"
    if storage.failing_since_ns is not None:
        return f"has failed for {_seconds(now_ns - storage.failing_since_ns)}"
    return "answers"


def _slowest_lines(activity: Activity, now_ns: int) -> list[tuple[str, str]]:
    answers = activity.slowest()
    lines = [
        ("slowest", f"{_seconds(answer.duration_ns):>10}  {answer.request}, {_age(now_ns - answer.ended_ns)} ago")
        for answer in answers
    ]
    return lines + [("", "")] * (SLOWEST_MAX - len(lines))


def _failure_lines(failure: str) -> list[tuple[str, str]]:
    width = _LINE_BYTES - _KEY_WIDTH - 1
    parts = textwrap.wrap(_printable(failure), width, max_lines=_FAILURE_LINES, placeholder=" ...")
    keys = ["storage says"] + [""] * len(parts)
    lines = list(zip(keys, parts, strict=False))
    return lines + [("", "")] * (_FAILURE_LINES - len(lines))


def _line(text: str) -> bytes:
    """The text in exactly as many bytes as a line has."""
    cut = text.encode()[: _LINE_BYTES - 1].decode(errors="ignore").encode()
    return cut.ljust(_LINE_BYTES - 1) + b"\n"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _tail(text: str) -> str:
    """The end of a text that is too long for a line: a path is known by its end."""
    bytes_max = _LINE_BYTES - _KEY_WIDTH - 1
    data = text.encode()
    return text if len(data) <= bytes_max else "..." + data[3 - bytes_max :].decode(errors="ignore")


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / _NS_PER_S:.3f} s"


def _age(duration_ns: int) -> str:
    seconds = duration_ns // _NS_PER_S
    return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"


def _size(size_bytes: int) -> str:
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if unit else f"{size_bytes} B"
