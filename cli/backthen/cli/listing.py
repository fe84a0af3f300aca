"""Names as they are listed, and the columns of `ls --long`, whose width is fixed: a folder is listed as it is read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from backthen.cli.names import shown_name, shown_text
from backthen.cli.quantities import local_time

if TYPE_CHECKING:
    from backthen.repository import Entry

_TYPE_LETTERS = "-dlpscb??"
_DEVICE_TYPES = (5, 6)
_SPECIAL = ((0o4000, 2, "s", "S"), (0o2000, 5, "s", "S"), (0o1000, 8, "t", "T"))


def mode_text(entry_type: int, mode: int) -> str:
    """Type and permissions as `ls -l` shows them: `-rwxr-x--t`."""
    letter = _TYPE_LETTERS[entry_type] if entry_type < len(_TYPE_LETTERS) else "?"
    bits = [flag if mode & (0o400 >> index) else "-" for index, flag in enumerate("rwxrwxrwx")]
    for bit, index, with_execute, without in _SPECIAL:
        if mode & bit:
            bits[index] = without if bits[index] == "-" else with_execute
    return letter + "".join(bits)


def long_prefix(entry: Entry) -> str:
    """Everything of a line of `ls --long` before the name."""
    user = shown_text(entry.user) or str(entry.uid)
    group = shown_text(entry.group) or str(entry.gid)
    is_device = entry.type in _DEVICE_TYPES
    size = f"{entry.device_major}, {entry.device_minor}" if is_device else str(entry.size)
    mode = mode_text(entry.type, entry.mode)
    names = max(entry.names, 1)
    return f"{mode} {names:>3} {user:<8} {group:<8} {size:>12} {local_time(entry.mtime_ns)} "


def printed_name(name: bytes, *, is_terminal: bool) -> bytes:
    """Names go raw into a pipe, so that they can be used, and escaped onto a terminal, which might obey them."""
    return shown_name(name).encode(sys.stdout.encoding, "backslashreplace") if is_terminal else name
