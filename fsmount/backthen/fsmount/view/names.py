"""How times, hosts and tags are written as names in the view. Pure.

Every name is at most 255 bytes long, and differs from every other that stands for something else.
"""

from __future__ import annotations

import os.path
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo

NAME_BYTES_MAX = 255
ID_DIGITS_MIN = 8
# A time (20), two separators and a whole id (64) fit beside it.
LABEL_BYTES_MAX = 160
EXTENSION_BYTES_MAX = 64
_DIGEST_DIGITS = 16

_ESCAPED = frozenset(b"%/_") | frozenset(range(0x20)) | frozenset(range(0x7F, 0xA0))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_US = 1000


def utc(time_ns: int) -> datetime:
    """A time as a calendar in UTC has it, held within the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=time_ns // _NS_PER_US)
    except OverflowError:
        return (datetime.max if time_ns > 0 else datetime.min).replace(tzinfo=UTC)


def time_name(time_ns: int) -> str:
    """A time as a name that sorts: `2026-11-23T22.20.05Z`. No colons, which Windows has no room for."""
    at = utc(time_ns)
    return f"{at.year:04d}-{at.month:02d}-{at.day:02d}T{at.hour:02d}.{at.minute:02d}.{at.second:02d}Z"


def time_text(time_ns: int) -> str:
    """A time for programs: `2026-11-23T22:20:05Z`, cut to the second."""
    return time_name(time_ns).replace(".", ":")


def version_name(name: bytes, mtime_ns: int, zone: tzinfo | None, count: int) -> bytes:
    """What a content of the file `name` is called: its local modification time, and the file's extension.

    Args:
        name: that of the file.
        mtime_ns: when the content was modified.
        zone: what is local; None for the machine's zone.
        count: 1, or a higher number to tell it from others of that second.
    """
    at = utc(mtime_ns)
    with suppress(OverflowError, ValueError, OSError):  # so near to the year 1 or 9999 that the zone leads beyond it
        at = at.astimezone(zone)
    day = f"{at.year:04d}-{at.month:02d}-{at.day:02d}"
    suffix = f" ({count})" if count > 1 else ""
    extension = os.path.splitext(name)[1]
    kept = extension if len(extension) <= EXTENSION_BYTES_MAX else b""
    return f"{day} {at.hour:02d}.{at.minute:02d}.{at.second:02d}{suffix}".encode() + kept


def day_names(time_ns: int) -> tuple[str, str, str]:
    """Year, month and day of a time, as the folders of `dates` are called."""
    at = utc(time_ns)
    return f"{at.year:04d}", f"{at.month:02d}", f"{at.day:02d}"


def escape(label: str) -> str:
    """A host or tag as a name: `%`, `/`, `_` and control characters become `%XX`.

    So does a dot at the start, which would hide the name. The empty label is a lone `%`.
    `unescape` gives the label back.
    """
    if not label:
        return "%"
    escaped = "".join(f"%{ord(char):02X}" if ord(char) in _ESCAPED else char for char in label)
    return "%2E" + escaped[1:] if escaped.startswith(".") else escaped


def unescape(name: str) -> str:
    """The label that `escape` made the name from."""
    if name == "%":
        return ""
    first, *rest = name.split("%")
    return first + "".join(chr(int(part[:2], 16)) + part[2:] for part in rest)


def label_name(label: str, prf: Callable[[bytes], int]) -> str:
    """`escape`; where that is too long for a name its beginning, `%~`, which no escaped label holds, and a digest."""
    name = escape(label)
    encoded = name.encode()
    if len(encoded) <= LABEL_BYTES_MAX:
        return name
    kept = encoded[: LABEL_BYTES_MAX - _DIGEST_DIGITS - 2].decode(errors="ignore")
    return f"{kept}%~{prf(b'label' + bytes(1) + label.encode()):0{_DIGEST_DIGITS}x}"


def distinct_prefixes(ids: list[bytes]) -> list[str]:
    """For each id the hexadecimal digits it is called by: eight, or as many more as no earlier one is called by.

    So what an id is called does not change when others come after it.
    """
    taken: set[str] = set()
    prefixes = []
    for id_ in ids:
        digits = id_.hex()
        length = ID_DIGITS_MIN
        while digits[:length] in taken and length < len(digits):
            length += 1
        taken.add(digits[:length])
        prefixes.append(digits[:length])
    return prefixes
